// What is known of a page's frames, and how it is found out.
//
// A frame is the time from one `requestAnimationFrame` to the next. Two figures are taken of each:
//
// - how long it was. A page with nothing to do has one every 16.7 ms (60 Hz), and cannot have them more
//   often, so this says whether frames were missed, but not how near it came to that.
// - the work in it: how long the page's main thread ran from this frame to the next, whatever for: events,
//   scripts, layout, painting, collecting garbage. The kernel says that, not the page. Above 16.7 ms a
//   frame is missed; what is below is what a user's clicks have.

/**
 * Runs in the page: calls `report` (a binding) about twice a second, from a frame, with the frames since
 * the last time and with how many events are shown.
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
 * The frames that began between two times: how long they were (`lengths`) and the work in them (`work`), in
 * milliseconds. `left` has times that are left out, as if the clock had stood still: while we collected
 * the page's garbage. `ran` says how long the main thread had run at a time.
 */
export function between(start, end, { frames, left, ran }) {
  const [lengths, work] = [[], []];
  for (const [index, from] of frames.entries()) {
    const to = frames[index + 1];
    if (from < start || from >= end || to === undefined) continue;
    let [length, worked] = [to - from, ran(to) - ran(from)];
    for (const pause of left) {
      const [a, b] = [Math.max(from, pause.from), Math.min(to, pause.to)];
      if (a >= b) continue; // They have nothing in common.
      length -= b - a;
      worked -= ran(b) - ran(a);
    }
    if (length < 1) continue; // All of it was left out.
    lengths.push(length);
    work.push(worked);
  }
  return { lengths, work };
}

/** The value that this part of the values are not above. */
export function quantile(values, part) {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(Math.ceil(sorted.length * part) - 1, 0)];
}
