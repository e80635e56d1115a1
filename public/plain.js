// The plain reading mode: `/` as the server renders it, fetched again and again. Loaded only where
// the program does not run.
const find = (selector, within = document) => within.querySelector(selector);
const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
let isReading = false;

/** Fetches the document of this page. Reloads the page if the server has other files for it. */
async function load(wasm) {
  // To others, `/topics` is no page.
  const headers = { accept: "text/html" };
  const html = await fetch(location, { cache: "reload", headers }).then((response) => response.text());
  // A page that was reloaded has them already, or a cache keeps the old ones.
  const isReloaded = performance.getEntriesByType("navigation")[0]?.type === "reload";
  if (!isReloaded && html.includes("not-running") && !html.includes(wasm)) location.reload();
  return new DOMParser().parseFromString(html, "text/html");
}

/** Refreshes the list until the program runs. The list rests while nobody sees it, and while the
 * reader has scrolled back or selects a text. */
export async function read(wasm, isRunning) {
  if (isReading) return;
  const link = find("#refresh");
  if (link) {
    document.head.insertAdjacentHTML("beforeend", find("noscript").textContent);
    link.hidden = false;
  }
  if (!new URLSearchParams(link?.search).has("refresh")) {
    load(wasm).catch(() => {});
    return;
  }
  isReading = true;
  for (let wait = 5; !isRunning(); await pause(wait)) {
    if (document.hidden || find(".scroller").scrollTop < 0 || !getSelection().isCollapsed) continue;
    let text = "The newest events are fetched every 5 s.";
    try {
      const fresh = await load(wasm);
      if (isRunning()) break;
      for (const part of ["#as-of", ".count", ".scroller"]) {
        find(part).replaceChildren(...find(part, fresh).childNodes);
      }
      wait = 5;
    } catch {
      wait = Math.min(2 * wait, 60);
      text = `The newest events cannot be fetched. Next try in ${wait} s.`;
    }
    find("#as-of + span").textContent = text;
  }
  isReading = false;
}
