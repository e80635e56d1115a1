// The page: asks a question, and shows its answer while it is made. The answer's id is in the
// page's address, so a reload and a second tab find it.
const { content: waterclock } = document.querySelector('meta[name=waterclock]');
const [form, article] = ['form', 'article'].map((name) => document.querySelector(name));
const [input, problem, asked, answer, status, stop, resume, again] = [
  ...['question', 'problem', 'asked', 'answer', 'status', 'stop', 'continue', 'again'],
].map((id) => document.getElementById(id));

/** The stream of the answer that is shown. */
let stream;
/** Changes whenever something else is shown, so that what was begun before can tell. */
let showing = 0;
let isAsking = false;

/** Shows how the answer stands, and the buttons that make sense then. */
function tell(text, ...buttons) {
  const hadFocus = [stop, resume, again].includes(document.activeElement);
  // A screen reader reads it out if it is another text.
  if (status.textContent !== text) status.textContent = text;
  status.classList.toggle('failed', buttons.includes(again));
  for (const button of [stop, resume, again]) button.hidden = !buttons.includes(button);
  if (hadFocus) input.focus();
}

async function ask(question) {
  if (isAsking) return;
  isAsking = true;
  problem.textContent = '';
  try {
    const response = await fetch('ask', { method: 'POST', body: question }).catch(() => null);
    if (!response) throw new Error('The program that serves this page does not run any more.');
    const { id, error } = await response.json();
    if (error) throw new Error(error);
    if (input.value.trim() === question) input.value = '';
    history.pushState(null, '', `?answer=${id}`);
    show();
  } catch (error) {
    problem.textContent = error.message;
  } finally {
    isAsking = false;
    input.focus();
  }
}

/** Shows the answer that the page's address names. */
function show() {
  // Nobody else reads the old answer, so its producer stops.
  stream?.close();
  stream = undefined;
  showing += 1;
  for (const element of [asked, answer]) element.textContent = '';
  tell('');
  const id = new URL(location).searchParams.get('answer');
  article.hidden = true;
  if (id === null) return;
  if (/^[0-9a-f]{24}$/.test(id)) void read(id, 'earliest');
  else tell('There is no such answer.');
}

/** Reads an answer after a cursor. */
async function read(id, after) {
  const number = ++showing;
  tell('Waiting for the answer …', stop);
  const { subscribe } = await client(() => number === showing);
  const isKept = subscribe && (await keeps(id));
  // Meanwhile another one may have been asked for.
  if (number !== showing) return;
  if (!isKept) return tell('This answer is not kept any more.');
  stream = subscribe(`${waterclock}/events/answers.${id}`, {
    after,
    onEvent({ name, data }) {
      article.hidden = false;
      if (name === 'question') asked.textContent = document.title = data;
      // Text of the model is never HTML.
      else answer.append(data);
    },
    onGap({ reason }) {
      // Waterclock has begun a new log, and the program uploads all of the answer again.
      if (reason === 'other-epoch') answer.textContent = '';
      else answer.append(' [Some words are not kept any more.] ');
    },
    onEnd({ outcome, message }) {
      if (outcome === 'done') tell('The answer is complete.');
      else tell(`The answer has failed. ${message ?? ''}`, again);
    },
    onState(state, reason) {
      if (state === 'live') tell('The answer is being written …', stop);
      else if (state === 'refused') tell(explain(reason, ''), resume);
      else if (state !== 'connecting' && state !== 'stopped') tell(explain(reason), stop);
    },
  });
}

/** Loads Waterclock's client, as soon as Waterclock serves it, while it is wanted. */
async function client(isWanted) {
  for (let attempt = 0; isWanted(); attempt += 1) {
    try {
      // A browser may remember that a module has failed, so each attempt has its own address.
      return await import(`${waterclock}/client.js${attempt ? `?${attempt}` : ''}`);
    } catch {
      if (isWanted()) tell(explain({ kind: 'unreachable' }), stop);
      await new Promise((wake) => setTimeout(wake, 1_000));
    }
  }
  return {};
}

/** Returns `false` if Waterclock has nothing of an answer. */
async function keeps(id) {
  try {
    const response = await fetch(`${waterclock}/topics/answers.${id}`);
    return !response.ok || (await response.json()).events > 0;
  } catch {
    // The stream tells more.
    return true;
  }
}

/** Explains why there is no connection. It comes back by itself, unless Waterclock refuses it. */
function explain(reason, continues = 'The answer continues if that is soon over.') {
  const { kind, status, detail } = reason ?? {};
  if (kind === 'offline') return `This device is offline. ${continues}`;
  if (kind === 'status') return `Waterclock refuses: ${detail ?? `status ${status}.`} ${continues}`;
  if (kind === 'goodbye') return `Waterclock has closed the connection. ${continues}`;
  return `The connection to Waterclock is lost. ${continues}`;
}

form.addEventListener('submit', (event) => {
  event.preventDefault();
  void ask(input.value.trim());
});
input.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});
stop.addEventListener('click', () => {
  showing += 1;
  stream?.close();
  tell('You have stopped reading. If nobody else reads this answer, it is not written to its end.', resume);
});
resume.addEventListener('click', () => {
  void read(new URL(location).searchParams.get('answer'), stream?.cursor ?? 'earliest');
});
again.addEventListener('click', () => void ask(asked.textContent));
addEventListener('popstate', show);
show();
