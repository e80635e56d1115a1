// Behind each proxy with its documented configuration, everything must work: the page, WebSocket,
// resuming, and the address of the client.
import type { Page } from '@playwright/test';
import { count, expect, state, streams, test as base } from '../tests/server.ts';
import { cases, title } from './cases.ts';
import { fixtures, type Proxy } from './proxies.ts';

const test = base.extend<{ front: Proxy }>(fixtures);

test.use({ ignoreHTTPSErrors: true });

for (const one of cases.filter(({ setting, upstream }) => setting === 'as documented' || upstream)) {
  const { proxy, tls } = one;
  test(title(one), async ({ page, server, front }) => {
    await server.start('--interval', '100ms', '--public-topic', 'clock', '--trusted-proxy', '127.0.0.1');
    await front.start(proxy, server.url, one);

    await page.goto(front.url);
    await expect(state(page)).toHaveText('Live');
    await expect(page.locator('.protocol')).toHaveText(tls ?? 'HTTP/1.1');
    await expect.poll(() => count(page)).toBeGreaterThan(5);

    const messages = await page.evaluate(
      () =>
        new Promise<string[]>((done, fail) => {
          const socket = new WebSocket('/ws');
          const got: string[] = [];
          socket.onmessage = ({ data }) => got.push(Object.keys(JSON.parse(data))[0]) === 3 && done(got);
          socket.onerror = () => fail(new Error('no WebSocket'));
        }),
    );
    expect(messages).toEqual(['hello', 'event', 'event']);

    const ids = await read(page, '/events?limit=4');
    expect(await read(page, '/events?limit=2', ids[1])).toEqual(ids.slice(2));

    const headers = (await page.request.get(`${front.url}/events?limit=1`)).headers();
    expect(headers['content-type']).toBe('text/event-stream');
    expect(headers['cache-control']).toBe('no-cache, no-transform');
    // nginx removes the header.
    expect(headers['x-accel-buffering']).toBe(proxy === 'nginx' ? undefined : 'no');

    // X-Forwarded-For has the address of another machine, although Host is that of this one.
    const answer = await page.request.post(`${front.url}/events/test`, { data: 'data' });
    expect(answer.status()).toBe(403);

    await page.close();
    // The proxy closes its connection after the client has.
    await expect.poll(() => streams(server)).toBe(0);
  });
}

/** Returns the ids of a stream's events, without the count at their end. */
async function read(page: Page, path: string, cursor?: string): Promise<string[]> {
  const text = await page.evaluate(
    async ([path, cursor]) => (await fetch(path, { headers: cursor ? { 'Last-Event-ID': cursor } : {} })).text(),
    [path, cursor] as const,
  );
  return [...text.matchAll(/^id: (\S+?)\.\d+\ndata/gm)].map(([, id]) => id);
}
