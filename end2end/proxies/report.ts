// Checks the JSON report (docs/diagnose.md) of a diagnosis behind a proxy.
import { expect } from '@playwright/test';
import { detected, type Case } from './cases.ts';

type Report = {
  path: { client: string; server: string; intermediaries: { name: string }[] };
  findings: { faults: { name: string }[] }[];
};

/**
 * Expects exactly these faults, the proxy, and the HTTP versions on both of its sides. Returns all
 * faults found.
 */
export function expectReport(output: string, { proxy, tls, upstream, sometimes }: Case, faults: string[]): string[] {
  const { path, findings }: Report = JSON.parse(output);
  const found = findings.flatMap((finding) => finding.faults.map(({ name }) => name));
  const always = (names: Iterable<string>) => [...names].filter((name) => !sometimes?.includes(name)).sort();
  expect(always(new Set(found)), output).toEqual(always(faults));
  expect(path.client).toBe(tls ?? 'HTTP/1.1');
  expect(path.server).toBe(faults.includes('http-1.0-upstream') ? 'HTTP/1.0' : (upstream ?? 'HTTP/1.1'));
  expect(path.intermediaries.map(({ name }) => name)).toEqual([detected[proxy] ?? 'unknown']);
  return found;
}
