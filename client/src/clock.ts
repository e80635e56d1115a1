/**
 * A clock that never goes back and includes the time that the machine sleeps, in milliseconds.
 * `crates/leptos/src/stopwatch.rs` gives the reasons.
 *
 * @module
 */
let elapsed = 0;
let last: [monotonic: number, wall: number] | undefined;

/** Returns the time since the first reading. */
export function now(): number {
  const reading: [number, number] = [performance.now(), Date.now()];
  if (last) {
    const step = Math.max(reading[0] - last[0], 0);
    const wall = reading[1] - last[1];
    elapsed += wall > step + 1_000 ? wall : step;
  }
  last = reading;
  return elapsed;
}
