import assert from "node:assert/strict";
import { test } from "node:test";
import { lineOf } from "../src/text/event_lines";
import { made } from "./made";

const line = (event: Parameters<typeof lineOf>[0]) => {
  const { kind, what, tone } = lineOf(event, undefined);
  return [kind, what, tone ?? ""];
};

test("a long path names its ends, and a strange one what it can", () => {
  const selected = (path: number[], attractions: number[] = []) => line(made("search.selected", { search: "s", path, attractions }))[1];
  const tens = Array.from({ length: 10 }, (_, i) => i);
  assert.equal(
    selected(tens, tens.slice(1).map((i) => i / 10)),
    "s: node 9, path 0 → … → 5 (0.500) → 6 (0.600) → 7 (0.700) → 8 (0.800) → 9 (0.900)",
  );
  assert.equal(selected([0, 1, 2], [0.5]), "s: node 2, path 0 → 1 → 2");
  assert.equal(selected([]), "s: no node");
});

test("records of a jury that are damaged still give a line", () => {
  const report = { ok: true, scores: [{ candidate: 1, accuracy: 8, insight: 7, clarity: 6 }, { candidate: "x" }], issues: [{}] };
  assert.deepEqual(line(made("jury.review", { reviewer: 0, report })), ["review by #0", "#1 8/7/6; 1 issue", ""]);
  assert.deepEqual(line(made("jury.ranked", { report: { standings: "damaged" } })), ["ranking", "by :", ""]);
  assert.deepEqual(line(made("jury.opinion", { juror: 1, report: { ok: false, model: "m", failure: "late" } })), ["opinion #1", "m: none, late", "bad"]);
  const label = { label: "contradicted", claim: { text: "t" }, support: [0], contradict: [1, 2], silent: [] };
  assert.deepEqual(line(made("jury.claim", { index: 0, report: label })), ["agreement 1", "contradicted (1 support, 2 contradict, 0 silent): t", "warn"]);
  assert.deepEqual(line(made("jury.stage", { stage: "review", num_requests: 3, num_responses: 2, report: {} })), ["review stage", "2 of 3 replied, ? calls, ? tokens, price unknown", ""]);
});

test("money, replays and failures are told", () => {
  const charged = { role: "main", model: "m", tokens: 1200, calls: 1, total_tokens: 3400, total_calls: 2, total_usd: 0.25, reward_calls: 0, total_reward_calls: 0, limits: {} };
  assert.deepEqual(line(made("budget.charged", charged))[1], "1,200 tokens charged to main; 3,400 tokens, 2 calls, 0.2500 USD so far");
  const called = { role: "main", model: "m", operation: "generate", requests: 1, samples: 1, replayed: 0, max_tokens: 1 };
  assert.equal(line(made("call.started", called))[1], "generate as main, m, 1 sample: not finished");
  assert.equal(line(made("call.started", { ...called, samples: 0, operation: "pin" }))[1], "pin as main, m: not finished");
  assert.deepEqual(line(made("vote.updated", { votes: { 4: 1, 42: 3 }, total: 5 })), ["votes", "42 x3, 4 x1 (of 5)", ""]);
});

test("an event of a later version is shown as it is", () => {
  const later = made("something.new" as "run.failed", { code: "c", message: "m" });
  assert.deepEqual(lineOf(later, undefined), { kind: "something.new", what: "", record: later });
});
