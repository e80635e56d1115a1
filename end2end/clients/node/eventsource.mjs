// Reads a stream with the npm package `eventsource`.
import { EventSource } from 'eventsource';
import { begin, names } from './begin.mjs';

const { url, token, tuned, show } = begin();

function plain() {
  return new EventSource(url);
}

function withToken() {
  return new EventSource(url, {
    fetch: (input, init) =>
      fetch(input, { ...init, headers: { ...init.headers, Authorization: `Bearer ${token}` } }),
  });
}

const source = tuned ? withToken() : plain();
for (const name of names) {
  source.addEventListener(name, (event) => show({ name, id: event.lastEventId, data: event.data }));
}
source.addEventListener('error', (event) => {
  if (source.readyState === EventSource.CLOSED) show({ closed: event.message ?? 'closed' });
});
