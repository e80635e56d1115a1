import { defineConfig } from 'vite';

const target = process.env.WATERCLOCK_URL ?? 'http://127.0.0.1:3000';

const proxy = {
  target,
  // By itself, Vite leaves a stream open whose server has died, and the page waits in vain. It also
  // leaves one open whose page has left before the response.
  configure: (proxy) =>
    proxy.on('proxyRes', (response, _, toPage) => {
      response.on('error', () => toPage.destroy());
      if (toPage.destroyed) response.destroy();
    }),
};

export default defineConfig({
  // The page reads and publishes at `/events`, and a tab that has missed something asks `/poll`.
  server: { proxy: { '/events': proxy, '/poll': proxy } },
  esbuild: { jsx: 'automatic' },
});
