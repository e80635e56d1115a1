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
