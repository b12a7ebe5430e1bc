// Chains that several hands write: steps of two models, blocks of a navigator, workers side by side.

import { list, type StepRouted, type StrategyNote, text } from "../events";
import type { Draft } from "./draft";

/** A chain that is begun anew, or gone on with, is counted anew from there. */
export function takeRouting(draft: Draft, event: StepRouted): void {
  const steps = draft.part("steps");
  steps.length = Math.min(steps.length, event.index);
  steps.push(event);
}

export function takeBlockNote(draft: Draft, event: StrategyNote): void {
  const { letter, vote } = event.data;
  if (event.name !== "block.run" || typeof letter !== "string" || typeof vote !== "number") return;
  const chain = draft.entry(draft.part("blocks"), vote, () => []);
  const block = text(event.data["block"]) || letter;
  chain.push({ number: event.number, atS: event.at_s, block, letter, data: event.data });
}

/** Notes that do not fit change nothing. */
export function takeWorkerNote(draft: Draft, event: StrategyNote): void {
  const { state } = draft;
  if (event.name === "workers.begin") {
    const names = list(event.data["names"]);
    const writing = list(event.data["writing"]);
    if (!Array.isArray(event.data["names"]) || names.length !== writing.length) return;
    state.workers = draft.made({
      names: names.map(String),
      steps: names.map(() => []),
      writing: writing.map(String),
      answers: [],
    });
    return;
  }
  const { worker } = event.data;
  if (state.workers === null || typeof worker !== "number" || !(worker in state.workers.names)) return;
  const workers = draft.own(state.workers);
  state.workers = workers;
  const said = event.data["text"];
  if (event.name === "workers.step" && typeof said === "string") {
    workers.steps = draft.own(workers.steps);
    workers.steps[worker] = [...(workers.steps[worker] ?? []), said];
    write(draft, worker, () => text(event.data["next"]));
  } else if (event.name === "workers.asked" && typeof said === "string") {
    write(draft, worker, (before) => before + said);
  } else if (event.name === "workers.answer") {
    workers.answers = [...workers.answers, { worker, answer: text(event.data["answer"]) }];
  }
}

export function takeWorkerText(draft: Draft, worker: number, added: string): void {
  if (draft.state.workers === null || !(worker in draft.state.workers.names)) return;
  draft.state.workers = draft.own(draft.state.workers);
  write(draft, worker, (before) => before + added);
}

function write(draft: Draft, worker: number, change: (before: string) => string): void {
  const workers = draft.state.workers;
  if (workers === null) return;
  workers.writing = draft.own(workers.writing);
  workers.writing[worker] = change(workers.writing[worker] ?? "");
}
