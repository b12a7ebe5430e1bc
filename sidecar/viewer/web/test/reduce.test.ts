import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { RunEvent } from "../src/events";
import { reduce, reduceAll } from "../src/run/reduce";
import { nothing, slot } from "../src/run/state";
import { treeOf } from "../src/tree/tree";
import { made, node } from "./made";

/** Traces that were recorded, one event a line: whoever runs the tests may name their folder. */
function recorded(): [string, RunEvent[]][] {
  const folder = process.env["REASON_TRACES"];
  if (folder === undefined) return [];
  return readdirSync(folder)
    .filter((name) => name.endsWith(".jsonl"))
    .map((name) => [name, readFileSync(join(folder, name), "utf8").trim().split("\n").map((line) => JSON.parse(line) as RunEvent)]);
}

test("a run comes out the same one by one, in batches, and at once", () => {
  for (const [name, events] of recorded()) {
    const atOnce = reduceAll(nothing(), events);
    assert.deepEqual(events.reduce(reduce, nothing()), atOnce, name);
    let inBatches = nothing();
    for (let i = 0; i < events.length; i += 7) inBatches = reduceAll(inBatches, events.slice(i, i + 7));
    assert.deepEqual(inBatches, atOnce, name);
    assert.equal(atOnce.entries.length, events.filter((event) => event.type !== "text.delta").length, name);
  }
});

test("neither the state before nor the events are changed", () => {
  for (const [name, events] of [...recorded(), ["made", madeRun()] as [string, RunEvent[]]]) {
    const told = JSON.stringify(events);
    let state = nothing();
    for (const event of events) {
      const before = structuredClone(state);
      const next = reduce(state, event);
      assert.deepEqual(state, before, `${name} ${event.type}`);
      state = next;
    }
    assert.equal(JSON.stringify(events), told, name);
  }
});

function madeRun(): RunEvent[] {
  const started = made("run.started", { question: { text: "?", choices: [], kind: "auto" }, strategy: "s", models: { main: "m" }, seed: 1, resumed: false });
  const stage = made("stage.started", { stage: "solve" });
  const call = made("call.started", { role: "main", model: "m", operation: "generate", requests: 1, samples: 2, replayed: 0, max_tokens: 9 }, { parent: stage.number });
  const delta = (text: string) => made("text.delta", { request: 0, sample: 1, text, tokens: 2, thought: "" }, { parent: call.number });
  return [
    started,
    stage,
    call,
    delta("ab"),
    delta("c"),
    made("budget.charged", { role: "main", model: "m", tokens: 3, calls: 1, total_tokens: 3, total_calls: 1, total_usd: null, reward_calls: 0, total_reward_calls: 0, total_thinking_tokens: 1, limits: { tokens: 9 } }, { parent: call.number }),
    made("search.nodes", { search: "s", expanded: [], nodes: [node(0, null), node(1, 0)], discarded: 1 }),
    made("search.ended", { search: "s", chosen: 1, stopped: "done", cost: {} }),
  ];
}

test("text is gathered by sample, and counted until it is charged", () => {
  const events = madeRun();
  const call = events[2]?.number ?? 0;
  const before = reduceAll(nothing(), events.slice(0, 5));
  assert.deepEqual(before.writings.get(slot(call, 0, 1)), { text: "abc", thought: "", tokens: 4, pieces: [["ab", 2], ["c", 2]] });
  assert.equal(before.calls.get(call)?.fresh, 4);
  const after = reduceAll(before, events.slice(5, 6));
  assert.equal(after.calls.get(call)?.fresh, 0);
  assert.deepEqual([after.spent.tokens, after.spent.usd, after.limits.get("tokens")], [3, null, 9]);
});

test("an event that was told before is passed over, pieces of text are not", () => {
  const events = madeRun();
  const once = reduceAll(nothing(), events);
  const again = reduceAll(once, events.filter((event) => event.type !== "text.delta"));
  assert.deepEqual(again, once);
});

test("a run that goes on tells its searches again from the beginning", () => {
  const told = (id: number) => made("search.nodes", { search: "s", expanded: [], nodes: [node(id, null)], discarded: 0 });
  const ended = () => made("search.ended", { search: "s", chosen: null, stopped: "done", cost: {} });
  const begun = () => made("run.started", { question: { text: "?", choices: [], kind: "auto" }, strategy: "s", models: {}, seed: 1, resumed: true });
  const state = reduceAll(nothing(), [begun(), told(1), ended(), told(2), ended(), begun(), told(3)]);
  assert.deepEqual([...state.searches.values()].map((search) => [...search.nodes.keys()]), [[3], [2]]);
  assert.deepEqual([...state.searches.values()].map((search) => search.end === null), [true, false]);
});

test("notes come before their node does, and belong to no search that tells nothing else", () => {
  const item = { text: "t", source_id: "", source_kind: "self", score: 1 };
  const noted = (search: string) => made("memory.associated", { search, node: 1, query: "", snippets: 0, items: [item], dropped: {} });
  const state = reduceAll(nothing(), [
    noted("a"),
    noted("b"),
    made("search.nodes", { search: "a", expanded: [0], nodes: [node(0, null), node(1, 0)], discarded: 0 }),
    noted("a"),
  ]);
  assert.equal(state.searches.size, 1);
  const [search] = state.searches.values();
  assert.equal(search?.notes.get(1)?.length, 2);
});

test("broken parents give a tree all the same", () => {
  const nodes = [node(0, 1), node(1, 0), node(2, 99), node(3, 3), node(4, null), node(5, 4)];
  const state = reduce(nothing(), made("search.nodes", { search: "s", expanded: [4, 4], nodes, discarded: 0 }));
  const [search] = state.searches.values();
  assert.ok(search);
  const tree = treeOf(search, 1);
  assert.deepEqual(tree.roots, [0, 2, 3, 4]);
  assert.deepEqual([...tree.orphans], [0, 2, 3]);
  assert.deepEqual(tree.turns.get(4), [1, 2]);
  assert.deepEqual([tree.levels.get(1), tree.levels.get(5), tree.active], [1, 1, 4]);
});

test("ten thousand events make ten thousand nodes", () => {
  const events: RunEvent[] = [];
  for (let i = 0; i < 10_000; i++) {
    events.push(made("search.nodes", { search: "s", expanded: [i], nodes: [node(i, i - 1)], discarded: 0 }));
  }
  const state = reduceAll(nothing(), events);
  const [search] = state.searches.values();
  assert.ok(search);
  assert.equal(treeOf(search, 1).levels.get(9_999), 9_999);
});
