// Facts of a run that can be compared with another's, in words.

import { type Json, number } from "../events";
import { shownAnswer, standingOf } from "../run/standing";
import type { State } from "../run/state";
import { figure, fixed, seconds, whole } from "../text/figures";
import { countsText } from "../text/verdicts";
import { spaced } from "../text/words";
import type { RunDetail } from "./api";

export interface Fact {
  name: string;
  value: string;
}

/** What was asked, how, what it cost and what came of it; each search with the size of its tree. */
export function factsOf(detail: RunDetail, state: State): Fact[] {
  const facts: Fact[] = [];
  const add = (name: string, value: string | number | null | undefined) => {
    if (value !== null && value !== undefined && value !== "") facts.push({ name, value: String(value) });
  };
  const answer = state.answer ?? detail.result;
  const verification = answer?.verification ?? state.verification;
  add("question", detail.question);
  add("strategy", detail.strategy);
  for (const [name, value] of Object.entries(detail.parameters)) add(`${detail.strategy}: ${spaced(name)}`, jsonText(value));
  for (const [role, model] of Object.entries(detail.models)) add(role === "main" ? "model" : `${role} model`, model);
  add("verifiers", detail.verify.join(", "));
  for (const [kind, limit] of Object.entries(detail.budget)) if (typeof limit === "number") add(`limit of ${spaced(kind)}`, figure(limit));
  add("effort", detail.effort);
  add("seed", detail.seed);
  for (const [name, value] of Object.entries(detail.metadata)) add(`tag ${name}`, jsonText(value));
  add("status", standingOf(detail.status, detail.stopped).word);
  add("answer", answer === null || answer.answer === null ? null : shownAnswer(answer));
  add("verdict", verification === null || verification.verifiers.length === 0 ? null : spaced(verification.verdict));
  add("claims", verification === null ? null : countsText(verification.claims));
  add("confidence", shortFigure(answer?.confidence));
  add("calibrated confidence", shortFigure(answer?.calibrated_confidence));
  if (answer !== null) {
    const { usage } = answer;
    add("time", seconds(usage.wall_seconds));
    add("cost in USD", usage.cost_usd === null ? "unknown" : fixed(usage.cost_usd, 4));
    add("generated tokens", whole(usage.completion_tokens));
    add("thinking tokens", whole(usage.thinking_tokens));
    add("prompt tokens", whole(usage.prompt_tokens));
    add("model calls", whole(usage.model_calls));
    add("reward calls", whole(usage.reward_calls));
    add("candidates", whole(answer.candidates.length));
  }
  if (state.votes.length > 0) add("votes", state.votes.slice(0, 5).map(([text, count]) => `${text}: ${count}`).join(", "));
  [...state.searches.values()].forEach((search, i) => {
    const depth = Math.max(0, ...[...search.nodes.values()].map((node) => node.depth));
    add(`tree ${i + 1}`, `${whole(search.nodes.size)} nodes, ${whole(search.expanded.length)} expanded, ${whole(depth)} deep`);
  });
  for (const what of new Set(answer?.degraded ?? state.degraded)) add(`note: ${what}`, "yes");
  return facts;
}

function jsonText(value: Json): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function shortFigure(value: Json | undefined): string | null {
  const known = number(value);
  return known === null ? null : fixed(known, 2);
}
