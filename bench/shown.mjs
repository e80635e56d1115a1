// Opens a page of Waterclock in a headless Chromium. Prints a line with the number and the time of
// each event of the load generator that is the newest one in the list. Ends once its standard input
// ends. `make bench-cluster` uses it.
//
//   node bench/shown.mjs http://127.0.0.1:3000/?topic=t
import { argv, stdin } from 'node:process';
import { openBrowser, within } from './page/browser.mjs';

/** Runs in the page. Calls the binding `shown` after each change that shows a newer event. */
function watch() {
  let last = -1;
  function look() {
    for (const [, number, time] of document.body.innerText.matchAll(/bench-(\d+)-(\d+)-/g)) {
      if (Number(number) <= last) continue;
      last = Number(number);
      // A string, since the time is too large for a number in JavaScript.
      shown(JSON.stringify(`${number} ${time}`));
    }
  }
  function observe() {
    new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
    look();
  }
  if (document.body) observe();
  else addEventListener('DOMContentLoaded', observe);
}

const browser = await openBrowser();
try {
  await within(20, browser.ask('Page.navigate', { url: argv[2] }));
  // A binding does not survive the change of the process that comes with the first page.
  await browser.bind('shown', (line) => console.log(line));
  await within(20, browser.evaluate(`(${watch})()`));
  for await (const _ of stdin);
} finally {
  await browser.close();
}
