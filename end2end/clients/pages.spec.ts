// The examples with a page: html, react and next. The last two build the client first, so they take
// turns.
import { randomBytes } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import { patience } from '../playwright.config.ts';
import { networkErrors, streams } from '../tests/server.ts';
import { expect, publish, test } from './examples.ts';

test.describe.configure({ mode: 'default', timeout: 240_000 * patience });
test.use({ allowedErrors: networkErrors });

const pages = [
  { name: 'html', start: 'CONNECT', stop: 'DISCONNECT' },
  { name: 'react', start: 'Start', stop: 'Stop', options: (port: number) => `-- --port ${port} --strictPort` },
  { name: 'next', start: 'Start', stop: 'Stop', options: (port: number) => `-- --port ${port}` },
];

for (const { name, start, stop, options } of pages) {
  test(`the page ${name} lists, publishes, stops, and resumes after kill -9`, async ({ example, page, server }, info) => {
    const button = (name: string) => page.getByRole('button', { name, exact: true });
    /** Expects exactly these orders, the newest first. */
    const lists = (...orders: string[]) =>
      expect(page.locator('li')).toHaveText(orders.reverse().map((order) => new RegExp(`${order}$`)));
    const publishes = async (order: string) => {
      await page.getByLabel('Order').fill(order);
      await page.getByRole('button', { name: 'Publish' }).click();
    };
    const state = page.getByRole('status');

    await server.start('--retry', '200ms', '--public-topic', 'orders.>');
    await publish(server, 'from before');
    await example.start(name, server, options);
    await example.answers('/', 90_000);
    await page.goto(example.url);
    if (name === 'html') await button(start).click();
    await lists('from before');
    await publishes('from the page');
    await lists('from before', 'from the page');
    await publish(server, 'from elsewhere');
    await lists('from before', 'from the page', 'from elsewhere');

    await button(stop).click();
    await expect.poll(() => streams(server)).toBe(0);
    await publish(server, 'while stopped');
    await lists('from before', 'from the page', 'from elsewhere');
    await button(start).click();
    await lists('from before', 'from the page', 'from elsewhere', 'while stopped');

    await server.kill();
    await expect(state).toHaveText('Waterclock does not answer. Trying again …');
    await publishes('lost');
    await expect(page.getByRole('alert').first()).toContainText('not published');
    await server.start('--retry', '200ms', '--public-topic', 'orders.>');
    await publish(server, 'after the kill');
    await lists('from before', 'from the page', 'from elsewhere', 'while stopped', 'after the kill');

    // A log without the events before.
    await server.kill();
    rmSync(server.data!, { recursive: true });
    await server.start('--retry', '200ms', '--public-topic', 'orders.>');
    await publish(server, 'in a new log');
    await expect(page.getByText('Some orders are missing.')).toBeVisible();
    await expect(page.getByText('in a new log')).toBeVisible();

    const secret = info.outputPath('secret');
    writeFileSync(secret, randomBytes(32).toString('hex'));
    await server.kill();
    await server.start('--require-token', '--jwt-secret-file', secret);
    await expect(state).toHaveText(/^Waterclock refuses this: A token is required/);
  });
}
