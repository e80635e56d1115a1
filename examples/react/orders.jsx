import { useState } from 'react';
import { publish } from 'waterclock';
import { useStream } from 'waterclock/react';

/** The list of orders, a button that stops it, and a form that publishes one. */
export function Orders() {
  const [isIncomplete, setIncomplete] = useState(false);
  const { events, state, reason, start, stop } = useStream('/events?topic=orders.*', {
    after: 'earliest',
    // The server keeps the newest events only.
    onGap: () => setIncomplete(true),
  });
  const isStopped = state === 'stopped' || state === 'refused';
  return (
    <main>
      <h1>Orders</h1>
      <PublishForm />
      <p>
        <button onClick={isStopped ? start : stop}>{isStopped ? 'Start' : 'Stop'}</button>
        <span role="status">{reason ? explain(reason) : state}</span>
      </p>
      {isIncomplete && <p>Some orders are missing.</p>}
      <ul>
        {events.toReversed().map(({ id, time, data }) => (
          <li key={id}>
            <time>{new Date(time).toLocaleTimeString()}</time>
            {data}
          </li>
        ))}
      </ul>
    </main>
  );
}

/** Returns the reason for the missing connection. The client tries again, unless it is refused. */
function explain({ kind, status, detail }) {
  if (status === 204) return 'All topics have ended.';
  if (kind === 'status' && status < 500) return `Waterclock refuses this: ${detail ?? status}`;
  return 'Waterclock does not answer. Trying again …';
}

function PublishForm() {
  const [error, setError] = useState(null);
  async function submit(event) {
    event.preventDefault();
    const form = event.target;
    try {
      await publish('/events/orders.eu', form.order.value);
      form.reset();
      setError(null);
    } catch (error) {
      // Vite answers 500 while it does not reach Waterclock.
      setError(error.status < 500 ? error.message : 'Waterclock does not answer. The order was not published.');
    }
  }
  return (
    <form onSubmit={submit}>
      <input name="order" aria-label="Order" placeholder="An order" required autoComplete="off" />
      <button>Publish</button>
      {error && <p role="alert">{error}</p>}
    </form>
  );
}
