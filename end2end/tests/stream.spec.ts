// The browser's own `EventSource`, without the page's rules.
import { patience } from '../playwright.config.ts';
import { expect, networkErrors, test } from './server.ts';

type Seen = { data: string[]; ends: string[]; gaps: number; state: number };

test.describe('a stream with a limit', () => {
  test.use({ allowedErrors: networkErrors });

  for (const [cut, limit] of [[false, 20], [true, 200]] as const) {
    test(cut ? 'keeps its limit when it is cut' : 'ends, and the browser stops', async ({ page, server }) => {
      const options = ['--interval', '20ms', '--retry', '100ms'];
      await server.start(...options);
      await page.goto(server.url);
      await page.evaluate((limit) => {
        const source = new EventSource(`/events?limit=${limit}`);
        const seen: Seen = { data: [], ends: [], gaps: 0, state: source.readyState };
        source.onmessage = (event) => seen.data.push(event.data);
        source.addEventListener('end', (event) => seen.ends.push(event.data));
        source.addEventListener('gap', () => seen.gaps++);
        source.onerror = () => (seen.state = source.readyState);
        Object.assign(window, { seen });
      }, limit);
      const seen = () => page.evaluate(() => (window as unknown as { seen: Seen }).seen);
      if (cut) {
        await expect.poll(async () => (await seen()).data.length).toBeGreaterThan(3);
        await server.kill();
        expect((await seen()).data.length).toBeLessThan(limit);
        await server.start(...options);
      }
      const closed = 2; // EventSource.CLOSED
      await expect.poll(async () => (await seen()).state).toBe(closed);
      const { data, ends, gaps } = await seen();
      expect(new Set(data).size).toBe(limit);
      expect(data).toHaveLength(limit);
      expect(ends).toEqual([`{"sent":${limit}}`]);
      expect(gaps).toBe(cut ? 1 : 0);
    });
  }
});

test('a million lines of one request are a million events', async ({ server }, info) => {
  test.setTimeout(120_000 * patience);
  server.data = info.outputPath('data');
  await server.start('--interval', '1h');
  const body = 'x\n'.repeat(1_000_000);
  const answer = await fetch(`${server.url}/events/t?split=lines`, { method: 'POST', body });
  expect(await answer.json()).toEqual({ published: 1_000_000 });
  expect(await server.newest()).toBe(1_000_000);
  const last = await fetch(`${server.url}/poll?topic=t&last_event_id=earliest&limit=1`);
  expect((await last.json()).events[0].data).toBe('x');
});
