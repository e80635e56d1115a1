// A proxy that parses only the request lines of HTTP/1.1. It counts the bytes by the class of their
// request, and can delay the server's data.
import { connect, createServer, type AddressInfo, type Server as Listener, type Socket } from 'node:net';

export type Counts = { received: number; sent: number; requests: number };

export class Proxy {
  url = '';
  /** Counts by class. */
  counts = new Map<string, Counts>();
  /** Delays of the server's data in milliseconds, by class. */
  delays = new Map<string, number>();
  private listener!: Listener;
  private sockets = new Set<Socket>();

  constructor(private classify: (target: string) => string) {}

  async start(server: string) {
    const { hostname, port } = new URL(server);
    this.listener = createServer((client) => this.pass(client, connect(Number(port), hostname)));
    await new Promise<void>((ready) => this.listener.listen(0, '127.0.0.1', ready));
    this.url = `http://127.0.0.1:${(this.listener.address() as AddressInfo).port}`;
  }

  /** Counts the open connections whose last request was of a class. */
  open(of: string): number {
    return [...this.sockets].filter((socket) => (socket as Socket & { of?: string }).of === of).length;
  }

  stop() {
    for (const socket of this.sockets) socket.destroy();
    this.listener.close();
  }

  private pass(client: Socket & { of?: string }, server: Socket) {
    this.sockets.add(client);
    client.setNoDelay();
    server.setNoDelay();
    client.on('data', (bytes) => {
      // A browser sends the head of a request in one piece, and only after the response to the one
      // before.
      const target = /^(?:GET|POST|DELETE) (\S+) HTTP\/1\.1\r\n/.exec(bytes.toString('latin1'))?.[1];
      if (target !== undefined) {
        client.of = this.classify(target);
        this.of(client).requests++;
      }
      this.of(client).received += bytes.length;
      server.write(bytes);
    });
    server.on('data', (bytes) => {
      this.of(client).sent += bytes.length;
      const delay = this.delays.get(client.of!);
      if (delay) setTimeout(() => client.writable && client.write(bytes), delay);
      else client.write(bytes);
    });
    for (const [one, other] of [[client, server], [server, client]]) {
      one.on('error', () => other.destroy());
      one.on('end', () => other.end());
      one.on('close', () => {
        other.destroy();
        this.sockets.delete(client);
      });
    }
  }

  private of(client: { of?: string }): Counts {
    const of = client.of ?? '';
    if (!this.counts.has(of)) this.counts.set(of, { received: 0, sent: 0, requests: 0 });
    return this.counts.get(of)!;
  }
}
