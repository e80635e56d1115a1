/**
 * A parser of `text/event-stream` (WHATWG HTML 9.2.6), for streams that are read with `fetch`.
 *
 * @module
 */

/** A message of a stream, before it is parsed. */
export interface RawMessage {
  name: string;
  /** The stream's last event id, up to and including this message. */
  id: string;
  data: string;
}

/** Keeps the input that is incomplete. */
export class Parser {
  /** The last `retry:`, in milliseconds. */
  retry: number | undefined;
  private decoder = new TextDecoder();
  /** A line that is incomplete, in the pieces that it came in. */
  private pieces: string[] = [];
  private hasCr = false;
  private name = '';
  private data: string[] = [];

  /** `id` is the last event id before this stream. */
  constructor(private id: string) {}

  /** Returns the messages that a chunk completes. */
  feed(chunk: Uint8Array): RawMessage[] {
    const messages: RawMessage[] = [];
    let text = this.decoder.decode(chunk, { stream: true });
    if (text === '') return messages;
    // The line end CR LF may come in two chunks.
    const isSecondHalf = this.hasCr && text.startsWith('\n');
    this.hasCr = text.endsWith('\r');
    if (isSecondHalf) text = text.slice(1);
    const lines = text.split(/\r\n|\n|\r/);
    const rest = lines.pop()!;
    for (const line of lines) {
      this.pieces.push(line);
      this.line(this.pieces.join(''), messages);
      this.pieces = [];
    }
    this.pieces.push(rest);
    return messages;
  }

  private line(line: string, messages: RawMessage[]): void {
    if (line === '') {
      if (this.data.length > 0) {
        const name = this.name || 'message';
        messages.push({ name, id: this.id, data: this.data.join('\n') });
      }
      this.name = '';
      this.data = [];
      return;
    }
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
    if (field === 'data') this.data.push(value);
    else if (field === 'event') this.name = value;
    else if (field === 'id' && !value.includes('\0')) this.id = value;
    else if (field === 'retry' && /^\d+$/.test(value)) this.retry = Number(value);
  }
}
