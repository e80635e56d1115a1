// What the readers in a page have in common. The test puts the task into the fragment of the page's
// address, and exposes `seen`.

/** Names of the events in the tests, and of all notices. `EventSource` needs each. */
export const names = ['message', 'created', 'hello', 'gap', 'heartbeat', 'end', 'goodbye'];

export const { url, token, tuned } = JSON.parse(decodeURIComponent(location.hash.slice(1)));

export const show = (what) => window.seen(what);
