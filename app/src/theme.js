// Applies the colours that the reader has chosen, before the first paint, and keeps the choice.
// This script is in each document, without its comments.
const key = "waterclock.theme";
const { dataset } = document.documentElement;
try {
  dataset.theme = localStorage[key] ?? "";
} catch {}
addEventListener("DOMContentLoaded", () => {
  const choice = document.getElementById("theme");
  choice.value = dataset.theme ?? "";
  choice.onchange = () => {
    dataset.theme = choice.value;
    try {
      localStorage[key] = choice.value;
    } catch {}
  };
});
