// Streams that share a connection. The tabs are streams of this process, whose locks are a model.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { subscribe } from '../dist/index.js';
import { event, hello, id, notice, reached, refuse, serve, stream, until } from './server.mjs';

/** Gives this process what a page has. Returns its open channels. */
function asPage(t) {
  const channels = new Set();
  const requests = [];
  const refused = () => new DOMException('', 'AbortError');
  const next = () => {
    if (requests.length === 0 || requests[0].isHeld) return;
    const [request] = requests;
    request.isHeld = true;
    const done = () => {
      if (requests.includes(request)) requests.splice(requests.indexOf(request), 1);
      next();
    };
    Promise.resolve(request.callback({})).then((value) => (done(), request.resolve(value)));
  };
  const locks = {
    request: (name, { signal, steal }, callback) =>
      new Promise((resolve, reject) => {
        const request = { name, callback, resolve, reject };
        signal?.addEventListener('abort', () => {
          if (request.isHeld || !requests.includes(request)) return;
          requests.splice(requests.indexOf(request), 1);
          reject(refused());
        });
        if (steal) {
          if (requests[0]?.isHeld) requests.shift().reject(refused());
          requests.unshift(request);
        } else {
          requests.push(request);
        }
        setImmediate(next);
      }),
    query: async () => ({
      held: requests.filter(({ isHeld }) => isHeld),
      pending: requests.filter(({ isHeld }) => !isHeld),
    }),
  };
  const { BroadcastChannel } = globalThis;
  const globals = {
    isSecureContext: true,
    navigator: { locks },
    BroadcastChannel: class extends BroadcastChannel {
      constructor(name) {
        super(name);
        channels.add(this);
      }
      close() {
        channels.delete(this);
        super.close();
      }
    },
  };
  for (const [name, value] of Object.entries(globals)) {
    const before = Object.getOwnPropertyDescriptor(globalThis, name);
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
    t.after(() => before ? Object.defineProperty(globalThis, name, before) : delete globalThis[name]);
  }
  return { channels, locks };
}

const answer = (response, value) => {
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(value));
};

const content = (sequence) => JSON.parse(/data: (.*)/.exec(event(sequence))[1]);

test('a wait for what never comes ends with its name', async () => {
  const never = until(() => false, 'the moon is blue', 20);
  await assert.rejects(never, { message: 'after 0.02 s not yet: the moon is blue' });
});

test('a follower whose fetch fails says why, and tries again after a backoff', async (t) => {
  asPage(t);
  t.mock.timers.enable({ apis: ['setInterval'] });
  t.mock.method(Math, 'random', () => 0.5);
  const waits = [];
  const { setTimeout } = globalThis;
  t.mock.method(globalThis, 'setTimeout', (callback, wait) => {
    const isOwn = new Error().stack.includes('/retry.js');
    if (isOwn) waits.push(wait);
    return setTimeout(callback, isOwn ? 0 : wait);
  });
  const { url, requests } = await serve(t, ({ pathname }, response) => {
    if (pathname === '/events') return stream(response, hello, event(1), event(2));
    const { length } = polls();
    if (length <= 3) return refuse(response, 404, 'The proxy does not know /poll.');
    answer(response, { events: [1, 2].map(content), gap: null, cursor: id(2) });
  });
  const polls = () => requests.filter(({ pathname }) => pathname === '/poll');
  // The leader has been open for long.
  const leader = subscribe(`${url}/events?topic=t`, { onEvent() {}, after: id(1) });
  await until(() => leader.cursor === id(2), 'the leader has read all');
  const found = [];
  const reasons = [];
  const follower = subscribe(`${url}/events?topic=t`, {
    after: id(0),
    onEvent: ({ data }) => found.push(data),
    onState: (state, reason) => reason && reasons.push([state, reason]),
  });
  // Time passes only if the follower waits for a tick, not for its backoff.
  await until(async () => {
    t.mock.timers.tick(1_000);
    await new Promise(setImmediate);
    return found.length === 2;
  }, 'the follower has read all');
  assert.deepEqual(found, ['event 1', 'event 2']);
  const reason = { kind: 'status', status: 404, detail: 'The proxy does not know /poll.' };
  assert.deepEqual(reasons, [['live', reason]]);
  assert.equal(follower.reason, null);
  assert.deepEqual(waits, [500, 1_000, 2_000]);
  assert.equal(requests.length, 1 + polls().length);
  follower.close();
  leader.close();
});

/** Returns a token whose tabs share, at whatever time each of them expires. */
const token = (exp) => {
  const claims = Buffer.from(JSON.stringify({ sub: 'ann', exp })).toString('base64url');
  return `x.${claims}.x`;
};

const tokenExpires = (isHidden) => async (t) => {
  asPage(t);
  const { setTimeout } = globalThis;
  t.mock.method(globalThis, 'setTimeout', (callback, wait) => {
    // A tab that is over leaves after this time. Browsers delay the timers of a hidden tab.
    const isHeld = isHidden && new Error().stack.includes('announceState');
    if (!isHeld) return setTimeout(callback, wait);
  });
  let open;
  const { url, requests } = await serve(t, ({ pathname, headers, searchParams }, response) => {
    if (pathname === '/poll') return answer(response, { events: [content(1)], gap: null, cursor: id(1) });
    const after = searchParams.get('last_event_id');
    const isOld = headers.authorization === `Bearer ${token(1)}`;
    if (isOld && after === id(1)) return refuse(response, 401, 'It has expired.');
    open = response;
    stream(response, hello, event(isOld ? 1 : 2));
  });
  const subscribed = (exp) => {
    const found = [];
    const options = { after: id(0), token: token(exp), onEvent: ({ data }) => found.push(data) };
    const one = subscribe(`${url}/events?topic=t`, options);
    t.after(() => one.close());
    return { one, found };
  };
  const leader = subscribed(1);
  await until(() => leader.found.length === 1, 'the leader reads');
  const follower = subscribed(2);
  await until(() => follower.one.cursor === id(1), 'the other one follows');
  open.end();
  await until(() => leader.one.state === 'refused', 'the token of the leader is refused');
  await until(() => follower.found.length === 2, 'the other one reads on');
  assert.deepEqual(follower.found, ['event 1', 'event 2']);
  assert.deepEqual([follower.one.state, follower.one.reason], ['live', null]);
  assert.equal(leader.one.reason.status, 401);
  const sent = requests.filter(({ pathname }) => pathname === '/events').length;
  assert.equal(sent, 3);
};

test('a token that has expired ends its own tab, and no other', tokenExpires(false));
test('another tab reads on at once after the token of a hidden one has expired', tokenExpires(true));

test('a follower whose fetch is refused does not repeat it', async (t) => {
  asPage(t);
  const { url, requests } = await serve(t, ({ pathname }, response) => {
    if (pathname === '/events') return stream(response, hello, event(1), event(2));
    refuse(response, 401, 'It has expired.');
  });
  const path = `${url}/events?topic=t`;
  const leader = subscribe(path, { onEvent() {}, after: id(1), token: token(2) });
  t.after(() => leader.close());
  await until(() => leader.cursor === id(2), 'the leader has read all');
  const states = [];
  const follower = subscribe(path, {
    after: id(0),
    token: token(1),
    onState: (state, reason) => states.push([state, reason]),
  });
  const reason = { kind: 'status', status: 401, detail: 'It has expired.' };
  const loop = async () => {
    for await (const _ of follower) assert.fail('no event');
  };
  await assert.rejects(loop, { message: 'the server refused the stream', cause: reason });
  assert.deepEqual(states.at(-1), ['refused', reason]);
  assert.equal(states.filter(([, reason]) => reason).length, 1);
  assert.equal(requests.filter(({ pathname }) => pathname === '/poll').length, 1);
  assert.equal(leader.state, 'live');
});

test('a follower that has fetched the end of a topic does not get it from the leader, too', async (t) => {
  asPage(t);
  const end = { topic: 'a', outcome: 'done' };
  let open;
  const { url, requests } = await serve(t, ({ pathname, searchParams }, response) => {
    if (pathname === '/events') return (open = response), stream(response, hello, event(1));
    const ends = searchParams.get('last_event_id') === id(0) ? [{ id: id(2), ...end }] : [];
    answer(response, { events: [], gap: null, ends, cursor: id(2) });
  });
  const found = [[], []];
  const options = (found, after) => ({
    after,
    onEvent: ({ data }) => found.push(data),
    onEnd: (end) => found.push(end),
  });
  const leader = subscribe(`${url}/events?topic=a&topic=t`, options(found[0], id(0)));
  await until(() => leader.cursor === id(1), 'the leader has read');
  const follower = subscribe(`${url}/events?topic=a&topic=t`, options(found[1], id(0)));
  await until(() => found[1].length === 1, 'the follower has fetched the end');
  // The leader hears of it only now.
  open.write(notice('end', end, 2) + event(3));
  await until(() => found[1].length > 1, 'the follower reads on');
  assert.deepEqual(found, [['event 1', end, 'event 3'], [end, 'event 3']]);
  assert.equal(requests.filter(({ pathname }) => pathname === '/events').length, 1);
  follower.close();
  leader.close();
});

test('a tab whose lock was stolen leaves no channel open', async (t) => {
  const { channels, locks } = asPage(t);
  const { url } = await serve(t, (_, response) => stream(response, hello, event(1)));
  const options = {};
  const live = reached(options, (state) => state === 'live');
  const one = subscribe(`${url}/events?topic=t`, options);
  await live;
  const { held } = await locks.query();
  assert.deepEqual([held.length, channels.size], [1, 1]);
  for (const _ of [1, 2, 3]) {
    // Another tab takes the lock, and dies.
    await locks.request(held[0].name, { steal: true }, () => {});
    await until(async () => (await locks.query()).held.length === 1, 'it has the lock again');
    await until(() => one.state === 'live', 'it is live again');
    assert.equal(channels.size, 1);
  }
  one.close();
  assert.equal(channels.size, 0);
});

test('a follower gets each end once, in its place, also if its leader starts after it', async (t) => {
  const { channels } = asPage(t);
  const end = (topic) => ({ topic, outcome: 'done' });
  let leading;
  const { url } = await serve(t, ({ pathname, searchParams }, response) => {
    if (pathname === '/events') return (leading = response);
    const after = searchParams.get('last_event_id');
    if (after !== id(0)) return answer(response, { events: [], gap: null, cursor: after });
    const events = [1, 2, 4, 5, 7].map(content);
    const ends = [{ id: id(3), ...end('a') }, { id: id(6), ...end('c') }];
    answer(response, { events, gap: null, ends, cursor: id(7) });
  });
  const open = (after) => {
    const told = [];
    const options = { after, onEvent: ({ data }) => told.push(data), onEnd: (end) => told.push(end) };
    const stream = subscribe(`${url}/events?topic=a&topic=c&topic=t`, options);
    t.after(() => stream.close());
    return told;
  };
  // The first holds the lock, and has no cursor.
  const first = open();
  await until(() => leading, 'the first has asked');
  const second = open(id(0));
  await until(() => channels.size === 2, 'the second has joined');
  // Of the ends from before the start, the last has an id: that of the stream.
  const opened = notice('hello', { heartbeat_ms: 15_000, retry_ms: 1 });
  stream(leading, opened, notice('end', end('a')), notice('end', end('c'), 7));
  await until(() => second.includes('event 7'), 'the second has caught up');
  leading.write(event(8));
  for (const told of [first, second]) await until(() => told.includes('event 8'), 'both read on');
  assert.deepEqual(first, [end('a'), end('c'), 'event 8']);
  const caughtUp = ['event 1', 'event 2', end('a'), 'event 4', 'event 5', end('c'), 'event 7', 'event 8'];
  assert.deepEqual(second, caughtUp);
});

for (const isLate of [false, true]) {
  const when = isLate ? 'fails after that' : 'has failed before';
  test(`a tab that follows again has no reason of a fetch that ${when}`, async (t) => {
    const { locks } = asPage(t);
    let failing;
    const fail = () => refuse(failing, 404, 'The proxy does not know /poll.');
    const { url } = await serve(t, ({ pathname }, response) => {
      if (pathname === '/other') return response.end();
      if (pathname === '/events') return stream(response, hello, event(1), event(2));
      failing = response;
      if (!isLate) fail();
    });
    const leader = subscribe(`${url}/events?topic=t`, { onEvent() {}, after: id(1) });
    await until(() => leader.cursor === id(2), 'the leader has read all');
    const tab = subscribe(`${url}/events?topic=t`, { onEvent() {}, after: id(0) });
    t.after(() => tab.close());
    await until(() => (isLate ? failing : tab.reason?.status === 404), 'the other fetches');
    leader.close();
    await until(() => tab.cursor === id(2), 'it leads, and has read all');
    // Another tab takes the lock, and keeps it.
    const { held } = await locks.query();
    locks.request(held[0].name, { steal: true }, () => new Promise(() => {}));
    await until(() => tab.state === 'connecting', 'it follows');
    if (isLate) fail();
    // The refusal comes before the responses to these.
    for (const _ of [1, 2, 3]) await (await fetch(`${url}/other`)).text();
    assert.equal(tab.reason, null);
  });
}
