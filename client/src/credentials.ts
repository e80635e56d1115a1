/**
 * The token of a stream or a publish, and its renewal.
 *
 * @module
 */
import { json } from './message.js';

/**
 * A token for `Authorization: Bearer` (RFC 6750), without the scheme, or a function that fetches
 * one.
 */
export type TokenSource = string | (() => string | Promise<string>);

/** Time that the function has to answer, in milliseconds. */
const TIMEOUT = 10_000;

/** The characters of a token (RFC 6750, 2.1). */
const TOKEN = /^[\w.~+/-]+=*$/;

/** The function `token` has thrown, has not answered, or has returned something else. */
export class TokenError extends Error {
  override name = 'TokenError';
}

/** The token in use. */
export class Credentials {
  private token: Promise<string> | undefined;

  /** `onToken` is called with each new token. */
  constructor(
    private source: TokenSource | undefined,
    private onToken?: (token: string) => void,
  ) {}

  /** Returns `true` if another token may be had. */
  get canRenew(): boolean {
    return typeof this.source === 'function';
  }

  /** Returns the token, if there is one. Rejects with a {@link TokenError} if there should be. */
  async get(): Promise<string | undefined> {
    if (this.source === undefined) return;
    return (this.token ??= this.fetch(this.source));
  }

  /** Forgets the token, so that the next request fetches another. */
  expire(): void {
    if (this.canRenew) this.token = undefined;
  }

  private fetch(source: TokenSource): Promise<string> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const timeout = new Promise<never>((_, reject) => {
      const late = Error(`the function \`token\` has not answered within ${TIMEOUT / 1000} s`);
      timer = setTimeout(() => reject(late), TIMEOUT);
    });
    const token = Promise.race([
      (async () => {
        const token: unknown = typeof source === 'string' ? source : await source();
        if (typeof token !== 'string') throw Error('the function `token` has not returned a text');
        if (TOKEN.test(token)) return token;
        throw Error('`token` must be a token for `Authorization: Bearer`, without the scheme');
      })(),
      timeout,
    ])
      .catch((error) => {
        throw new TokenError(error instanceof Error ? error.message : String(error));
      })
      .finally(() => clearTimeout(timer));
    token.then(
      (value) => this.token === token && this.onToken?.(value),
      () => this.token === token && this.expire(),
    );
    return token;
  }
}

/**
 * Returns the parts of a token that its renewal does not change: the claims of a JSON Web Token
 * (RFC 7519) but its times and its id. Another token is returned as it is.
 */
export function identity(token: string): string {
  try {
    const payload = token.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/');
    const bytes = Uint8Array.from(atob(payload), (char) => char.charCodeAt(0));
    const { exp, iat, nbf, jti, ...claims } = json(new TextDecoder().decode(bytes));
    return JSON.stringify(claims);
  } catch {
    return token;
  }
}
