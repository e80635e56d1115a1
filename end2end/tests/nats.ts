// A server of NATS for one test, with one replica of each entry. It ends with the test.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { expect, test as base } from './server.ts';

const program = process.env.NATS_SERVER ?? 'nats-server';

/** The reason why there can be no server, if there is one. `make test` says how to get one. */
export const whyNoNats =
  spawnSync(program, ['--version']).status === 0 || process.env.NATS_REQUIRED
    ? undefined
    : 'nats-server is not there, nor was Go to build it';

let taken = 0;

/** Returns a port on which nobody listens, each once. The system gives it to no connection in the
 * meantime. */
async function freePort(): Promise<number> {
  for (;;) {
    const port = 12_000 + ((process.pid * 16 + taken++) % 8_000);
    const server = createServer().listen(port, '127.0.0.1');
    const isFree = await once(server, 'listening').then(() => true, () => false);
    if (!isFree) continue;
    await once(server.close(), 'close');
    return port;
  }
}

export class Nats {
  private process?: ChildProcess;
  private ports: number[] = [];

  constructor(private readonly folder: string) {}

  /** Starts it, or starts it again with the same ports and entries, and waits until it serves. */
  async start() {
    if (!this.ports.length) this.ports = [await freePort(), await freePort()];
    const [port, http] = this.ports;
    mkdirSync(this.folder, { recursive: true });
    const file = join(this.folder, 'nats.conf');
    writeFileSync(
      file,
      `server_name: n1
listen: "127.0.0.1:${port}"
http: "127.0.0.1:${http}"
jetstream {
  store_dir: ${JSON.stringify(join(this.folder, 'store'))}
  sync_interval: always
}
`,
    );
    const child = spawn(program, ['--config', file], { stdio: 'ignore' });
    this.process = child;
    child.on('error', (error) => console.error(error));
    const isHealthy = () => fetch(`http://127.0.0.1:${http}/healthz`).then(({ ok }) => ok, () => false);
    await expect.poll(isHealthy, { message: 'NATS is healthy' }).toBe(true);
  }

  /** Kills it, so that it cannot say anything more. */
  async kill() {
    if (this.process?.exitCode === null && this.process.signalCode === null) {
      const gone = once(this.process, 'exit');
      this.process.kill('SIGKILL');
      await gone;
    }
  }

  /** Returns the options of a node on this server. */
  node(name: string): string[] {
    const [url, monitoring] = ['nats', 'http'].map((scheme, i) => `${scheme}://127.0.0.1:${this.ports[i]}`);
    return ['--node', name, '--cluster', url, '--cluster-monitoring', monitoring, '--cluster-replicas', '1'];
  }
}

export const test = base.extend<{ nats: Nats }>({
  nats: async ({}, use, info) => {
    const nats = new Nats(info.outputPath('nats'));
    await use(nats);
    await nats.kill();
  },
});
