// The examples of docs/clients.md.
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { patience } from '../playwright.config.ts';
import { expect, test } from './server.ts';

const run = promisify(execFile);
const document = readFileSync(resolve(import.meta.dirname, '../../docs/clients.md'), 'utf8');

/** Returns the examples in a language. */
function examples(language: string): string[] {
  const found = [...document.matchAll(new RegExp('^```' + language + '\n(.*?)```', 'gms'))];
  expect(found.length, language).toBeGreaterThan(0);
  return found.map(([, code]) => code);
}

/** Returns the first example in a language. */
const example = (language: string) => examples(language)[0];

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
  const [read, publish] = examples('js');
  await page.evaluate(`(async () => { ${read} ${publish} await publish(url, 'orders.eu', 'a new order'); })()`);
  expect((await logged).text()).toMatch(/^[0-9a-f]{16}-\d+ a new order$/);
});

test('JavaScript, in Node.js', async ({ server }) => {
  await server.start();
  const publishing = (topic: string) =>
    run('node', ['-e', `${examples('js')[1]} publish('${server.url}', '${topic}', 'a new order').then(console.log);`]);
  expect((await publishing('orders.eu')).stdout).toContain('a new order');
  await expect(publishing('clock')).rejects.toThrow('Only the server itself publishes to `clock`');
});

test('a shell that filters the notices', async ({ server }) => {
  await server.start('--heartbeat', '100ms');
  await fetch(`${server.url}/events/orders.eu`, { method: 'POST', body: 'a new order' });
  const script = example('bash').replace('json"', 'json&last_event_id=earliest&limit=1"');
  const { stdout } = await run('bash', ['-ec', script], { env: { ...process.env, URL: server.url } });
  expect(JSON.parse(stdout).data).toBe('a new order');
});

test('Python, which ends when it is refused', async ({ server }) => {
  await server.start();
  const script = `${example('python')}
import sys
try:
    next(events(sys.argv[1], "orders.eu&limit=x"))
except urllib.error.HTTPError as error:
    print(error.code, json.load(error)["detail"])
publish(sys.argv[1], "orders.eu", "order 0")
print(next(events(sys.argv[1], "orders.>"))["data"])
`;
  const { stdout } = await run('python3', ['-c', script, server.url]);
  const [refused, event] = stdout.trim().split('\n');
  expect(refused).toMatch(/^400 "orders.eu&limit=x" is not a pattern/);
  expect(event).toBe('order 0');
});

test('Python, which filters the notices', async () => {
  const script = `${example('py')}
class Message:
    def __init__(self, event, data): self.event, self.data = event, data
names = ["hello", "message", "gap", "created", "heartbeat", "end", "goodbye"]
print([message.event for message in only_events(Message(name, "x") for name in names)])
`;
  const { stdout } = await run('python3', ['-c', script]);
  expect(stdout).toBe("events are missing: x\n['message', 'created']\n");
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
  await expect.poll(() => output, { timeout: 20_000 * patience }).toContain('read order 3');
  expect(output).toBe('order 0\norder 1\norder 2\nread order 0\nread order 1\nread order 2\nread order 3\n');
});
