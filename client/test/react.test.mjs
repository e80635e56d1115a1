// The hook, as a server renders it. end2end/tests/client.spec.ts has it in a browser.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createElement } from 'react';
import { renderToString } from 'react-dom/server';
import { useStream } from '../dist/react.js';

test('a server renders the component without a stream', () => {
  function List() {
    const { events, state } = useStream('/events?topic=t');
    return createElement('p', null, `${state}: ${events.length}`);
  }
  assert.equal(renderToString(createElement(List)), '<p>idle: 0</p>');
});
