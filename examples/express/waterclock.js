// Publishes to Waterclock, and reads from it.
import { EventSource } from 'eventsource';

export const waterclock = process.env.WATERCLOCK_URL ?? 'http://127.0.0.1:3000';

/** Publishes an event. Returns Waterclock's response: the event with its id, or a problem. */
export const publish = (topic, data) =>
  fetch(`${waterclock}/events/${encodeURIComponent(topic)}`, { method: 'POST', body: data });

/** Reads the events of some topics: first those that are kept, then each new one. */
export function read(topic, take, cursor = 'earliest') {
  const query = new URLSearchParams({ topic, format: 'json', last_event_id: cursor });
  const source = new EventSource(`${waterclock}/events?${query}`, { fetch: fetchWithReason });
  // With `format=json`, no event has a name. Notices do: hello, heartbeat, gap, end and goodbye.
  source.onmessage = ({ lastEventId, data }) => {
    cursor = lastEventId;
    take(JSON.parse(data));
  };
  source.onopen = () => console.log(`Reading ${topic} from ${waterclock}`);
  source.addEventListener('gap', ({ data }) => console.warn(`Events are missing: ${data}`));
  source.onerror = ({ code, message }) => {
    if (source.readyState === EventSource.CONNECTING) {
      // It reconnects by itself, and sends the last id: nothing is lost or repeated.
      console.error(`Waterclock does not answer at ${waterclock} (${message}). Trying again …`);
    } else if (code >= 500 || code === 429) {
      // A proxy in front has no server at the moment, or there are too many streams.
      setTimeout(read, 2_000, topic, take, cursor);
    } else if (code !== 204) {
      // The same request would be refused again. 204 is the end of a stream.
      process.exit(1);
    }
  };
}

async function fetchWithReason(input, init) {
  const response = await fetch(input, init);
  if (!response.ok) console.error(`Waterclock answers ${response.status}: ${await response.clone().text()}`);
  return response;
}
