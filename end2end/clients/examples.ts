// An example of the folder examples, started as its README says.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { patience } from '../playwright.config.ts';
import { Service } from '../tests/service.ts';
import { expect as patient, type Server, test as base } from '../tests/server.ts';

// Other tests load the machine.
export const expect = patient.configure({ timeout: 30_000 * patience });

const examples = resolve(import.meta.dirname, '../../examples');

export class Example extends Service {
  /** Starts it, for a Waterclock that need not run yet. Installing takes some time. */
  async start(name: string, server: Server, options: (port: number) => string = () => '') {
    await this.reserve();
    const folder = resolve(examples, name);
    const [, command] = /^```sh\n(.*)\n```$/m.exec(readFileSync(resolve(folder, 'README.md'), 'utf8'))!;
    const env = { WATERCLOCK_URL: server.url, PORT: `${this.port}` };
    this.run('bash', ['-c', `${command} ${options(this.port)}`], folder, env);
  }
}

export const test = base.extend<{ example: Example; kept: void }>({
  example: async ({}, use, info) => {
    const example = new Example();
    await use(example);
    await example.stop();
    if (info.status !== info.expectedStatus) console.log(example.output);
  },
  // The events survive the server.
  kept: [
    async ({ server }, use, info) => {
      server.data = info.outputPath('data');
      await use();
    },
    { auto: true },
  ],
});

/** Returns what a program prints. If there is no such program, that is nothing. */
export function output(program: string, ...options: string[]): string {
  return spawnSync(program, options, { encoding: 'utf8' }).stdout ?? '';
}

/** Publishes an order to the server itself. */
export async function publish(server: Server, order: string) {
  const response = await fetch(`${server.url}/events/orders.eu`, { method: 'POST', body: order });
  expect(response.status).toBe(201);
}
