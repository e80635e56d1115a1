// Answers, word by word: serves the page, and takes its questions. docs/answers.md explains it.
//
//   WATERCLOCK_URL    where Waterclock runs; by default http://127.0.0.1:3000
//   HOST, PORT        where this program serves; by default 127.0.0.1 and 8080
//   ORIGIN            the page's origin, if it is another one, as behind a proxy
//   PATIENCE          seconds without a reader after which an answer is stopped; by default 15
//   PACE              milliseconds before each word of an answer without a model; by default 60
//   OPENAI_BASE_URL   an OpenAI-compatible endpoint, such as http://127.0.0.1:11434/v1.
//                     Without it, the answers are passages of this project's documents
//   OPENAI_MODEL      its model
//   OPENAI_API_KEY    its key, if it needs one
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { ask, failUnfinished, isBusy, source, trouble, waterclock } from './producer.mjs';

/** Maximum length of a question, in characters. */
const MAX_QUESTION = 4_000;

const file = (name) => readFileSync(new URL(`page/${name}`, import.meta.url), 'utf8');
const files = {
  '/': ['text/html', file('index.html').replace('WATERCLOCK_URL', waterclock)],
  '/page.js': ['text/javascript', file('page.js')],
  '/style.css': ['text/css', file('style.css')],
};
const sources = `'self' ${waterclock}`;
const policy = [
  "default-src 'none'",
  "style-src 'self'",
  'img-src data:',
  `script-src ${sources}`,
  `connect-src ${sources} ${waterclock.replace('http', 'ws')}`,
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

/** The names of this machine for itself, as a `Host` has them. */
const LOOPBACK = /^(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/;

const { HOST = '127.0.0.1', PORT = '8080', ORIGIN } = process.env;
/** The page's origin. Waterclock's option --cors-origin names it. */
let origin;

const server = createServer((request, response) => {
  handle(request, response).catch((error) => {
    console.error(error);
    reply(response, 500, { error: 'This request failed.' });
  });
});

async function handle(request, response) {
  const { pathname } = new URL(request.url, origin);
  if (request.method === 'POST' && pathname === '/ask') return reply(response, ...(await take(request)));
  if (!Object.hasOwn(files, pathname)) return reply(response, 404, { error: 'There is no such page.' });
  const { host } = request.headers;
  if (!ORIGIN && LOOPBACK.test(host) && host !== new URL(origin).host) {
    // Waterclock lets pages of one origin read, and localhost is another than 127.0.0.1.
    return response.writeHead(307, { Location: origin + request.url }).end();
  }
  const [type, text] = files[pathname];
  response.setHeader('Content-Security-Policy', policy);
  response.setHeader('Cache-Control', 'no-cache');
  response.writeHead(200, { 'Content-Type': `${type}; charset=utf-8` }).end(text);
}

/** Takes a question. Returns the status and the body of the response. */
async function take(request) {
  // Pages elsewhere must not ask: each question may cost money.
  if ((request.headers.origin ?? origin) !== origin) {
    return [403, { error: `Only pages of ${origin} may ask. Another origin is set by ORIGIN.` }];
  }
  let question = '';
  request.setEncoding('utf8');
  for await (const part of request) {
    // The rest of a question that is too long is read, but not kept.
    if (question.length <= MAX_QUESTION) question += part;
  }
  question = question.trim();
  if (question === '') return [400, { error: 'The question is empty.' }];
  if (question.length > MAX_QUESTION) {
    return [413, { error: `The question is too long. It may have ${MAX_QUESTION} characters.` }];
  }
  if (isBusy()) return [503, { error: 'Too many answers are being written. Ask again later.' }];
  const found = await trouble(origin);
  if (found) return [503, { error: found }];
  try {
    return [201, { id: await ask(question) }];
  } catch (error) {
    return [502, { error: error.message }];
  }
}

function reply(response, status, body) {
  if (response.headersSent) return response.destroy();
  response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(body));
}

server.listen(Number(PORT), HOST, async () => {
  const { address, port } = server.address();
  // The address of all interfaces is that of no page.
  const isEverywhere = ['0.0.0.0', '::'].includes(address);
  const name = isEverywhere ? '127.0.0.1' : HOST.includes(':') ? `[${HOST}]` : HOST;
  origin = ORIGIN ?? `http://${name}:${port}`;
  console.log(`the page is at ${origin}`);
  if (isEverywhere && !ORIGIN) console.log('for pages at another address, set ORIGIN, such as http://192.168.1.5:8080');
  console.log(`the answers come from ${source}`);
  const found = await trouble(origin);
  if (found) console.log(found);
  await failUnfinished().catch((error) => console.error(`answers: ${error.message}`));
});
server.on('error', (error) => {
  console.error(`answers: cannot serve on ${HOST}:${PORT}: ${error.message}`);
  process.exitCode = 2;
});
