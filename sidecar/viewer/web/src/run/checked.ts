// The claims of an answer, each with its whole record and what a jury says of it, as far as they are told.

import { type CheckedClaim, type Evidence, list, number, numbers, object, type Report, text, type Verdict } from "../events";
import { SIGNS } from "../text/words";
import type { State } from "./state";

export interface Checked {
  claim: CheckedClaim;
  report: Report | null;
  /** A jury's label of the same claim. */
  label: Report | null;
}

/** The claims: as the verifiers' end tells them, before that as they come in. */
export function checkedOf(state: State): Checked[] {
  const reports = state.reports.map(({ report }) => report);
  const ended = state.verification?.claims ?? [];
  const claims = ended.length > 0 ? ended : state.answer === null ? reports.map(claimOf) : [];
  const labels = [...(state.jury?.labels.values() ?? [])];
  return claims.map((claim) => ({
    claim,
    report: reports.findLast((report) => isOf(report, claim) && report["verdict"] === claim.verdict) ?? null,
    label: labels.find((label) => isOf(label, claim)) ?? null,
  }));
}

/** The claims of a verification whose records are in their order, or are not there at all. */
export function paired(claims: CheckedClaim[], reports: Report[]): Checked[] {
  const known = reports.length === claims.length;
  return claims.map((claim, i) => ({ claim, report: known ? (reports[i] ?? null) : null, label: null }));
}

/** Whether a record is a claim's. */
function isOf(report: Report, claim: CheckedClaim): boolean {
  const said = object(report["claim"]);
  return text(said["text"]) === claim.text && (claim.start === null || number(said["start"]) === claim.start);
}

function evidenceOf(span: Report): Evidence {
  return { source: text(span["source"]), text: text(span["text"]), start: number(span["start"]), end: number(span["end"]) };
}

/** A claim in short, made of its record. */
export function claimOf(report: Report): CheckedClaim {
  const said = object(report["claim"]);
  const verdict = text(report["verdict"]);
  const [s, r, z] = numbers(report["probs"]);
  const leans = report["downgraded"] === true;
  return {
    text: text(said["text"]),
    verdict: Object.hasOwn(SIGNS, verdict) ? (verdict as Verdict) : "unparsed",
    confidence: number(report["confidence"]),
    lean: leans ? (report["label"] === "supports" ? "supported" : "refuted") : null,
    needed: leans ? number(report["threshold"]) : null,
    evidence: list(report["evidence"]).map(object).map(evidenceOf),
    note: text(report["program"]) || text(report["note"]),
    start: number(said["start"]),
    end: number(said["end"]),
    probs: text(report["label"]) === "" || s === undefined || r === undefined || z === undefined ? null : [s, r, z],
    origins: [],
  };
}
