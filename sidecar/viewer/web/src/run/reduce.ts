// From events to state. `reduce` is pure: it changes neither the state that it is given nor the events.

import type { BudgetCharged, CallFinished, CallStarted, RunEvent, RunStarted, SampleFinished, StageFinished, TextDelta } from "../events";
import { takeBlockNote, takeRouting, takeWorkerNote, takeWorkerText } from "./chains";
import { Draft } from "./draft";
import { takeJury } from "./juries";
import { takeSearch } from "./searching";
import { type Entry, type State, slot } from "./state";

/** The state after one more event. */
export function reduce(state: State, event: RunEvent): State {
  return reduceAll(state, [event]);
}

/** The state after more events, in order. */
export function reduceAll(state: State, events: readonly RunEvent[]): State {
  if (events.length === 0) return state;
  const draft = new Draft(state);
  for (const event of events) take(draft, event);
  return draft.state;
}

function take(draft: Draft, event: RunEvent): void {
  const state = draft.state;
  if (event.type === "text.delta") {
    state.atS = Math.max(state.atS, event.at_s);
    takeText(draft, event);
    return;
  }
  if (event.number > 0) {
    if (event.number <= state.last) return; // told twice by a stream that was taken up again
    state.last = event.number;
  }
  state.atS = Math.max(state.atS, event.at_s);
  note(draft, event);
  switch (event.type) {
    case "run.started":
      begin(draft, event);
      break;
    case "stage.started":
      state.stage = event.stage;
      if (event.stage === "verify") state.reports = draft.made([]);
      break;
    case "stage.finished":
      break;
    case "call.started":
      startCall(draft, event);
      break;
    case "call.finished":
      finishCall(draft, event);
      break;
    case "sample.finished":
      takeSample(draft, event);
      break;
    case "budget.charged":
      charge(draft, event);
      break;
    case "budget.exhausted":
      state.exhausted = event.kind;
      break;
    case "candidate.added":
      draft.part("candidates").set(event.index, event);
      break;
    case "vote.updated":
      state.votes = Object.entries(event.votes).sort((a, b) => b[1] - a[1]);
      state.counted = event.total;
      break;
    case "search.nodes":
    case "search.selected":
    case "search.ended":
    case "memory.associated":
      takeSearch(draft, event);
      break;
    case "step.routed":
      takeRouting(draft, event);
      break;
    case "jury.opinion":
    case "jury.review":
    case "jury.ranked":
    case "jury.merged":
    case "jury.claim":
    case "jury.stage":
      takeJury(draft, event);
      break;
    case "strategy.note":
      takeWorkerNote(draft, event);
      takeBlockNote(draft, event);
      if (event.name === "auto.chosen" || event.name === "question.routed") {
        state.ran = `${String(event.data["selected_strategy"] ?? "")}: ${String(event.data["why"] ?? "")}`;
      }
      break;
    case "run.degraded":
      draft.part("degraded").push(event.what);
      break;
    case "solution.finished":
      state.solution = event.solution;
      break;
    case "claim.checked":
      draft.part("reports").push({ index: event.index, report: event.report });
      break;
    case "verification.finished":
      state.verification = event.verification;
      break;
    case "run.failed":
      state.failed = event;
      break;
    case "run.finished":
      state.answer = event.answer;
      if (event.answer.verification !== null) state.verification = event.answer.verification;
      break;
    case "events.dropped":
      state.missing += event.count;
      break;
    default: // of a later version: it stands in the list
      break;
  }
}

/** Puts an event under the one that it belongs to; ends stand in their beginnings. */
function note(draft: Draft, event: Entry): void {
  const { state } = draft;
  draft.part("entries").push(event);
  const known = event.parent !== null && state.known.has(event.parent); // not in a trace that begins half-way
  if ((event.type === "call.finished" || event.type === "stage.finished") && known) {
    draft.part("ends").set(event.parent as number, event satisfies CallFinished | StageFinished);
    return;
  }
  if (event.number > 0) draft.part("known").add(event.number);
  draft.entry(draft.part("below"), known ? (event.parent as number) : 0, () => []).push(event);
}

/** A run that goes on is told again what it had not finished. */
function begin(draft: Draft, event: RunStarted): void {
  const { state } = draft;
  state.started = event;
  state.failed = null;
  state.answer = null;
  state.begun = draft.made(new Map());
  state.open = draft.made(new Map());
  state.pending = draft.made(new Map());
}

function startCall(draft: Draft, event: CallStarted): void {
  const call = draft.made({ started: event, finished: null, done: 0, fresh: 0 });
  draft.part("calls").set(event.number, call);
  if (event.operation === "generate") draft.state.wanted += event.samples; // what is scored finishes no sample
}

function finishCall(draft: Draft, event: CallFinished): void {
  const role = roleOf(draft, event.role, event.model);
  role.thinking += event.thinking_tokens;
  role.prompt += event.prompt_tokens;
  role.cached += event.cached_tokens;
  role.seconds += event.seconds;
  const calls = draft.part("calls");
  if (event.parent === null || !calls.has(event.parent)) return;
  draft.entry(calls, event.parent, never).finished = event;
}

function takeText(draft: Draft, event: TextDelta): void {
  if (event.answer_start !== undefined) return; // the answer's text is that of samples, which are shown
  const { state } = draft;
  const key = slot(event.parent, event.request, event.sample);
  const writing = draft.entry(draft.part("writings"), key, () => ({ text: "", thought: "", tokens: 0, pieces: [] }));
  writing.text += event.text;
  writing.thought += event.thought;
  writing.tokens += event.tokens;
  writing.pieces = draft.own(writing.pieces);
  writing.pieces.push([event.text, event.tokens]);
  const started = state.calls.get(event.parent ?? 0)?.started;
  if (started === undefined) return;
  draft.entry(draft.part("calls"), started.number, never).fresh += event.tokens;
  if (started.operation === "workers") takeWorkerText(draft, event.request, event.text);
}

function takeSample(draft: Draft, event: SampleFinished): void {
  draft.part("samples").push(event);
  const number = event.parent ?? 0;
  if (draft.state.calls.has(number)) draft.entry(draft.part("calls"), number, never).done += 1;
}

function charge(draft: Draft, event: BudgetCharged): void {
  const { state } = draft;
  state.spent = {
    tokens: event.total_tokens,
    thinking_tokens: event.total_thinking_tokens,
    calls: event.total_calls,
    reward_calls: event.total_reward_calls,
    usd: event.total_usd,
  };
  const limits = draft.part("limits");
  for (const [kind, limit] of Object.entries(event.limits)) limits.set(kind, limit);
  const role = roleOf(draft, event.role, event.model);
  role.calls += event.calls;
  role.rewardCalls += event.reward_calls;
  role.tokens += event.tokens;
  const number = event.parent ?? 0;
  if (state.calls.has(number)) draft.entry(draft.part("calls"), number, never).fresh = 0; // in the total now
}

function roleOf(draft: Draft, role: string, model: string) {
  return draft.entry(draft.part("roles"), `${role}:${model}`, () => ({
    role,
    model,
    calls: 0,
    rewardCalls: 0,
    tokens: 0,
    thinking: 0,
    prompt: 0,
    cached: 0,
    seconds: 0,
  }));
}

function never(): never {
  throw new Error("the key is there");
}
