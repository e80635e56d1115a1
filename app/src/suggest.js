// Suggests topics to the field of / that names one: those beside what has been typed, or all. This
// script is in the document of /, without its comments.
const suggest = async ({ target }) => {
  // Of several topics, or with wildcards, none.
  if (target.id !== "topic" || /[^\w.-]/.test(target.value)) return;
  const match = target.value.replace(/[^.]*$/, ">");
  let list = target.nextSibling;
  if (list?.id !== "topics") {
    list = document.createElement("datalist");
    list.id = "topics";
    target.after(list);
    target.setAttribute("list", "topics");
  }
  if (list.dataset.match === match) return;
  list.dataset.match = match;
  try {
    const response = await fetch(`/topics?limit=1000&match=${match}`);
    if (response.status >= 500) throw response;
    // A refusal has none, and would be the same again.
    const { topics = [] } = await response.json();
    // Others may have been asked for meanwhile.
    if (list.dataset.match === match) list.replaceChildren(...topics.map(({ topic }) => new Option("", topic)));
  } catch {
    // The next input asks again.
    if (list.dataset.match === match) delete list.dataset.match;
  }
};
addEventListener("focusin", suggest);
addEventListener("input", suggest);
