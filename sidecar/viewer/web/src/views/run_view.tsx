// One run: everything that its events tell, what matters most first.

import { useMemo } from "preact/hooks";
import type { ComponentChildren } from "preact";
import type { Search, State } from "../run/state";
import { type Tree, treeOf } from "../tree/tree";
import { SearchView } from "../tree/tree_view";
import { AnswerCard } from "./answer";
import { Blocks } from "./blocks";
import { Conversation } from "./conversation";
import { Budget, Costs } from "./costs";
import { DownloadButton } from "./download";
import { EventList } from "./event_list";
import { Header, standing } from "./header";
import { Jury } from "./jury";
import { Routing } from "./routing";
import { Candidates, candidatesOf, Samples } from "./samples";
import { Timeline } from "./timeline";
import { Votes } from "./votes";
import { Workers } from "./workers";

interface Props {
  state: State;
  /** As the store has it; null where only events are known. */
  status: string | null;
  /** What was asked, as the store has it, for a run that has told nothing yet. */
  question?: string;
  /** What else can be done with the run. */
  actions?: ComponentChildren;
  /** What a waiting run needs. */
  decisions?: ComponentChildren;
}

export function RunView({ state, status, question, actions, decisions }: Props) {
  const trees = useTrees(state.searches);
  const running = standing(state, status).tone === "busy";
  const parts: [id: string, name: string, count: number][] = [
    ["conversation", "Conversation", state.entries.filter((event) => event.type === "stage.started" && event.stage === "turn 1").length],
    ["search", "Search", trees.length],
    ["workers", "Workers", state.workers?.names.length ?? 0],
    ["routing", "Routing", state.steps.length],
    ["blocks", "Blocks", state.blocks.size],
    ["jury", "Jury", state.jury?.opinions.size ?? 0],
    ["votes", "Votes", state.votes.length],
    ["candidates", "Candidates", candidatesOf(state).length],
    ["samples", "Samples", state.samples.length + state.writings.size],
    ["timeline", "Timeline", state.calls.size + (state.stage === "" ? 0 : 1)],
    ["events", "Events", state.entries.length],
  ];
  const there = parts.filter(([, , count]) => count > 0);
  const has = (id: string) => there.some(([each]) => each === id);
  return (
    <main class="run">
      <Header state={state} status={status} question={question} />
      <div class="actions">
        <DownloadButton state={state} />
        {actions}
      </div>
      {decisions}
      <div class="top">
        <AnswerCard state={state} running={running} />
        <aside>
          <Budget state={state} />
          <Costs state={state} />
        </aside>
      </div>
      {there.length > 2 && (
        <nav class="parts" aria-label="Parts of this page">
          {there.map(([id, name]) => (
            <a key={id} href={`#${id}`}>
              {name}
            </a>
          ))}
        </nav>
      )}
      {has("conversation") && <Conversation state={state} running={running} />}
      {has("search") && (
        <section id="search">
          <h2>Search</h2>
          {trees.map((tree) => (
            <SearchView key={tree.place} tree={tree} />
          ))}
        </section>
      )}
      {has("workers") && state.workers !== null && <Workers workers={state.workers} running={running} />}
      {has("routing") && <Routing steps={state.steps} />}
      {has("blocks") && <Blocks chains={state.blocks} />}
      {has("jury") && state.jury !== null && <Jury jury={state.jury} />}
      {has("votes") && <Votes state={state} />}
      {has("candidates") && <Candidates state={state} />}
      {has("samples") && <Samples state={state} />}
      {has("timeline") && <Timeline state={state} running={running} />}
      <EventList state={state} />
    </main>
  );
}

/** The trees of the searches; a search that did not change keeps its tree. */
function useTrees(searches: ReadonlyMap<string, Search>): Tree[] {
  const known = useMemo(() => new WeakMap<Search, Tree>(), []);
  return [...searches.values()].map((search, i) => {
    const before = known.get(search);
    if (before !== undefined && before.place === i + 1) return before;
    const tree = treeOf(search, i + 1);
    known.set(search, tree);
    return tree;
  });
}
