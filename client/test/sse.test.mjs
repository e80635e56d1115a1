// The parser of streams, with its input cut at every place.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Parser } from '../dist/sse.js';

function parsed(chunks) {
  const parser = new Parser('before');
  const messages = chunks.flatMap((chunk) => parser.feed(chunk));
  return { messages, retry: parser.retry };
}

test('a stream means the same wherever it is cut', () => {
  const text =
    '\ufeff: comment\r\nretry: 250\r\nid: 7\r\nevent: hello\r\ndata: {}\r\n\r\n' +
    'data: ü€😀\rdata\rdata:  two spaces\r\r' +
    'id: with\0nul\nevent: none\n\nid:8\ndata: x\n\n\n\nevent: named\ndata: y\n\ndata: unfinished';
  const expected = {
    messages: [
      { name: 'hello', id: '7', data: '{}' },
      { name: 'message', id: '7', data: 'ü€😀\n\n two spaces' },
      { name: 'message', id: '8', data: 'x' },
      { name: 'named', id: '8', data: 'y' },
    ],
    retry: 250,
  };
  const bytes = new TextEncoder().encode(text);
  assert.deepEqual(parsed([bytes]), expected);
  for (let at = 0; at <= bytes.length; at += 1) {
    assert.deepEqual(parsed([bytes.subarray(0, at), bytes.subarray(at)]), expected, `cut at ${at}`);
  }
  assert.deepEqual(parsed(Array.from(bytes, (byte) => Uint8Array.of(byte))), expected);
});

test('a message without an id has the last one', () => {
  const { messages } = parsed([new TextEncoder().encode('data: x\n\n')]);
  assert.deepEqual(messages, [{ name: 'message', id: 'before', data: 'x' }]);
});
