// Runs public clients through what a stream may meet, and compares the outcome with the table in
// docs/clients.md. A cell says `yes` if the client works as it comes, `set` if it needs the
// settings of its section (and fails without them), `JSON` if it needs `format=json`, `no` if it
// fails even so, and `–` if the column does not apply. CLIENT_ROUNDS repeats the restarts.
import { type Browser, expect } from '@playwright/test';
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { patience } from '../playwright.config.ts';
import { sign } from '../tests/server.ts';
import { type Client, clients, missing } from './clients.ts';
import { elsewhere, type Reader, type Task } from './reader.ts';
import { meter, requests, type Setup, test } from './setup.ts';

const rounds = Number(process.env.CLIENT_ROUNDS ?? 1);

type Scenario = {
  column: string;
  run: (setup: Setup, open: () => Promise<void>) => Promise<void>;
  /** Notices that the client must have shown. */
  notices?: string[];
  /** With `format=json`. */
  json?: boolean;
  /** More of the URL's query. */
  query?: string;
  /** The server is started again, so its events must be on disk. */
  restarts?: boolean;
  /** The client must end, rather than go on. */
  ends?: boolean;
};

const short = (name: string, count: number) => Array.from({ length: count }, (_, i) => `${name} ${i}`);

/** Data that clumsy parsers change. */
const awkward = [
  'two\nlines',
  ' a space first',
  '  two spaces first',
  'a space last ',
  '',
  '\n',
  '\nan empty line first',
  'an empty line last\n',
  '\n\n\n',
  'a\rb\r\nc\n\rd',
  ': a colon first',
  'data: like a field\nid: 7\nevent: x\nretry: 1\n\nid: 8',
  'no colon\n:\nid',
  '\uFEFFa byte order mark first',
  'NUL \0 inside',
  // Line ends for some programs, but not for this protocol.
  'a\u000bb\u000cc\u001cd\u001de\u001ef\u0085g\u2028h\u2029i',
  '😀 👩‍👩‍👧 ü ☃ \u{10FFFF}',
  '\u001b[31mred\u001b[0m \u0007 \u007f',
];

const large = 65_536;

/** What a reverse proxy sends while its server is away. */
const badGateway = [
  'HTTP/1.1 502 Bad Gateway',
  'Server: nginx',
  'Content-Type: text/html',
  'Content-Length: 24',
  'Connection: close',
  '',
  '<h1>502 Bad Gateway</h1>',
].join('\r\n');

const scenarios: Scenario[] = [
  {
    column: '`kill -9`',
    restarts: true,
    async run(setup, open) {
      await setup.publish(...short('before', 3));
      await open();
      await setup.publish(...short('live', 2));
      await setup.settle();
      for (let round = 0; round < setup.rounds; round++) {
        await setup.restart('kill');
        await setup.publish(...short(`round ${round}`, 3));
        await setup.settle();
      }
    },
  },
  {
    column: '`goodbye`',
    restarts: true,
    notices: ['goodbye'],
    async run(setup, open) {
      await setup.publish(...short('before', 3));
      await open();
      await setup.settle();
      for (let round = 0; round < setup.rounds; round++) {
        await setup.restart('stop');
        await setup.publish(...short(`round ${round}`, 3));
        await setup.settle();
      }
    },
  },
  {
    column: '502',
    restarts: true,
    async run(setup, open) {
      await setup.publish(...short('before', 3));
      await open();
      await setup.settle();
      await setup.restart('kill', badGateway);
      await setup.publish(...short('after', 3));
      await setup.settle();
    },
  },
  {
    column: '`gap`',
    restarts: true,
    notices: ['gap'],
    async run(setup, open) {
      await setup.publish('before');
      await open();
      await setup.settle();
      // The missed events are not kept.
      setup.server.data += '-new';
      await setup.restart('kill');
      await setup.publish('after');
      await setup.settle();
    },
  },
  {
    column: '64 KiB',
    async run(setup, open) {
      // A client that wraps the data has less room.
      const size = setup.wrap ? large - 100 : large;
      await setup.publish('x'.repeat(size), '😀'.repeat(size / 4));
      // Four times as long in a stream.
      if (!setup.wrap) await setup.publish(`${'x\n'.repeat(size / 2 - 1)}xx`);
      await setup.publish('after');
      await open();
      await setup.settle();
    },
  },
  {
    column: 'as JSON',
    json: true,
    async run(setup, open) {
      // Six times as long in a stream, in one line.
      await setup.publish('\u0001'.repeat(large), 'after');
      await open();
      await setup.settle();
    },
  },
  {
    column: 'awkward data',
    async run(setup, open) {
      await setup.publish(...awkward);
      await open();
      await setup.publish(...awkward, 'after');
      await setup.settle();
    },
  },
  {
    column: '`limit`',
    ends: true,
    query: '&limit=3',
    async run(setup, open) {
      await setup.publish(...short('event', 3));
      await open();
      // After the last event, the server refuses the same stream with 204.
      for (const [i, reader] of setup.readers.entries()) {
        await reader.waits(async () => (await requests(setup.server, meter(i))) > 4, 'the end');
      }
    },
  },
  {
    column: 'token',
    async run(setup, open) {
      await setup.publish('before');
      await open();
      await setup.settle();
      await setup.publish('after');
      await setup.settle();
    },
  },
];

/** Why a reader did not work, or `''`. */
function failure(reader: Reader, { published, wrap }: Setup, { notices = [], ends }: Partial<Scenario> = {}): string {
  const { client, task } = reader;
  if (ends && reader.closed === undefined) return 'it asks again and again';
  if (!ends && reader.closed !== undefined) return `closed: ${reader.closed}`;
  if (reader.connections > 3) return `reconnects again and again: ${reader.errors}`;
  // Line ends become LF in a stream. With a limit, ids count the events.
  const expected = published.map(({ id, data }, i) => ({
    id: client.dataOnly ? undefined : ends ? `${id}.${i + 1}` : id,
    data: task.json || wrap ? data : data.replace(/\r\n?/g, '\n'),
  }));
  const at = expected.findIndex(({ id, data }, i) => reader.events[i]?.id !== id || reader.events[i]?.data !== data);
  const shorten = (event: unknown) => JSON.stringify(event)?.slice(0, 200);
  if (at >= 0) return `event ${at} is ${shorten(reader.events[at])}, not ${shorten(expected[at])}`;
  if (reader.events.length > expected.length) return 'events came twice';
  const unseen = notices.find((notice) => !reader.notices.includes(notice));
  return unseen ? `no ${unseen}` : '';
}

// --- docs/clients.md ---

const document = readFileSync(resolve(import.meta.dirname, '../../docs/clients.md'), 'utf8');

/** Returns the cells of the table, by client and column. */
function cells(): Map<string, Map<string, string>> {
  const rows = document.split('\n').filter((line) => line.startsWith('| '));
  const [head, ...lines] = rows.slice(rows.findIndex((row) => row.startsWith('| client |')));
  const split = (row: string) => row.split('|').slice(1, -1).map((cell) => cell.trim());
  const columns = split(head);
  return new Map(lines.map(split).map((row) => [row[0], new Map(row.map((cell, i) => [columns[i], cell]))]));
}

const table = cells();

test('the table names each client and each column', () => {
  expect([...table.keys()]).toEqual(clients.map(({ name }) => name));
  const columns = ['client', ...scenarios.map(({ column }) => column), 'silence'];
  for (const row of table.values()) expect([...row.keys()].sort()).toEqual(columns.sort());
});

for (const { name, file } of clients) {
  test(`the code for ${name} is that of the test`, () => {
    const lines = (text: string) => text.split('\n').map((line) => line.trim()).filter(Boolean).join('\n');
    const section = document.split(/^### /m).find((text) => text.startsWith(`${name}\n`));
    expect(section).toBeDefined();
    const reader = lines(readFileSync(resolve(import.meta.dirname, file), 'utf8'));
    for (const [, code] of section!.matchAll(/```\w+\n(.*?)```/gs)) expect(reader).toContain(lines(code));
  });
}

test('the names of messages are where the readers find them', () => {
  const section = document.split(/^## /m).find((text) => text.startsWith('Notices among the events\n'))!;
  const rows = new Map([...section.matchAll(/^\| ([\w/-]+) \| (.+?) \|$/gm)].map(([, name, cell]) => [name, cell]));
  for (const { name, file, dataOnly } of clients) {
    if (dataOnly) continue;
    const code = /^`([^…`]+)/.exec(rows.get(name) ?? '')?.[1] ?? '';
    expect(readFileSync(resolve(import.meta.dirname, file), 'utf8'), name).toContain(code.trim());
    expect(rows.has(name), name).toBe(true);
  }
});

// --- the matrix ---

/** The tasks for the readers of a cell, each with its expected outcome. */
function tasks({ name }: Client, column: string): { task: Omit<Task, 'url'>; works: boolean }[] {
  const row = table.get(name)!;
  const cell = row.get(column)!;
  const plain = { tuned: false };
  const tuned = { tuned: true };
  // Without its settings, no client has a token.
  if (column === 'token') return [{ task: tuned, works: cell !== 'no' }];
  switch (cell) {
    case 'yes': {
      const hasSettings = [...row.values()].includes('set');
      return [{ task: plain, works: true }, ...(hasSettings ? [{ task: tuned, works: true }] : [])];
    }
    case 'set':
      return [{ task: plain, works: false }, { task: tuned, works: true }];
    case 'JSON':
      return [{ task: tuned, works: false }, { task: { tuned: true, json: true }, works: true }];
    case 'no':
      return [{ task: tuned, works: false }];
    default:
      throw new Error(`a cell of the table in docs/clients.md is '${cell}'`);
  }
}

async function check(client: Client, scenario: Scenario, setup: Setup, browser?: Browser) {
  const reason = missing(client);
  test.skip(reason !== undefined, reason);
  test.skip(table.get(client.name)!.get(scenario.column) === '–', 'does not apply');
  setup.wrap = client.wrap;
  setup.rounds = Math.max(rounds, client.rounds ?? 1);
  test.setTimeout((60_000 + setup.rounds * 5_000) * patience);
  if (scenario.restarts) setup.server.data = test.info().outputPath('data');
  const secret = randomBytes(32).toString('hex');
  const expected: boolean[] = [];
  let origin: string | undefined;
  if (scenario.column === 'token') {
    const file = test.info().outputPath('secret');
    writeFileSync(file, secret);
    const exp = Math.floor(Date.now() / 1000) + 600;
    setup.token = sign(secret, { exp, publish: ['>'], subscribe: ['>'] });
    const pages = await elsewhere();
    setup.cleanUp = pages.close;
    origin = pages.origin;
    await setup.server.start('--require-token', '--jwt-secret-file', file, '--cors-origin', origin);
  } else {
    await setup.start();
  }
  await scenario.run(setup, async () => {
    for (const { task, works } of tasks(client, scenario.column)) {
      await setup.open(client, { json: scenario.json, query: scenario.query, ...task }, browser, origin);
      expected.push(works);
    }
  });
  for (const [i, reader] of setup.readers.entries()) {
    const found = failure(reader, setup, scenario);
    const variant = JSON.stringify({ ...reader.task, url: undefined, token: undefined });
    if (process.env.CLIENTS_VERBOSE) console.log(client.name, scenario.column, variant, found || 'works');
    expect.soft(found === '', `${variant}: ${found || 'works'}\n${reader.errors}`).toBe(expected[i]);
  }
}

for (const client of clients) {
  test.describe(client.name, () => {
    for (const scenario of scenarios) {
      if (client.command) {
        test(scenario.column, async ({ setup }) => check(client, scenario, setup));
      } else {
        test(scenario.column, async ({ setup, browser }) => check(client, scenario, setup, browser));
      }
    }
  });
}

test('silence', async ({ setup, browser }) => {
  test.setTimeout(60_000 * patience);
  await setup.start();
  const expected: boolean[] = [];
  for (const client of clients.filter((client) => !missing(client))) {
    for (const { task, works } of tasks(client, 'silence')) {
      await setup.open(client, task, browser);
      expected.push(works);
    }
  }
  // A heartbeat comes after 15 s.
  for (const reader of setup.readers) {
    if (reader.client.dataOnly) continue;
    await reader.waits(() => reader.notices.includes('heartbeat'), 'a heartbeat');
  }
  // A client that did not reconnect gets this from the stream that it opened at the beginning.
  await setup.publish('after');
  for (const reader of setup.readers) if (!reader.client.wrap) await reader.reads(1);
  for (const [i, reader] of setup.readers.entries()) {
    const { client, task, connections } = reader;
    const again = connections > 1 ? `${connections} connections` : '';
    const found = client.wrap ? (reader.closed ?? '') : again || failure(reader, setup);
    expect.soft(found === '', `${client.name}, tuned ${task.tuned}: ${found || 'works'}`).toBe(expected[i]);
  }
});
