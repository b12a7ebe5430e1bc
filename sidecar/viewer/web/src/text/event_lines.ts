// Each event in a line: what kind it is, what happened, how that is coloured.

import { number, object, text } from "../events";
import type { CallFinished, CallStarted, LeafSelected, NodesSearched, SampleFinished, StageFinished, StepRouted, StrategyNote } from "../events";
import { claimOf } from "../run/checked";
import type { Entry } from "../run/state";
import { figure, fixed, plural, whole } from "./figures";
import { juryLine } from "./jury_lines";
import { countsText, verdictText } from "./verdicts";
import { shortened, spaced, tone } from "./words";

const MOST_NAMED = 6; // expanded nodes named in a line

export interface Line {
  kind: string;
  what: string;
  tone?: string;
  /** The whole record, where there is more of it than the line says. */
  record?: unknown;
}

export function lineOf(event: Entry, end: CallFinished | StageFinished | undefined): Line {
  switch (event.type) {
    case "run.started": {
      const models = Object.entries(event.models).map(([role, model]) => `${role}: ${model}`);
      const how = event.resumed ? "goes on" : "begins";
      return { kind: "run", what: `${how}: ${event.strategy} on ${models.join(", ")}, seed ${event.seed}` };
    }
    case "stage.started": {
      const took = end?.type === "stage.finished" ? `${fixed(end.seconds, 2)} s` : "not finished";
      return { kind: "stage", what: `${event.stage}, ${took}` };
    }
    case "stage.finished":
      return { kind: "stage", what: `${event.stage} ended, ${fixed(event.seconds, 2)} s` };
    case "call.started":
      return { kind: "call", what: callLine(event, end) };
    case "call.finished":
      return { kind: "call", what: `ended as ${event.role}, ${event.model}: ${whole(event.tokens)} tokens` };
    case "sample.finished":
      return {
        kind: `sample ${event.request + 1}.${event.sample + 1}`,
        what: sampleLine(event),
        tone: event.completion.failure === null ? "" : "bad",
      };
    case "steps.scored": {
      const steps = event.log_odds.reduce((sum, each) => sum + each.length, 0);
      const stored = event.replayed > 0 ? `, ${event.replayed} from the store` : "";
      const what = `${event.role}, ${event.model}: ${plural(steps, "step")} of ${plural(event.log_odds.length, "solution")}${stored}`;
      return { kind: "scored", what, record: event.log_odds };
    }
    case "budget.charged": {
      const usd = event.total_usd ? `, ${fixed(event.total_usd, 4)} USD` : "";
      const spent = `${whole(event.total_tokens)} tokens, ${whole(event.total_calls)} calls${usd} so far`;
      return { kind: "budget", what: `${whole(event.tokens)} tokens charged to ${event.role}; ${spent}` };
    }
    case "budget.exhausted": {
      if (event.kind === "user") return { kind: "answer now", what: "the user wants the answer now", tone: "warn" };
      const [limit, used] = [number(event.limit) ?? 0, number(event.used) ?? 0];
      return { kind: "budget spent", what: `the limit of ${limit} ${spaced(event.kind)} is met (${used} used)`, tone: "warn" };
    }
    case "candidate.added": {
      const score = number(event.score);
      const found = shortened(event.answer ?? "no answer found in it");
      return { kind: `candidate ${event.index + 1}`, what: found + (score === null ? "" : `, score ${figure(score)}`) };
    }
    case "vote.updated": {
      const most = Object.entries(event.votes).sort((a, b) => b[1] - a[1]);
      const votes = most.map(([answer, count]) => `${shortened(answer, 40)} x${count}`);
      return { kind: "votes", what: `${votes.join(", ") || "none"} (of ${event.total})` };
    }
    case "search.selected":
      return { kind: "selected", what: selectedLine(event) };
    case "memory.associated": {
      const parts = [`node ${event.node}: ${plural(event.items.length, "note")}`];
      if (event.snippets > 0 || event.query !== "") parts.push(`of ${plural(event.snippets, "snippet")}`);
      const dropped = Object.entries(event.dropped).map(([reason, count]) => `${count} ${spaced(reason)}`);
      const lost = dropped.length > 0 ? `; not kept: ${dropped.join(", ")}` : "";
      return { kind: "notes", what: `${event.search}: ${parts.join(" ")}${lost}` };
    }
    case "search.nodes":
      return { kind: "search", what: searchedLine(event) };
    case "search.ended": {
      const chosen = event.chosen === null ? "no node" : `node ${event.chosen}`;
      return { kind: "search ended", what: `${event.search}: ${event.stopped}, ${chosen} chosen` };
    }
    case "step.routed":
      return { kind: `step ${event.index + 1}`, what: routedLine(event) };
    case "jury.opinion":
    case "jury.review":
    case "jury.ranked":
    case "jury.merged":
    case "jury.claim":
    case "jury.stage": {
      const line = juryLine(event);
      return { ...line, what: shortened(line.what), record: event.report };
    }
    case "strategy.note":
      return { kind: event.name, what: notedLine(event), record: Object.keys(event.data).length > 0 ? event.data : undefined };
    case "run.degraded":
      return { kind: "degraded", what: event.what, tone: "warn" };
    case "solution.finished": {
      const { chosen, candidates, stopped, notes } = event.solution;
      const best = chosen === null ? undefined : candidates[chosen];
      const found = best === undefined ? "no candidate" : shortened(best.answer ?? "no answer found in the text");
      return { kind: "solution", what: `${found} (${stopped})`, record: Object.keys(notes).length > 0 ? notes : undefined };
    }
    case "claim.checked": {
      const verdict = text(event.report["verdict"]);
      const said = shortened(text(object(event.report["claim"])["text"]));
      return {
        kind: `claim ${event.index + 1}`,
        what: `${verdictText(claimOf(event.report))}: ${said}`,
        tone: tone(verdict),
        record: event.report,
      };
    }
    case "verification.finished": {
      const { verdict, claims } = event.verification;
      const counts = claims.length > 0 ? `: ${countsText(claims)}` : "";
      return { kind: "verified", what: spaced(verdict) + counts, tone: tone(verdict), record: event.verification };
    }
    case "tool.started":
      return { kind: "tool", what: shortened(`${event.tool} ${event.arguments} (${event.effect})`), record: event };
    case "tool.progress":
      return { kind: "tool", what: shortened(`${event.tool}: ${event.text}`) };
    case "tool.finished": {
      const took = event.is_replayed ? "recorded" : `${fixed(event.seconds, 2)} s`;
      return { kind: "tool result", what: shortened(`${event.tool}, ${took}: ${event.text}`), tone: event.is_error ? "bad" : "", record: event };
    }
    case "tool.checked": {
      const { request, policy, fault } = event.write_check;
      const quoted = [request, policy].filter((text) => text !== "").map((text) => `“${text}”`).join(", ");
      return { kind: "check", what: shortened(`${event.tool} ${event.arguments}: ${fault || quoted}`), tone: fault === "" ? "" : "bad", record: event };
    }
    case "approval.requested":
      return { kind: "approval", what: shortened(`${event.tool} ${event.arguments}: ${event.question} needed`), tone: "warn", record: event };
    case "approval.decided":
      return { kind: "approval", what: `${event.tool}: ${event.decision} by ${event.by || "unknown"}` };
    case "run.waiting":
      return { kind: "waiting", what: event.pending.map(({ tool, question }) => `${tool}: ${question}`).join(", "), tone: "warn", record: event.pending };
    case "run.failed":
      return { kind: "run failed", what: `${event.message} (${event.code})`, tone: "bad" };
    case "run.finished": {
      const { answer, stopped } = event.answer;
      return { kind: "run ended", what: `${shortened(answer ?? "-")} (${stopped})`, tone: "good" };
    }
    case "events.dropped":
      return { kind: "missing", what: `${event.count} events are missing here`, tone: "warn" };
    default: // of a later version
      return { kind: String((event as { type?: unknown }).type ?? "event"), what: "", record: event };
  }
}

function callLine(event: CallStarted, end: CallFinished | StageFinished | undefined): string {
  let what = `${event.operation} as ${event.role}, ${event.model}`;
  if (event.samples > 0) what += `, ${plural(event.samples, "sample")}`; // a prefix that is pinned has none
  if (event.replayed > 0) what += ` (${event.replayed} from the store)`;
  if (end?.type !== "call.finished") return `${what}: not finished`;
  const rate = end.tokens > 0 && end.seconds > 0.01 ? `, ${whole(end.tokens / end.seconds)} tokens/s` : "";
  what += `: ${whole(end.tokens)} tokens in ${fixed(end.seconds, 2)} s${rate}`;
  return end.failed > 0 ? `${what}, ${end.failed} failed` : what;
}

function sampleLine(event: SampleFinished): string {
  const { usage, finish_reason, logprobs } = event.completion;
  const thinking = usage.thinking_tokens > 0 ? ` (${whole(usage.thinking_tokens)} thinking)` : "";
  let what = `${whole(usage.completion_tokens)} tokens${thinking}, ${finish_reason}`;
  const ofAnswer = (logprobs ?? []).slice(event.completion.answer_from ?? 0);
  if (ofAnswer.length > 0) {
    const sum = ofAnswer.reduce<number>((all, each) => all + (number(each) ?? 0), 0);
    what += `, mean log-probability ${fixed(sum / ofAnswer.length, 3)}`;
  }
  return event.replayed ? `${what}, from the store` : what;
}

/** Who wrote a step, and what decided that: `the small model m, 45 tokens: entropy 0.420 against 1 (full)`. */
export function routedLine(event: StepRouted): string {
  const who = event.role === "main" ? "the large model" : "the small model";
  return `${who} ${event.model}, ${whole(event.tokens)} tokens: ${routedBecause(event)}`;
}

/** What decided who wrote a step. */
export function routedBecause(event: StepRouted): string {
  const [entropy, threshold, score] = [number(event.entropy), number(event.threshold), number(event.score)];
  let parts = event.reason === "" ? [] : [event.reason];
  if (entropy !== null) {
    const against = threshold === null ? "" : ` against ${figure(threshold)}`;
    parts = [`entropy ${figure(entropy)}${against}${event.kind === "" ? "" : ` (${event.kind})`}`];
  }
  if (score !== null) parts.push(`score ${figure(score)}`);
  return parts.join(", ");
}

/** The leaf, and the way to it; behind each node what it was chosen by among its siblings. */
function selectedLine(event: LeafSelected): string {
  const leaf = event.path.at(-1);
  let way = event.path.map(String);
  if (event.attractions.length + 1 === way.length) {
    way = way.map((id, i) => (i === 0 ? id : `${id} (${figure(number(event.attractions[i - 1]))})`));
  }
  if (way.length > MOST_NAMED) way = [way[0] ?? "", "…", ...way.slice(1 - MOST_NAMED)];
  const along = way.length > 1 ? `, path ${way.join(" → ")}` : "";
  return `${event.search}: ${leaf === undefined ? "no node" : `node ${leaf}`}${along}`;
}

/** What a search took in: new nodes of expanded ones, or new values of old ones. */
function searchedLine(event: NodesSearched): string {
  const parts: string[] = [];
  if (event.expanded.length > 0) {
    const which = event.expanded.slice(0, MOST_NAMED).join(", ") + (event.expanded.length > MOST_NAMED ? ", …" : "");
    parts.push(`node${event.expanded.length > 1 ? "s" : ""} ${which} expanded`);
  }
  parts.push(`${plural(event.nodes.length, "node")} told`);
  const complete = event.nodes.filter((node) => node.terminal).length;
  if (complete > 0) parts.push(`${complete} complete`);
  const scores = event.nodes.map((node) => number(node.score)).filter((score) => score !== null);
  if (scores.length > 0) parts.push(`best score ${figure(Math.max(...scores), 2)}`);
  if (event.discarded > 0) parts.push(`${event.discarded} discarded`);
  return `${event.search}: ${parts.join(", ")}`;
}

/** Who noted it, and what of it fits a line: single values and flat lists of them. */
function notedLine(event: StrategyNote): string {
  const parts: string[] = [];
  for (const [name, value] of Object.entries(event.data)) {
    const values = Array.isArray(value) ? value : [value];
    const flat = values.length > 0 && values.every((each) => ["string", "number", "boolean"].includes(typeof each));
    if (flat) parts.push(`${spaced(name)} ${values.map((each) => (typeof each === "number" ? figure(each) : String(each))).join(" ")}`);
  }
  return shortened(`(${event.strategy}) ${parts.join(", ")}`.trim());
}
