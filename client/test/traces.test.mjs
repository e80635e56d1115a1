// Replays the traces of the rules in Rust, which their tests write, and compares each step.
import assert from 'node:assert/strict';
import { createReadStream } from 'node:fs';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { Connection } from '../dist/connection.js';
import { Tab } from '../dist/tab.js';

const root = resolve(import.meta.dirname, '../..');
const folder = resolve(root, process.env.CARGO_TARGET_DIR ?? 'target', 'client-traces');
const least = { connection: 10_000, tab: 20_000 };

/** `CannotShare` is `cannot-share` here. */
const kebab = (name) => name.replace(/(?<!^)[A-Z]/g, '-$&').toLowerCase();

/** `last_heard` is `lastHeard` here. */
const camel = (name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());

const isVariant = (name) => /^[A-Z][A-Za-z]+$/.test(name);

/** Returns a value of Rust, as serde writes it, in the form that it has in TypeScript. */
function converted(value) {
  if (typeof value === 'string' && isVariant(value)) return { kind: kebab(value) };
  if (Array.isArray(value)) return value.map(converted);
  if (value === null || typeof value !== 'object') return value;
  if ('nanos' in value) return value.secs * 1000 + value.nanos / 1e6;
  const entries = Object.entries(value);
  const [name, content] = entries[0] ?? [''];
  if (!isVariant(name)) {
    return Object.fromEntries(entries.map(([name, value]) => [camel(name), converted(value)]));
  }
  // The fields of a struct are those of its variant.
  const inner = converted(content);
  const isStruct = inner !== null && typeof inner === 'object' && !('kind' in inner);
  return isStruct ? { kind: kebab(name), ...inner } : { kind: kebab(name), value: inner };
}

/** Returns the fields of a state machine, in the form of the traces. */
function fields(machine) {
  const { role, ...state } = JSON.parse(JSON.stringify(machine));
  return role ? { role: { kind: role }, ...state } : state;
}

const connection = {
  start: ([cursor, mayUseSockets]) => Object.assign(new Connection(cursor), { mayUseSockets }),
  seen: ({ state, reason, cursor }) => [state, reason, cursor],
};

const tab = {
  start: (cursor) => new Tab(cursor),
  seen: (tab) => [{ kind: tab.role }, tab.state, tab.reason, tab.cursor, tab.isWanted()],
};

for (const [name, { start, seen }] of Object.entries({ connection, tab })) {
  test(`the ${name} rules do what those in Rust do`, async () => {
    const file = createReadStream(resolve(folder, `${name}.jsonl`));
    let [traces, steps] = [0, 0];
    for await (const line of createInterface(file)) {
      const [begin, trace, end] = JSON.parse(line);
      const machine = start(begin);
      let expected;
      for (const [number, [now, random, input, effects, news]] of trace.entries()) {
        const found = machine.step(now, random, converted(input));
        const where = `trace ${traces}, step ${number}: ${JSON.stringify(input)}`;
        assert.deepEqual(found, converted(effects), where);
        if (news !== 0) expected = converted(news);
        assert.deepEqual(seen(machine), expected, where);
        steps += 1;
      }
      assert.deepEqual(fields(machine), converted(end), `the end of trace ${traces}`);
      traces += 1;
    }
    console.log(`${name}: ${traces} traces with ${steps} steps`);
    assert(traces >= least[name], `${traces} traces`);
  });
}
