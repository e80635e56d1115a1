/**
 * Ids of events. They are opaque to users; the rules compare two of them.
 *
 * @module
 */

/** `<epoch>-<sequence>`; on a stream with a limit, `<epoch>-<sequence>.<sent>`. */
export type EventId = string;

function parse(id: EventId): [epoch: string, sequence: number] {
  const [epoch, sequence] = id.split('-');
  // A cursor such as `earliest` is a position in no log.
  return [epoch!, parseInt(sequence ?? '')];
}

/** Returns `true` if both belong to the same log. */
export function isSameLog(a: EventId | null, b: EventId | null): boolean {
  return a?.split('-')[0] === b?.split('-')[0];
}

/** Returns `true` if a position is at `cursor` or before it, in the same log. */
export function isReached(position: EventId, cursor: EventId): boolean {
  const [epoch, sequence] = parse(position);
  const [cursorEpoch, cursorSequence] = parse(cursor);
  return epoch === cursorEpoch && sequence <= cursorSequence;
}
