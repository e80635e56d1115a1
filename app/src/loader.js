// Starts a page, and tells the reader if it does not run. This script is in each document, without
// its comments, after the line that names its files and its entry point.
const find = (selector) => document.querySelector(selector);
const { title } = document;
const noStart = "Its program could not be started:";
let hasFailed, isRunning, program;

// Under its plain name, since after an upgrade files have other names.
const read = () =>
  import("/plain.js").then(
    (plain) => plain.read(wasm, () => isRunning),
    () => setTimeout(read, 10_000),
  );
// The reader of a slow start need not wait for it.
const late = setTimeout(read, 10_000);

const fail = (reason, details = "") => {
  if (hasFailed) return;
  hasFailed = true;
  isRunning = false;
  const ended = (document.title = `✕ Not running · ${title}`);
  Object.defineProperty(document, "title", { get: () => ended, set() {} });
  // A copy has no listeners, and the failed program has no reference to it.
  const page = find("#page");
  page.replaceWith(page.cloneNode(true));
  for (const control of document.querySelectorAll("#page [type=button], fieldset")) control.disabled = true;
  // Nothing stays that is true only while the program runs.
  for (const fact of document.querySelectorAll("dialog, .countdown, .notice, .facts > :not(.count)")) fact.remove();
  find(".rows")?.removeAttribute("style");
  const status = find(".status");
  if (status) {
    status.dataset.state = "idle";
    status.textContent = "Not connected";
  }
  const notice = find("#not-running");
  find("#not-running span").textContent = `${reason} ${details}`;
  notice.className = "now";
  notice.hidden = false;
  // The program is given up before that.
  setTimeout(read);
};
const failed = (error, reason = isRunning ? "Its program has failed, which is a bug:" : noStart) => {
  fail(reason, error);
  // Its timers and listeners go on, and the other tabs must not wait for it.
  stop();
  program?.giveUp();
};
// Called by the program when it panics.
self.pageFailed = (message) => {
  if (!hasFailed) console.error(new Error(message));
  failed(message);
};
// An exception that the program does not expect leaves it unusable, too.
const files = [script, wasm].map((file) => new URL(file, location).href);
const check = ({ error, reason = error }) => files.some((file) => reason?.stack?.includes(file)) && failed(reason);
addEventListener("error", check);
addEventListener("unhandledrejection", (event) => /^R\w+Error/.test(event.reason) && check(event));

try {
  program = await import(script);
  await program.default({ module_or_path: wasm });
  const root = find("#page");
  const page = root.cloneNode();
  program[entry](page);
  if (!hasFailed) {
    const { id, value } = document.activeElement;
    root.replaceWith(page);
    find("#not-running").hidden = isRunning = true;
    clearTimeout(late);
    const field = id && document.getElementById(id);
    if (field) {
      field.value = value;
      field.focus();
    }
    // What has rewritten the document shows a copy, which nothing updates.
    const parts = [...page.querySelectorAll("h1, .state, .rows")];
    const rewritten = "Something else, such as an extension, has rewritten it.";
    const observer = new MutationObserver(() => parts.every((part) => part.isConnected) || failed("", rewritten));
    for (let part of parts) while ((part = part.parentNode)) observer.observe(part, { childList: true });
  }
} catch (error) {
  if (self.WebAssembly) fail(noStart, error);
  else fail("Its program needs WebAssembly, which this browser lacks or has disabled.");
}
