// Streams against a server of the test.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { subscribe } from '../dist/index.js';
import { event, hello, id, notice, reached, refuse, serve, stream, until } from './server.mjs';

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
  assert.deepEqual([gaps, ends, found], [[{ reason: 'expired', cursor: id(1) }], [end], ['event 7']]);
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
  // Another stream after it gives those that have arrived but were not handed out.
  assert.equal(reader.cursor, id(2));
});

test('close() ends the loop of a stream that was refused meanwhile', async (t) => {
  const { url } = await serve(t, (_, response, number) => {
    if (number > 1) return refuse(response, 403, 'No.');
    stream(response, hello, event(1), event(2), event(3));
    response.end();
  });
  const open = async () => {
    const options = { after: id(0), token: 'token' };
    const refused = reached(options, (state) => state === 'refused');
    const one = subscribe(`${url}/events?topic=t`, options);
    await refused;
    return one;
  };
  const found = [];
  const one = await open();
  for await (const event of one) {
    found.push(event.id);
    one.close();
  }
  assert.deepEqual([found, one.cursor], [[id(1)], id(1)]);
});

test('204 ends the stream', async (t) => {
  const { url } = await serve(t, (_, response) => refuse(response, 204));
  const options = {};
  const stopped = reached(options, (state) => state === 'stopped');
  for await (const _ of subscribe(`${url}/events`, options)) assert.fail('no event');
  assert.deepEqual(await stopped, { kind: 'status', status: 204, detail: null });
});

test('a refusal is explained, and not tried again', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
  for (const status of [400, 401, 403]) {
    const { url, requests } = await serve(t, (_, response) => refuse(response, status, 'No.'));
    const options = {};
    const refused = reached(options, (state) => state === 'refused');
    const one = subscribe(`${url}/events`, options);
    const reason = { kind: 'status', status, detail: 'No.' };
    assert.deepEqual(await refused, reason);
    const { length } = requests;
    t.mock.timers.tick(120_000);
    await new Promise(setImmediate);
    assert.deepEqual([one.state, requests.length], ['refused', length]);
    await assert.rejects(async () => {
      for await (const _ of one) assert.fail('no event');
    }, { message: 'the server refused the stream', cause: reason });
  }
});

test('a token is asked for once more before a stream counts as refused', async (t) => {
  const { url, requests } = await serve(t, (_, response) => refuse(response, 401, 'expired'));
  let tokens = 0;
  const options = { share: false, token: () => `${++tokens}` };
  const refused = reached(options, (state) => state === 'refused');
  subscribe(`${url}/events`, options);
  assert.equal((await refused).status, 401);
  const sent = requests.map(({ headers }) => headers.authorization);
  assert.deepEqual([tokens, sent], [2, ['Bearer 1', 'Bearer 2']]);
});

test('another failure is explained, and tried again', async (t) => {
  const { url } = await serve(t, (_, response, number) => {
    if (number === 1) refuse(response, 503, 'The server is starting.');
    else stream(response, hello);
  });
  const options = {};
  const failed = reached(options, (state, reason) => state === 'waiting' && reason);
  const one = subscribe(`${url}/events`, options);
  assert.deepEqual(await failed, { kind: 'status', status: 503, detail: 'The server is starting.' });
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

test('a cursor in the URL is where the stream starts, and no request has it after that', async (t) => {
  const { url, requests } = await serve(t, (_, response, number) => {
    stream(response, hello, event(number));
    response.end();
  });
  const cases = [
    [`after=${id(0)}`],
    [`last_event_id=${id(0)}`],
    [`lastEventId=${id(0)}`],
    [`Last-Event-ID=${id(0)}`],
    [`evs_last_event_id=${id(0)}`],
    ['after=&last_event_id=', null],
    // The server's order of precedence.
    [`lastEventID=${id(0)}&last_event_id=earliest`],
    ['lastEventID=earliest&after=', id(0), id(0)],
  ];
  for (const [query, expected = id(0), after] of cases) {
    requests.length = 0;
    let count = 0;
    const options = { after, token: 'token' };
    for await (const _ of subscribe(`${url}/events?topic=t&${query}&since=10m`, options)) {
      if ((count += 1) === 2) break;
    }
    const [first, second] = requests.map(({ searchParams }) => Object.fromEntries(searchParams));
    const rest = { topic: 't', format: 'json' };
    const start = expected === null ? { since: '10m' } : { last_event_id: expected };
    assert.deepEqual(first, { ...rest, ...start }, query);
    assert.deepEqual(second, { ...rest, last_event_id: id(1) }, query);
  }
  assert.throws(() => subscribe('http://user:password@127.0.0.1/events'), /option `token`/);
});

test('a server that cannot be reached is the reason, and is tried again after a backoff', async (t) => {
  const options = {};
  const failed = reached(options, (state, reason) => state === 'waiting' && reason);
  // No server has the port of TCPMUX, and browsers refuse it.
  const one = subscribe('http://127.0.0.1:1/events', options);
  assert.deepEqual(await failed, { kind: 'unreachable' });
  one.close();
});

test('an `EventSource` without a response has a backoff, and one that was open has none', async (t) => {
  const { url } = await serve(t, (_, response) => refuse(response, 503, 'The server starts.'));
  const sources = [];
  globalThis.EventSource = class extends EventTarget {
    readyState = 0;
    constructor() {
      super();
      sources.push(this);
    }
    close() {
      this.readyState = 2;
    }
  };
  t.after(() => delete globalThis.EventSource);
  const options = {};
  const failed = reached(options, (state, reason) => state === 'waiting' && reason);
  const one = subscribe(`${url}/events`, options);
  await new Promise(setImmediate);
  sources[0].onopen();
  sources[0].onerror();
  assert.equal(one.state, 'reconnecting');
  assert.equal(sources[0].readyState, 0);
  sources[0].onerror();
  assert.equal(one.state, 'waiting');
  assert.equal(sources[0].readyState, 2);
  assert.deepEqual(await failed, { kind: 'status', status: 503, detail: 'The server starts.' });
  one.close();
});

test('a token with a scheme is told, and not sent', async (t) => {
  const { url, requests } = await serve(t, (_, response) => stream(response, hello));
  for (const token of ['Basic dXNlcjpwYXNz', () => 'Bearer abc', () => 'two\nlines', () => '']) {
    const options = { token };
    const failed = reached(options, (state, reason) => state === 'waiting' && reason);
    const one = subscribe(`${url}/events`, options);
    const { kind, value } = await failed;
    assert.equal(kind, 'token');
    assert.match(value, /without the scheme/);
    one.close();
  }
  assert.equal(requests.length, 0);
});

test('a stream may be closed in each state, and nothing follows', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const notices = [notice('hello', { heartbeat_ms: 1, retry_ms: 60_000 }, 0)];
  const retry = 'retry: 60000\n';
  const goodbye = notice('goodbye', { reason: 'draining', retry_ms: 60_000 });
  const many = Array.from({ length: 10_000 }, (_, at) => event(at + 1));
  const answers = {
    connecting() {},
    live: (response) => stream(response, retry, ...notices),
    stale: (response) => stream(response, retry, ...notices),
    reconnecting: (response) => (stream(response, retry, ...notices, goodbye), response.end()),
    waiting: (response) => refuse(response, 503, 'no'),
    paused: (response) => stream(response, retry, ...notices, ...many),
  };
  const { url, requests } = await serve(t, ({ pathname }, response) => {
    answers[pathname.split('/')[1]](response);
  });
  for (const state of Object.keys(answers)) {
    requests.length = 0;
    const states = [];
    const options = {};
    const there = reached(options, (now) => states.push(now) && now === state);
    const one = subscribe(`${url}/${state}/events`, options);
    let isThere = false;
    there.then(() => (isThere = true));
    await until(() => {
      // A stream is stale after some ticks of silence.
      if (state === 'stale') t.mock.timers.tick(1_000);
      return isThere && requests.length > 0;
    }, `it is ${state}`);
    one.close();
    const { length } = states;
    t.mock.timers.tick(120_000);
    await new Promise(setImmediate);
    assert.equal(one.state, 'stopped');
    assert.deepEqual(states.slice(length - 1), ['stopped'], state);
    assert(requests.length <= (state === 'stale' ? 2 : 1), state);
    for await (const _ of one) assert.fail('no event after close');
  }
});

test('each of two loops over a stream ends', async (t) => {
  const { url } = await serve(t, (_, response) => {
    stream(response, hello, event(1), event(2), notice('end', { sent: 2 }));
  });
  const all = subscribe(`${url}/events?limit=2`, { after: id(0) });
  const found = [];
  const loop = async () => {
    for await (const { data } of all) found.push(data);
  };
  await Promise.all([loop(), loop()]);
  assert.deepEqual(found.sort(), ['event 1', 'event 2']);
});

test('an event of ten megabytes arrives, in small pieces', async (t) => {
  const { url } = await serve(t, async (_, response) => {
    stream(response, hello);
    const data = JSON.stringify({ id: id(1), topic: 't', name: 'n', data: 'ü'.repeat(5_000_000), time: '' });
    const bytes = Buffer.from(`id: ${id(1)}\ndata: ${data}\n\n`);
    for (let at = 0; at < bytes.length; at += 1_001) {
      if (!response.write(bytes.subarray(at, at + 1_001))) await once(response, 'drain');
    }
  });
  for await (const { data } of subscribe(`${url}/events`, { after: id(0) })) {
    assert.equal(data, 'ü'.repeat(5_000_000));
    break;
  }
});

/** Gives this process a window whose timers do not run, and a document. */
function asWindow(t) {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const globals = { window: new EventTarget(), document: { hidden: false } };
  Object.assign(globalThis, globals);
  t.after(() => Object.keys(globals).forEach((name) => delete globalThis[name]));
  return (name, isHidden) => {
    document.hidden = isHidden;
    window.dispatchEvent(new Event(name));
  };
}

test('a page that is hidden while the server is gone reconnects once it is seen', async (t) => {
  const send = asWindow(t);
  t.mock.method(Math, 'random', () => 0);
  const { url, requests } = await serve(t, (_, response, number) => {
    if (number === 1) refuse(response, 503, 'The server stops.');
    else stream(response, hello);
  });
  const options = { share: false };
  const failed = reached(options, (state, reason) => state === 'waiting' && reason);
  const one = subscribe(`${url}/events`, options);
  await failed;
  send('visibilitychange', true);
  assert.deepEqual([one.state, requests.length], ['waiting', 1]);
  const live = reached(options, (state) => state === 'live');
  send('visibilitychange', false);
  await live;
  one.close();
});

test('a page in the back/forward cache has no connection, and resumes when it is back', async (t) => {
  const send = asWindow(t);
  const closed = [];
  const { url, requests } = await serve(t, (_, response, number) => {
    closed.push(once(response, 'close'));
    stream(response, hello, event(number));
  });
  const options = { after: id(0), share: false, onEvent() {} };
  for (const number of [1, 2, 3]) {
    const got = new Promise((done) => (options.onEvent = done));
    const one = number === 1 && subscribe(`${url}/events`, options);
    if (one) t.after(() => one.close());
    else send('pageshow');
    assert.equal((await got).data, `event ${number}`);
    send('pagehide');
    await closed[number - 1];
  }
  const cursors = requests.map(({ searchParams }) => searchParams.get('last_event_id'));
  assert.deepEqual(cursors, [id(0), id(1), id(2)]);
});
