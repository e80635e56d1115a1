// A server of the tests, which answers as it is told, and the messages of a stream.
import { once } from 'node:events';
import { createServer } from 'node:http';

const epoch = '00000000000000ff';
export const id = (sequence) => `${epoch}-${sequence}`;

export const event = (sequence, topic = 't') =>
  `id: ${id(sequence)}\ndata: ${JSON.stringify({
    id: id(sequence),
    topic,
    name: 'message',
    data: `event ${sequence}`,
    time: '2026-11-22T07:00:42.000Z',
  })}\n\n`;

export const notice = (name, data, sequence) =>
  `${sequence === undefined ? '' : `id: ${id(sequence)}\n`}event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;

/** The first messages of a stream, whose retry is short. */
export const hello = `retry: 1\n${notice('hello', { heartbeat_ms: 15000, retry_ms: 1 }, 0)}`;

/** Starts a server. `answer` gets each request, as a URL with its method, headers and body. */
export async function serve(t, answer) {
  const requests = [];
  const server = createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    const { method, headers } = request;
    const url = Object.assign(new URL(request.url, 'http://server'), { method, headers, body });
    requests.push(url);
    answer(url, response, requests.length);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => (server.close(), server.closeAllConnections()));
  return { url: `http://127.0.0.1:${server.address().port}`, requests };
}

export function stream(response, ...parts) {
  response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' });
  response.write(parts.join(''));
}

export function refuse(response, status, detail) {
  response.writeHead(status, { 'content-type': 'application/problem+json' });
  response.end(status === 204 ? '' : JSON.stringify({ status, title: 'no', detail }));
}

/** Waits for a condition, 30 s at most. It uses no timer, as those of a test may stand still. */
export async function until(condition, wanted, patience = 30_000) {
  const deadline = performance.now() + patience;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`after ${patience / 1_000} s not yet: ${wanted}`);
    await new Promise(setImmediate);
  }
}

/** Waits for a state of a stream, and returns the reason for it. */
export function reached(options, wanted) {
  return new Promise((done) => {
    options.onState = (state, reason) => wanted(state, reason) && done(reason);
  });
}
