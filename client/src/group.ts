/**
 * A group of tabs that share: a lock, which one of them holds (W3C Web Locks), and a channel
 * between them (WHATWG HTML 9.5, `BroadcastChannel`).
 *
 * @module
 */

/** Version of the messages between tabs. It must change with them. */
const VERSION = 2;

/** An event in a tab's group. */
export type GroupEvent<M> =
  | { kind: 'granted' | 'stolen' | 'cannot-share' }
  | { kind: 'posted'; value: M };

/** Returns the name of the group of those that read the same with the same credentials. */
export async function groupName(...parts: string[]): Promise<string> {
  const bytes = new TextEncoder().encode(JSON.stringify(parts));
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return `waterclock-client-${VERSION}-${btoa(String.fromCharCode(...hash))}`;
}

/** Returns `true` if the browser has locks and channels. It has locks only in secure contexts. */
export function canShare(): boolean {
  return (
    globalThis.isSecureContext === true &&
    !!globalThis.navigator?.locks &&
    typeof BroadcastChannel === 'function'
  );
}

/** A request for the lock, and the lock once it is granted. */
interface LockRequest {
  /** Withdraws the request, or releases the lock. */
  giveUp(): void;
}

/** Membership in a group: a member holds the lock, or waits for it. */
export class Group<M> {
  private channel: BroadcastChannel;
  private lock: LockRequest | undefined;

  constructor(
    private name: string,
    private onEvent: (event: GroupEvent<M>) => void,
  ) {
    this.channel = new BroadcastChannel(name);
    this.channel.onmessage = ({ data }) => onEvent({ kind: 'posted', value: data });
    this.request(false);
  }

  /** Takes the lock from the tab that holds it. */
  steal(): void {
    this.request(true);
  }

  /** Posts to the other tabs. */
  post(message: M): void {
    this.channel.postMessage(message);
  }

  /** Passes the lock on to the next tab. */
  leave(): void {
    this.channel.onmessage = null;
    this.channel.close();
    this.lock?.giveUp();
  }

  /** Counts the members of the group. */
  async count(): Promise<number> {
    const { held = [], pending = [] } = await navigator.locks.query();
    return [...held, ...pending].filter(({ name }) => name === this.name).length;
  }

  private request(steal: boolean): void {
    this.lock?.giveUp();
    const abort = new AbortController();
    let isGivenUp = false;
    let release = () => {};
    this.lock = {
      giveUp() {
        isGivenUp = true;
        release();
        // A request that steals cannot be withdrawn, and one that was granted need not be.
        abort.abort();
      },
    };
    // A request cannot both steal and be withdrawn.
    const options: LockOptions = steal ? { steal } : { signal: abort.signal };
    navigator.locks
      .request(this.name, options, () => {
        if (isGivenUp) return;
        // The lock is released when this promise is resolved.
        const held = new Promise<void>((resolve) => (release = resolve));
        this.onEvent({ kind: 'granted' });
        return held;
      })
      .catch((error) => {
        if (isGivenUp) return;
        this.onEvent({ kind: error?.name === 'AbortError' ? 'stolen' : 'cannot-share' });
      });
  }
}
