// Publishes to a server of the test.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { publish } from '../dist/index.js';
import { id, refuse, serve } from './server.mjs';

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

/** Answers requests as `answer` says. Returns the waits between them, in milliseconds. */
function answering(t, answer) {
  const waits = [];
  const { setTimeout } = globalThis;
  t.mock.method(Math, 'random', () => 0.5);
  t.mock.method(globalThis, 'fetch', async () => answer(waits.length + 1));
  t.mock.method(globalThis, 'setTimeout', (callback, wait) => {
    // Node's `fetch` has timers of its own.
    if (!new Error().stack.includes('/dist/')) return setTimeout(callback, wait);
    waits.push(wait);
    return setTimeout(callback, 0);
  });
  return waits;
}

const busy = (status, after) => new Response('{}', { status, headers: { 'retry-after': after } });

test('a publish whose key is in flight is sent again after `Retry-After` and a backoff', async (t) => {
  const answers = [busy(409, '2'), busy(409, '3600'), busy(503, '0')];
  const waits = answering(t, (number) => answers[number - 1] ?? Response.json({ id: id(1) }));
  assert.deepEqual(await publish('http://server/events/t', 'x', { key: 'k' }), { id: id(1) });
  assert.deepEqual(waits, [2_500, 31_000, 2_000]);
});

test('a server that stays busy ends a publish after four attempts', async (t) => {
  const waits = answering(t, () => busy(409, 'Thu, 01 Jan 2026 00:00:00 GMT'));
  const error = await publish('http://server/events/t', 'x').catch((error) => error);
  assert.deepEqual([error.name, error.status], ['PublishError', 409]);
  assert.deepEqual(waits, [500, 1_000, 2_000]);
});

test('a server that cannot be reached ends a publish after four attempts', async (t) => {
  const waits = answering(t, () => Promise.reject(new TypeError('Failed to fetch')));
  const error = await publish('http://server/events/t', 'x').catch((error) => error);
  assert.deepEqual([error.name, error.message], ['TypeError', 'Failed to fetch']);
  assert.deepEqual(waits, [500, 1_000, 2_000]);
});

test('an abort ends the wait between two attempts', async (t) => {
  const abort = new AbortController();
  const { url, requests } = await serve(t, (_, response) => {
    response.setHeader('retry-after', '30');
    refuse(response, 503, 'busy');
    response.on('close', () => setImmediate(() => abort.abort(new Error('enough'))));
  });
  const options = { signal: abort.signal };
  await assert.rejects(publish(`${url}/events/t`, 'x', options), { message: 'enough' });
  assert.equal(requests.length, 1);
});

test('arguments that cannot be sent are refused at once', async (t) => {
  const { url, requests } = await serve(t, (_, response) => response.writeHead(201).end('{}'));
  const refused = (url, options, message) =>
    assert.rejects(publish(url, 'x', options), { name: 'TypeError', message });
  for (const key of ['', 'two\nlines', 'ä', 'k'.repeat(256)]) {
    await refused(`${url}/events/t`, { key }, /the key must have 1 to 255 printable ASCII/);
  }
  await refused(`${url.replace('//', '//user:password@')}/events/t`, {}, /use the option `token`/);
  assert.equal(requests.length, 0);
  // The server refuses it, so it must get all of it.
  await publish(`${url}/events/t`, 'x', { name: 'two\nlines' });
  assert.equal(requests[0].searchParams.get('name'), 'two\nlines');
});

test('a token that cannot be had fails a publish', async (t) => {
  const { url, requests } = await serve(t, (_, response) => response.writeHead(201).end('{}'));
  const failed = (token, message) =>
    assert.rejects(publish(`${url}/events/t`, 'x', { token }), { name: 'TokenError', message });
  await failed(() => Promise.reject(new Error('signed out')), 'signed out');
  await failed(() => undefined, /has not returned a text/);
  await failed('Basic dXNlcjpwYXNz', /without the scheme/);
  await failed('two\nlines', /must be a token for `Authorization: Bearer`/);
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const late = failed(() => new Promise(() => {}), /has not answered within 10 s/);
  t.mock.timers.tick(10_000);
  await late;
  assert.equal(requests.length, 0);
});
