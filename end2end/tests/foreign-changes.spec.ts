// Changes that proxies, translators and extensions make to the document, before the page starts
// and while it runs. The page must work on, or say that it does not.
import type { Page } from '@playwright/test';
import { patience } from '../playwright.config.ts';
import { count, expect, expectConsecutive, sequences, state, streams, test } from './server.ts';

const fast = ['--interval', '100ms'];

/** Changes of the document, each by a function that runs in the browser. */
const changes: Record<string, () => void> = {
  'an element first in the body': () => document.body.prepend(document.createElement('div')),
  'elements and texts between all others': () => {
    for (const element of document.body.querySelectorAll(':not(script)')) element.before('foreign', document.createElement('i'));
  },
  'attributes on all elements': () => {
    for (const element of document.querySelectorAll<HTMLElement>('*')) {
      element.setAttribute('data-foreign', '');
      element.style.setProperty('--foreign', '1');
      element.classList.add('foreign');
    }
  },
  // As translators do: the page's own text nodes are gone. This one ignores `translate="no"`.
  'all texts in elements of their own': () => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const all: Text[] = [];
    while (texts.nextNode()) if (!texts.currentNode.parentElement!.closest('script')) all.push(texts.currentNode as Text);
    for (const text of all) {
      const font = document.createElement('font');
      font.textContent = text.data;
      text.replaceWith(font);
    }
  },
  'texts and comments removed': () => {
    const nodes = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_COMMENT);
    const all: ChildNode[] = [];
    while (nodes.nextNode()) if (!nodes.currentNode.parentElement!.closest('script')) all.push(nodes.currentNode as ChildNode);
    for (const node of all) node.remove();
  },
  'lines of the list removed, and others added': () => {
    const list = document.querySelector('.rows')!;
    list.firstElementChild?.remove();
    list.prepend(document.createElement('li'));
    list.append(document.createElement('div'));
  },
};

/** Expects that the page is live, that Stop and Connect work, and that state and title agree. */
async function works(page: Page) {
  await expect(state(page)).toHaveText('Live', { timeout: 15_000 * patience });
  await expect(page).toHaveTitle('● Live · Waterclock');
  await expect(page.locator('#not-running')).toBeHidden();
  const before = await count(page);
  await expect.poll(() => count(page), { timeout: 15_000 * patience }).toBeGreaterThan(before + 3);
  await page.locator('.head button').click();
  await expect(state(page)).toHaveText('Stopped');
  await expect(page).toHaveTitle('■ Stopped · Waterclock');
  const shown = await page.locator('.rows .event .id').allTextContents();
  await page.getByRole('button', { name: 'Connect' }).click();
  await expect(state(page)).toHaveText('Live');
  await expect(page.getByRole('button', { name: 'Stop' })).toBeEnabled();
  await expect.poll(async () => (await page.locator('.rows .event .id').allTextContents()).at(-1)).not.toBe(shown.at(-1));
  expectConsecutive(await sequences(page));
}

for (const [name, change] of Object.entries(changes)) {
  test(`before the page starts: ${name}`, async ({ page, server }) => {
    await server.start(...fast);
    await expect.poll(() => server.newest()).toBeGreaterThan(3);
    // The document is interactive when it is complete, and before its modules run.
    await page.addInitScript(`document.addEventListener('readystatechange', () => {
      if (document.readyState === 'interactive') (${change})();
    })`);
    await page.goto(server.url);
    await works(page);
  });
}

for (const [name, change] of Object.entries(changes)) {
  if (name === 'texts and comments removed') continue; // Nothing would be left to update.
  test(`while the page runs: ${name}`, async ({ page, server }) => {
    await server.start(...fast);
    await page.goto(server.url);
    await expect.poll(() => count(page)).toBeGreaterThan(3);
    await page.evaluate(change);
    await works(page);
  });
}

test('/diagnose under a translator', async ({ page, server }) => {
  test.setTimeout(60_000 * patience);
  const translate = changes['all texts in elements of their own'];
  await server.start('--heartbeat', '2s');
  await page.goto(`${server.url}/diagnose`);
  const start = page.getByRole('button', { name: 'Start' });
  await expect(start).toBeEnabled();
  const row = page.locator('[data-check="streams-at-once"]');
  const question = await row.locator('.measured').textContent();
  for (const _ of ['first', 'second']) {
    await page.evaluate(translate);
    await start.click();
    await expect(row.locator('.measured')).toHaveText(question!);
    await expect(row.locator('.remedies')).toBeEmpty();
    await expect(row.locator('.measured')).toHaveText(/^6 of 30 opened/, { timeout: 20_000 * patience });
    await expect(row.locator('h3')).toHaveText(/^The browser opens only six connections/);
    await expect(row.locator('.remedies')).toContainText('Serve HTTP/2 to browsers');
    await expect(page.locator('.path')).toHaveText(/^Path: no proxy detected/);
    await expect(page.getByRole('status').first()).toHaveText(/^\d+ of 13 checks done$/);
    await page.getByRole('button', { name: 'Stop' }).click();
    await expect(page.getByText('Stopped before all checks were done.')).toBeVisible();
  }
});

test('/compare under a translator', async ({ page, server }) => {
  await server.start();
  await page.goto(`${server.url}/compare?rate=50&every=250`);
  await expect(page.getByRole('button', { name: 'Start' })).toBeEnabled();
  await page.evaluate(changes['all texts in elements of their own']);
  await page.getByRole('button', { name: 'Start' }).click();
  await expect(page.getByText('Running for')).toBeVisible();
  const events = page.getByRole('row', { name: 'Events' }).locator('td').first();
  await expect.poll(async () => Number((await events.textContent())!.replace(',', '')), { timeout: 20_000 * patience }).toBeGreaterThan(20);
  await page.evaluate(changes['all texts in elements of their own']);
  await page.getByRole('button', { name: 'Stop' }).click();
  await expect(page.getByText('Stopped, and checked against the log', { exact: true })).toBeVisible();
  await expect(page.getByRole('button', { name: 'Start' })).toBeEnabled();
});

test('no text is doubled while the page is built', async ({ page, server }) => {
  await server.start('--interval', '1h');
  await page.addInitScript(() => {
    const { replaceWith } = Element.prototype;
    Element.prototype.replaceWith = function (this: Element, ...nodes: Element[]) {
      const texts = (of: Element) => [...of.querySelectorAll('button, p, .state')].map((one) => one.textContent);
      Object.assign(window, { built: [texts(this), texts(nodes[0])] });
      replaceWith.apply(this, nodes);
    };
  });
  for (const path of ['/', '/topics', '/compare', '/diagnose']) {
    await page.goto(server.url + path);
    await expect.poll(() => page.evaluate(() => 'built' in window)).toBe(true);
    const [served, built] = await page.evaluate(() => (window as any).built);
    expect(built.length).toBeGreaterThan(3);
    // The server leaves some of them empty, and writes a space for an empty text.
    const words = (text: string) => text.replaceAll(/\s+/g, ' ').trim();
    expect(built.map(words)).toEqual(served.map((text: string, i: number) => words(text) || words(built[i])));
  }
});

test('a link in the place of an address', async ({ page, server }) => {
  await server.start('--interval', '1h');
  await fetch(`${server.url}/events/t`, { method: 'POST', body: 'to someone@example.com' });
  await page.route(`${server.url}/?topic=t`, async (route) => {
    const response = await route.fetch();
    expect(response.headers()['cache-control']).toContain('no-transform');
    const link = '<a href="/cdn-cgi/l/email-protection" class="__cf_email__" data-cfemail="00">[email&#160;protected]</a>';
    const [before, after] = (await response.text()).split('>to someone@example.com<');
    await route.fulfill({ response, body: `${before}>to ${link}<${after}` });
  });
  await page.goto(`${server.url}/?topic=t`);
  await expect(state(page)).toHaveText('Live');
  await expect(page.locator('.rows .event .data')).toHaveText(['to someone@example.com']);
});

test('what a reader has typed before the page starts is kept', async ({ page, server }) => {
  await server.start('--interval', '1h');
  let start = () => {};
  const started = new Promise<void>((done) => (start = done));
  await page.route('**/*.wasm', (route) => started.then(() => route.continue()));
  await page.goto(server.url, { waitUntil: 'commit' });
  const field = page.getByRole('textbox', { name: 'Topics' });
  await field.fill('orders.*');
  start();
  await expect(state(page)).toHaveText('Live');
  await expect(field).toHaveValue('orders.*');
  await expect(field).toBeFocused();
});

test.describe('a program that has failed', () => {
  test.use({ allowedErrors: /no elements|unreachable|closure invoked|is not a function/ });

  const notice = (page: Page) => page.getByRole('alert').filter({ hasText: 'This page is not running.' });
  const sharing = (page: Page) => page.locator('.sharing');
  const fail = (page: Page) =>
    page.evaluate(() => {
      document.createElement = () => {
        throw new Error('no elements');
      };
    });

  test('says so, and claims nothing', async ({ page, server }, info) => {
    await server.start(...fast);
    await page.goto(server.url);
    await expect.poll(() => count(page)).toBeGreaterThan(3);
    await page.keyboard.press('?');
    await expect(page.getByRole('dialog')).toBeVisible();
    await fail(page);
    await expect(notice(page)).toContainText('Its program has failed, which is a bug: panicked at ');
    await expect(page.getByRole('dialog')).toHaveCount(0);
    await expect(page.locator('.status')).toHaveText('Not connected');
    await expect(page).toHaveTitle('✕ Not running · Waterclock');
    for (const name of ['.head button', '.tools button']) await expect(page.locator(name).first()).toBeDisabled();
    // The list can still be read.
    expect(await page.locator('.rows .event').count()).toBeGreaterThan(3);
    await page.screenshot({ path: info.outputPath('failed.png') });
    await expect.poll(() => streams(server)).toBe(0);
    // Neither further events nor a stop of the server bring the title back.
    const newest = await server.newest();
    await expect.poll(() => server.newest()).toBeGreaterThan(newest + 5);
    await expect(page).toHaveTitle('✕ Not running · Waterclock');
    await expect(page.locator('.status')).toHaveText('Not connected');
    await notice(page).getByRole('link', { name: 'Reload the page' }).click();
    await works(page);
  });

  test('leaves the stream to the other tabs, for good', async ({ page, context, server }) => {
    await page.clock.install();
    await server.start(...fast);
    await page.goto(server.url);
    await expect(sharing(page)).toHaveText('1 tab, 1 connection');
    const other = await context.newPage();
    await other.goto(server.url);
    await expect(sharing(other)).toHaveText('2 tabs, 1 connection');
    await fail(page);
    await expect(notice(page)).toBeVisible();
    await expect(sharing(other)).toHaveText('1 tab, 1 connection');
    // Longer than every backoff.
    await page.clock.runFor(120_000);
    const before = await count(other);
    await expect.poll(() => count(other)).toBeGreaterThan(before + 20);
    await expect(sharing(other)).toHaveText('1 tab, 1 connection');
    await expect.poll(() => streams(server)).toBe(1);
    expectConsecutive(await sequences(other));
    await other.close();
    await expect.poll(() => streams(server)).toBe(0);
    await page.clock.runFor(120_000);
    const newest = await server.newest();
    await expect.poll(() => server.newest()).toBeGreaterThan(newest + 10);
    await expect.poll(() => streams(server)).toBe(0);
  });

  test('ends a comparison', async ({ page, server }) => {
    await page.clock.install();
    await server.start();
    await page.goto(`${server.url}/compare?rate=20&every=250`);
    await page.getByRole('button', { name: 'Start' }).click();
    await expect(page.getByText('Running for')).toBeVisible();
    await expect.poll(() => streams(server)).toBeGreaterThan(1);
    await page.evaluate(() => (performance.now = undefined as any));
    await expect(notice(page)).toBeVisible();
    await expect.poll(() => streams(server)).toBe(0);
    // The notice loads a script and the document, to see if the server has other files.
    const requests: string[] = [];
    page.on('request', (request) => requests.push(new URL(request.url()).pathname));
    await page.clock.runFor(120_000);
    await expect.poll(() => streams(server)).toBe(0);
    expect(requests.filter((path) => path !== '/plain.js' && path !== '/compare')).toEqual([]);
  });

  test('by an exception says so, too, unlike the script of an extension', async ({ page, server }) => {
    await server.start(...fast);
    await page.goto(server.url);
    await expect.poll(() => count(page)).toBeGreaterThan(3);
    await page.evaluate(() => {
      const [filename, error] = ['https://extension.example/pkg/script.js', new Error('foreign')];
      dispatchEvent(new ErrorEvent('error', { filename, error }));
    });
    await expect(notice(page)).toBeHidden();
    await works(page);
    // Without a panic of the program.
    await page.evaluate(() => (performance.now = undefined as any));
    await expect(notice(page)).toContainText('Its program has failed, which is a bug: TypeError: ');
    await expect(page).toHaveTitle('✕ Not running · Waterclock');
    await expect.poll(() => streams(server)).toBe(0);
  });
});
