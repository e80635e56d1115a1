// Starts a page, and tells the reader if it does not run. This script is in each document, without
// its comments, after the line that names its files and its entry point.
const notice = document.getElementById("not-running");
const root = document.getElementById("page");
const { title } = document;
let page = root;

const fail = (reason, details = "") => {
  if (!page) return;
  // A copy has no listeners, and the failed program has no reference to it.
  const copy = page.cloneNode(true);
  const position = page.querySelector(".scroller")?.scrollTop;
  page.replaceWith(copy);
  page = null;
  if (position) copy.querySelector(".scroller").scrollTop = position;
  for (const control of copy.querySelectorAll("[type=button], fieldset")) control.disabled = true;
  const status = copy.querySelector(".status");
  if (status) {
    status.dataset.state = "idle";
    status.textContent = "Not connected";
  }
  for (const dialog of document.querySelectorAll("dialog")) dialog.remove();
  const ended = (document.title = `✕ Not running · ${title}`);
  Object.defineProperty(document, "title", { get: () => ended, set() {} });
  notice.querySelector("span").textContent = `${reason} ${details}`;
  notice.className = "now";
  notice.hidden = false;
};

let program;
const failed = (error) => {
  fail("Its program has failed, which is a bug:", error);
  // Its timers and listeners go on, and the other tabs must not wait for it.
  stop();
  program?.giveUp();
};
// Called by the program when it panics.
self.pageFailed = (message) => {
  if (page) console.error(new Error(message));
  failed(message);
};
// An exception that the program does not expect leaves it unusable, too.
const files = [script, wasm].map((file) => new URL(file, location).href);
addEventListener("error", ({ error, filename }) => files.some((file) => filename?.startsWith(file)) && failed(error));

try {
  program = await import(script);
  await program.default({ module_or_path: wasm });
  const fresh = root.cloneNode();
  program[entry](fresh);
  if (page) {
    const { id, value } = document.activeElement;
    root.replaceWith((page = fresh));
    notice.hidden = true;
    const field = id && document.getElementById(id);
    if (field) {
      field.value = value;
      field.focus();
    }
  }
} catch (error) {
  fail(
    self.WebAssembly
      ? "Its program could not be started:"
      : "Its program needs WebAssembly, which this browser lacks or has disabled.",
    self.WebAssembly && error,
  );
  // After an upgrade, files have other names. A page that was reloaded already has the new ones.
  const [{ type }] = performance.getEntriesByType("navigation");
  if (type !== "reload") {
    const html = await fetch(location, { cache: "reload" }).then((response) => response.text(), String);
    if (html.includes("not-running") && !html.includes(wasm)) location.reload();
  }
}
