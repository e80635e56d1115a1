// Changes that proxies, translators and extensions make to the document, before the page starts
// and while it runs. The page must work on, or say that it does not.
import type { Page } from '@playwright/test';
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
  // As translators do. This one ignores `translate="no"`.
  'all texts in elements of their own': () => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const all: Text[] = [];
    while (texts.nextNode()) if (!texts.currentNode.parentElement!.closest('script')) all.push(texts.currentNode as Text);
    for (const text of all) {
      const font = document.createElement('font');
      text.replaceWith(font);
      font.append(text);
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
  await expect(state(page)).toHaveText('Live', { timeout: 15_000 });
  await expect(page).toHaveTitle('● Live · Waterclock');
  await expect(page.locator('#not-running')).toBeHidden();
  const before = await count(page);
  await expect.poll(() => count(page), { timeout: 15_000 }).toBeGreaterThan(before + 3);
  await page.locator('header button').click();
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
  test.use({ allowedErrors: /no elements|unreachable|closure invoked/ });

  test('says so, and claims nothing', async ({ page, server }, info) => {
    await server.start(...fast);
    await page.goto(server.url);
    await expect.poll(() => count(page)).toBeGreaterThan(3);
    await page.keyboard.press('?');
    await expect(page.getByRole('dialog')).toBeVisible();
    await page.evaluate(() => {
      document.createElement = () => {
        throw new Error('no elements');
      };
    });
    const notice = page.getByRole('alert').filter({ hasText: 'This page is not running.' });
    await expect(notice).toContainText('Its program has failed, which is a bug: panicked at ');
    await expect(page.getByRole('dialog')).toHaveCount(0);
    await expect(page.locator('.status')).toHaveText('Not connected');
    await expect(page).toHaveTitle('✕ Not running · Waterclock');
    for (const name of ['Stop', 'Pause', 'Export']) await expect(page.getByRole('button', { name })).toBeDisabled();
    // The list can still be read.
    expect(await page.locator('.rows .event').count()).toBeGreaterThan(3);
    await page.screenshot({ path: info.outputPath('failed.png') });
    await expect.poll(() => streams(server)).toBe(0);
    // Neither further events nor a stop of the server bring the title back.
    const newest = await server.newest();
    await expect.poll(() => server.newest()).toBeGreaterThan(newest + 5);
    await expect(page).toHaveTitle('✕ Not running · Waterclock');
    await expect(page.locator('.status')).toHaveText('Not connected');
    await notice.getByRole('link', { name: 'Reload the page' }).click();
    await works(page);
  });
});
