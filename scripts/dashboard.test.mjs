// Tests of docs/grafana.json: it is what dashboard.mjs writes, and people find their way in it.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import process from 'node:process';
import { test } from 'node:test';

const dashboard = JSON.parse(readFileSync(new URL('../docs/grafana.json', import.meta.url), 'utf8'));
const panels = dashboard.panels.filter(({ type }) => type !== 'row');

test('the file is what the script writes', () => {
  execFileSync(process.execPath, [fileURLToPath(new URL('dashboard.mjs', import.meta.url)), '--check']);
});

test('the rows are in the order in which one looks at them', () => {
  const rows = dashboard.panels.filter(({ type }) => type === 'row').map(({ title }) => title);
  assert.deepEqual(rows, ['Is it healthy', 'Readers', 'Publishes', 'Log and disk', 'Cluster']);
  assert.equal(dashboard.panels[0].type, 'row');
});

test('no two panels have the same id or title, or overlap', () => {
  for (const key of ['id', 'title']) {
    const values = dashboard.panels.map((panel) => panel[key]);
    assert.equal(new Set(values).size, values.length, key);
  }
  const taken = new Set();
  for (const { title, gridPos: { x, y, w, h } } of dashboard.panels) {
    assert.ok(x >= 0 && x + w <= 24, title);
    for (let i = x; i < x + w; i++)
      for (let j = y; j < y + h; j++) {
        assert.ok(!taken.has(`${i} ${j}`), `${title} overlaps another panel`);
        taken.add(`${i} ${j}`);
      }
  }
});

test('each panel has a unit, a description, and thresholds if it is a single figure', () => {
  for (const { title, type, description, fieldConfig: { defaults } } of panels) {
    assert.ok(description.endsWith('.') && description.length > 10, title);
    assert.ok(defaults.unit, title);
    if (type === 'stat') assert.ok(defaults.thresholds.steps.length > 0, title);
  }
});

test('each query is of the chosen data source, job and instance, and has a legend', () => {
  const of = { type: 'prometheus', uid: '${datasource}' };
  for (const { title, datasource, targets } of panels) {
    assert.deepEqual(datasource, of, title);
    assert.ok(targets.length > 0, title);
    for (const { expr, legendFormat, datasource } of targets) {
      assert.deepEqual(datasource, of, title);
      assert.ok(legendFormat, title);
      const selectors = expr.match(/(?:waterclock_\w+|\bup)\b(?:\{[^}]*\})?/g);
      assert.ok(selectors?.length > 0, expr);
      for (const selector of selectors)
        assert.match(selector, /\{.*job=~"\$job",instance=~"\$instance"\}$/, selector);
      // Counters only grow, so their own value says nothing; damage counts from the start.
      for (const [, before] of expr.matchAll(/(\w*\(?)waterclock_\w+_total/g))
        assert.ok(before === 'rate(' || /damaged|retention/.test(expr), expr);
      assert.equal(expr.split('(').length, expr.split(')').length, expr);
    }
  }
  assert.deepEqual(dashboard.templating.list.map(({ name }) => name), ['datasource', 'job', 'instance']);
});
