// What is tried behind each proxy: its configuration of docs/proxies/ as it is, and with what people get wrong, each
// with the faults that this makes, in the names of docs/diagnose.md.
import type { Change, Kind } from './proxies.ts';

export type Case = {
  proxy: Kind;
  setting: string;
  changes: Change[];
  faults: string[];
  /** What the page finds of that, if it is less. */
  onPage?: string[];
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
];
