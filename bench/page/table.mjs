// Prints the figures as a table with a column for each page, and a line with their ratios.
//
// A median counts all frames alike, so a page that froze after some good seconds can have a good
// one. The time in frames over 50 ms shows such a freeze. The memory of WebAssembly counts for the
// process, not for the JavaScript objects.
import { quantile } from './frames.mjs';

const sum = (values) => values.reduce((total, value) => total + value, 0);
const whole = (value) => Math.round(value).toLocaleString('en');
const megabytes = (bytes) => (bytes / 1e6).toFixed(bytes < 10e6 ? 1 : 0);
/** Returns the part of the time in frames of more than 50 ms, which browsers call long. */
const frozen = (lengths) => sum(lengths.filter((length) => length > 50)) / sum(lengths);

const three = (values) => [0.5, 0.99, 1].map((part) => quantile(values, part).toFixed(1)).join(' / ');

/** The rows: the name of each, and its text for a page. */
const rows = ({ seconds, patience, looks }) => [
  ['idle page, median / p99 / longest'],
  ['  frame, ms', ({ idle }) => three(idle.lengths)],
  ['  work in it, ms', ({ idle }) => three(idle.work)],
  ['loaded page, median / p99 / longest'],
  [
    '  frame, ms',
    ({ loaded, hasAnswered }) => three(loaded.lengths) + (hasAnswered ? '' : ` (did not end within ${patience} s more)`),
  ],
  ['  work in it, ms', ({ loaded }) => three(loaded.work)],
  ['  frames', ({ loaded }) => whole(loaded.lengths.length)],
  ['  time in frames over 50 ms', ({ loaded }) => `${Math.round(100 * frozen(loaded.lengths))} %`],
  ['  CPU time, s', ({ cpu }) => (cpu / 1000).toFixed(1)],
  ['events'],
  ['  published', ({ published }) => whole(published)],
  [`  shown at ${seconds} s`, ({ shownAtEnd }) => whole(shownAtEnd)],
  ['  not shown by then', ({ behind }) => whole(behind)],
  [
    '  all shown',
    ({ isDone, doneAfter, shownLater }) => {
      if (!isDone) return `not within ${patience} s more (${whole(shownLater)})`;
      return doneAfter < 1000 ? 'within 1 s' : `${(doneAfter / 1000).toFixed(0)} s later`;
    },
  ],
  [`memory at ${looks.join(' / ')} s, MB`],
  ['  process', ({ memories }) => memories.map(({ total }) => megabytes(total)).join(' / ')],
  [
    '  JavaScript objects',
    ({ memories }) => memories.map(({ objects }) => (objects instanceof Error ? '?' : megabytes(objects))).join(' / '),
  ],
  [
    '',
    ({ memories }) => {
      const failed = memories.find(({ objects }) => objects instanceof Error);
      return failed ? `?: ${failed.objects.message}` : '';
    },
  ],
];

/** The figures that the last line compares. */
const comparisons = [
  ['frames', ({ loaded }) => loaded.lengths.length],
  ['longest frame', ({ loaded }) => quantile(loaded.lengths, 1)],
  ['events shown', ({ shownAtEnd }) => shownAtEnd],
  ['CPU time', ({ cpu }) => cpu],
  ['process memory', ({ memories }) => memories.at(-1).total],
];

export function print(columns, setting) {
  const lines = [['', ...columns.map(({ name, hasCrashed }) => (hasCrashed ? `${name} crashed` : name))]];
  for (const [name, text] of rows(setting)) {
    const texts = columns.map((column) => (text && !column.hasCrashed ? text(column) : ''));
    if (name || texts.some(Boolean)) lines.push([name, ...texts]);
  }
  const widths = lines[0].map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  for (const line of lines) console.log(line.map((text, column) => text.padEnd(widths[column])).join('  ').trimEnd());

  if (columns.some(({ idle }) => idle && quantile(idle.lengths, 0.99) > 20)) {
    console.log('\nThe idle page missed frames too: the machine was busy with other work. Run the benchmark again.');
  }
  if (columns.some(({ hasCrashed }) => hasCrashed)) return;
  const [ours, other] = columns;
  const times = (ratio) => ratio.toFixed(ratio < 1 ? 2 : 1);
  const ratios = comparisons.map(([name, value]) => `${name} x ${times(value(other) / value(ours))}`);
  console.log(`\n${other.name} compared with ${ours.name}: ${ratios.join(', ')}`);
}
