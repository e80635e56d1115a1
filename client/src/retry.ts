/**
 * The wait between two attempts, for requests that are none of the connection rules'.
 *
 * @module
 */

/** Draws a wait in milliseconds. Its bound doubles with each failure, as that of the rules does. */
export function backoff(failures: number): number {
  return Math.min(1_000 * 2 ** failures, 30_000) * Math.random();
}

/** Waits for some milliseconds. Rejects as soon as `signal` aborts. */
export function pause(wait: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resume, reject) => {
    const stop = () => (clearTimeout(timer), reject(signal!.reason));
    const timer = setTimeout(() => (signal?.removeEventListener('abort', stop), resume()), wait);
    if (signal?.aborted) stop();
    else signal?.addEventListener('abort', stop);
  });
}
