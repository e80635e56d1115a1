// What a plain client sees behind each proxy: the truth that `waterclock diagnose` is held to.
import { expect } from '@playwright/test';
import { request, type IncomingMessage } from 'node:http';
import { connect, createServer, type AddressInfo } from 'node:net';
import { constants, createGunzip } from 'node:zlib';
import { cases } from './cases.ts';
import { test } from './proxies.ts';

for (const { proxy, setting, changes, faults } of cases) {
  test(`${proxy}: ${setting}`, async ({ front, server }) => {
    const heads = await record(server.url);
    await front.start(proxy, heads.url, changes);
    const publish = (body: string) => fetch(`${server.url}/events/test`, { method: 'POST', body });
    const found: string[] = [];

    await publish('x'.repeat(600));
    const stream = new Stream(`${front.url}/events?topic=test&last_event_id=earliest`);
    await within(2000, stream.head);
    const delays: number[] = [];
    let held = false;
    for (const data of ['one', 'two', 'three']) {
      await publish(data);
      const published = performance.now();
      held ||= !(await within(2000, stream.has(data)));
      delays.push(performance.now() - published);
    }
    if (held) found.push('buffering');
    else if (Math.min(...delays) > 150) found.push('coalescing');
    // A stream that ends tells its headers even where they are held.
    const { headers } = await fetch(`${front.url}/events?topic=test&last_event_id=earliest&limit=1`);
    if (headers.get('content-encoding')) found.push('compression');
    if (/HTTP\/1\.0\r\n/.test(await heads.seen)) found.push('http-1.0-upstream');
    if (!held) {
      if (await within(5000, stream.end)) found.push('idle-timeout');
      const streams = Array.from({ length: 32 }, () => new Stream(`${front.url}/events?topic=test`));
      if (!(await within(5000, Promise.all(streams.map(({ head }) => head))))) found.push('connection-limit');
      for (const one of streams) one.close();
    }
    stream.close();

    expect(found.sort()).toEqual(faults);
    heads.close();
  });
}

/** Whether it happens within so many milliseconds. */
async function within(limit: number, event: Promise<unknown>): Promise<boolean> {
  let timer;
  const late = new Promise((done) => (timer = setTimeout(done, limit, 'late')));
  const first = await Promise.race([event, late]);
  clearTimeout(timer);
  return first !== 'late';
}

/** A stream as a browser asks for it, which takes compression. */
class Stream {
  head: Promise<void>;
  end: Promise<void>;
  private text = '';
  private waiting = () => {};
  private request;

  constructor(url: string) {
    this.request = request(url, { headers: { accept: 'text/event-stream', 'accept-encoding': 'gzip' } });
    this.head = new Promise((done) => {
      this.request.once('response', (answer: IncomingMessage) => {
        const gunzip = createGunzip({ flush: constants.Z_SYNC_FLUSH }).on('error', () => {});
        const body = answer.headers['content-encoding'] ? answer.pipe(gunzip) : answer;
        body.setEncoding('utf8').on('data', (text) => {
          this.text += text;
          this.waiting();
        });
        answer.on('error', () => {}); // it is cut
        done();
      });
    });
    this.end = new Promise((done) => this.request.on('error', () => {}).once('close', done));
    this.request.end();
  }

  has(data: string): Promise<void> {
    return new Promise((done) => {
      this.waiting = () => this.text.includes(`data: ${data}\n`) && done();
      this.waiting();
    });
  }

  close() {
    this.request.destroy();
  }
}

/** Passes all on to the server, and tells what the first connection began with. */
async function record(server: string) {
  const { hostname, port } = new URL(server);
  let see: (text: string) => void;
  const seen = new Promise<string>((done) => (see = done));
  const listener = createServer((client) => {
    const other = connect(Number(port), hostname);
    client.once('data', (bytes) => see(bytes.toString()));
    client.on('error', () => other.destroy()).pipe(other);
    other.on('error', () => client.destroy()).pipe(client);
  });
  await new Promise<void>((ready) => listener.listen(0, '127.0.0.1', ready));
  const url = `http://127.0.0.1:${(listener.address() as AddressInfo).port}`;
  return { url, seen, close: () => listener.close() };
}
