// Makes answers, and publishes each to a topic of its own while it is being made.
import { randomBytes } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import * as model from './model.mjs';
import * as passages from './passages.mjs';

const { WATERCLOCK_URL = 'http://127.0.0.1:3000', PATIENCE = '15' } = process.env;

export const waterclock = new URL(WATERCLOCK_URL).origin;
export const { source, words } = model.isConfigured ? model : passages;

/** Maximum number of answers that are made at a time. */
const MAX_ANSWERS = 100;
/** Seconds that readers have to come back after an outage. Their longest backoff is 30 s. */
const PATIENCE_AFTER_OUTAGE = '60';
/** Wait before another attempt to reach Waterclock, in milliseconds. */
const RETRY = 500;

/** The topics of the answers that are being made. */
const making = new Set();

export const isBusy = () => making.size >= MAX_ANSWERS;

/** Returns what keeps the page from reading, with the remedy. */
export async function trouble(origin) {
  const command = `waterclock --cors-origin ${origin}`;
  const options = { headers: { Origin: origin }, signal: AbortSignal.timeout(5_000) };
  const answer = await fetch(`${waterclock}/time`, options).catch(() => null);
  if (answer === null) return `Waterclock does not run at ${waterclock}. Start it: ${command}`;
  const allowed = answer.headers.get('Access-Control-Allow-Origin');
  if (allowed === origin || allowed === '*') return undefined;
  return `Waterclock lets no page of ${origin} read. Start it with the option for it: ${command}`;
}

/** Begins an answer. Returns its id once the question is on Waterclock's disk. */
export async function ask(question) {
  const id = randomBytes(12).toString('hex');
  const topic = `answers.${id}`;
  making.add(topic);
  try {
    await publishQuestion(`/events/${topic}`, question);
  } catch (error) {
    making.delete(topic);
    throw error;
  }
  produce(`/events/${topic}`, question)
    .catch((error) => console.error(`${topic}: ${error.message}`))
    .finally(() => making.delete(topic));
  return id;
}

/** Makes an answer, and uploads it as it grows. If one of the two fails, the other one stops. */
async function produce(path, question) {
  const text = new Text();
  const stop = new AbortController();
  const { signal } = stop;
  try {
    await Promise.all([text.fill(words(question, signal)), upload(path, question, text, signal)]);
  } catch ({ message }) {
    stop.abort();
    console.error(`${path}: ${message}`);
    // First what was made before the failure. The upload that has stopped may not have sent it all.
    if (text.value) await persist(() => post(`${path}?split=chunks`, 'answer', text.value));
    await persist(() => post(`${path}?end=failed`, 'end', message.slice(0, 300)));
  }
}

/** Uploads a text while it grows. The end of the upload ends the topic. */
function upload(path, question, text, signal) {
  let patience;
  return persist(async () => {
    // Waterclock may have begun a new log, so the question comes again, too.
    if (patience) await publishQuestion(path, question);
    patience = patience ? PATIENCE_AFTER_OUTAGE : PATIENCE;
    const query = `split=chunks&end&while=read&patience=${patience}`;
    // Each attempt sends the text from its beginning. By the key, Waterclock knows how much of it
    // it has.
    const body = ReadableStream.from(text.pieces()).pipeThrough(new TextEncoderStream());
    return post(`${path}?${query}`, 'answer', body, signal);
  }, signal);
}

/** A text that grows. */
class Text {
  value = '';
  #isComplete = false;
  #wake = () => {};
  #change;

  constructor() {
    this.#announce();
  }

  async fill(words) {
    for await (const word of words) {
      this.value += word;
      this.#announce();
    }
    this.#isComplete = true;
    this.#announce();
  }

  /** Yields all of the text: first what is there, then what comes. */
  async *pieces() {
    for (let sent = 0; ; ) {
      const piece = this.value.slice(sent);
      sent += piece.length;
      if (piece) yield piece;
      else if (this.#isComplete) return;
      else await this.#change;
    }
  }

  #announce() {
    this.#wake();
    this.#change = new Promise((wake) => (this.#wake = wake));
  }
}

/** Publishes the question, and repeats nothing if Waterclock has it. */
const publishQuestion = (path, question) => post(`${path}?name=question`, 'question', question);

/** Publishes. An idempotency key counts for its topic only. */
const post = (path, key, body, signal) =>
  request(path, { method: 'POST', headers: { 'Idempotency-Key': key }, body, signal, duplex: 'half' });

async function request(path, options) {
  let response;
  try {
    response = await fetch(waterclock + path, options);
    if (response.ok) return await response.json();
  } catch (error) {
    options?.signal?.throwIfAborted();
    throw new Refusal(`Waterclock cannot be reached (${error.cause?.code ?? error.message}).`, true);
  }
  const { detail = response.statusText, stopped } = await response.json().catch(() => ({}));
  if (stopped === 'unread') throw new Refusal('Nobody was reading any more.', false);
  throw new Refusal(`Waterclock has refused: ${detail}`, response.status === 429 || response.status >= 500);
}

class Refusal extends Error {
  constructor(message, mayPass) {
    super(message);
    /** `true` if the same request may succeed later. */
    this.mayPass = mayPass;
  }
}

/** Repeats a request until it succeeds, or can never succeed. */
async function persist(request, signal) {
  for (;;) {
    try {
      return await request();
    } catch (error) {
      if (!error.mayPass) throw error;
      await pause(RETRY, undefined, { signal });
    }
  }
}

/**
 * Fails the answers that an earlier run of this program has left unfinished. Waterclock does so
 * by itself 10 s after an upload broke off, but not if it was killed, too.
 */
export async function failUnfinished() {
  for (let after = ''; after !== null; ) {
    const { topics, next } = await persist(() => request(`/topics?match=answers.*&limit=1000${after}`));
    for (const { topic } of topics.filter(({ topic, ended }) => !ended && !making.has(topic))) {
      // One that has ended meanwhile is refused. The others still need their end.
      await persist(() => post(`/events/${topic}?end=failed`, 'end', 'Its producer was stopped.')).catch(
        (error) => console.error(`${topic}: ${error.message}`),
      );
    }
    after = next && `&after=${next}`;
  }
}
