// What is tried behind each proxy: its configuration of docs/proxies/ as it is, and with what people get wrong, each
// with the faults that this makes, in the names of docs/diagnose.md.
import type { Change, Kind, Setting } from './proxies.ts';

export type Case = Setting & {
  proxy: Kind;
  /** What was changed. */
  setting: string;
  faults: string[];
  /** What the page finds of that, if it is less. */
  onPage?: string[];
  /** What a diagnosis finds of that only sometimes. */
  sometimes?: string[];
  /** The version of HTTP that the proxy speaks to the server, if it is not 1.1 (or 1.0, which is a fault). */
  upstream?: 'HTTP/2';
};

/** The names that the diagnosis has for what it can recognise. HAProxy adds nothing to tell it by. */
export const recognised: Record<Kind, string | null> = {
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
  // Over HTTP/1.1 nginx passes each chunk on at once even with its buffers on.
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

  // HAProxy speaks HTTP/1.1 to the server whatever it is told.
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
  // It obeys the stream's `no-transform`.
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

  // Caddy speaks HTTP/1.1 to the server, or 2 if told so.
  { proxy: 'caddy', setting: 'as documented', changes: [], faults: [] },
  { proxy: 'caddy', setting: 'buffer_responses', changes: [within(caddy, 'buffer_responses')], faults: ['buffering'] },
  {
    proxy: 'caddy',
    setting: 'encode gzip',
    // Only what begins with 512 bytes or more, as a stream does that was resumed.
    changes: [also(caddy, 'encode gzip')],
    faults: ['buffering', 'compression'],
    // The streams that it measures delivery by begin with less.
    onPage: ['compression'],
  },
  {
    proxy: 'caddy',
    setting: 'read_timeout 2s',
    changes: [within(caddy, 'transport http {\nread_timeout 2s\n}')],
    faults: ['idle-timeout'],
  },

  // mod_proxy_http flushes what it has whenever the server pauses, and mod_buffer gives way to that.
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
  // Over TLS it does not wait for more.
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

  // Of a new connection mod_http2 looks at six requests at once; of one that has had answers, mostly at more.
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

/** A case in words. */
export const title = ({ proxy, tls, setting }: Case) => `${proxy}${tls ? ` over TLS, ${tls}` : ''}: ${setting}`;
