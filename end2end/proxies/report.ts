// The diagnosis's report as JSON (docs/diagnose.md), and what it is held to behind a proxy.
import { expect } from '@playwright/test';
import { recognised, type Case } from './cases.ts';

type Report = {
  path: { client: string; server: string; intermediaries: { name: string }[] };
  findings: { faults: { name: string }[] }[];
};

/** That it names these faults, no other, the proxy, and the versions of HTTP on both of its sides. What was found. */
export function expectReport(output: string, { proxy, tls, upstream, sometimes }: Case, faults: string[]): string[] {
  const { path, findings }: Report = JSON.parse(output);
  const found = findings.flatMap((finding) => finding.faults.map(({ name }) => name));
  const always = (names: Iterable<string>) => [...names].filter((name) => !sometimes?.includes(name)).sort();
  expect(always(new Set(found)), output).toEqual(always(faults));
  expect(path.client).toBe(tls ?? 'HTTP/1.1');
  expect(path.server).toBe(faults.includes('http-1.0-upstream') ? 'HTTP/1.0' : (upstream ?? 'HTTP/1.1'));
  expect(path.intermediaries.map(({ name }) => name)).toEqual([recognised[proxy] ?? 'unknown']);
  return found;
}
