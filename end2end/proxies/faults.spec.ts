// Behind each proxy, a plain client must see the faults of the case. This verifies the cases
// themselves.
import { expect } from '@playwright/test';
import * as http from 'node:http';
import * as http2 from 'node:http2';
import * as https from 'node:https';
import { connect, createServer, type AddressInfo } from 'node:net';
import type { Readable } from 'node:stream';
import { constants, createGunzip } from 'node:zlib';
import { cases, title } from './cases.ts';
import { test } from './proxies.ts';

for (const one of cases) {
  test(title(one), async ({ front, server }) => {
    const heads = await record(server.url);
    await front.start(one.proxy, heads.url, one);
    const client = new Client(front.url, one.tls === 'HTTP/2');
    const publish = (body: string) => fetch(`${server.url}/events/test`, { method: 'POST', body });
    const found: string[] = [];

    await publish('x'.repeat(600));
    const stream = client.get('/events?topic=test&last_event_id=earliest');
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
    // The headers of a stream that ends arrive even if a buffer holds them back.
    const headers = await client.get('/events?topic=test&last_event_id=earliest&limit=1').head;
    if (headers['content-encoding']) found.push('compression');
    if (/HTTP\/1\.0\r\n/.test(await heads.seen)) found.push('http-1.0-upstream');
    if (!held) {
      if (await within(5000, stream.end)) found.push('idle-timeout');
      const streams = Array.from({ length: 32 }, () => client.get('/events?topic=test'));
      if (!(await within(5000, Promise.all(streams.map(({ head }) => head))))) found.push('connection-limit');
      for (const stream of streams) stream.close();
    }
    client.close();

    expect(found.sort()).toEqual(one.faults);
    heads.close();
  });
}

/** Returns `true` if the event happens within a number of milliseconds. */
async function within(limit: number, event: Promise<unknown>): Promise<boolean> {
  let timer;
  const late = new Promise((done) => (timer = setTimeout(done, limit, 'late')));
  const first = await Promise.race([event, late]);
  clearTimeout(timer);
  return first !== 'late';
}

/** Requests streams like a browser: with compression, and over HTTP/2 on one connection. */
class Client {
  private streams: Stream[] = [];
  private session?: http2.ClientHttp2Session;

  constructor(
    private url: string,
    inHttp2: boolean,
  ) {
    if (inHttp2) this.session = http2.connect(url, insecure).on('error', () => {});
  }

  get(path: string): Stream {
    const headers = { accept: 'text/event-stream', 'accept-encoding': 'gzip' };
    const request = this.session
      ? this.session.request({ ':path': path, ...headers })
      : (this.url.startsWith('https:') ? https : http).get(this.url + path, { headers, ...insecure });
    const stream = new Stream(request);
    this.streams.push(stream);
    return stream;
  }

  close() {
    for (const stream of this.streams) stream.close();
    this.session?.destroy();
  }
}

const insecure = { rejectUnauthorized: false };

class Stream {
  head: Promise<http.IncomingHttpHeaders>;
  end: Promise<void>;
  private text = '';
  private waiting = () => {};

  constructor(private request: http.ClientRequest | http2.ClientHttp2Stream) {
    this.head = new Promise((done) => {
      // Over HTTP/1.1 the body is the response, over HTTP/2 it is the stream.
      request.once('response', (answer: http.IncomingMessage | http.IncomingHttpHeaders) => {
        const body = answer instanceof http.IncomingMessage ? answer : (request as http2.ClientHttp2Stream);
        const headers = answer instanceof http.IncomingMessage ? answer.headers : answer;
        const gunzip = createGunzip({ flush: constants.Z_SYNC_FLUSH }).on('error', () => {});
        const text: Readable = headers['content-encoding'] ? body.pipe(gunzip) : body;
        text.setEncoding('utf8').on('data', (part) => {
          this.text += part;
          this.waiting();
        });
        body.on('error', () => {}); // when the stream is cut
        done(headers);
      });
    });
    this.end = new Promise((done) => request.on('error', () => {}).once('close', done));
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

/** Forwards connections to the server, and records the first bytes of the first one. */
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
