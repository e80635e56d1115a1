// End-to-end tests in Chromium. Firefox runs firefox.spec.ts, and the tests of other files that
// depend on the browser (not tagged @chromium). Each test starts its own server (tests/server.ts),
// because some of them kill it.
import { defineConfig } from '@playwright/test';
import { executablePath } from './chromium.js';

// Chromium counts only the last list of features, so those that Playwright turns off come first.
const disabledFeatures = [
  'AimEnabled',
  'AvoidCorsURLLoaderRestartOnRedirect',
  'AvoidUnnecessaryBeforeUnloadCheckSync',
  'DestroyProfileOnBrowserClose',
  'HttpsFirstBalancedModeAutoEnable',
  'HttpsUpgrades',
  'LensOverlay',
  'MediaRouter',
  'NetworkTimeServiceQuerying',
  'OptimizationHints',
  'PaintHolding',
  'PreconnectToSearch',
  'ThirdPartyStoragePartitioning',
  // The suggestions of the address bar are two pages that each window loads, though nobody sees
  // them. That takes two thirds of the CPU time of opening a window.
  'WebUIOmniboxAimPopup',
  'WebUIOmniboxFullPopup',
  'WebUIOmniboxPopup',
];

export const chromium = {
  launchOptions: {
    executablePath,
    // A browser that stays on this machine. Root, as in a container, has no sandbox.
    args: [
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--no-first-run',
      `--disable-features=${disabledFeatures}`,
    ],
    chromiumSandbox: process.getuid?.() !== 0,
  },
};

/** The factor by which tests wait longer than by default, on a machine that has more to do. */
export const patience = Number(process.env.E2E_PATIENCE ?? 1);

export default defineConfig({
  testDir: 'tests',
  fullyParallel: true,
  workers: 2,
  forbidOnly: true,
  timeout: 20_000 * patience,
  expect: { timeout: 5_000 * patience },
  reporter: 'list',
  // Traces would take a third of the time of all tests. E2E="NAME --trace on" records them.
  use: { screenshot: 'only-on-failure' },
  projects: [
    {
      name: 'chromium',
      testIgnore: 'firefox.spec.ts',
      use: chromium,
    },
    {
      // The system's own, over WebDriver BiDi.
      name: 'firefox',
      testMatch: ['firefox.spec.ts', 'diagnose.spec.ts'],
      grepInvert: /@chromium/,
      use: {
        browserName: 'firefox',
        channel: 'moz-firefox',
        launchOptions: {
          executablePath: '/usr/bin/firefox-esr',
          // It asks Mozilla's servers nothing, and scrollbars take no room, as on a phone.
          firefoxUserPrefs: { 'network.dns.disabled': true, 'ui.useOverlayScrollbars': 1 },
        },
      },
    },
  ],
});
