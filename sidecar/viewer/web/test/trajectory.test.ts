import assert from "node:assert/strict";
import { test } from "node:test";
import { reduceAll } from "../src/run/reduce";
import { nothing } from "../src/run/state";
import { trajectoryOf } from "../src/run/trajectory";
import { made } from "./made";

const turn = (name: string, ...calls: [string, string][]) => {
  const stage = made("stage.started", { stage: name });
  const candidate = { text: "t", answer: null, score: null, tokens: 1, tool_calls: calls.map(([name, given]) => ({ name, arguments: given })) };
  const solution = { chosen: 0, candidates: [candidate], stopped: "done", notes: {} };
  return [stage, made("solution.finished", { solution }, { parent: stage.number }), made("stage.finished", { stage: name, seconds: 2 }, { parent: stage.number })];
};
const charged = (tokens: number, total_usd: number | null) =>
  made("budget.charged", { role: "main", model: "m", tokens, calls: 1, total_tokens: 0, total_calls: 0, total_usd, reward_calls: 0, total_reward_calls: 0, total_thinking_tokens: 0, limits: {} });
const started = (call: string, tool: string, given = "{}") => made("tool.started", { call, tool, arguments: given, effect: "write", turn: 0 });
const finished = (call: string, tool: string, text: string, more: object = {}) =>
  made("tool.finished", { call, tool, text, is_error: false, seconds: 1, ...more });
const steps = (...events: Parameters<typeof reduceAll>[1][number][]) => trajectoryOf(reduceAll(nothing(), events).entries);

test("calls of a turn are shown before they start, and are found again by name and arguments", () => {
  const found = steps(
    ...turn("turn 1", ["a", "{}"], ["b", '{"x":1}'], ["b", '{"x":2}']),
    started("2", "b", '{"x":2}'),
    finished("2", "b", "two", { is_replayed: true }),
    started("1", "b", '{"x":9}'), // edited
    finished("1", "b", "Error: the call was rejected", { is_error: true }),
  );
  assert.deepEqual(found[0]?.calls.map(({ id, status }) => [id, status]), [["", "proposed"], ["1", "rejected"], ["2", "recorded"]]);
});

test("steps have their costs, and one that is repeated by a resumed run is shown once", () => {
  const found = steps(...turn("turn 1").slice(0, 1), ...turn("turn 1"), charged(3, 0.25), ...turn("turn 2"), charged(4, 1), charged(1, null));
  assert.deepEqual(found.map(({ name, tokens, usd, seconds }) => [name, tokens, usd, seconds]), [["turn 1", 3, 0.25, 2], ["turn 2", 5, null, 2]]);
});

test("a waiting run shows what it waits for, and after a decision what came of it", () => {
  const pending = [
    { id: "1", tool: "a", arguments: "{}", effect: "write", question: "approval" },
    { id: "2", tool: "b", arguments: "{}", effect: "write", question: "outcome" },
  ];
  const before = [...turn("turn 1", ["a", "{}"], ["b", "{}"]), made("run.waiting", { pending })];
  assert.deepEqual(steps(...before)[0]?.calls.map(({ status }) => status), ["waiting", "outcome unknown"]);
  const after = steps(...before, started("1", "a"), finished("1", "a", "no", { is_error: true }));
  assert.deepEqual(after[0]?.calls.map(({ status }) => status), ["failed", "outcome unknown"]);
});

test("a checked call has its quotations", () => {
  const write_check = { request: "cancel it", policy: "", fault: "" };
  const found = steps(...turn("turn 1", ["a", "{}"]), made("tool.checked", { call: "1", tool: "a", arguments: "{}", write_check }));
  assert.deepEqual(found[0]?.calls.map(({ id, check }) => [id, check]), [["1", write_check]]);
});

test("a run without tools has no conversation", () => {
  assert.deepEqual(steps(...turn("solve"), ...turn("verify")), []);
});
