// The list and its tools.
import { readFileSync } from 'node:fs';
import type { Page } from '@playwright/test';
import { patience } from '../playwright.config.ts';
import { count, expect, expectConsecutive, sequences, type Server, state, test } from './server.ts';

const publish = async (server: Server, topic: string, body: string, query = '') => {
  const answer = await fetch(`${server.url}/events/${topic}?${query}`, { method: 'POST', body });
  expect(answer.ok).toBe(true);
};

const rows = (page: Page) => page.locator('.rows .event');
const newer = (page: Page) => page.getByRole('button', { name: /^Newest/ });
const isAtEnd = (page: Page) =>
  page.locator('.scroller').evaluate((list) => list.scrollHeight - list.clientHeight - list.scrollTop <= 2);

test('follows the newest events, is held while scrolled up, and continues at the end', async ({ page, server }) => {
  await server.start('--interval', '20ms');
  await page.goto(server.url);
  await expect.poll(() => count(page)).toBeGreaterThan(60);
  expect(await isAtEnd(page)).toBe(true);
  await expect(newer(page)).toBeHidden();

  await page.locator('.scroller').hover();
  await page.mouse.wheel(0, -300);
  await expect(newer(page)).toBeVisible();
  // By now the wheel's smooth scrolling is over.
  await expect(newer(page)).toHaveText(/\+\d\d/);
  const shown = await rows(page).allTextContents();
  await expect(newer(page)).toHaveText(/\+([5-9]\d|\d{3})/);
  expect(await rows(page).allTextContents()).toEqual(shown);

  await newer(page).click();
  await expect(newer(page)).toBeHidden();
  await expect.poll(() => isAtEnd(page)).toBe(true);
  await page.mouse.wheel(0, -100);
  await expect(newer(page)).toBeVisible();
  await page.mouse.wheel(0, 5000);
  await expect(newer(page)).toBeHidden();
  expectConsecutive(await sequences(page));
});

test('Pause holds the list while further events are counted', async ({ page, server }) => {
  await server.start('--interval', '20ms');
  await page.goto(server.url);
  await expect.poll(() => count(page)).toBeGreaterThan(20);
  await page.getByRole('button', { name: 'Pause' }).click();
  await expect(page.getByRole('button', { name: 'Pause' })).toHaveAttribute('aria-pressed', 'true');
  const paused = await sequences(page);
  await expect.poll(() => count(page)).toBeGreaterThan(paused.length + 20);
  expect(await sequences(page)).toEqual(paused);
  await page.getByRole('button', { name: 'Pause' }).click();
  await expect.poll(async () => (await sequences(page)).length).toBeGreaterThan(paused.length + 20);
  expectConsecutive(await sequences(page));
});

test('a topic that ends is shown and stops the page, also one that comes later', async ({ page, server }) => {
  await server.start('--interval', '1h');
  await page.goto(`${server.url}/?topic=build`);
  await expect(state(page)).toHaveText('Live');
  await publish(server, 'build', 'half of it');
  await publish(server, 'build', 'disk full', 'end=failed');
  for (const visit of ['first', 'later']) {
    if (visit === 'later') await page.reload();
    await expect(rows(page)).toHaveCount(1);
    await expect(page.locator('.rows .mark.gap')).toContainText('Topic failed: build: disk full');
    await expect(state(page)).toHaveText('Stopped. The stream has ended');
  }
});

test('a topic that has ended before is shown once, in order, while the others go on', async ({ page, server }) => {
  await server.start('--interval', '1h');
  await publish(server, 'f', 'first');
  await publish(server, 'f', '', 'end');
  await publish(server, 'live', 'second');
  for (const url of [`${server.url}/?topic=live,f`, `${server.url}/?topic=f,live`]) {
    await page.goto(url);
    await expect(state(page)).toHaveText('Live');
    await publish(server, 'live', 'third');
    await expect(rows(page).last().locator('.data')).toHaveText('third');
    const marks = page.locator('.rows .mark .about');
    await expect(marks).toHaveText(['Topic ended: f']);
    await expect(page.locator('.rows li').nth(1)).toContainText('Topic ended: f');
  }
  // The document has it, too.
  const html = await (await fetch(`${server.url}/?topic=live,f`)).text();
  expect(html.match(/Topic ended: f/g)).toHaveLength(1);
});

test('a topic that ended before earlier events is above them', async ({ page, server }) => {
  await server.start('--interval', '1h');
  await publish(server, 'f', 'first');
  await publish(server, 'f', '', 'end');
  await publish(server, 'live', Array.from({ length: 60 }, (_, n) => `${n}\n`).join(''), 'split=lines');
  await page.goto(`${server.url}/?topic=f,live`);
  await expect(state(page)).toHaveText('Live');
  const marks = page.locator('.rows .mark .about');
  await page.locator('.scroller').focus();
  await page.keyboard.press('Home');
  await expect.poll(() => count(page)).toBe(61);
  await page.keyboard.press('Home');
  await expect(marks).toHaveText(['Topic ended: f']);
  await expect(page.locator('.rows li .data').first()).toHaveText('first');
  await expect(page.locator('.rows li').nth(1)).toContainText('Topic ended: f');
  await expect(page.locator('.rows li .data').nth(2)).toHaveText('0');
});

test('a filter shows and counts the matching events, and is in the address', async ({ page, server }) => {
  await server.start('--interval', '1h');
  await page.goto(`${server.url}/?topic=%3E`);
  await expect(state(page)).toHaveText('Live');
  await publish(server, 'orders.eu', 'for Zürich', 'name=created');
  await publish(server, 'orders.us', 'for Zurich, Kansas', 'name=created');
  await publish(server, 'orders.eu', 'for Bern', 'name=paid');
  await expect(rows(page)).toHaveCount(3);

  const filter = page.getByRole('searchbox', { name: 'Filter' });
  for (const [text, found] of [
    ['zürich', ['for Zürich']],
    ['FOR name:created', ['for Zürich', 'for Zurich, Kansas']],
    ['topic:orders.eu', ['for Zürich', 'for Bern']],
    ['"zurich, k" topic:*.us', ['for Zurich, Kansas']],
    ['nothing of that kind', []],
  ] as const) {
    await filter.fill(text);
    await expect(rows(page).locator('.data')).toHaveText([...found]);
    const matching = found.length === 1 ? '1 matches' : `${found.length} match`;
    await expect(page.locator('.count')).toHaveText(`3 events, ${matching} the filter`);
  }
  await filter.fill('Zurich');
  await publish(server, 'orders.us', 'Zurich again');
  await expect(rows(page)).toHaveCount(2);
  expect(new URL(page.url()).searchParams.get('filter')).toBe('Zurich');
  await page.reload();
  await expect(filter).toHaveValue('Zurich');
  await expect(rows(page)).toHaveCount(2);

  await filter.fill('topic:a..b');
  await expect(page.getByRole('alert')).toHaveText('"a..b" is not a topic pattern');
  await filter.fill('');
  await expect(page.getByRole('alert')).toBeHidden();
  await expect(rows(page)).toHaveCount(4);
  expect(new URL(page.url()).searchParams.has('filter')).toBe(false);
});

test('the details of an event: all fields, formatted JSON, and copying', async ({ page, context, server }) => {
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  await server.start('--interval', '1h');
  await page.goto(`${server.url}/?topic=t`);
  await expect(state(page)).toHaveText('Live');
  await publish(server, 't', '{"a":[1,{"b":"ü"}]}', 'name=made');
  await publish(server, 't', 'no JSON');
  await rows(page).first().click();
  const dialog = page.getByRole('dialog', { name: 'Event' });
  await expect(dialog.locator('pre')).toHaveText('{\n  "a": [\n    1,\n    {\n      "b": "ü"\n    }\n  ]\n}');
  await expect(dialog).toContainText('made');
  await expect(dialog).toContainText('20 bytes');

  const clipboard = () => page.evaluate(() => navigator.clipboard.readText());
  await dialog.getByRole('button', { name: 'Copy data' }).click();
  await expect(dialog.getByText('Copied.')).toBeVisible();
  expect(await clipboard()).toBe('{"a":[1,{"b":"ü"}]}');
  await dialog.getByRole('button', { name: 'Copy event' }).click();
  const { events } = await (await fetch(`${server.url}/poll?topic=t&last_event_id=earliest`)).json();
  await expect.poll(async () => JSON.parse(await clipboard())).toEqual(events[0]);

  await dialog.getByRole('button', { name: 'Next' }).click();
  await expect(dialog.locator('pre')).toHaveText('no JSON');
  await dialog.getByRole('button', { name: 'Next' }).click();
  await expect(dialog.locator('pre')).toHaveText('no JSON');
  await dialog.getByRole('button', { name: 'Previous' }).click();
  await expect(dialog.locator('pre')).toContainText('"a"');
  await page.keyboard.press('Escape');
  await expect(page.locator('dialog')).toHaveCount(0);
});

test('data of terminals, and text that would reorder its surroundings, is readable, and copied as it is', async ({ page, context, server }) => {
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  await server.start('--interval', '1h');
  const tower = `Z${'\u0363\u0353'.repeat(100)}algo`;
  const [red, progress] = ['\x1b[1;31mred\x1b[0m, not more', '10%\r20%\r'];
  const all: [data: string, shown: string][] = [
    [red, 'red, not more'],
    [progress, '10%^M20%^M'],
    ['a\0b\x07c\x7f\x85', 'a^@b^Gc^?\ufffd'],
    ['\u202e1-deadbeef\u202d', '\ufffd1-deadbeef\ufffd'],
    ['\x1b[2J', '(empty)'],
    ['one\r\ntwo\u2028three', 'one two three'],
    ['שלום 5', 'שלום 5'],
    [tower, tower],
    ['x'.repeat(60_000), 'x'.repeat(512)],
  ];
  for (const [data] of all) await publish(server, 't', data, `name=${encodeURIComponent('\u202e\x1b[5mn')}`);
  // Before the program starts, and after.
  await page.route('**/*.wasm', () => {});
  await page.goto(`${server.url}/?topic=t`, { waitUntil: 'commit' });
  for (const isLive of [false, true]) {
    if (isLive) {
      await page.unroute('**/*.wasm');
      await page.goto(`${server.url}/?topic=t`);
      await expect(state(page)).toHaveText('Live');
    }
    await expect(rows(page).locator('.data')).toHaveText(all.map(([, shown]) => shown));
    await expect(rows(page).first().locator('.event-name')).toHaveText('\ufffdn');
    const places = await rows(page).evaluateAll((rows) =>
      rows.map((row) => [row, ...row.children].map((part) => {
        const { top, left, width, height } = part.getBoundingClientRect();
        return part.matches('li, .id') ? [left, width, height] : top > 0;
      })),
    );
    for (const place of places) expect(place).toEqual(places[0]);
    const directions = await rows(page).locator('.data').evaluateAll((all) => all.map((data) => getComputedStyle(data).direction));
    expect(directions).toEqual(all.map(([data]) => (data.startsWith('ש') ? 'rtl' : 'ltr')));
  }

  await rows(page).first().click();
  const dialog = page.getByRole('dialog', { name: 'Event' });
  await expect(dialog.locator('pre')).toHaveText('^[[1;31mred^[[0m, not more');
  await expect(dialog).toContainText('\ufffd^[[5mn');
  const clipboard = () => page.evaluate(() => navigator.clipboard.readText());
  await dialog.getByRole('button', { name: 'Copy data' }).click();
  await expect.poll(clipboard).toBe(red);
  await dialog.getByRole('button', { name: 'Next' }).click();
  await expect(dialog.locator('pre')).toHaveText('10%^M20%^M');
  await dialog.getByRole('button', { name: 'Copy event' }).click();
  await expect.poll(async () => JSON.parse(await clipboard()).data).toBe(progress);
});

test('Export saves the events that the list shows, one per line', async ({ page, server }) => {
  await server.start('--interval', '1h');
  await page.goto(`${server.url}/?topic=t`);
  await expect(state(page)).toHaveText('Live');
  for (const data of ['one', 'two\n"lines"\t\u2028 and \\ more', 'three']) await publish(server, 't', data);
  await expect(rows(page)).toHaveCount(3);
  const saved = async () => {
    const download = page.waitForEvent('download');
    await page.getByRole('button', { name: 'Export' }).click();
    const file = await download;
    expect(file.suggestedFilename()).toBe('waterclock.ndjson');
    return readFileSync(await file.path(), 'utf8').trimEnd().split('\n').map((line) => JSON.parse(line));
  };
  const { events } = await (await fetch(`${server.url}/poll?topic=t&last_event_id=earliest`)).json();
  expect(await saved()).toEqual(events);
  await page.getByRole('searchbox', { name: 'Filter' }).fill('t');
  await expect(rows(page)).toHaveCount(3); // The topic contains a `t`.
  await page.getByRole('searchbox', { name: 'Filter' }).fill('three');
  await expect(rows(page)).toHaveCount(1);
  expect(await saved()).toEqual([events[2]]);
});

test.describe('time formats', () => {
  test.use({ timezoneId: 'Asia/Kolkata' });

  test('apply to the list, and are remembered', async ({ page, server }) => {
    await server.start('--interval', '1h');
    await publish(server, 't', 'x');
    const { events } = await (await fetch(`${server.url}/poll?topic=t&last_event_id=earliest`)).json();
    const time = Date.parse(events[0].time);
    await page.goto(`${server.url}/?topic=t`);
    await expect(state(page)).toHaveText('Live');
    const shown = rows(page).locator('time');
    const ofDay = (time: number) => new Date(time).toISOString().slice(11, 23);
    await expect(shown).toHaveText(ofDay(time));
    const times = page.getByRole('combobox', { name: 'Time format' });
    await times.selectOption('Local time');
    await expect(shown).toHaveText(ofDay(time + 330 * 60_000));
    await times.selectOption('Unix time');
    await expect(shown).toHaveText((time / 1000).toFixed(3));
    await times.selectOption('Relative time');
    await expect(shown).toHaveText(/^\d s ago$/);
    expect(new URL(page.url()).searchParams.get('time')).toBe('ago');
    await page.locator('.scroller').focus();
    await page.keyboard.press('t');
    await expect(times).toHaveValue('utc');
    await expect(shown).toHaveText(ofDay(time));
    await times.selectOption('Relative time');
    await page.goto(`${server.url}/?topic=t`);
    await expect(shown).toHaveText(/^\d+ s ago$/);
    await expect(times).toHaveValue('ago');
    await page.goto(`${server.url}/?topic=t&time=epoch`);
    await expect(shown).toHaveText((time / 1000).toFixed(3));
  });
});

test('keys do the same as the tools, unless they are typed into a field or disabled', async ({ page, server }) => {
  await server.start('--interval', '50ms');
  await page.goto(server.url);
  await expect(state(page)).toHaveText('Live');
  await page.keyboard.press('s');
  await expect(state(page)).toHaveText('Stopped');
  await page.keyboard.press('s');
  await expect(state(page)).toHaveText('Live');
  await page.keyboard.press('p');
  await expect(newer(page)).toBeVisible();
  await page.keyboard.press('f');
  await expect(newer(page)).toBeHidden();
  await page.keyboard.press('t');
  await expect(page.getByRole('combobox', { name: 'Time format' })).toHaveValue('local');
  await page.keyboard.press('d');
  await expect(page.getByRole('dialog', { name: 'Event' })).toBeVisible();
  await page.keyboard.press('Escape');
  await expect(page.locator('dialog')).toHaveCount(0);
  await page.keyboard.press('/');
  await page.keyboard.type('stop');
  await expect(page.getByRole('searchbox', { name: 'Filter' })).toHaveValue('stop');
  await expect(state(page)).toHaveText('Live');
  await page.getByRole('searchbox', { name: 'Filter' }).fill('');
  await page.locator('.scroller').focus();

  await page.keyboard.press('?');
  const help = page.getByRole('dialog', { name: 'Help' });
  await help.getByLabel('Enable these keys').uncheck();
  await help.getByRole('button', { name: 'Close' }).click();
  await expect(help).toBeHidden();
  for (const key of ['s', 'p', 'd', '?']) await page.keyboard.press(key);
  await page.reload();
  await expect(state(page)).toHaveText('Live');
  const before = await count(page);
  for (const key of ['?', 's', 'p', 'd']) await page.keyboard.press(key);
  await expect.poll(() => count(page)).toBeGreaterThan(before + 5);
  await expect(page.locator('dialog')).toHaveCount(0);
  await expect(newer(page)).toBeHidden();
  await expect(state(page)).toHaveText('Live');
});

test('the gauges: events per second, and the lag by the server’s clock', async ({ page, server }) => {
  await server.start('--interval', '100ms');
  await page.goto(server.url);
  const gauges = page.locator('.gauges');
  await expect(gauges).toHaveText(/^\d+ events\/s · lag -?\d+ ms ± \d+ ms$/, { timeout: 10_000 * patience });
  await expect(page.getByRole('img', { name: /^Events per second in the last minute: \d+ now, \d+ at most$/ })).toBeVisible();
  await expect.poll(async () => Number((await gauges.textContent())!.split(' ')[0])).toBeGreaterThan(5);

  // If the server's clock were an hour ahead, a new event with our time would be an hour old.
  await page.route('**/time', async (route) => {
    const { time } = await (await route.fetch()).json();
    await route.fulfill({ json: { time: new Date(Date.parse(time) + 3_600_000).toISOString() } });
  });
  await page.reload();
  await expect(gauges).toHaveText(/lag 36\d{5} ms/, { timeout: 10_000 * patience });
});

test('the state is announced at most every ten seconds, and the list not at all', async ({ page, server }) => {
  await page.clock.install();
  await server.start('--interval', '100ms');
  await page.goto(server.url);
  const spoken = page.locator('.head').getByRole('status');
  await expect(spoken).toHaveText('Live');
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.getByRole('button', { name: 'Connect' }).click();
  await page.getByRole('button', { name: 'Stop' }).click();
  await expect(state(page)).toHaveText('Stopped');
  await expect(spoken).toHaveText('Live');
  await page.clock.runFor(5_000);
  await expect(spoken).toHaveText('Live');
  await page.clock.runFor(6_000);
  await expect(spoken).toHaveText('Stopped');
  expect(await page.locator('.list [aria-live], .list [role=log], .list [role=status]').count()).toBe(0);
});
