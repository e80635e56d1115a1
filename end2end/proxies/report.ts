// The diagnosis's report as JSON (docs/diagnose.md), and what it is held to behind a proxy.
import { expect } from '@playwright/test';
import { recognised, type Case } from './cases.ts';

type Report = {
  path: { intermediaries: { name: string }[] };
  findings: { faults: { name: string }[] }[];
};

/** That it names these faults, no other, and the proxy. */
export function expectReport(output: string, { proxy }: Case, faults: string[]) {
  const { path, findings }: Report = JSON.parse(output);
  const found = findings.flatMap((finding) => finding.faults.map(({ name }) => name));
  expect([...new Set(found)].sort(), output).toEqual([...faults].sort());
  expect(path.intermediaries.map(({ name }) => name)).toEqual([recognised[proxy] ?? 'unknown']);
}
