// The examples of backends: express, go and spring.
import { randomBytes } from 'node:crypto';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { patience } from '../playwright.config.ts';
import { type Example, expect, output, publish, test as base } from './examples.ts';

// Without a browser.
const test = base.extend({ noErrors: ({}, use) => use() });

type Backend = {
  name: string;
  /** Returns the reason why it cannot run here, if there is one. */
  missing?: () => string | undefined;
  /** Option of its command. */
  option?: string;
};

const backends: Backend[] = [
  { name: 'express' },
  { name: 'go', missing: missingInGo },
  // No test fetches packages: a network may be slow, or none.
  { name: 'spring', missing: missingInSpring, option: '--offline' },
];

function missingInGo() {
  return /go1\.(2[2-9]|[3-9]\d)/.test(output('go', 'version')) ? undefined : 'Go 1.22 or newer was not found';
}

function missingInSpring() {
  const [, java, home] = /^Java version: (\d+).* runtime: (.*)$/m.exec(output('mvn', '--version')) ?? [];
  const isThere = Number(java) >= 17 && existsSync(`${home}/bin/javac`);
  return isThere ? undefined : 'Maven with a JDK, 17 or newer, was not found';
}

/** Publishes an order to the backend. */
const post = (example: Example, region: string, order: string, headers?: Record<string, string>) =>
  fetch(`${example.url}/orders/${region}`, { method: 'POST', body: order, headers });

for (const { name, missing, option } of backends) {
  test(`the backend ${name} publishes, and reads each order once`, async ({ example, server }, info) => {
    // Maven and npm are slow.
    test.setTimeout(300_000 * patience);
    const skip = (reason: string) => {
      console.log(`skipped: the example \`${name}\`, as ${reason}`);
      test.skip(true, reason);
    };
    const reason = missing?.();
    if (reason) skip(reason);
    const all = async () => {
      const orders = await (await fetch(`${example.url}/orders`)).json();
      return orders.map(({ data }: { data: string }) => data);
    };
    const reads = (...orders: string[]) => expect.poll(all).toEqual(orders);

    // It starts before Waterclock.
    await server.start();
    await publish(server, 'from before');
    await server.kill();
    await example.start(name, server, () => option ?? '');
    await example.answers('/orders', 180_000).catch((error) => {
      if (!example.output.includes('in offline mode')) throw error;
      skip('`scripts/setup.sh test` could not fetch its packages');
    });
    await expect.poll(() => example.output).toContain(`Waterclock does not answer at ${server.url}`);
    const refused = await post(example, 'eu', 'lost');
    expect(refused.status).toBe(503);
    expect(await refused.text()).toContain('Waterclock does not answer');

    // Heartbeats and ends are no orders.
    await server.start('--heartbeat', '100ms');
    await reads('from before');
    const published = await post(example, 'us', 'from the backend');
    expect(published.status).toBe(201);
    expect(await published.json()).toMatchObject({ topic: 'orders.us', data: 'from the backend' });
    const end = await fetch(`${server.url}/events/orders.us?end`, { method: 'POST' });
    expect(end.ok).toBe(true);
    await publish(server, 'from elsewhere');
    await reads('from before', 'from the backend', 'from elsewhere');
    const foreign = await post(example, 'eu', 'of another site', { Origin: 'http://elsewhere.test' });
    expect(foreign.status).toBe(403);
    const own = await post(example, 'e%3E', 'x', { Origin: example.url });
    expect(own.status).toBe(400);
    const invalid = await post(example, 'e%3E', 'x');
    expect(invalid.status).toBe(400);
    expect((await invalid.json()).detail).toContain('is not a topic');

    await server.kill();
    await server.start('--heartbeat', '100ms');
    await publish(server, 'after the kill');
    await reads('from before', 'from the backend', 'from elsewhere', 'after the kill');

    // A log without the events before.
    await server.kill();
    rmSync(server.data!, { recursive: true });
    await server.start('--heartbeat', '100ms');
    await publish(server, 'in a new log');
    await reads('from before', 'from the backend', 'from elsewhere', 'after the kill', 'in a new log');
    await expect.poll(() => example.output).toContain('Events are missing');

    // A refusal ends it.
    const secret = info.outputPath('secret');
    writeFileSync(secret, randomBytes(32).toString('hex'));
    await server.kill();
    await server.start('--require-token', '--jwt-secret-file', secret);
    expect(await example.end()).not.toBe(0);
    await expect.poll(() => example.output).toContain('A token is required');
  });
}
