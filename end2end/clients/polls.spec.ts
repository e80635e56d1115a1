// Two tabs of Chromium that long-poll the same URL. Its cache lets one request for a URL through at
// a time, so docs/clients.md recommends `cache: 'no-store'`.
import { expect } from '@playwright/test';
import { elsewhere } from './reader.ts';
import { requests, test } from './setup.ts';

for (const cache of ['default', 'no-store'] as const) {
  const name = cache === 'default' ? 'the second of two polls waits for the first' : 'no-store lets both polls through';
  test(name, async ({ browser, server }) => {
    const pages = await elsewhere();
    await server.start('--public-topic', '>', '--cors-origin', pages.origin);
    const context = await browser.newContext();
    const meter = 'two-tabs-of-chromium';
    const url = `${server.url}/poll?topic=orders.*&wait=25&meter=${meter}`;
    const publish = (body: string) => fetch(`${server.url}/events/orders.eu`, { method: 'POST', body });
    const count = () => requests(server, meter);
    const poll = async () => {
      const page = await context.newPage();
      await page.goto(pages.origin);
      const sent = page.waitForRequest(url);
      const data = page.evaluate(
        async ([url, cache]) => {
          const { events } = await (await fetch(url, { cache: cache as RequestCache })).json();
          return events.map(({ data }: { data: string }) => data);
        },
        [url, cache],
      );
      await sent;
      return { page, data };
    };

    const first = await poll();
    await expect.poll(count).toBe(1);
    const second = await poll();
    if (cache === 'no-store') await expect.poll(count).toBe(2);
    // A later request has come back, so that the poll would have arrived too.
    await second.page.evaluate((url) => fetch(url), `${server.url}/poll?topic=orders.*`);
    await publish('one');
    expect(await first.data).toEqual(['one']);
    if (cache === 'default') {
      // Its request began only now.
      await expect.poll(count).toBe(2);
      await publish('two');
    }
    expect(await second.data).toEqual([cache === 'default' ? 'two' : 'one']);
    await context.close();
    pages.close();
  });
}
