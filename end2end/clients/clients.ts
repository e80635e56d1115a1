// The public clients that the tests run, and what they need on this machine.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { resolve } from 'node:path';

const here = import.meta.dirname;
const cache = resolve(process.env.XDG_CACHE_HOME ?? resolve(homedir(), '.cache'), 'waterclock');
const python = resolve(cache, 'clients-python/bin/python');
const readersInGo = resolve(here, '../../target/clients/readers');

export type Client = {
  /** Name in the tables of docs/clients.md. */
  name: string;
  /** File of the reader, below this folder. */
  file: string;
  /** Command of the reader; the task is added as the last argument. A page has none. */
  command?: string[];
  /** Only the data of events reaches the program: neither ids nor notices. */
  dataOnly?: boolean;
  /** Restarts until a client gives up that counts them; by default one is enough. */
  rounds?: number;
  /** Wraps data for a client that does not take any event, and gives it a name. */
  wrap?: (data: string) => { name: string; data: string };
};

const node = (file: string) => ({ file: `node/${file}`, command: ['node', resolve(here, 'node', file)] });
const inPython = (file: string) => ({ file: `python/${file}`, command: [python, '-B', resolve(here, 'python', file)] });
const inGo = (file: string, library: string) => ({ file: `go/${file}`, command: [readersInGo, library] });
const page = (file: string) => ({ file: `browser/${file}` });

export const clients: Client[] = [
  { name: 'EventSource', ...page('native.html') },
  { name: 'event-source-polyfill', ...page('event-source-polyfill.html') },
  { name: 'fetch-event-source', ...page('fetch-event-source.html') },
  { name: 'htmx', ...page('htmx.html') },
  {
    name: 'Datastar',
    ...page('datastar.html'),
    dataOnly: true,
    rounds: 6,
    wrap: (text) => ({ name: 'datastar-merge-signals', data: `signals ${JSON.stringify({ text })}` }),
  },
  { name: 'eventsource', ...node('eventsource.mjs') },
  { name: 'httpx-sse', ...inPython('httpx_sse_reader.py') },
  { name: 'sseclient-py', ...inPython('sseclient_py_reader.py') },
  { name: 'aiohttp-sse-client', ...inPython('aiohttp_sse_client_reader.py') },
  { name: 'r3labs/sse', ...inGo('r3labs.go', 'r3labs') },
  { name: 'go-sse', ...inGo('gosse.go', 'go-sse') },
];

/** Returns the reason why a client cannot run here, if there is one. Only Go may be missing. */
export function missing({ command }: Client): string | undefined {
  const program = command?.[0];
  if (program === python && !existsSync(python)) throw new Error('start `scripts/setup.sh test` first');
  return program === readersInGo && !existsSync(readersInGo) ? 'Go is not installed' : undefined;
}

/** Compiles the readers in Go. Without Go, their tests are skipped. */
export default function build() {
  try {
    execFileSync('go', ['version'], { stdio: 'ignore' });
  } catch {
    rmSync(readersInGo, { force: true });
    console.log('Go is not installed: the tests of the clients in Go are skipped');
    return;
  }
  mkdirSync(resolve(readersInGo, '..'), { recursive: true });
  execFileSync('go', ['build', '-mod=readonly', '-o', readersInGo, '.'], {
    cwd: resolve(here, 'go'),
    env: { ...process.env, GOFLAGS: '', GOTOOLCHAIN: 'local' },
    stdio: 'inherit',
  });
}
