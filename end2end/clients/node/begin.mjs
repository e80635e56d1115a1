// What the readers in Node have in common. The task is the first argument, as JSON; what a reader
// sees goes to the standard output, one JSON object a line.

/** Names of the events in the tests, and of all notices. `EventSource` needs each. */
export const names = ['message', 'created', 'hello', 'gap', 'heartbeat', 'end', 'goodbye'];

export function begin() {
  return { ...JSON.parse(process.argv[2]), show: (seen) => console.log(JSON.stringify(seen)) };
}
