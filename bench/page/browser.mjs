// A Chromium with one page, driven over a pipe with the DevTools Protocol
// (https://chromedevtools.github.io/devtools-protocol/). Not Playwright: it makes the browser
// report each message of an EventSource, which adds a fifth to the work of a light page at 10,000 a
// second.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { executablePath } from '../../end2end/chromium.js';

// As in end2end/playwright.config.ts: the browser contacts no other machine, and root has no
// sandbox.
const options = [
  '--headless',
  '--remote-debugging-pipe',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--no-first-run',
  '--window-size=1280,720',
  ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
];

/** Rejects with a message for the table if `promise` takes longer than `seconds`. */
export async function within(seconds, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(reject, seconds * 1000, new Error(`did not answer in ${seconds} s`));
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Starts a browser with a new profile and an empty page. */
export async function openBrowser() {
  const profile = mkdtempSync(join(tmpdir(), 'waterclock-'));
  const browser = spawn(executablePath, [...options, `--user-data-dir=${profile}`, 'about:blank'], {
    stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
    // A process group of its own, which `close` kills as a whole. It ends if this process does.
    detached: true,
  });
  const [, , , input, output] = browser.stdio;
  // The browser has ended; `exit` reports that too.
  input.on('error', () => {});

  const waiting = new Map();
  let count = 0;
  const send = (method, params, sessionId) =>
    new Promise((resolve, reject) => {
      count += 1;
      waiting.set(count, { resolve, reject });
      input.write(`${JSON.stringify({ id: count, method, params, sessionId })}\0`);
    });

  const bindings = new Map();
  let hasCrashed = false;
  function receive({ id, result, error, method, params }) {
    if (method === 'Runtime.bindingCalled') bindings.get(params.name)?.(JSON.parse(params.payload));
    if (method === 'Inspector.targetCrashed') hasCrashed = true;
    if (error) waiting.get(id)?.reject(new Error(error.message));
    else waiting.get(id)?.resolve(result);
    waiting.delete(id);
  }
  let rest = '';
  output.setEncoding('utf8').on('data', (text) => {
    const messages = (rest + text).split('\0');
    rest = messages.pop();
    for (const message of messages) receive(JSON.parse(message));
  });
  browser.on('exit', () => {
    for (const { reject } of waiting.values()) reject(new Error('Chromium has ended'));
  });

  async function close() {
    if (browser.exitCode === null && browser.signalCode === null) {
      // A frozen page would prevent an ordinary shutdown.
      process.kill(-browser.pid, 'SIGKILL');
      await once(browser, 'exit');
    }
    rmSync(profile, { recursive: true, force: true, maxRetries: 10 });
  }

  try {
    const { targetInfos } = await within(30, send('Target.getTargets'));
    const { targetId } = targetInfos.find(({ type }) => type === 'page');
    const { sessionId } = await within(30, send('Target.attachToTarget', { targetId, flatten: true }));
    const ask = (method, params) => send(method, params, sessionId);
    await ask('Inspector.enable');
    await ask('Performance.enable');
    return {
      pid: browser.pid,
      ask,
      close,
      hasCrashed: () => hasCrashed,
      /** Adds a function `name` to the page, which passes its argument, JSON, to `hear`. */
      async bind(name, hear) {
        bindings.set(name, hear);
        await ask('Runtime.addBinding', { name });
      },
      /** Returns the value of an expression in the page. */
      async evaluate(expression) {
        const { result, exceptionDetails } = await ask('Runtime.evaluate', { expression, returnByValue: true });
        if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
        return result.value;
      },
    };
  } catch (error) {
    await close();
    throw error;
  }
}
