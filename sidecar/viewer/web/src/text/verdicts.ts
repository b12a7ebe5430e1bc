// Verdicts in words: those of `core/verdicts.py`.

import { type Agreement, type CheckedClaim, number, type Verdict } from "../events";
import { spaced } from "./words";

const NEARLY_CERTAIN = 0.995;
/** A claim that is open because nothing is likely is not called "34% sure". */
const MIN_SURE = 0.5;
const ROUNDING = 1e-9;

/** Whether a program decided the claim. */
export function isComputed(claim: CheckedClaim): boolean {
  return claim.evidence[0]?.source === "program";
}

/** A claim's verdict with its probability: `supported (93% sure)`. */
export function verdictText(claim: CheckedClaim): string {
  const detail = detailOf(claim);
  return detail === "" ? spaced(claim.verdict) : `${spaced(claim.verdict)} (${detail})`;
}

function detailOf(claim: CheckedClaim): string {
  if (isComputed(claim)) return "computed";
  const confidence = number(claim.confidence);
  if (["unchecked", "unparsed", "disputed"].includes(claim.verdict) || !confidence) return "";
  const needed = number(claim.needed ?? null);
  if (claim.lean && needed !== null) {
    const least = Math.ceil(100 * needed - ROUNDING);
    // what is below the threshold never reads as if it reached it
    return `closest: ${claim.lean}, ${Math.min(Math.floor(100 * confidence + 0.5), least - 1)}%; ${least}% needed`;
  }
  return confidence >= MIN_SURE ? `${percent(confidence)} sure` : "";
}

/** How far jurors agree: `2 of 3 jurors agree, 1 disagrees (not evidence)`. */
export function agreementText({ support, contradict, silent }: Agreement): string {
  const jurors = support + contradict + silent;
  if (support + contradict === 0) return "no juror mentions it (not evidence)";
  const agree = `${support} of ${jurors} ${jurors === 1 ? "juror agrees" : "jurors agree"}`;
  return `${agree}${contradict > 0 ? `, ${contradict} disagree${contradict === 1 ? "s" : ""}` : ""} (not evidence)`;
}

/** A probability in percent, never 0% or 100%, which no judge can promise. */
export function percent(probability: number): string {
  if (probability >= NEARLY_CERTAIN) return "over 99%";
  const rounded = Math.floor(100 * probability + 0.5);
  return rounded > 0 ? `${rounded}%` : "under 1%";
}

/** The claims of an answer in one line: `6 of 8 claims supported, 1 refuted, 1 open`. */
export function countsText(claims: readonly CheckedClaim[]): string {
  const total = claims.length;
  if (total === 0) return "no claim can be checked";
  const count = (verdict: Verdict) => claims.filter((claim) => claim.verdict === verdict).length;
  const [supported, refuted] = [count("supported"), count("refuted")];
  const open = total - supported - refuted;
  const parts = [`${supported} of ${total} ${total === 1 ? "claim" : "claims"} supported`];
  if (refuted > 0) parts.push(`${refuted} refuted`);
  if (open > 0) parts.push(`${open} open`);
  return parts.join(", ");
}
