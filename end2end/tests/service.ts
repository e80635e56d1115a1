// A program beside Waterclock, such as the development server of a framework. It serves http on a
// free port, and ends with all its children.
import { type ChildProcess, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { expect } from '@playwright/test';
import { patience } from '../playwright.config.ts';

export class Service {
  url = '';
  port = 0;
  output = '';
  private child?: ChildProcess;

  /** Chooses the port. The program uses it only after it has been built, so this is none of those
   * that the system gives to others meanwhile, and each worker has some of its own. */
  async reserve() {
    const worker = Number(process.env.TEST_PARALLEL_INDEX);
    do this.port = 20_000 + 100 * worker + randomInt(100);
    while (!(await isFree(this.port)));
    this.url = `http://localhost:${this.port}`;
  }

  run(program: string, options: string[], cwd: string, env: Record<string, string> = {}) {
    this.child = spawn(program, options, {
      cwd,
      env: { ...process.env, NEXT_TELEMETRY_DISABLED: '1', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      // Its children end with it.
      detached: true,
    });
    for (const pipe of [this.child.stdout!, this.child.stderr!]) pipe.on('data', (text) => (this.output += text));
  }

  /** Waits until a path has the status 200. */
  async answers(path = '/', timeout = 40_000) {
    const status = async () => {
      if (this.hasEnded) throw new Error(`it has ended:\n${this.output}`);
      return fetch(this.url + path).then(({ status }) => status, () => 0);
    };
    await expect.poll(status, { timeout: timeout * patience, message: `${this.url}${path} answers` }).toBe(200);
  }

  get hasEnded() {
    return this.child?.exitCode !== null || this.child.signalCode !== null;
  }

  /** Waits until it has ended by itself. Returns its exit code. */
  async end(): Promise<number | null> {
    if (!this.hasEnded) await once(this.child!, 'exit');
    return this.child!.exitCode;
  }

  async stop() {
    if (this.child?.pid === undefined || this.hasEnded) return;
    const gone = once(this.child, 'exit');
    process.kill(-this.child.pid, 'SIGKILL');
    await gone;
  }
}

async function isFree(port: number): Promise<boolean> {
  const listener = createServer().listen(port, 'localhost');
  const isFree = await once(listener, 'listening').then(() => true, () => false);
  await new Promise((closed) => listener.close(closed));
  return isFree;
}
