// The pages with a node of a cluster: its name, and a notice while the node is away from its
// cluster or behind it.
import type { Page } from '@playwright/test';
import { patience } from '../playwright.config.ts';
import { test as withNats, whyNoNats } from './nats.ts';
import { answerHealth, notice, servedBy } from './nodes.ts';
import { count, expect, networkErrors, type Server, state, test } from './server.ts';

const name = (page: Page) => page.locator('.node');

const away =
  'node-1 cannot reach its cluster: it shows the events that it has, and publishing fails until the cluster is back';

/** Longer than the interval between two looks at a node. */
const aLook = 11_000;

/** Returns the state that the server tells of itself. */
const health = async (server: Server) => (await fetch(`${server.url}/health/state`)).json();

test.describe('a node', () => {
  test.use({ allowedErrors: networkErrors });

  test('its problems come and go with its answers, and another node says nothing of it', async ({ page, server }) => {
    await page.clock.install();
    await server.start();
    await servedBy(page, 'node-1');
    const ready = { ready: true, publish: true, node: 'node-1', lag: 99, away: false };
    let answer: object | undefined = ready;
    const asked = await answerHealth(page, () => answer);
    /** Waits for the next look at the node. */
    const looks = async () => {
      const before = asked.times;
      await page.clock.runFor(aLook);
      await expect.poll(() => asked.times).toBeGreaterThan(before);
    };
    for (const path of ['/', '/topics']) {
      answer = ready;
      const before = asked.times;
      await page.goto(server.url + path);
      await expect(name(page)).toHaveText(' · node-1');
      await expect.poll(() => asked.times).toBe(before + 1);
      await expect(notice(page)).toHaveText('');

      answer = { ...ready, lag: 1200 };
      await looks();
      await expect(notice(page)).toHaveText('node-1 is behind its cluster by 1,200 changes');
      await expect(notice(page).getByRole('status')).toHaveText('node-1 is behind its cluster');
      for (const other of [{ ...ready, node: 'node-2', publish_error: 'no' }, undefined]) {
        answer = other;
        await looks();
        await expect(notice(page)).toHaveText('node-1 is behind its cluster by 1,200 changes');
      }
      // No answer of the node has confirmed it for long.
      await page.clock.runFor(30_000);
      await expect(notice(page)).toHaveText('');

      answer = { ...ready, publish: false, publish_error: 'the disk is full' };
      await looks();
      await expect(notice(page)).toHaveText('node-1 cannot publish: the disk is full, and is 99 changes behind its cluster');
      answer = ready;
      await looks();
      await expect(notice(page)).toHaveText('');
    }
  });

  test('a hidden page does not ask, and one whose stream is lost shows nothing of its node', async ({ page, server }) => {
    await page.clock.install();
    await server.start();
    await servedBy(page, 'node-1');
    const asked = await answerHealth(page, () => ({ node: 'node-1', lag: 0, away: true, publish_error: 'it is away' }));
    await page.goto(server.url);
    await expect(notice(page)).toHaveText(away);
    const show = (isShown: boolean) =>
      page.evaluate((isShown) => {
        Object.defineProperty(document, 'hidden', { configurable: true, value: !isShown });
      }, isShown);
    await show(false);
    const before = asked.times;
    await page.clock.runFor(60_000);
    // A question of the page would have been sent before this request.
    await page.evaluate(async () => {
      await fetch('/health/state');
    });
    expect(asked.times).toBe(before + 1);
    await show(true);
    await page.clock.runFor(aLook);
    await expect.poll(() => asked.times).toBeGreaterThan(before + 1);
    await server.kill();
    await expect(state(page)).toHaveText('Connection lost, reconnecting');
    await expect(name(page)).toHaveText('');
    await expect(notice(page)).toHaveText('');
  });

  test('all tabs that share the stream of a node name it', async ({ page, context, server }) => {
    await server.start();
    await servedBy(page, 'node-1');
    await page.goto(server.url);
    await expect(name(page)).toHaveText(' · node-1');
    // Its own `hello`, if it had a stream, would name no node.
    const other = await context.newPage();
    await other.goto(server.url);
    await expect(name(other)).toHaveText(' · node-1');
    await expect(other.locator('.sharing')).toHaveText('2 tabs, 1 connection');
  });
});

test('a server by itself has no name, and is not asked', async ({ page, server }) => {
  await page.clock.install();
  await server.start();
  const asked = await answerHealth(page, () => ({ publish_error: 'no' }));
  for (const path of ['/', '/topics']) {
    await page.goto(server.url + path);
    await expect(state(page)).toHaveText('Live');
    await page.clock.runFor(60_000);
    await expect(state(page)).toHaveText('Live');
    await expect(name(page)).toHaveText('');
    await expect(notice(page)).toHaveText('');
  }
  expect(asked.times).toBe(0);
});

withNats.describe('a node on NATS', () => {
  withNats.skip(whyNoNats !== undefined, whyNoNats);
  withNats.use({ allowedErrors: networkErrors });

  withNats('the pages say that NATS is away, and that it is back', async ({ page, context, server, nats }, info) => {
    withNats.setTimeout(60_000 * patience);
    server.data = info.outputPath('data');
    await nats.start();
    await server.start('--interval', '100ms', ...nats.node('node-1'), '--cluster-timeout', '1s');
    await expect.poll(async () => (await health(server)).publish).toBe(true);
    const topics = await context.newPage();
    await topics.clock.install();
    await topics.goto(`${server.url}/topics`);
    await expect(name(topics)).toHaveText(' · node-1');
    await page.clock.install();
    await page.goto(server.url);
    await expect(name(page)).toHaveText(' · node-1');
    await expect.poll(() => count(page)).toBeGreaterThan(2);
    for (const one of [page, topics]) await expect(notice(one)).toHaveText('');

    await nats.kill();
    await expect.poll(async () => (await health(server)).away).toBe(true);
    for (const one of [page, topics]) {
      await one.clock.runFor(aLook);
      await expect(notice(one)).toHaveText(away);
      await expect(state(one)).toHaveText('Live');
    }
    const form = page.getByRole('dialog', { name: 'Publish an event' });
    await page.getByRole('button', { name: 'Publish' }).click();
    await form.getByLabel('Topic').fill('orders');
    await form.getByRole('button', { name: 'Publish' }).click();
    await expect(form.getByRole('status')).toHaveText(
      /^(The server cannot reach its cluster. The event was not stored.|It is unknown if .* has not answered.) Try again in \d+ s\.$/,
    );

    await nats.start();
    await expect.poll(async () => (await health(server)).publish, { timeout: 15_000 * patience }).toBe(true);
    for (const one of [page, topics]) {
      await one.clock.runFor(aLook);
      await expect(notice(one)).toHaveText('');
    }
    await form.getByRole('button', { name: 'Publish' }).click();
    await expect(form.getByRole('status')).toHaveText('Published.');
    const before = await count(page);
    await expect.poll(() => count(page)).toBeGreaterThan(before + 2);
  });
});
