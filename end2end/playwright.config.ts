// End-to-end tests in Chromium. Each test starts a server of its own (see tests/server.ts), since some
// of them kill it.
import { defineConfig } from '@playwright/test';
import { executablePath } from './chromium.js';

export default defineConfig({
  testDir: 'tests',
  fullyParallel: true,
  workers: 2,
  forbidOnly: true,
  reporter: 'list',
  use: {
    launchOptions: {
      executablePath,
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
