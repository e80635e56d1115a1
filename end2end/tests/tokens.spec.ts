// A page whose reader has a token in a cookie, because `EventSource` sends no headers.
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { patience } from '../playwright.config.ts';
import { count, expect, expectConsecutive, networkErrors, sequences, sign, state, test } from './server.ts';

test.use({ allowedErrors: networkErrors });

test('reads until the token expires, and continues with a new one', async ({ page, server, context }, info) => {
  test.setTimeout(90_000 * patience);
  const [secret, file] = [randomBytes(32).toString('hex'), info.outputPath('secret')];
  writeFileSync(file, `${secret}\n`);
  await server.start('--require-token', '--jwt-secret-file', file, '--interval', '100ms', '--retry', '3s');
  const seconds = () => Date.now() / 1000;
  const setToken = (exp: number) => {
    const value = sign(secret, { exp, subscribe: ['clock'] });
    return context.addCookies([
      { name: 'waterclock_token', value, url: server.url, httpOnly: true, sameSite: 'Strict' },
    ]);
  };

  await page.goto(server.url);
  await expect(page.getByText('A token is required')).toBeVisible();

  await setToken(seconds() + 4);
  await page.goto(server.url);
  await expect(state(page)).toHaveText('Live');
  await expect(page.getByText('The access token has expired')).toBeVisible({ timeout: 15_000 * patience });
  // The goodbye has asked it to reconnect in 3 to 6 s.
  const refused = 'This page needs an access token. The token is refused: it expired at';
  await expect(state(page)).toContainText(refused, { timeout: 15_000 * patience });
  const before = await sequences(page);

  await setToken(seconds() + 600);
  await page.getByRole('button', { name: 'Try again' }).click();
  await expect(state(page)).toHaveText('Live', { timeout: 20_000 * patience });
  await expect.poll(() => count(page)).toBeGreaterThan(before.length + 3);
  expectConsecutive(await sequences(page));
  // The server's output never has a token.
  expect(server.log.join('\n')).not.toMatch(/eyJ/);
});
