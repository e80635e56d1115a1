// Serves the page, and passes all other requests on to Waterclock. For the browser both are one
// site, so Waterclock needs no option.
import { readFileSync } from 'node:fs';
import { createServer, request as http } from 'node:http';
import { request as https } from 'node:https';

const waterclock = process.env.WATERCLOCK_URL ?? 'http://127.0.0.1:3000';
const request = waterclock.startsWith('https:') ? https : http;
const port = process.env.PORT ?? 8080;
const page = readFileSync(new URL('index.html', import.meta.url));

createServer((incoming, outgoing) => {
  if (incoming.url === '/') {
    outgoing.setHeader('Content-Type', 'text/html').end(page);
    return;
  }
  const { method, headers, url } = incoming;
  const passed = request(waterclock, { path: url, method, headers }, (response) => {
    outgoing.writeHead(response.statusCode, response.headers);
    response.pipe(outgoing);
    response.on('error', () => outgoing.destroy());
  });
  passed.on('error', ({ code }) => {
    console.error(`Waterclock does not answer at ${waterclock} (${code}). Start it, or set WATERCLOCK_URL.`);
    // No response, since an EventSource gives up for good at a 502.
    outgoing.destroy();
  });
  outgoing.on('close', () => passed.destroy());
  incoming.pipe(passed);
}).listen(port, 'localhost', () => console.log(`Open http://localhost:${port}`));
