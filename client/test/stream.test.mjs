// Streams and publishes against a server of the test, which answers as it is told.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { publish, subscribe } from '../dist/index.js';

const epoch = '00000000000000ff';
const id = (sequence) => `${epoch}-${sequence}`;

const event = (sequence, topic = 't') =>
  `id: ${id(sequence)}\ndata: ${JSON.stringify({
    id: id(sequence),
    topic,
    name: 'message',
    data: `event ${sequence}`,
    time: '2026-11-22T07:00:42.000Z',
  })}\n\n`;

const notice = (name, data, sequence) =>
  `${sequence === undefined ? '' : `id: ${id(sequence)}\n`}event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;

const hello = `retry: 1\n${notice('hello', { heartbeat_ms: 15000, retry_ms: 1 }, 0)}`;

/** Starts a server. `answer` gets each request, as a URL with its method, headers and body. */
async function serve(t, answer) {
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

function stream(response, ...parts) {
  response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' });
  response.write(parts.join(''));
}

function refuse(response, status, detail) {
  response.writeHead(status, { 'content-type': 'application/problem+json' });
  response.end(status === 204 ? '' : JSON.stringify({ status, title: 'no', detail }));
}

/** Waits for a state of a stream, and returns the reason for it. */
function reached(options, wanted) {
  return new Promise((done) => {
    options.onState = (state, reason) => wanted(state, reason) && done(reason);
  });
}

test('a stream resumes after its last event, and gives each event once', async (t) => {
  const { url, requests } = await serve(t, (_, response, number) => {
    if (number === 1) {
      stream(response, hello, event(1), event(2));
      response.end();
    } else if (number === 2) {
      stream(response, hello, event(2), event(3));
      setImmediate(() => response.destroy());
    } else {
      stream(response, hello, event(3), event(4));
    }
  });
  const found = [];
  for await (const event of subscribe(`${url}/events?topic=t`, { after: id(0) })) {
    found.push(event.data);
    if (found.length === 4) break;
  }
  assert.deepEqual(found, ['event 1', 'event 2', 'event 3', 'event 4']);
  const cursors = requests.map(({ searchParams }) => searchParams.get('last_event_id'));
  assert.deepEqual(cursors, [id(0), id(2), id(3)]);
  assert.deepEqual(requests[0].searchParams.getAll('topic'), ['t']);
  assert.equal(requests[0].searchParams.get('format'), 'json');
});

test('the topic may be in the path, behind the path of a proxy', async (t) => {
  const { url, requests } = await serve(t, (_, response) => stream(response, hello, event(1)));
  for await (const _ of subscribe(`${url}/live/events/orders.eu`, { after: 'earliest' })) break;
  const [{ pathname, searchParams }] = requests;
  assert.deepEqual([pathname, searchParams.get('topic')], ['/live/events', 'orders.eu']);
  assert.equal(searchParams.get('last_event_id'), 'earliest');
  assert.throws(() => subscribe(`${url}/poll`), /must end with \/events/);
});

test('gaps and ends are told, and the last end ends the loop without another request', async (t) => {
  const end = { topic: 't', outcome: 'failed', message: 'no answer', last: true };
  const { url, requests } = await serve(t, (_, response) => {
    const gap = notice('gap', { reason: 'expired', cursor: id(1) }, 6);
    stream(response, hello, gap, event(7), notice('end', end, 8));
    response.end();
  });
  const [gaps, ends, found, states] = [[], [], [], []];
  const options = {
    after: id(1),
    onGap: (gap) => gaps.push(gap),
    onEnd: (end) => ends.push(end),
    onState: (state) => states.push(state),
  };
  const all = subscribe(`${url}/events`, options);
  for await (const event of all) found.push(event.data);
  assert.deepEqual([gaps, ends, found], [[{ reason: 'expired', cursor: id(1) }], [{ ...end, id: id(8) }], ['event 7']]);
  assert.deepEqual([all.state, all.cursor, requests.length], ['stopped', id(8), 1]);
  assert.deepEqual(states, ['connecting', 'live', 'stopped']);
});

test('each end from before the start of a stream is told', async (t) => {
  const end = (topic, last) => ({ topic, outcome: 'done', ...(last && { last }) });
  const { url, requests } = await serve(t, (_, response) => {
    // Only the last of them has an id, which may be that of the request.
    stream(response, notice('hello', { heartbeat_ms: 15000, retry_ms: 1 }));
    response.end(notice('end', end('a')) + notice('end', end('b')) + notice('end', end('c', true), 9));
  });
  const ends = [];
  const options = { after: id(9), token: 'token', onEnd: (end) => ends.push(end) };
  const stopped = reached(options, (state) => state === 'stopped');
  subscribe(`${url}/events?topic=a&topic=b&topic=c`, options);
  await stopped;
  assert.deepEqual(ends, [end('a'), end('b'), end('c', true)]);
  assert.equal(requests.length, 1);
});

test('the cursor is that of the loop, and close() ends the loop', async (t) => {
  const { url } = await serve(t, (_, response) => {
    stream(response, hello, ...[1, 2, 3, 4, 5].map((sequence) => event(sequence)));
  });
  const found = [];
  const reader = subscribe(`${url}/events?topic=t`, { after: id(0), token: 'token' });
  for await (const event of reader) {
    found.push(event.id);
    assert.equal(reader.cursor, event.id);
    if (found.length === 2) reader.close();
  }
  assert.deepEqual(found, [id(1), id(2)]);
});

test('204 ends the stream', async (t) => {
  const { url } = await serve(t, (_, response) => refuse(response, 204));
  const options = {};
  const stopped = reached(options, (state) => state === 'stopped');
  for await (const _ of subscribe(`${url}/events`, options)) assert.fail('no event');
  assert.deepEqual(await stopped, { kind: 'status', status: 204, detail: null });
});

test('a refusal is explained, and tried again', async (t) => {
  const { url } = await serve(t, (_, response, number) => {
    if (number === 1) refuse(response, 403, 'The topic is not public.');
    else stream(response, hello);
  });
  const options = {};
  const refused = reached(options, (state, reason) => state === 'waiting' && reason);
  const one = subscribe(`${url}/events`, options);
  assert.deepEqual(await refused, { kind: 'status', status: 403, detail: 'The topic is not public.' });
  await reached(options, (state) => state === 'live');
  assert.equal(one.reason, null);
  one.close();
});

test('a token is renewed on 401 and after it has expired', async (t) => {
  const { url, requests } = await serve(t, ({ headers }, response, number) => {
    if (headers.authorization === 'Bearer 1') return refuse(response, 401, 'expired');
    if (number === 2) {
      stream(response, hello, event(1), notice('goodbye', { reason: 'expired', retry_ms: 1 }));
      return response.end();
    }
    stream(response, hello, event(2));
  });
  let tokens = 0;
  const found = [];
  const token = async () => `${++tokens}`;
  for await (const event of subscribe(`${url}/events`, { after: id(0), token })) {
    found.push(event.data);
    if (found.length === 2) break;
  }
  assert.deepEqual(found, ['event 1', 'event 2']);
  const sent = requests.map(({ headers }) => headers.authorization);
  assert.deepEqual(sent, ['Bearer 1', 'Bearer 2', 'Bearer 3']);
});

test('a token function that throws is the reason, and is asked again', async (t) => {
  const { url, requests } = await serve(t, (_, response) => stream(response, hello));
  let calls = 0;
  const options = {
    token() {
      calls += 1;
      if (calls === 1) throw new Error('not signed in');
      return 'good';
    },
  };
  const failed = reached(options, (state, reason) => state === 'waiting' && reason);
  const one = subscribe(`${url}/events`, options);
  assert.deepEqual(await failed, { kind: 'token', value: 'not signed in' });
  assert.equal(requests.length, 0);
  await reached(options, (state) => state === 'live');
  one.close();
});

test('a token function that never answers has 10 s', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const options = { token: () => new Promise(() => {}) };
  const failed = reached(options, (state, reason) => state === 'waiting' && reason);
  const one = subscribe('http://127.0.0.1:9/events', options);
  await new Promise(setImmediate);
  t.mock.timers.tick(10_000);
  const { kind, value } = await failed;
  assert.equal(kind, 'token');
  assert.match(value, /within 10 s/);
  one.close();
});

test('callbacks may use the stream from the start, and it may be closed before', async (t) => {
  const { url, requests } = await serve(t, (_, response) => stream(response, hello));
  const states = [];
  await new Promise((done) => {
    const one = subscribe(`${url}/events`, {
      onState: (state) => states.push([state, one.state]) && state === 'live' && done(one.close()),
    });
  });
  assert.deepEqual(states, [['connecting', 'connecting'], ['live', 'live'], ['stopped', 'stopped']]);
  subscribe(`${url}/events`).close();
  await new Promise(setImmediate);
  assert.equal(requests.length, 1);
});

test('a token function that returns nothing is told', async (t) => {
  const { url } = await serve(t, (_, response) => stream(response, hello));
  const options = { token: async () => undefined };
  const failed = reached(options, (state, reason) => state === 'waiting' && reason);
  const one = subscribe(`${url}/events`, options);
  assert.match((await failed).value, /has not returned a text/);
  one.close();
});

test('a callback that throws does not stop the stream', async (t) => {
  const { url } = await serve(t, (_, response) => stream(response, hello, event(1), event(2)));
  const errors = [];
  const listeners = process.rawListeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  process.on('uncaughtException', (error) => errors.push(error.message));
  t.after(() => {
    process.removeAllListeners('uncaughtException');
    for (const listener of listeners) process.on('uncaughtException', listener);
  });
  await new Promise((done) => {
    const one = subscribe(`${url}/events`, {
      onEvent({ data }) {
        if (data === 'event 2') done(one.close());
        throw new Error(data);
      },
    });
  });
  await new Promise(setImmediate);
  assert.deepEqual(errors, ['event 1', 'event 2']);
});

test('a loop that is far behind pauses the stream, and loses nothing', async (t) => {
  const total = 10_500;
  const { url, requests } = await serve(t, ({ searchParams }, response) => {
    const after = Number(searchParams.get('last_event_id').split('-')[1]);
    const parts = Array.from({ length: total - after }, (_, at) => event(after + at + 1));
    stream(response, hello, ...parts, notice('end', { sent: total }));
  });
  const options = { after: id(0) };
  const paused = reached(options, (state) => state === 'paused');
  const all = subscribe(`${url}/events`, options);
  await paused;
  let sequence = 0;
  for await (const event of all) assert.equal(event.id, id((sequence += 1)));
  assert.equal(sequence, total);
  assert.equal(requests.length, 2);
});

test('nothing comes after close', async (t) => {
  const { url } = await serve(t, (_, response) => stream(response, hello, event(1), event(2)));
  const found = [];
  await new Promise((done) => {
    const one = subscribe(`${url}/events`, {
      onEvent({ data }) {
        found.push(data);
        one.close();
        one.close();
      },
      onState: (state) => state === 'stopped' && setImmediate(done),
    });
  });
  assert.deepEqual(found, ['event 1']);
});

test('publishing returns the event, and sends JSON and names', async (t) => {
  const published = { id: id(1), topic: 'orders.eu', name: 'created', data: '{}', time: '' };
  const { url, requests } = await serve(t, (_, response) => {
    response.writeHead(201, { 'content-type': 'application/json' });
    response.end(JSON.stringify(published));
  });
  const options = { name: 'new order', key: 'k', token: async () => 'secret' };
  assert.deepEqual(await publish(`${url}/events/orders.eu`, { order: 17 }, options), published);
  await publish(`${url}/events/orders.eu`, 'as it is');
  const [first, second] = requests;
  assert.equal(`${first.method} ${first.pathname}`, 'POST /events/orders.eu');
  assert.equal(first.searchParams.get('name'), 'new order');
  assert.equal(first.headers['idempotency-key'], 'k');
  assert.equal(first.headers.authorization, 'Bearer secret');
  assert.deepEqual([first.body, second.body], ['{"order":17}', 'as it is']);
  assert.match(second.headers['idempotency-key'], /^[0-9a-f]{32}$/);
  await assert.rejects(publish(`${url}/events/t`, undefined), TypeError);
});

test('a publish is sent again with the same key while the server is busy', async (t) => {
  t.mock.method(Math, 'random', () => 0);
  const { url, requests } = await serve(t, (_, response, number) => {
    if (number === 1) response.destroy();
    else if (number === 2) refuse(response, 503, 'The server stops.');
    else response.writeHead(201).end('{}');
  });
  await publish(`${url}/events/t`, 'x');
  const keys = requests.map(({ headers }) => headers['idempotency-key']);
  assert.equal(keys.length, 3);
  assert.equal(new Set(keys).size, 1);
});

test('a publish that is refused says why', async (t) => {
  const { url, requests } = await serve(t, (_, response) => refuse(response, 409, 'It has ended.'));
  const error = await publish(`${url}/events/t`, 'x').catch((error) => error);
  assert.deepEqual([error.name, error.status, error.message], ['PublishError', 409, 'It has ended.']);
  assert.equal(requests.length, 1);
});
