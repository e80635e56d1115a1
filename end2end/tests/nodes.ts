// Pages that take their server for a node of a cluster.
import type { Page } from '@playwright/test';

/** Locates the notice about a problem of the node. */
export const notice = (page: Page) => page.locator('.notice');

/** Answers requests for the state in the server's place. The result counts them. */
export async function answerHealth(page: Page, answer: () => object | undefined) {
  const asked = { times: 0 };
  await page.route('**/health/state', async (route) => {
    asked.times++;
    const json = answer();
    await (json ? route.fulfill({ json }) : route.abort());
  });
  return asked;
}

/** Lets the `hello` of each stream of the page name a node. */
export const servedBy = (page: Page, node: string) =>
  page.addInitScript((node) => {
    const { addEventListener } = EventSource.prototype;
    EventSource.prototype.addEventListener = function (this: EventSource, name: string, listener: any) {
      addEventListener.call(this, name, (event: any) => {
        if (name !== 'hello') return listener(event);
        const data = JSON.stringify({ ...JSON.parse(event.data), node });
        listener(new MessageEvent(name, { data, lastEventId: event.lastEventId }));
      });
    };
  }, node);
