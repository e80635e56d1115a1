// The examples of docs/clients.md.
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from './server.ts';

const run = promisify(execFile);
const document = readFileSync(resolve(import.meta.dirname, '../../docs/clients.md'), 'utf8');

/** Returns the example in a language. */
function example(language: string): string {
  const found = new RegExp('```' + language + '\n(.*?)```', 's').exec(document);
  expect(found, language).not.toBeNull();
  return found![1];
}

test('curl', async ({ server }) => {
  await server.start();
  // Without a limit, the stream would not end.
  const script = example('sh').replace('earliest"', 'earliest&limit=1"');
  const { stdout } = await run('bash', ['-ec', script], { env: { ...process.env, URL: server.url } });
  expect(stdout).toMatch(/"topic":"orders.eu","name":"created","data":"a new order"/);
  expect(stdout).toMatch(/event: created\ndata: a new order\n/);
});

test('JavaScript, in a page', async ({ page, server }) => {
  await server.start();
  await page.goto(server.url);
  const logged = page.waitForEvent('console', (message) => message.text().includes('a new order'));
  const script = `(async () => { const url = ''; const cursor = 'earliest'; ${example('js')} })()`;
  await page.evaluate(script);
  expect((await logged).text()).toMatch(/^[0-9a-f]{16}-\d+ a new order$/);
});

test('Python, which reconnects after the server was killed', async ({ server }, testInfo) => {
  server.data = testInfo.outputPath('data');
  await server.start();
  const script = `${example('python')}
import sys
url = sys.argv[1]
for number in range(3):
    print(publish(url, "orders.eu", f"order {number}")["data"], flush=True)
reader = events(url, "orders.*")
for number in range(4):
    print("read", next(reader)["data"], flush=True)
`;
  const python = execFile('python3', ['-c', script, server.url]);
  let output = '';
  python.stdout!.on('data', (text) => (output += text));
  python.stderr!.on('data', (text) => (output += text));
  await expect.poll(() => output).toContain('read order 2');
  await server.kill();
  await server.start();
  await fetch(`${server.url}/events/orders.eu`, { method: 'POST', body: 'order 3' });
  await expect.poll(() => output, { timeout: 20_000 }).toContain('read order 3');
  expect(output).toBe('order 0\norder 1\norder 2\nread order 0\nread order 1\nread order 2\nread order 3\n');
});
