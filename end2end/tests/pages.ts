// A server of another origin than Waterclock's, with the pages of a test, and modules for them.
import type { Page } from '@playwright/test';
import { execFileSync } from 'node:child_process';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { resolve } from 'node:path';
import { type Server, test as base } from './server.ts';

/** The folder of the client, whose packages the modules may import. */
export const client = resolve(import.meta.dirname, '../../client');

/** The sources of the client, by the name of the module. */
export const modules = {
  'waterclock/react': resolve(client, 'src/react.ts'),
  waterclock: resolve(client, 'src/index.ts'),
};

export const blank = '<!doctype html><title>a page</title><link rel="icon" href="data:,"><main></main>';

/** The pages, by their path. All others are empty. */
export type Pages = { origin: string; files: Record<string, string> };

export const test = base.extend<{ pages: Pages }>({
  pages: async ({}, use) => {
    const files: Record<string, string> = {};
    const server = createServer(({ url = '' }, response) => {
      const file = files[url];
      const type = url.endsWith('.js') ? 'text/javascript' : 'text/html';
      response.writeHead(200, { 'content-type': `${type}; charset=utf-8` });
      response.end(file ?? blank);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    await use({ origin: `http://127.0.0.1:${port}`, files });
    server.close();
    server.closeAllConnections();
  },
});

/** Opens an empty page of the server's own origin. */
export async function openOwn(page: Page, server: Server) {
  const url = `${server.url}/an-empty-page`;
  await page.route(url, (route) => route.fulfill({ contentType: 'text/html', body: blank }));
  await page.goto(url);
}

/** Bundles a module for a page, or for a server. */
export function bundle(input: string, ...options: string[]): string {
  const flags = ['__VUE_OPTIONS_API__', '__VUE_PROD_DEVTOOLS__', '__VUE_PROD_HYDRATION_MISMATCH_DETAILS__'];
  const all = [
    '--bundle',
    '--format=esm',
    '--loader=tsx',
    '--jsx=automatic',
    '--log-level=error',
    '--define:process.env.NODE_ENV="development"',
    ...flags.map((flag) => `--define:${flag}=false`),
    ...Object.entries(modules).map(([name, path]) => `--alias:${name}=${path}`),
    ...options,
  ];
  const env = { ...process.env, NODE_PATH: resolve(client, 'node_modules') };
  const settings = { cwd: client, env, input, maxBuffer: 1 << 26 };
  return execFileSync('node_modules/.bin/esbuild', all, settings).toString();
}
