// The examples of docs/client.md and of the package's README: they have the types that they use,
// and do what they say.
import type { Page } from '@playwright/test';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { bundle, client, modules, openOwn, test } from './pages.ts';
import { expect, type Server, streams } from './server.ts';

const { compile } = createRequire(resolve(client, 'package.json'))('svelte/compiler');

/** The code blocks of a document, by heading. Each heading has one at most. */
function examples(path: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const section of readFileSync(resolve(client, path), 'utf8').split(/^#+ /m)) {
    const heading = section.split('\n')[0];
    for (const [, code] of section.matchAll(/^```\w+\n(.*?)^```$/gms)) {
      expect(found[heading], heading).toBeUndefined();
      found[heading] = code;
    }
  }
  return found;
}

const all = examples('../docs/client.md');

/** Adds the import that the text of a document has named before. */
const complete = (code: string) =>
  code.includes('import ') ? code : `import { publish, subscribe } from "waterclock";\n${code}`;

async function publish(server: Server, topic: string, body: string, query = '') {
  const response = await fetch(`${server.url}/events/${topic}?${query}`, { method: 'POST', body });
  expect(response.ok).toBe(true);
}

/** Runs a module in a page of the server's own origin. Returns the lines that it logs. */
async function run(page: Page, server: Server, code: string): Promise<string[]> {
  const lines: string[] = [];
  page.on('console', (message) => lines.push(message.text()));
  await openOwn(page, server);
  await page.addScriptTag({ type: 'module', content: bundle(code) });
  return lines;
}

/** Expects a button with the state, which stops and starts the stream, and a list of the orders. */
async function isList(page: Page, server: Server) {
  const [button, items] = [page.locator('main button'), page.locator('main li')];
  await expect(button).toHaveText('live');
  await publish(server, 'orders.eu', 'a');
  await publish(server, 'orders.us', 'b');
  await expect(items).toHaveText(['a', 'b']);
  await button.click();
  await expect(button).toHaveText('stopped');
  await expect.poll(() => streams(server)).toBe(0);
  await publish(server, 'orders.eu', 'c');
  await button.click();
  await expect(items).toHaveText(['a', 'b', 'c']);
  await expect(button).toHaveText('live');
}

/** Runs a module as a server does, and returns its default export. */
async function onServer(folder: string, code: string): Promise<string> {
  const file = resolve(folder, 'server.mjs');
  writeFileSync(file, bundle(code, '--platform=node', '--banner:js=import { createRequire } from "node:module"; const require = createRequire("/");'));
  return (await import(pathToFileURL(file).href)).default;
}

/** A component that reads the store of the document. */
const component = `
  <script module>
    import { eventStore } from 'store';
    const orders = eventStore('/events?topic=orders.*');
  </script>
  <ul>{#each $orders as order (order.id)}<li>{order.data}</li>{/each}</ul>
`;

function svelte(folder: string, generate: 'client' | 'server', code: string): string {
  writeFileSync(resolve(folder, 'store.ts'), all.Svelte);
  const { js } = compile(component, { generate, name: 'Orders' });
  writeFileSync(resolve(folder, 'Orders.js'), js.code.replace("'store'", "'./store.ts'"));
  return `import Orders from '${folder}/Orders.js'; ${code}`;
}

test('each example is tested, and has the types that it uses', ({}, info) => {
  expect(Object.keys(all)).toEqual(['The client for pages', 'subscribe', 'publish', 'React', 'Vue', 'Svelte']);
  const { 'The client for pages': _, ...typed } = all;
  const readme = readFileSync(resolve(client, 'README.md'), 'utf8');
  const [long, hook] = [...readme.matchAll(/^```tsx?\n(.*?)^```$/gms)].map(([, code]) => code);
  const files: Record<string, string> = {
    ...Object.fromEntries(Object.entries(typed).map(([name, code]) => [name, complete(code)])),
    long,
    hook: `import { useStream } from "waterclock/react";\nexport function App() {\n${hook}return { events, state, start, stop };\n}`,
  };
  const folder = info.outputPath('types');
  mkdirSync(folder, { recursive: true });
  symlinkSync(resolve(client, 'node_modules'), resolve(folder, 'node_modules'));
  for (const [name, code] of Object.entries(files)) {
    writeFileSync(resolve(folder, `${name}.tsx`), `${code}\nexport {};\n`);
  }
  const config = {
    compilerOptions: {
      target: 'ES2022',
      module: 'esnext',
      moduleResolution: 'bundler',
      lib: ['ES2022', 'DOM', 'DOM.Iterable', 'DOM.AsyncIterable'],
      jsx: 'react-jsx',
      strict: true,
      noEmit: true,
      skipLibCheck: true,
      allowImportingTsExtensions: true,
      types: [],
      paths: Object.fromEntries(Object.entries(modules).map(([name, path]) => [name, [path]])),
    },
    include: ['*.tsx'],
  };
  writeFileSync(resolve(folder, 'tsconfig.json'), JSON.stringify(config));
  let errors = '';
  try {
    execFileSync(resolve(client, 'node_modules/.bin/tsc'), ['-p', folder]);
  } catch (error: any) {
    errors = String(error.stdout);
  }
  expect(errors).toBe('');
});

test('a plain page loads the client from the server', async ({ page, server, pages }) => {
  await server.start('--cors-origin', pages.origin);
  const code = all['The client for pages'].replaceAll('https://events.example.org', server.url);
  pages.files['/'] = `<!doctype html><title>a page</title><link rel="icon" href="data:,">${code}`;
  const lines: string[] = [];
  page.on('console', (message) => lines.push(message.text()));
  await page.goto(pages.origin);
  await expect.poll(() => lines).toContain('live null');
  await publish(server, 'orders.eu', '17', 'name=created');
  await expect.poll(() => lines).toContain('orders.eu created 17');
});

test('a loop reads a topic from its first event to its end', async ({ page, server }) => {
  await server.start();
  await publish(server, 'answers.17', 'one');
  const lines = await run(page, server, `${complete(all.subscribe)} console.log("over");`);
  await expect.poll(() => lines).toEqual(['one']);
  await publish(server, 'answers.17', 'two');
  await publish(server, 'answers.17', '', 'end');
  await expect.poll(() => lines).toEqual(['one', 'two', 'over']);
});

test('a page publishes an object with a name', async ({ page, server }) => {
  await server.start();
  const lines = await run(page, server, `${complete(all.publish)} console.log(JSON.stringify(event));`);
  await expect.poll(() => lines).toHaveLength(1);
  expect(JSON.parse(lines[0])).toMatchObject({ topic: 'orders.eu', name: 'created', data: '{"order":17}' });
});

test('the component for React is a list with a button', async ({ page, server }) => {
  await server.start();
  const render = 'createRoot(document.querySelector("main")!).render(<StrictMode><Orders /></StrictMode>);';
  const imports = 'import { StrictMode } from "react"; import { createRoot } from "react-dom/client";';
  await run(page, server, `${imports}\n${all.React}\n${render}`);
  await isList(page, server);
});

test('the function for Vue makes a list with a button, and no stream on a server', async ({ page, server }, info) => {
  await server.start();
  const view = `
    const setup = () => {
      const { events, state, start, stop } = useStream("/events?topic=orders.*");
      const toggle = () => (state.value === "stopped" ? start() : stop());
      const items = () => events.value.map(({ id, data }) => h("li", { key: id }, data));
      return () => [h("button", { onClick: toggle }, state.value), h("ul", items())];
    };
  `;
  const mount = 'createApp({ setup }).mount("main");';
  await run(page, server, `import { createApp, h } from "vue";\n${all.Vue}\n${view}\n${mount}`);
  await isList(page, server);
  const imports = 'import { createSSRApp, h } from "vue"; import { renderToString } from "vue/server-renderer";';
  mkdirSync(info.outputPath(), { recursive: true });
  const html = `export default await renderToString(createSSRApp({ setup }));`;
  const rendered = await onServer(info.outputPath(), `${imports}\n${all.Vue}\n${view}\n${html}`);
  expect(rendered).toContain('<button>idle</button>');
});

test('the store for Svelte is read while it is shown, and not on a server', async ({ page, server }, info) => {
  await server.start();
  const folder = info.outputPath();
  mkdirSync(folder, { recursive: true });
  const mounting = `
    import { mount, unmount } from "svelte";
    window.show = () => (window.shown = mount(Orders, { target: document.querySelector("main") }));
    window.hide = () => unmount(window.shown);
    window.show();
  `;
  await run(page, server, svelte(folder, 'client', mounting));
  const items = page.locator('main li');
  await expect.poll(() => streams(server)).toBe(1);
  await publish(server, 'orders.eu', 'a');
  await expect(items).toHaveText(['a']);
  await page.evaluate('hide()');
  await expect.poll(() => streams(server)).toBe(0);
  await publish(server, 'orders.eu', 'b');
  await page.evaluate('void show()');
  await expect(items).toHaveText(['a', 'b']);
  const html = 'export default render(Orders).body;';
  const code = svelte(folder, 'server', `import { render } from "svelte/server"; ${html}`);
  expect(await onServer(folder, code)).toContain('<ul>');
});
