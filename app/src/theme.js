// Applies the colours that the reader has chosen, before the first paint, and keeps the choice.
// This script is in each document, without its comments.
const key = "waterclock.theme";
const { dataset } = document.documentElement;
try {
  dataset.theme = localStorage[key] ?? "";
} catch {}
// The browser's own bar, on a phone, has the first of these colours whose condition holds.
const paint = () => {
  const { theme } = dataset;
  for (const [i, bar] of document.querySelectorAll("[name=theme-color]").entries()) {
    const name = i ? "dark" : "light";
    bar.media = theme ? (theme === name ? "all" : "not all") : `(prefers-color-scheme: ${name})`;
  }
};
paint();
addEventListener("DOMContentLoaded", () => {
  const choice = document.getElementById("theme");
  choice.value = dataset.theme ?? "";
  choice.onchange = () => {
    dataset.theme = choice.value;
    paint();
    try {
      localStorage[key] = choice.value;
    } catch {}
  };
});
