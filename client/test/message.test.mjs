// The meaning of messages, with the same table as in `crates/leptos/src/channel.rs`.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parse } from '../dist/message.js';
import { id } from './server.mjs';

const event = { id: id(4), topic: 'orders.eu', name: 'created', data: 'two\nlines', time: '2026-11-22T07:00:42.000Z' };
const intervals = { heartbeat: 15_000, retry: 2_000 };
const gap = { reason: 'expired', cursor: 'ff-2' };
const done = { topic: 't', outcome: 'done' };
const failed = { topic: 't', outcome: 'failed', message: 'why', last: true };
const notice = { kind: 'notice' };

/** Name, data, and what the rules and the page get, for a message at position 4. */
const messages = [
  ['message', JSON.stringify(event), { kind: 'event', id: id(4) }, { kind: 'event', value: event }],
  ['hello', '{"heartbeat_ms":15000,\n"retry_ms":2000}', { kind: 'hello', id: id(4), intervals }, notice],
  ['gap', JSON.stringify(gap), { kind: 'gap', cursor: id(4) }, { kind: 'gap', value: gap }],
  ['end', JSON.stringify(failed), { kind: 'gap', cursor: id(4) }, { kind: 'end', value: failed }],
  ['end', JSON.stringify(done), { kind: 'gap', cursor: id(4) }, { kind: 'end', value: done }],
  ['end', '{"sent":20}', { kind: 'heartbeat', id: id(4) }, { kind: 'end', value: { sent: 20 } }],
  ['goodbye', '{"reason":"draining","retry_ms":9000}', { kind: 'goodbye', reason: 'draining', retry: 9_000 }, notice],
  ['heartbeat', 'several\nlines', { kind: 'heartbeat', id: id(4) }, notice],
  ['end', 'no JSON', { kind: 'heartbeat', id: id(4) }, notice],
];

test('a message means to the rules and to the page what it means in Rust', () => {
  for (const [name, data, received, content] of messages) {
    assert.deepEqual(parse({ name, id: id(4), data }), { received, content }, `${name}: ${data}`);
  }
  // Before the first message with an id there is no position.
  const { received } = parse({ name: 'end', id: '', data: JSON.stringify(done) });
  assert.deepEqual(received, { kind: 'gap', cursor: null });
});
