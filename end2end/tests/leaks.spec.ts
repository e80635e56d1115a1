// What is opened and closed again leaves nothing behind.
import type { CDPSession, Page } from '@playwright/test';
import { expect, state, streams, test } from './server.ts';

type Kept = { sources: number; channels: number; closures: number; nodes: number; wasm: number };

/** What the page keeps, after its garbage was collected. */
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
    const { memory, __wbindgen_externrefs } = await (await import(script)).default();
    return { memory: memory.buffer.byteLength, references: __wbindgen_externrefs.length };
  });
  return {
    sources: await alive('EventSource'),
    channels: await alive('BroadcastChannel'),
    closures: wasm.references,
    nodes: metrics.find(({ name }) => name === 'Nodes')!.value,
    wasm: wasm.memory,
  };
}

test('a thousand times opened and closed', async ({ page, context, server }) => {
  test.setTimeout(120_000);
  await server.start('--interval', '1h');
  await page.goto(server.url);
  await expect(state(page)).toHaveText('Live');
  const cdp = await context.newCDPSession(page);
  await cdp.send('Performance.enable');
  /** Stops and connects, so many times, each time until the stream is live. */
  const cycle = (times: number) =>
    page.evaluate(async (times) => {
      const [button, state] = ['header button', '.state'].map((name) => document.querySelector<HTMLElement>(name)!);
      const becomes = async (words: string) => {
        while (state.textContent !== words) await new Promise((done) => setTimeout(done));
      };
      for (let i = 0; i < times; i++) {
        button.click();
        await becomes('Stopped');
        button.click();
        await becomes('Live');
      }
    }, times);

  // Everything has its size after some of them.
  await cycle(200);
  const before = await kept(page, cdp);
  await cycle(1000);
  const after = await kept(page, cdp);
  expect(after.sources).toBe(1);
  expect(after.channels).toBe(1);
  expect(after.closures).toBeLessThanOrEqual(before.closures);
  expect(after.nodes).toBeLessThan(before.nodes + 100);
  // A line for each time, of which few bytes are kept: less than a page of 64 KiB for each 100.
  expect(after.wasm).toBeLessThan(before.wasm + 10 * 65_536);
  await expect.poll(() => streams(server)).toBe(1);
});
