import assert from "node:assert/strict";
import { test } from "node:test";
import { aggregated } from "../src/live/aggregate";
import type { RunDetail, RunSummary } from "../src/live/api";
import { factsOf } from "../src/live/compare";
import { EVERYTHING, filterOf, queryOf, sortedBy } from "../src/live/filter";
import { standingOf } from "../src/run/standing";
import { nothing } from "../src/run/state";
import { linkedNode, linkTo } from "../src/tree/node_link";

function summary(strategy: string, more: Partial<RunSummary> = {}): RunSummary {
  return { strategy, status: "finished", stopped: "done", cost_usd: null, tokens: null, seconds: null, ...more } as RunSummary;
}

test("a filter survives its address, and what is not said is as it was", () => {
  assert.deepEqual(filterOf(""), EVERYTHING);
  const filter = { ...EVERYTHING, search: "a & b", tag: "k:v=1", sort: "cost", order: "asc" };
  assert.deepEqual(filterOf(`?${queryOf(filter)}`), filter);
  assert.equal(queryOf(EVERYTHING).toString(), "");
  assert.deepEqual(filterOf("?sort=nonsense&order=up"), EVERYTHING);
});

test("a second click on a column turns its order around", () => {
  const first = sortedBy(EVERYTHING, "tokens");
  assert.deepEqual([first.sort, first.order], ["tokens", "desc"]);
  assert.equal(sortedBy(first, "tokens").order, "asc");
  assert.equal(sortedBy(sortedBy(first, "tokens"), "tokens").order, "desc");
});

test("runs are counted by strategy, with means of what is known", () => {
  const runs = [
    summary("cot", { cost_usd: 0.2, tokens: 10, seconds: 1 }),
    summary("cot", { tokens: 20, seconds: 9, stopped: "budget" }),
    summary("cot", { seconds: 2 }),
    summary("cot", { status: "running", stopped: null }),
    summary("mcts", { status: "failed", stopped: null }),
    summary("beam", { seconds: 1 }),
    summary("beam", { seconds: 4 }),
  ];
  assert.deepEqual(aggregated(runs), [
    { strategy: "cot", runs: 3, done: 2, usd: 0.2, tokens: 15, seconds: 2 },
    { strategy: "beam", runs: 2, done: 2, usd: null, tokens: null, seconds: 2.5 },
    { strategy: "mcts", runs: 1, done: 0, usd: null, tokens: null, seconds: null },
  ]);
});

test("a run that was stopped is never called done", () => {
  assert.deepEqual(standingOf("finished", "done"), { word: "done", tone: "good" });
  assert.deepEqual(standingOf("finished", "budget"), { word: "budget", tone: "warn" });
  assert.deepEqual(standingOf("interrupted", "cancelled"), { word: "cancelled", tone: "warn" });
  assert.deepEqual(standingOf("interrupted", null), { word: "interrupted", tone: "warn" });
  assert.deepEqual(standingOf("failed", null), { word: "failed", tone: "bad" });
  assert.deepEqual(standingOf("running", "budget"), { word: "running", tone: "busy" }); // it was resumed
});

test("facts of a run name its parameters, its limits and its trees", () => {
  const detail = {
    ...summary("mcts"), id: "r", question: "Why?", parameters: { max_depth: 3 }, models: { main: "m", judge: "j" }, verify: [],
    budget: { tokens: 9, calls: null }, effort: null, seed: 1, metadata: { set: "a" }, result: null,
  } as unknown as RunDetail; // prettier-ignore
  const state = nothing();
  const nodes = new Map([[0, { depth: 0 }], [1, { depth: 1 }]]) as never;
  state.searches.set("s", { search: "s", nodes, expanded: [0], discarded: 0, end: null, notes: new Map(), selected: [] });
  const facts = Object.fromEntries(factsOf(detail, state).map(({ name, value }) => [name, value]));
  assert.deepEqual(facts, {
    question: "Why?", strategy: "mcts", "mcts: max depth": "3", model: "m", "judge model": "j", "limit of tokens": "9", seed: "1",
    "tag set": "a", status: "done", "tree 1": "2 nodes, 1 expanded, 1 deep",
  });
});

test("a link to a node is read as it was written", () => {
  assert.deepEqual(linkedNode(`#${linkTo({ place: 2, node: 17 })}`), { place: 2, node: 17 });
  for (const other of ["", "#search", "#tree-x-node-1", "#tree-1-node-1x"]) assert.equal(linkedNode(other), null);
});
