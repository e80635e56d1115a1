// The test cases of each proxy: its configuration of docs/proxies/, unchanged and with common
// mistakes. Each case lists the faults that follow, by their names in docs/diagnose.md.
import type { Change, Kind, Setting } from './proxies.ts';

export type Case = Setting & {
  proxy: Kind;
  /** The change in words. */
  setting: string;
  faults: string[];
  /** The faults that the page finds, if they are fewer. */
  onPage?: string[];
  /** The faults that a diagnosis finds only sometimes. */
  sometimes?: string[];
  /** The HTTP version between proxy and server, if it is neither 1.1 nor 1.0 (which is a fault). */
  upstream?: 'HTTP/2';
};

/** The names of the proxies that the diagnosis detects. HAProxy adds no header that reveals it. */
export const detected: Record<Kind, string | null> = {
  nginx: 'nginx',
  haproxy: null,
  caddy: 'caddy',
  apache: 'apache',
};

const nginx = 'proxy_set_header Host $http_host;';
const haproxy = 'server waterclock 127.0.0.1:3000';
const caddy = 'reverse_proxy 127.0.0.1:3000';
const apache = 'ProxyPreserveHost On';

const also = (line: string, more: string): Change => [line, `${more}\n${line}`];
const within = (line: string, more: string): Change => [line, `${line} {\n${more}\n}`];

export const cases: Case[] = [
  { proxy: 'nginx', setting: 'as documented', changes: [], faults: [] },
  // Over HTTP/1.1, nginx passes each chunk on immediately, even with buffering on.
  {
    proxy: 'nginx',
    setting: 'proxy_ignore_headers X-Accel-Buffering',
    changes: [also(nginx, 'proxy_ignore_headers X-Accel-Buffering;')],
    faults: [],
  },
  {
    proxy: 'nginx',
    setting: 'proxy_ignore_headers X-Accel-Buffering, HTTP/1.0',
    changes: [['version 1.1', 'version 1.0'], also(nginx, 'proxy_ignore_headers X-Accel-Buffering;')],
    faults: ['buffering', 'http-1.0-upstream'],
  },
  {
    proxy: 'nginx',
    setting: 'proxy_http_version 1.0',
    changes: [['version 1.1', 'version 1.0']],
    faults: ['http-1.0-upstream'],
  },
  {
    proxy: 'nginx',
    setting: 'gzip_types text/event-stream',
    changes: [also(nginx, 'gzip on; gzip_types text/event-stream;')],
    faults: ['compression'],
  },
  {
    proxy: 'nginx',
    setting: 'gzip_types *, proxy_ignore_headers X-Accel-Buffering',
    changes: [also(nginx, 'gzip on; gzip_types *; proxy_ignore_headers X-Accel-Buffering;')],
    faults: ['buffering', 'compression'],
  },
  {
    proxy: 'nginx',
    setting: 'proxy_read_timeout 2s',
    changes: [['proxy_read_timeout 1h', 'proxy_read_timeout 2s']],
    faults: ['idle-timeout'],
  },

  // HAProxy always uses HTTP/1.1 to the server.
  { proxy: 'haproxy', setting: 'as documented', changes: [], faults: [] },
  {
    proxy: 'haproxy',
    setting: 'without option http-no-delay',
    changes: [['option http-no-delay', '']],
    faults: ['coalescing'],
  },
  {
    proxy: 'haproxy',
    setting: 'http-response wait-for-body',
    changes: [also(haproxy, 'http-response wait-for-body time 30s')],
    faults: ['buffering'],
  },
  // HAProxy obeys the stream's `no-transform`.
  {
    proxy: 'haproxy',
    setting: 'compression algo gzip',
    changes: [also(haproxy, 'compression algo gzip')],
    faults: [],
  },
  {
    proxy: 'haproxy',
    setting: 'timeout server 2s',
    changes: [['timeout server 1h', 'timeout server 2s']],
    faults: ['idle-timeout'],
  },

  // Caddy uses HTTP/1.1 to the server by default.
  { proxy: 'caddy', setting: 'as documented', changes: [], faults: [] },
  { proxy: 'caddy', setting: 'buffer_responses', changes: [within(caddy, 'buffer_responses')], faults: ['buffering'] },
  {
    proxy: 'caddy',
    setting: 'encode gzip',
    // Caddy compresses streams whose first write has 512 bytes or more, as that of a resumed
    // stream.
    changes: [also(caddy, 'encode gzip')],
    faults: ['buffering', 'compression'],
    // The first write of the streams of the delivery check is smaller.
    onPage: ['compression'],
  },
  {
    proxy: 'caddy',
    setting: 'read_timeout 2s',
    changes: [within(caddy, 'transport http {\nread_timeout 2s\n}')],
    faults: ['idle-timeout'],
  },

  // mod_proxy_http flushes whenever the server pauses, and mod_buffer with it.
  { proxy: 'apache', setting: 'as documented', changes: [], faults: [] },
  {
    proxy: 'apache',
    setting: 'mod_buffer, flushpackets=off',
    changes: [also(apache, 'SetOutputFilter BUFFER'), ['timeout=3600', 'timeout=3600 flushpackets=off']],
    faults: [],
  },
  {
    proxy: 'apache',
    setting: 'mod_deflate',
    changes: [also(apache, 'AddOutputFilterByType DEFLATE text/event-stream')],
    faults: ['compression'],
  },
  {
    proxy: 'apache',
    setting: 'timeout=2',
    changes: [['timeout=3600', 'timeout=2']],
    faults: ['idle-timeout'],
  },
  {
    proxy: 'apache',
    setting: 'force-proxy-request-1.0',
    changes: [also(apache, 'SetEnv force-proxy-request-1.0 1\nSetEnv proxy-nokeepalive 1')],
    faults: ['http-1.0-upstream'],
  },
  {
    proxy: 'apache',
    setting: 'MaxRequestWorkers 25',
    changes: [['</VirtualHost>', '</VirtualHost>\nThreadsPerChild 25\nMaxRequestWorkers 25']],
    faults: ['connection-limit'],
  },

  // Over TLS.
  { proxy: 'nginx', setting: 'as documented', tls: 'HTTP/2', changes: [], faults: [] },
  {
    proxy: 'nginx',
    setting: 'proxy_ignore_headers X-Accel-Buffering, HTTP/1.0',
    tls: 'HTTP/2',
    changes: [['version 1.1', 'version 1.0'], also(nginx, 'proxy_ignore_headers X-Accel-Buffering;')],
    faults: ['buffering', 'http-1.0-upstream'],
  },
  {
    proxy: 'nginx',
    setting: 'http2_max_concurrent_streams 10',
    tls: 'HTTP/2',
    changes: [also('    listen 443', 'http2_max_concurrent_streams 10;')],
    faults: ['connection-limit'],
  },
  { proxy: 'nginx', setting: 'without http2', tls: 'HTTP/1.1', changes: [['ssl http2', 'ssl']], faults: [] },

  { proxy: 'haproxy', setting: 'as documented', tls: 'HTTP/2', changes: [], faults: [] },
  // Over TLS, HAProxy does not wait for more data to send.
  {
    proxy: 'haproxy',
    setting: 'without alpn, option http-no-delay',
    tls: 'HTTP/1.1',
    changes: [
      ['alpn h2,http/1.1', ''],
      ['option http-no-delay', ''],
    ],
    faults: [],
  },
  {
    proxy: 'haproxy',
    setting: 'http-response wait-for-body',
    tls: 'HTTP/2',
    changes: [also(haproxy, 'http-response wait-for-body time 30s')],
    faults: ['buffering'],
  },
  {
    proxy: 'haproxy',
    setting: 'proto h2',
    tls: 'HTTP/2',
    changes: [[haproxy, `${haproxy} proto h2 ws h1`]],
    upstream: 'HTTP/2',
    faults: [],
  },

  { proxy: 'caddy', setting: 'as documented', tls: 'HTTP/2', changes: [], faults: [] },
  {
    proxy: 'caddy',
    setting: 'encode gzip',
    tls: 'HTTP/2',
    changes: [also(caddy, 'encode gzip')],
    faults: ['buffering', 'compression'],
    onPage: ['compression'],
  },
  {
    proxy: 'caddy',
    setting: 'h2c://',
    tls: 'HTTP/2',
    changes: [[caddy, 'reverse_proxy h2c://127.0.0.1:3000\nreverse_proxy /ws 127.0.0.1:3000']],
    upstream: 'HTTP/2',
    faults: [],
  },

  // mod_http2 serves six requests at once on a new connection, and mostly more after the first
  // responses.
  {
    proxy: 'apache',
    setting: 'as documented',
    tls: 'HTTP/2',
    changes: [],
    faults: ['connection-limit'],
    sometimes: ['connection-limit'],
  },
  {
    proxy: 'apache',
    setting: 'mod_deflate',
    tls: 'HTTP/2',
    changes: [also(apache, 'AddOutputFilterByType DEFLATE text/event-stream')],
    faults: ['compression', 'connection-limit'],
    sometimes: ['connection-limit'],
  },
  {
    proxy: 'apache',
    setting: 'h2c://',
    tls: 'HTTP/2',
    changes: [
      also('    ProxyPass', 'ProxyPass /ws http://127.0.0.1:3000/ws upgrade=websocket timeout=3600'),
      ['ProxyPass / http://127.0.0.1:3000/ upgrade=websocket', 'ProxyPass / h2c://127.0.0.1:3000/'],
    ],
    upstream: 'HTTP/2',
    faults: ['connection-limit'],
    sometimes: ['connection-limit'],
  },
];

/** The title of a case. */
export const title = ({ proxy, tls, setting }: Case) => `${proxy}${tls ? ` over TLS, ${tls}` : ''}: ${setting}`;
