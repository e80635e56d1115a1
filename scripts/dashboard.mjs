// Writes docs/grafana.json, the dashboard for Grafana, from the rows and panels below.
//
//   node scripts/dashboard.mjs            writes the file
//   node scripts/dashboard.mjs --check    only checks that the file is what this would write
import { readFileSync, writeFileSync } from 'node:fs';
import process from 'node:process';

const file = new URL('../docs/grafana.json', import.meta.url);
const datasource = { type: 'prometheus', uid: '${datasource}' };
/** The label matchers of all queries. Further ones may precede them. */
const by = 'job=~"$job",instance=~"$instance"';

const value = (name, matchers = '') => `waterclock_${name}{${matchers && `${matchers},`}${by}}`;
const rate = (name, matchers) => `rate(${value(name, matchers)}[$__rate_interval])`;
const sum = (query, labels = 'instance') => `sum by (${labels}) (${query})`;
const quantile = (q, name) => `histogram_quantile(${q}, ${sum(rate(`${name}_bucket`), 'le')})`;
const quantiles = (name) => [
  [quantile(0.5, name), 'p50'],
  [quantile(0.95, name), 'p95'],
  [quantile(0.99, name), 'p99'],
];

/** Thresholds: a colour, and the value from which the next one counts, in turn. */
const steps = (first, ...rest) => {
  const all = [{ color: first, value: null }];
  for (let i = 0; i < rest.length; i += 2) all.push({ value: rest[i], color: rest[i + 1] });
  return { mode: 'absolute', steps: all };
};
const goodIfOne = steps('red', 1, 'green');
const goodIfZero = (warning = 1) => steps('green', warning, 'orange');
const worseFrom = (warning, critical) => steps('green', warning, 'orange', critical, 'red');

/** A panel of one figure for each instance. */
const stat = (title, description, query, { unit = 'short', thresholds = steps('blue'), names } = {}) => ({
  title, description, type: 'stat', queries: [[query, '{{instance}}']], unit, thresholds, width: 4, height: 4,
  options: {
    reduceOptions: { calcs: ['lastNotNull'], fields: '', values: false },
    colorMode: 'background', graphMode: 'none', textMode: 'auto', justifyMode: 'auto', orientation: 'auto',
  },
  mappings: names && [{ type: 'value', options: Object.fromEntries(names.map((text, i) => [i, { text }])) }],
});

/** A panel of lines over time. */
const graph = (title, description, queries, { unit = 'short', thresholds, max, stack = false, width = 12 } = {}) => ({
  title, description, type: 'timeseries', queries, unit, thresholds, max, width, height: 8, min: 0,
  custom: {
    fillOpacity: stack ? 30 : 10, lineWidth: 1, showPoints: 'never', spanNulls: false,
    stacking: { mode: stack ? 'normal' : 'none', group: 'A' },
    thresholdsStyle: { mode: thresholds ? 'line' : 'off' },
  },
  options: {
    legend: { displayMode: 'table', placement: 'bottom', showLegend: true, calcs: ['lastNotNull', 'max'] },
    tooltip: { mode: 'multi', sort: 'desc' },
  },
});

const rows = [
  ['Is it healthy', [
    stat('Answers', 'Prometheus can read /metrics.', `up{${by}}`, { thresholds: goodIfOne, names: ['no', 'yes'] }),
    stat('Events can be stored', 'If not, publishes fail: /health/ready?publish says why.',
      value('log_writable'), { thresholds: goodIfOne, names: ['no', 'yes'] }),
    stat('Events can be read', 'If not, streams that are behind end.',
      value('log_readable'), { thresholds: goodIfOne, names: ['no', 'yes'] }),
    stat('Free on the volume', 'Publishes fail on a full disk. Without a figure: the log is in memory.',
      `${value('log_volume_free_bytes')} / (${value('log_volume_bytes')} > 0)`,
      { unit: 'percentunit', thresholds: steps('red', 0.05, 'orange', 0.2, 'green') }),
    stat('Slow readers', 'Streams that have lacked an event for more than ten seconds.',
      value('streams_slow'), { thresholds: goodIfZero() }),
    stat('Running for', 'Time since the start of the program.',
      `time() - ${value('start_time_seconds')}`, { unit: 's' }),
    graph('Failed publishes', 'Events that could not be stored, a second, by reason.',
      [[sum(rate('publishes_failed_total'), 'reason'), '{{reason}}']], { unit: 'eps', stack: true }),
    graph('Refused requests', 'Requests and connections that may be attacks, a second, by reason.',
      [[sum(rate('refused_total'), 'reason'), '{{reason}}']], { unit: 'reqps', stack: true }),
    graph('Versions', 'Number of instances of each version of the program.',
      [[`count by (version) (${value('build_info')})`, '{{version}}']], { width: 8 }),
    graph('Damage and failed retention', 'Both should stay 0. Damaged events show a failing disk.', [
      [sum(value('events_damaged_total')), 'damaged events, {{instance}}'],
      [sum(value('retention_failed_total')), 'failed drops, {{instance}}'],
    ], { width: 8 }),
    graph('Lost lines of output', 'Lines of the output that could not be written, a second.',
      [[rate('output_lost_total'), '{{instance}}']], { width: 8 }),
  ]],
  ['Readers', [
    graph('Open streams', 'Streams and polls that wait. Those that rest in a group cost the least.', [
      [value('streams_open'), 'open, {{instance}}'],
      [value('streams_direct'), 'on the direct path, {{instance}}'],
      [value('streams_resting'), 'resting, {{instance}}'],
      [value('polls_waiting'), 'waiting polls, {{instance}}'],
    ]),
    graph('Opened and ended', 'Streams opened, and streams ended by reason, a second.', [
      [sum(rate('streams_total'), 'job'), 'opened'],
      [sum(rate('streams_ended_total'), 'reason'), 'ended: {{reason}}'],
    ], { unit: 'ops' }),
    graph('Publish to write', 'Time from a publish to the write to a reader.',
      quantiles('publish_to_write_seconds'), { unit: 's', thresholds: worseFrom(0.5, 1) }),
    graph('Lag', 'The longest time for which a stream has lacked an event. A few slow readers are usual.',
      [[value('lag_seconds'), '{{instance}}']], { unit: 's', thresholds: worseFrom(10, 60) }),
    graph('Streams behind', 'Streams with events yet to send, and those that have lacked one for ten seconds.', [
      [value('streams_behind'), 'behind, {{instance}}'],
      [value('streams_slow'), 'slow, {{instance}}'],
    ]),
    graph('Events behind', 'Events that the stream furthest behind has yet to pass.',
      [[value('lag_events'), '{{instance}}']]),
    graph('Sent', 'Events sent, counted for each stream, and events skipped by conflate, a second.', [
      [rate('events_sent_total'), 'sent, {{instance}}'],
      [rate('events_skipped_total'), 'skipped, {{instance}}'],
    ], { unit: 'eps' }),
    graph('Bytes sent', 'Bytes of the streams, without HTTP around them.',
      [[rate('sent_bytes_total'), '{{instance}}']], { unit: 'Bps' }),
    graph('Replay', 'Events between the cursor of a stream and its opening.',
      quantiles('replay_events')),
    graph('Gaps', 'Gaps announced, a second. `expired`: a reader came back after its events were dropped.',
      [[sum(rate('gaps_total'), 'reason'), '{{reason}}']], { unit: 'ops', stack: true }),
    graph('Connections', 'TCP connections, and the limit beyond which new ones wait.', [
      [value('connections_open'), 'open, {{instance}}'],
      [value('connections_max'), 'limit, {{instance}}'],
    ]),
    graph('Connections that come and time out', 'A second. The reason is what the server waited for.', [
      [sum(rate('connections_total'), 'job'), 'accepted'],
      [sum(rate('connections_timed_out_total'), 'reason'), 'timed out: {{reason}}'],
      [sum(rate('connections_full_total'), 'job'), 'times that the limit was reached'],
    ], { unit: 'ops' }),
  ]],
  ['Publishes', [
    graph('Published', 'Events published, a second.',
      [[rate('events_published_total'), '{{instance}}']], { unit: 'eps' }),
    graph('Publish queue', 'Events that wait to be stored. From the limit on, publishers wait for a slot.', [
      [value('publish_queue'), 'waiting, {{instance}}'],
      [value('publish_queue_max'), 'limit, {{instance}}'],
    ]),
    graph('Events for each commit', 'Many publishers share a commit, so this grows with the load.',
      [[`${rate('events_published_total')} / (${rate('log_commit_seconds_count')} > 0)`, '{{instance}}']]),
    graph('Uploads in parts', 'Open requests that publish a body part by part.',
      [[value('lines_open'), '{{instance}}']]),
  ]],
  ['Log and disk', [
    graph('Time of a commit', 'With its sync to disk. Each publish waits for one.',
      quantiles('log_commit_seconds'), { unit: 's', thresholds: worseFrom(0.1, 0.5) }),
    graph('Commits', 'Commits of new events, a second.',
      [[rate('log_commit_seconds_count'), '{{instance}}']], { unit: 'ops' }),
    graph('Size of the log', 'The data of the kept events, and the files with all around it.', [
      [value('log_data_bytes'), 'data, {{instance}}'],
      [value('log_files_bytes'), 'files, {{instance}}'],
    ], { unit: 'bytes' }),
    graph('Volume', 'Free room on the volume of the log, and its size.', [
      [value('log_volume_free_bytes'), 'free, {{instance}}'],
      [value('log_volume_bytes'), 'size, {{instance}}'],
    ], { unit: 'bytes' }),
    graph('Kept events', 'Events that the log keeps, within its retention.',
      [[value('log_events'), '{{instance}}']]),
    graph('Topics', 'Topics that have events or have ended. --max-topics limits them.',
      [[value('log_topics'), '{{instance}}']]),
  ]],
  ['Cluster', [
    stat('Connected', 'The node receives from its cluster. Without a cluster: yes.',
      value('cluster_connected'), { thresholds: goodIfOne, names: ['no', 'yes'] }),
    graph('Behind the cluster', 'Entries of the cluster that a node does not have yet. Beyond 1,000 it is not ready.',
      [[value('cluster_lag'), '{{instance}}']], { thresholds: worseFrom(100, 1000), width: 10 }),
    graph('Publishes that the cluster did not take', 'Events that a node could not hand to its cluster, a second.',
      [[sum(rate('publishes_failed_total', 'reason="unavailable"')), '{{instance}}']], { unit: 'eps', width: 10 }),
  ]],
];

/** Places the rows and panels below one another, 24 units wide. */
function panels() {
  const placed = [];
  let [x, y, height] = [0, 0, 0];
  const place = (panel, w, h) => {
    if (x + w > 24) [x, y, height] = [0, y + height, 0];
    placed.push({ id: placed.length + 1, ...panel, gridPos: { h, w, x, y } });
    [x, height] = [x + w, Math.max(height, h)];
  };
  for (const [title, content] of rows) {
    place({ type: 'row', title, collapsed: false, panels: [] }, 24, 1);
    for (const panel of content) place(written(panel), panel.width, panel.height);
    x = 24;
  }
  return placed;
}

function written({ title, description, type, queries, unit, thresholds, mappings, min, max, custom, options }) {
  return {
    title, description, type, datasource,
    fieldConfig: {
      defaults: { unit, min, max, thresholds, mappings, custom, color: { mode: type === 'stat' ? 'thresholds' : 'palette-classic' } },
      overrides: [],
    },
    options,
    targets: queries.map(([expr, legendFormat], i) => ({
      refId: String.fromCharCode(65 + i), datasource, expr, legendFormat,
    })),
  };
}

const variable = (name, label, query) => ({
  name, label, type: 'query', datasource, query: { query, refId: name }, refresh: 2, sort: 1,
  includeAll: true, multi: true, allValue: '.*', current: { text: 'All', value: '$__all' },
});

const dashboard = {
  title: 'Waterclock',
  uid: 'waterclock',
  description: 'Is a Waterclock server well, and what are its readers and publishers doing? See docs/monitoring.md.',
  tags: ['waterclock'],
  schemaVersion: 39,
  refresh: '30s',
  time: { from: 'now-3h', to: 'now' },
  timezone: 'browser',
  graphTooltip: 1,
  templating: {
    list: [
      { name: 'datasource', label: 'Data source', type: 'datasource', query: 'prometheus' },
      variable('job', 'Job', 'label_values(waterclock_streams_open, job)'),
      variable('instance', 'Instance', 'label_values(waterclock_streams_open{job=~"$job"}, instance)'),
    ],
  },
  annotations: {
    list: [{
      name: 'Starts', datasource, enable: true, iconColor: 'blue', titleFormat: 'start of {{instance}}',
      expr: `changes(${value('start_time_seconds')}[2m]) > 0`,
    }],
  },
  panels: panels(),
};

const text = `${JSON.stringify(dashboard, null, 2)}\n`;
if (!process.argv.includes('--check')) writeFileSync(file, text);
else if (readFileSync(file, 'utf8') !== text) {
  console.error('dashboard: docs/grafana.json is not what scripts/dashboard.mjs writes: run it, and commit the file');
  process.exitCode = 1;
}
