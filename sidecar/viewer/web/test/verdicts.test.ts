import assert from "node:assert/strict";
import { test } from "node:test";
import type { CheckedClaim, Report } from "../src/events";
import { claimOf } from "../src/run/checked";
import { agreementText, countsText, percent, verdictText } from "../src/text/verdicts";
import { quotedOf, withoutRepeats } from "../src/views/passages";

function claim(verdict: CheckedClaim["verdict"], more: Partial<CheckedClaim> = {}): CheckedClaim {
  return { text: "c", verdict, confidence: null, evidence: [], note: "", start: 0, end: 1, probs: null, origins: [], ...more };
}

test("a verdict has its probability in words", () => {
  const computed = [{ source: "program", text: "2 + 2 = 4", start: null, end: null }];
  assert.deepEqual(
    [
      claim("supported", { confidence: 0.934 }),
      claim("refuted", { confidence: 0.9951 }),
      claim("supported", { confidence: 1, evidence: computed }),
      claim("not_enough_evidence", { confidence: 0.7999, lean: "supported", needed: 0.8 }),
      claim("not_enough_evidence", { confidence: 0.57, lean: "refuted", needed: 0.573 }),
      claim("not_enough_evidence", { confidence: 1, lean: "refuted", needed: 1 }),
      claim("not_enough_evidence", { confidence: 0.91, lean: null, needed: null }),
      claim("not_enough_evidence", { confidence: 0.34 }),
      claim("not_enough_evidence"),
      claim("disputed", { confidence: 0.5 }),
      claim("unchecked", { confidence: 0 }),
    ].map(verdictText),
    [
      "supported (93% sure)",
      "refuted (over 99% sure)",
      "supported (computed)",
      "not enough evidence (closest: supported, 79%; 80% needed)",
      "not enough evidence (closest: refuted, 57%; 58% needed)",
      "not enough evidence (closest: refuted, 99%; 100% needed)",
      "not enough evidence (91% sure)",
      "not enough evidence",
      "not enough evidence",
      "disputed",
      "unchecked",
    ],
  );
  assert.deepEqual([0, 0.004, 0.005, 0.5, 0.994, 0.995, 1].map(percent), ["under 1%", "under 1%", "1%", "50%", "99%", "over 99%", "over 99%"]);
});

test("agreement of jurors is named as what it is", () => {
  const counts = [
    [3, 0, 0],
    [2, 1, 0],
    [1, 2, 1],
    [0, 0, 3],
    [1, 0, 0],
  ] as const;
  assert.deepEqual(
    counts.map(([support, contradict, silent]) => agreementText({ label: "", support, contradict, silent })),
    [
      "3 of 3 jurors agree (not evidence)",
      "2 of 3 jurors agree, 1 disagrees (not evidence)",
      "1 of 4 jurors agree, 2 disagree (not evidence)",
      "no juror mentions it (not evidence)",
      "1 of 1 juror agrees (not evidence)",
    ],
  );
});

test("claims are supported, refuted or open", () => {
  const claims = (["supported", "refuted", "disputed", "unchecked"] as const).map((verdict) => claim(verdict));
  assert.equal(countsText(claims), "1 of 4 claims supported, 1 refuted, 2 open");
  assert.equal(countsText([claim("supported")]), "1 of 1 claim supported");
  assert.equal(countsText([]), "no claim can be checked");
});

test("a record that is not summed up yet has the same words", () => {
  const report = { claim: { text: "c", start: 0, end: 1 }, label: "refutes", probs: [0.1, 0.6, 0.3], confidence: 0.6, threshold: 0.8, note: "no passage mentions a toll" };
  assert.equal(verdictText(claimOf({ ...report, verdict: "refuted", downgraded: false })), "refuted (60% sure)");
  const held = claimOf({ ...report, verdict: "not_enough_evidence", downgraded: true });
  assert.equal(verdictText(held), "not enough evidence (closest: refuted, 60%; 80% needed)");
  assert.equal(held.note, "no passage mentions a toll");
});

/** A record of passages, each with its source, its place in the document, and what is quoted of it. */
function recordOf(passages: [source: string, text: string, start: number | null, quote: string][]): Report {
  return {
    passages: passages.map(([source, text, start], i) => ({ id: `p${i}`, source, text, start })),
    pairs: passages.map(([, text, , quote], i) => {
      const start = text.indexOf(quote);
      return { passage: `p${i}`, probs: [1, 0, 0], span: { start, end: start + quote.length, text: quote } };
    }),
  };
}

test("a sentence is shown once, with all places that have it", () => {
  const shown = withoutRepeats(
    quotedOf(
      recordOf([
        ["a.md", "One. Two is here.", 10, "Two is here."],
        ["a.md", "Two is here. Three.", 15, "Two is here."],
        ["b.md", "Two is here.", 0, "Two is here."],
        ["b.md", "Two is gone.", null, "Two is gone."],
      ]),
    ),
  );
  assert.deepEqual(shown.map(({ span, also }) => [span?.["text"], also]), [["Two is here.", ["b.md:0-12"]], ["Two is gone.", []]]);
});

test("overlapping quotations become one, as far as the passage has them", () => {
  const shown = withoutRepeats(quotedOf(recordOf([["a.md", "One. Two. Three", 0, "Two."], ["a.md", "Two. Three is last.", 5, "Two. Three is last."]])));
  assert.deepEqual(shown.map(({ span }) => span), [{ start: 5, end: 15, text: "Two. Three" }]);
});
