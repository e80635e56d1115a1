// The example in examples/answers, with its own answers, and with an endpoint that the test steps
// word by word; and the commands of docs/answers.md.
import { AxeBuilder } from '@axe-core/playwright';
import type { Page } from '@playwright/test';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync } from 'node:fs';
import {
  createServer,
  type IncomingMessage,
  type Server as HttpServer,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { patience } from '../playwright.config.ts';
import { expect as patient, networkErrors, type Server, test as base } from '../tests/server.ts';

// Other tests load the machine.
const expect = patient.configure({ timeout: 30_000 * patience });

const root = resolve(import.meta.dirname, '../..');
const folder = resolve(root, 'examples/answers');

/** A request for an answer, which the test answers. */
class Ask {
  /** Resolves when the client has left. */
  readonly left: Promise<unknown>;

  constructor(
    readonly headers: IncomingMessage['headers'],
    readonly body: any,
    private response: ServerResponse,
  ) {
    this.left = once(response, 'close');
  }

  send(status: number, type: string, body: string) {
    this.response.writeHead(status, { 'Content-Type': type }).end(body);
  }

  say(...words: string[]) {
    for (const content of words) this.event({ choices: [{ index: 0, delta: { content } }] });
  }

  event(data: object) {
    if (!this.response.headersSent) this.response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    this.response.write(`data: ${JSON.stringify(data)}\n\n`);
  }

  finish(end = 'data: [DONE]\n\n') {
    this.response.end(end);
  }

  breakOff() {
    this.response.destroy();
  }
}

/** An OpenAI-compatible endpoint. */
class Model {
  url = '';
  private waiting: Ask[] = [];
  private arrived = () => {};
  private http?: HttpServer;

  async start() {
    this.http = createServer(async (request, response) => {
      let body = '';
      for await (const part of request) body += part;
      expect(`${request.method} ${request.url}`).toBe('POST /v1/chat/completions');
      this.waiting.push(new Ask(request.headers, JSON.parse(body), response));
      this.arrived();
    }).listen(0, '127.0.0.1');
    await once(this.http, 'listening');
    this.url = `http://127.0.0.1:${(this.http.address() as AddressInfo).port}/v1`;
  }

  /** Returns the next request. */
  async asked(): Promise<Ask> {
    while (this.waiting.length === 0) await new Promise<void>((arrived) => (this.arrived = arrived));
    return this.waiting.shift()!;
  }

  stop() {
    this.http?.closeAllConnections();
    this.http?.close();
  }
}

/** The example's program. */
class Program {
  url = '';
  output = '';
  private child?: ChildProcess;

  async start(server: Server, env: Record<string, string> = {}) {
    // A second start serves on the port of the first.
    const port = this.url ? new URL(this.url).port : '0';
    const { OPENAI_BASE_URL: _, ...outer } = process.env;
    this.child = spawn('node', ['server.mjs'], {
      cwd: folder,
      env: { ...outer, PORT: port, WATERCLOCK_URL: server.url, PATIENCE: '60', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.child.stderr!.on('data', (text) => (this.output += text));
    const lines = createInterface({ input: this.child.stdout! });
    lines.on('line', (line) => (this.output += `${line}\n`));
    const [line] = await once(lines, 'line');
    this.url = line.replace('the page is at ', '');
  }

  async kill() {
    if (!this.child || this.child.exitCode !== null || this.child.signalCode !== null) return;
    const gone = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await gone;
  }

  ask(question: string, headers: Record<string, string> = {}) {
    return fetch(`${this.url}/ask`, { method: 'POST', body: question, headers });
  }
}

const test = base.extend<{ model: Model; program: Program }>({
  model: async ({}, use) => {
    const model = new Model();
    await model.start();
    await use(model);
    model.stop();
  },
  program: async ({ server }, use, info) => {
    server.data = info.outputPath('data');
    const program = new Program();
    await use(program);
    await program.kill();
    if (info.status !== info.expectedStatus) console.log(program.output);
  },
});

/** Starts a Waterclock whose readers come back at once, and the example with the model. */
async function start(server: Server, program: Program, model?: Model, env: Record<string, string> = {}) {
  await server.start('--cors-origin', '*', '--retry', '100ms');
  const endpoint = model && { OPENAI_BASE_URL: `${model.url}/`, OPENAI_MODEL: 'm', OPENAI_API_KEY: 'k' };
  await program.start(server, { ...endpoint, ...env });
}

async function ask(page: Page, question: string) {
  await page.getByLabel('Your question').fill(question);
  await page.keyboard.press('Enter');
}

const answer = (page: Page) => page.locator('#answer');
const status = (page: Page) => page.getByRole('status');
const text = (page: Page) => answer(page).evaluate((element) => element.textContent);

/** Expects that the page has exactly this text: `toHaveText` would be lenient with white space. */
const expectText = (page: Page, expected: string) => expect.poll(() => text(page)).toBe(expected);

test.use({ allowedErrors: new RegExp(`${networkErrors.source}|blocked by CORS policy`) });
test.setTimeout(120_000 * patience);

test('words of the documents appear one by one, with their source', async ({ page, server, program }) => {
  await start(server, program, undefined, { PACE: '30' });
  await page.goto(program.url.replace('127.0.0.1', 'localhost'));
  expect(page.url()).toBe(`${program.url}/`);
  await page.evaluate(() => {
    const texts: string[] = ((window as any).texts = []);
    const element = document.getElementById('answer')!;
    new MutationObserver(() => texts.push(element.textContent)).observe(element, { childList: true });
  });
  await ask(page, 'How does a topic end?');
  await expect(status(page)).toHaveText('The answer is complete.');
  await expect(page.getByLabel('Your question')).toBeFocused();
  await expect(page.getByRole('heading', { level: 2 })).toHaveText('How does a topic end?');
  const whole = (await text(page))!;
  expect(whole).toMatch(/^\S.*\n\nFrom \S+\.md, “.+”\.$/s);
  const texts: string[] = await page.evaluate(() => (window as any).texts.filter(Boolean));
  expect(texts.length).toBeGreaterThan(5);
  for (const [i, later] of texts.slice(1).entries()) expect(later.startsWith(texts[i])).toBe(true);
  await ask(page, 'zzz');
  await expect(answer(page)).toHaveText('The documents of this project have no word of your question.');
  await page.goBack();
  await expectText(page, whole);
  expect((await new AxeBuilder({ page }).analyze()).violations).toEqual([]);
});

test('a reload, a second tab and kill -9 lose no word', async ({ context, page, server, program, model }) => {
  await start(server, program, model);
  await page.goto(program.url);
  await ask(page, 'Why?');
  const asked = await model.asked();
  expect(asked.headers.authorization).toBe('Bearer k');
  expect(asked.body).toEqual({ model: 'm', stream: true, messages: [{ role: 'user', content: 'Why?' }] });
  asked.event({ choices: [{ index: 0, delta: { role: 'assistant', content: '' } }] });
  asked.say('Because ');
  await expectText(page, 'Because ');
  await page.reload();
  asked.say('<b>of</b>', ' ');
  await expectText(page, 'Because <b>of</b> ');
  const second = await context.newPage();
  await second.goto(page.url());
  await expectText(second, 'Because <b>of</b> ');
  await server.kill();
  asked.say('the\n', '\n  👩‍👩‍👧 ');
  await expect(status(page)).toContainText('The connection to Waterclock is lost.');
  await server.start('--cors-origin', '*', '--retry', '100ms');
  for (const tab of [page, second]) await expectText(tab, 'Because <b>of</b> the\n\n  👩‍👩‍👧 ');
  asked.say('Once ');
  for (const tab of [page, second]) await expectText(tab, 'Because <b>of</b> the\n\n  👩‍👩‍👧 Once ');
  // It has all of the answer, but nobody has been told.
  asked.say('more.');
  await server.kill();
  asked.finish();
  await asked.left;
  await server.start('--cors-origin', '*', '--retry', '100ms');
  for (const tab of [page, second]) {
    await expect(status(tab)).toHaveText('The answer is complete.');
    expect(await text(tab)).toBe('Because <b>of</b> the\n\n  👩‍👩‍👧 Once more.');
    await expect(tab.getByRole('heading', { level: 2 })).toHaveText('Why?');
  }
});

test('the next question stops the answer before it', async ({ context, page, server, program, model }) => {
  await start(server, program, model, { PATIENCE: '10' });
  await page.goto(program.url);
  await ask(page, 'One?');
  const first = await model.asked();
  first.say('one ');
  await expectText(page, 'one ');
  const second = await context.newPage();
  await second.goto(page.url());
  await expectText(second, 'one ');
  await ask(page, 'Two?');
  const next = await model.asked();
  next.say('two ');
  await expectText(page, 'two ');
  // The second tab still reads it.
  first.say('more ');
  await expectText(second, 'one more ');
  await ask(second, 'Three?');
  const last = await model.asked();
  last.say('three ');
  await first.left;
  for (const asked of [next, last]) asked.finish();
  for (const tab of [page, second]) await expect(status(tab)).toHaveText('The answer is complete.');
  expect(await text(page)).toBe('two ');
  await second.goBack();
  await expect(status(second)).toHaveText('The answer has failed. Nobody was reading any more.');
  expect(await text(second)).toBe('one more ');
});

test('an answer whose readers have stopped is stopped', async ({ context, page, server, program, model }) => {
  await start(server, program, model, { PATIENCE: '10' });
  await page.goto(program.url);
  await ask(page, 'One?');
  const asked = await model.asked();
  asked.say('one ');
  await expectText(page, 'one ');
  const second = await context.newPage();
  await second.goto(page.url());
  await expectText(second, 'one ');
  const stop = (tab: Page) => tab.getByRole('button', { name: 'Stop' }).click();
  await stop(page);
  await expect(page.getByLabel('Your question')).toBeFocused();
  asked.say('two ');
  await expectText(second, 'one two ');
  expect(await text(page)).toBe('one ');
  await page.getByRole('button', { name: 'Continue' }).click();
  await expectText(page, 'one two ');
  for (const tab of [page, second]) await stop(tab);
  await asked.left;
  await page.getByRole('button', { name: 'Continue' }).click();
  await expect(status(page)).toHaveText('The answer has failed. Nobody was reading any more.');
  expect(await text(page)).toBe('one two ');
});

test('a failure of the model is told, and one may ask again', async ({ page, server, program, model }) => {
  await start(server, program, model);
  await page.goto(program.url);
  const json = 'application/json';
  const failures: [string, (asked: Ask) => void][] = [
    ['refused with 401: no such key', (asked) => asked.send(401, json, '{"error":{"message":"no such key"}}')],
    ['refused with 429: slowly', (asked) => asked.send(429, json, '{"error":"slowly"}')],
    ['refused with 500: Internal Server Error', (asked) => asked.send(500, 'text/html', '<h1>no</h1>')],
    ['sent text/html instead of text/event-stream.', (asked) => asked.send(200, 'text/html', '<h1>hi</h1>')],
    ['sent something other than JSON.', (asked) => asked.send(200, 'text/event-stream', 'data: hello\n\n')],
    ['failed: overloaded', (asked) => asked.event({ error: { message: 'overloaded' } })],
    ['broken off in the middle of its answer.', (asked) => asked.send(200, 'text/event-stream', '')],
  ];
  await ask(page, 'Why?');
  for (const [message, fail] of failures) {
    fail(await model.asked());
    await expect(status(page)).toHaveText(`The answer has failed. The model has ${message}`);
    await page.getByRole('button', { name: 'Ask again' }).click();
  }
  const broken = await model.asked();
  broken.say('Well, ');
  await expectText(page, 'Well, ');
  broken.breakOff();
  await expect(status(page)).toContainText('The model has broken off in the middle of its answer.');
  expect(await text(page)).toBe('Well, ');
  await page.getByRole('button', { name: 'Ask again' }).click();
  const cut = await model.asked();
  cut.say('a ', 'b ', 'c');
  cut.event({ choices: [{ index: 0, delta: {}, finish_reason: 'length' }] });
  await expect(status(page)).toHaveText('The answer has failed. The model has stopped early: length.');
  expect(await text(page)).toBe('a b c');
  await page.getByRole('button', { name: 'Ask again' }).click();
  const whole = await model.asked();
  // Some endpoints send no `[DONE]`.
  whole.say('Because.');
  whole.event({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }], usage: null });
  whole.finish('');
  await expect(status(page)).toHaveText('The answer is complete.');
  expect(await text(page)).toBe('Because.');
  model.stop();
  await ask(page, 'Still there?');
  await expect(status(page)).toContainText('The answer has failed. The model cannot be reached');
});

test('questions at once, empty, huge, or of other pages', async ({ context, page, server, program, model }) => {
  await start(server, program, model);
  const other = await context.newPage();
  for (const [tab, question] of [[page, 'A?'], [other, 'B?']] as const) {
    await tab.goto(program.url);
    await ask(tab, question);
  }
  const [one, two] = [await model.asked(), await model.asked()];
  for (const letter of 'xyz') {
    for (const asked of [one, two]) asked.say(`${asked.body.messages[0].content}${letter} `);
  }
  for (const asked of [one, two]) asked.finish();
  for (const [tab, question] of [[page, 'A?'], [other, 'B?']] as const) {
    await expect(status(tab)).toHaveText('The answer is complete.');
    expect(await text(tab)).toBe([...'xyz'].map((letter) => `${question}${letter} `).join(''));
  }
  const alert = page.getByRole('alert');
  await ask(page, '  \n ');
  await expect(alert).toHaveText('The question is empty.');
  const huge = 'why '.repeat(2_000);
  await ask(page, huge);
  await expect(alert).toHaveText('The question is too long. It may have 4000 characters.');
  // Nothing is lost: neither the question, nor the answer that is shown.
  expect(await page.getByLabel('Your question').inputValue()).toBe(huge);
  expect(await text(page)).toBe('A?x A?y A?z ');
  expect((await program.ask('Why?', { Origin: 'http://elsewhere.test' })).status).toBe(403);
  for (const unknown of ['0'.repeat(24), '*', '>']) {
    await page.goto(`${program.url}/?answer=${unknown}`);
    await expect(status(page)).toHaveText(/^(This answer is not kept any more|There is no such answer)\.$/);
  }
});

test('without Waterclock the page says how to start it', async ({ page, server, program, model }) => {
  await start(server, program, model);
  await page.goto(program.url);
  await ask(page, 'Why?');
  const asked = await model.asked();
  asked.say('Because.');
  await expectText(page, 'Because.');
  await server.kill();
  await page.reload();
  await expect(status(page)).toContainText('The connection to Waterclock is lost.');
  await page.getByRole('button', { name: 'Stop' }).click();
  await ask(page, 'And?');
  await expect(page.getByRole('alert')).toHaveText(
    `Waterclock does not run at ${server.url}. Start it: waterclock --cors-origin ${program.url}`,
  );
  await server.start();
  await page.keyboard.press('Enter');
  await expect(page.getByRole('alert')).toContainText(`Waterclock lets no page of ${program.url} read.`);
  await server.stop();
  await server.start('--cors-origin', program.url);
  await expect(status(page)).toContainText('You have stopped reading.');
  await page.getByRole('button', { name: 'Continue' }).click();
  asked.finish();
  await expect(status(page)).toHaveText('The answer is complete.');
  expect(await text(page)).toBe('Because.');
});

test('an answer whose program was killed ends as failed', async ({ page, server, program, model }) => {
  await start(server, program, model);
  await page.goto(program.url);
  await ask(page, 'Why?');
  const first = await model.asked();
  first.say('Because ');
  await expectText(page, 'Because ');
  await program.kill();
  await expect(status(page)).toContainText('The answer has failed.');
  await page.getByRole('button', { name: 'Ask again' }).click();
  const alert = page.getByRole('alert');
  await expect(alert).toHaveText('The program that serves this page does not run any more.');
  await program.start(server, { OPENAI_BASE_URL: model.url });
  await page.getByRole('button', { name: 'Ask again' }).click();
  const second = await model.asked();
  second.say('Hm');
  await expectText(page, 'Hm');
  // Both are killed, so Waterclock cannot know that the upload broke off.
  await server.kill();
  await program.kill();
  await server.start('--cors-origin', '*', '--retry', '100ms');
  await program.start(server, { OPENAI_BASE_URL: model.url });
  await expect(status(page)).toHaveText('The answer has failed. Its producer was stopped.');
  expect(await text(page)).toBe('Hm');
});

test('a Waterclock that has lost its log gets all of the answer again', async ({ page, server, program, model }) => {
  server.data = undefined;
  await start(server, program, model);
  await page.goto(program.url);
  await ask(page, 'Why?');
  const asked = await model.asked();
  asked.say('Because ');
  await expectText(page, 'Because ');
  await server.kill();
  await server.start('--cors-origin', '*', '--retry', '100ms');
  asked.say('of the winter.');
  asked.finish();
  await expect(status(page)).toHaveText('The answer is complete.');
  expect(await text(page)).toBe('Because of the winter.');
  await page.reload();
  await expect(status(page)).toHaveText('The answer is complete.');
  await expect(page.getByRole('heading', { level: 2 })).toHaveText('Why?');
});

test('the commands of the recipe', async ({ server }, info) => {
  await server.start();
  const document = readFileSync(resolve(root, 'docs/answers.md'), 'utf8');
  const commands = [...document.matchAll(/^```sh\n(.*?)```/gms)].map(([, code]) => code);
  expect(commands.length).toBe(6);
  const script = [...commands, 'wait'].join('').replaceAll('http://127.0.0.1:3000', server.url);
  mkdirSync(info.outputDir, { recursive: true });
  const { stdout } = await promisify(execFile)('bash', ['-ec', script], { cwd: info.outputDir });
  const answers = stdout.split(/(?<=})(?={)/).map((answer) => JSON.parse(answer));
  // The network decides where a piece ends.
  const whole = { bytes: 22, end: { outcome: 'done' } };
  expect(answers).toMatchObject([
    { name: 'question', data: 'What is an event?' },
    whole,
    whole,
    { status: 409, stopped: 'unread' },
    { bytes: 13 },
    { outcome: 'failed', message: 'Nobody was reading any more.' },
  ]);
  const read = readFileSync(info.outputPath('read'), 'utf8');
  expect([...read.matchAll(/\d\ndata: (.*)$/gm)].map(([, piece]) => piece).join('')).toBe('An event has a topic. ');
  expect(read).toMatch(/event: question\ndata: What is an event\?\n.*"outcome":"done","last":true}\n\n$/s);
});
