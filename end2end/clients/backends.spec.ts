// The examples of backends: express, go and spring.
import { randomBytes } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import { type Example, expect, prints, publish, test as base } from './examples.ts';

// Without a browser.
const test = base.extend({ noErrors: ({}, use) => use() });

const backends = [
  { name: 'express', needs: '`node`', isThere: () => true },
  { name: 'go', needs: '`go`', isThere: () => prints(/go version/, 'go', 'version') },
  { name: 'spring', needs: '`mvn` with Java 17', isThere: () => prints(/Java version: (1[7-9]|[2-9]\d)/, 'mvn', '-v') },
];

/** Publishes an order to the backend. */
const post = (example: Example, region: string, order: string) =>
  fetch(`${example.url}/orders/${region}`, { method: 'POST', body: order });

for (const { name, needs, isThere } of backends) {
  test(`the backend ${name} publishes, and reads each order once`, async ({ example, server }, info) => {
    if (!isThere()) console.log(`skipped: the example \`${name}\`, as ${needs} was not found`);
    test.skip(!isThere());
    // Maven fetches Spring the first time.
    test.setTimeout(180_000);
    const all = async () => {
      const orders = await (await fetch(`${example.url}/orders`)).json();
      return orders.map(({ data }: { data: string }) => data);
    };
    const reads = (...orders: string[]) => expect.poll(all, { timeout: 20_000 }).toEqual(orders);

    // It starts before Waterclock.
    await server.start();
    await publish(server, 'from before');
    await server.kill();
    await example.start(name, server);
    await example.answers('/orders', 150_000);
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
    expect(example.output).toContain('Events are missing');

    // A refusal ends it.
    const secret = info.outputPath('secret');
    writeFileSync(secret, randomBytes(32).toString('hex'));
    await server.kill();
    await server.start('--require-token', '--jwt-secret-file', secret);
    expect(await example.end()).not.toBe(0);
    expect(example.output).toContain('A token is required');
  });
}
