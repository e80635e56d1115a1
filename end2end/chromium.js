// Which Chromium the tests run in: the first of the system's that runs, else Playwright's own.
// As a program (scripts/setup.sh) it prints the path, and fails if there is none.
import { chromium } from '@playwright/test';
import { spawnSync } from 'node:child_process';
import { delimiter, join } from 'node:path';
import { argv, exit } from 'node:process';
import { fileURLToPath } from 'node:url';

const names = ['chromium', 'chromium-browser', 'google-chrome'];
const folders = (process.env.PATH ?? '').split(delimiter);
const system = names.flatMap((name) => folders.map((folder) => join(folder, name)));

export const executablePath = [...system, chromium.executablePath()].find(
  (path) => spawnSync(path, ['--version'], { stdio: 'ignore' }).status === 0,
);

if (argv[1] === fileURLToPath(import.meta.url)) {
  if (!executablePath) exit(1);
  console.log(executablePath);
}
