// Behind each proxy, configured as documented, all that the server offers works.
import { count, expect, state, streams, test as base } from '../tests/server.ts';
import { fixtures, kinds, type Proxy } from './proxies.ts';

const test = base.extend<{ front: Proxy }>(fixtures);

for (const kind of kinds) {
  test(`${kind}: page, WebSocket, resume, and whom the server takes the client for`, async ({ page, server, front }) => {
    await server.start('--interval', '100ms', '--public-topic', 'clock', '--trusted-proxy', '127.0.0.1');
    await front.start(kind, server.url);

    await page.goto(front.url);
    await expect(state(page)).toHaveText('Live');
    await expect.poll(() => count(page)).toBeGreaterThan(5);

    const messages = await page.evaluate(
      () =>
        new Promise<string[]>((done, fail) => {
          const socket = new WebSocket(`ws://${location.host}/ws`);
          const got: string[] = [];
          socket.onmessage = ({ data }) => got.push(Object.keys(JSON.parse(data))[0]) === 3 && done(got);
          socket.onerror = () => fail(new Error('no WebSocket'));
        }),
    );
    expect(messages).toEqual(['hello', 'event', 'event']);

    const ids = await read(`${front.url}/events?limit=4`);
    expect(await read(`${front.url}/events?limit=2`, ids[1])).toEqual(ids.slice(2));

    const { headers } = await fetch(`${front.url}/events?limit=1`);
    expect(headers.get('content-type')).toBe('text/event-stream');
    expect(headers.get('cache-control')).toBe('no-cache, no-transform');
    expect(headers.get('x-accel-buffering')).toBe(kind === 'nginx' ? null : 'no'); // nginx keeps it to itself

    // X-Forwarded-For tells it that this is not its own machine, though its Host would.
    const answer = await fetch(`${front.url}/events/test`, { method: 'POST', body: 'data' });
    expect(answer.status).toBe(403);

    await page.close();
    await expect.poll(() => streams(server)).toBe(0); // the proxy passes on that the client has left
  });
}

/** The ids of a stream's events, without the count behind them. */
async function read(url: string, cursor?: string): Promise<string[]> {
  const headers: HeadersInit = cursor ? { 'Last-Event-ID': cursor } : {};
  const text = await (await fetch(url, { headers })).text();
  return [...text.matchAll(/^id: (\S+?)\.\d+\ndata/gm)].map(([, id]) => id);
}
