// The tests behind real proxies. Each starts a server and a proxy of its own, and mostly waits.
import { defineConfig } from '@playwright/test';
import { chromium, patience } from './playwright.config.ts';

export default defineConfig({
  testDir: 'proxies',
  outputDir: 'test-results/proxies',
  preserveOutput: 'failures-only',
  fullyParallel: true,
  workers: 5,
  forbidOnly: true,
  timeout: 30_000 * patience,
  expect: { timeout: 5_000 * patience },
  reporter: 'list',
  use: chromium,
});
