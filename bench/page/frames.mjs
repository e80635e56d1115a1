// Measures the frames of a page. A frame is the time from one `requestAnimationFrame` to the next.
// Each has two figures:
//
// - its length. An idle page has a frame every 16.7 ms (60 Hz), never more often. So the length
//   shows missed frames, but not how close the page came to missing one.
// - the work in it: the time that the page's main thread ran during the frame, for events, scripts,
//   layout, painting and garbage collection. The kernel reports it, not the page. A frame with more
//   than 16.7 ms of work is missed; the rest of those 16.7 ms is free for the user's input.

/**
 * Runs in the page. Calls the binding `report` from a frame about twice a second, with the frames
 * since the last call and the number of events that the page shows.
 */
export function watch(shown) {
  let frames = [];
  let reported = 0;
  function frame(time) {
    frames.push(performance.timeOrigin + time);
    if (time - reported > 500) {
      reported = time;
      report(JSON.stringify({ frames, shown: shown(), at: performance.timeOrigin + performance.now() }));
      frames = [];
    }
    requestAnimationFrame(frame);
  }
  requestAnimationFrame(frame);
}

/**
 * Returns the lengths of the frames that began between two times, and the work in them, in
 * milliseconds. `left` has periods to leave out, as if the clock had stopped: the garbage
 * collections that we caused. `ran` returns the time that the main thread had run by a given time.
 */
export function between(start, end, { frames, left, ran }) {
  const [lengths, work] = [[], []];
  for (const [index, from] of frames.entries()) {
    const to = frames[index + 1];
    if (from < start || from >= end || to === undefined) continue;
    let [length, worked] = [to - from, ran(to) - ran(from)];
    for (const pause of left) {
      const [a, b] = [Math.max(from, pause.from), Math.min(to, pause.to)];
      if (a >= b) continue; // They do not overlap.
      length -= b - a;
      worked -= ran(b) - ran(a);
    }
    if (length < 1) continue; // All of it was left out.
    lengths.push(length);
    work.push(worked);
  }
  return { lengths, work };
}

/** Returns the smallest value that at least this part of the values do not exceed. */
export function quantile(values, part) {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(Math.ceil(sorted.length * part) - 1, 0)];
}
