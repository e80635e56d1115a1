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
    onEnd: ({ topic, id }) => found.push(`${topic} ${id}`),
  });
  const leader = subscribe(`${url}/events?topic=a&topic=t`, options(found[0], id(0)));
  await until(() => leader.cursor === id(1), 'the leader has read');
  const follower = subscribe(`${url}/events?topic=a&topic=t`, options(found[1], id(0)));
  await until(() => found[1].length === 1, 'the follower has fetched the end');
  // The leader hears of it only now.
  open.write(notice('end', end, 2) + event(3));
  await until(() => found[1].length > 1, 'the follower reads on');
  const ended = `a ${id(2)}`;
  assert.deepEqual(found, [['event 1', ended, 'event 3'], [ended, 'event 3']]);
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
