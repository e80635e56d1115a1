// The answers of an OpenAI-compatible endpoint: streaming chat completions.
// https://platform.openai.com/docs/api-reference/chat-streaming
const { OPENAI_BASE_URL: base = '', OPENAI_MODEL: model, OPENAI_API_KEY: key } = process.env;

export const isConfigured = base !== '';
export const source = `${model ?? 'the model'} at ${base}`;

/** Yields the words of an answer as the model makes them. */
export async function* words(question, signal) {
  const response = await request(question, signal);
  let isFinished = false;
  try {
    for await (const data of messages(response.body)) {
      if (data === '[DONE]') return;
      const { choices, error } = JSON.parse(data);
      if (error) throw new Error(`The model has failed: ${error.message ?? JSON.stringify(error)}`);
      const { delta, finish_reason: reason } = choices?.[0] ?? {};
      if (delta?.content) yield delta.content;
      if (reason && reason !== 'stop') throw new Error(`The model has stopped early: ${reason}.`);
      isFinished ||= reason === 'stop';
    }
  } catch (error) {
    // `fetch` throws a TypeError if the connection breaks.
    if (error instanceof SyntaxError) throw new Error('The model has sent something other than JSON.');
    if (!(error instanceof TypeError)) throw error;
  }
  if (!isFinished) throw new Error('The model has broken off in the middle of its answer.');
}

async function request(question, signal) {
  let response;
  try {
    response = await fetch(`${base.replace(/\/+$/, '')}/chat/completions`, {
      method: 'POST',
      headers: {
        'Content-Type': 'application/json',
        Accept: 'text/event-stream',
        ...(key && { Authorization: `Bearer ${key}` }),
      },
      body: JSON.stringify({ model, stream: true, messages: [{ role: 'user', content: question }] }),
      signal,
    });
  } catch (error) {
    signal.throwIfAborted();
    throw new Error(`The model cannot be reached (${error.cause?.code ?? error.message}).`);
  }
  const type = response.headers.get('Content-Type') ?? 'nothing';
  if (response.ok && type.startsWith('text/event-stream')) return response;
  const text = await response.text().catch(() => '');
  if (response.ok) throw new Error(`The model has sent ${type} instead of text/event-stream.`);
  throw new Error(`The model has refused with ${response.status}: ${reasonIn(text) ?? response.statusText}`);
}

/** Returns the reason in the body of an error, if it is JSON. */
function reasonIn(text) {
  try {
    const { error } = JSON.parse(text);
    return error?.message ?? error;
  } catch {
    return undefined;
  }
}

/**
 * Yields the data of each event of an event stream.
 * https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
 */
async function* messages(body) {
  let [rest, data] = ['', []];
  for await (const text of body.pipeThrough(new TextDecoderStream())) {
    // A CR at the end may be the first half of a CRLF.
    const lines = (rest + text).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith('data:')) data.push(line.slice(5).replace(/^ /, ''));
      if (line !== '' || data.length === 0) continue;
      yield data.join('\n');
      data = [];
    }
  }
}
