// Opening and closing the stream leaks nothing.
import type { CDPSession, Page } from '@playwright/test';
import { patience } from '../playwright.config.ts';
import { count, expect, state, streams, test } from './server.ts';

type Kept = { sources: number; channels: number; functions: number; promises: number; nodes: number; wasm: number };

/** Counts the objects of the page, after a garbage collection. */
async function kept(page: Page, cdp: CDPSession): Promise<Kept> {
  await cdp.send('HeapProfiler.collectGarbage');
  const alive = async (constructor: string) => {
    const { result } = await cdp.send('Runtime.evaluate', { expression: `${constructor}.prototype` });
    const { objects } = await cdp.send('Runtime.queryObjects', { prototypeObjectId: result.objectId! });
    const { result: length } = await cdp.send('Runtime.callFunctionOn', {
      objectId: objects.objectId!,
      functionDeclaration: 'function () { return this.length }',
    });
    await cdp.send('Runtime.releaseObject', { objectId: objects.objectId! });
    return length.value as number;
  };
  const { metrics } = await cdp.send('Performance.getMetrics');
  const wasm = await page.evaluate(async () => {
    const script = document.querySelector<HTMLLinkElement>('link[rel=modulepreload]')!.href;
    // The same instance that the page runs in.
    return (await (await import(script)).default()).memory.buffer.byteLength;
  });
  return {
    sources: await alive('EventSource'),
    channels: await alive('BroadcastChannel'),
    functions: await alive('Function'),
    promises: await alive('Promise'),
    nodes: metrics.find(({ name }) => name === 'Nodes')!.value,
    wasm,
  };
}

test('a thousand times opened and closed', async ({ page, context, server }) => {
  test.setTimeout(120_000 * patience);
  await server.start('--interval', '1h');
  await page.addInitScript(() => localStorage.setItem('waterclock.rows', '1000'));
  await page.goto(`${server.url}/?topic=t`);
  await expect(state(page)).toHaveText('Live');
  const cdp = await context.newCDPSession(page);
  await cdp.send('Performance.enable');
  /** Stops and connects repeatedly, each time until the stream is live. */
  const cycle = (times: number) =>
    page.evaluate(async (times) => {
      const [button, state] = ['.head button', '.state'].map((name) => document.querySelector<HTMLElement>(name)!);
      const becomes = (label: string) =>
        new Promise<void>((done) => {
          const look = () => {
            if (state.textContent !== label) return;
            observer.disconnect();
            done();
          };
          const observer = new MutationObserver(look);
          observer.observe(state, { childList: true, characterData: true, subtree: true });
          look();
        });
      for (let i = 0; i < times; i++) {
        button.click();
        await becomes('Stopped');
        button.click();
        await becomes('Live');
      }
    }, times);

  // Fill the list and all buffers first.
  await fetch(`${server.url}/events/t?split=lines`, { method: 'POST', body: 'x\n'.repeat(1000) });
  await expect.poll(() => count(page)).toBe(1000);
  await cycle(200);
  const before = await kept(page, cdp);
  await cycle(1000);
  const after = await kept(page, cdp);
  expect(after.sources).toBe(1);
  expect(after.channels).toBe(1);
  for (const what of ['functions', 'promises', 'nodes'] as const) {
    expect(after[what] - before[what], what).toBeLessThan(50);
  }
  // A page of WebAssembly memory: a leak of 65 bytes per cycle would need one.
  expect(after.wasm - before.wasm).toBeLessThanOrEqual(65_536);
  await expect.poll(() => streams(server)).toBe(1);
});
