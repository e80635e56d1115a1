// The tests of public clients and of the examples. Each starts a server, and the readers of a
// client or an example, and mostly waits.
import { defineConfig } from '@playwright/test';
import { chromium, patience } from './playwright.config.ts';

export default defineConfig({
  testDir: 'clients',
  outputDir: 'test-results/clients',
  preserveOutput: 'failures-only',
  globalSetup: './clients/clients.ts',
  fullyParallel: true,
  workers: 4,
  forbidOnly: true,
  timeout: 30_000 * patience,
  expect: { timeout: 5_000 * patience },
  reporter: 'list',
  use: {
    launchOptions: {
      ...chromium.launchOptions,
      // The pages of a worker share a process, which is quicker.
      args: [...chromium.launchOptions.args, '--process-per-site'],
    },
  },
});
