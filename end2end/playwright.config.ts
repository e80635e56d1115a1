// End-to-end tests in Chromium: the system's if there is one, else Playwright's own. Each test starts
// a server of its own (see tests/server.ts), since some of them kill it.
import { defineConfig } from '@playwright/test';
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';

const names = ['chromium', 'chromium-browser', 'google-chrome'];
const folders = (process.env.PATH ?? '').split(delimiter);
const system = names.flatMap((name) => folders.map((folder) => join(folder, name))).find(existsSync);

export default defineConfig({
  testDir: 'tests',
  fullyParallel: true,
  workers: 2,
  forbidOnly: true,
  reporter: 'list',
  use: {
    launchOptions: {
      executablePath: system,
      // A browser that stays on this machine. Root, as in a container, has no sandbox.
      args: [
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
        '--no-first-run',
      ],
      chromiumSandbox: process.getuid?.() !== 0,
    },
    trace: 'retain-on-failure',
  },
});
