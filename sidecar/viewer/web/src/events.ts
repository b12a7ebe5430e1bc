// The events of a run as the server and a trace file have them: the JSON of `reason.core.events`.
//
// Numbers that JSON cannot write (NaN, infinities) come as strings; `number` reads them. Texts are a model's or a
// user's: they reach the page as text nodes alone.

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
export type Figure = number | string | null;
export type Report = { [name: string]: Json };

export interface Fields {
  number: number;
  parent: number | null;
  run_id: string;
  at_s: number;
}

export interface Question {
  text: string;
  choices: string[];
  kind: string;
}

export interface SearchNode {
  id: number;
  parent: number | null;
  depth: number;
  text: string;
  tokens: number;
  score: Figure;
  terminal: boolean;
  forced: boolean;
  values: Record<string, Figure>;
}

export interface AssociatedItem {
  text: string;
  source_id: string;
  source_kind: string;
  score: Figure;
}

export interface Usage {
  prompt_tokens: number;
  cached_tokens: number;
  completion_tokens: number;
  thinking_tokens: number;
}

/** What a model thought before it answered; without text where the provider hides it. */
export interface Thought {
  text: string;
  tokens: number;
  closed: boolean;
}

export interface Completion {
  text: string;
  logprobs: Figure[] | null;
  finish_reason: string;
  usage: Usage;
  sample_index: number;
  thought?: Thought | null;
  /** The answer's first token; absent where there is no thought. */
  answer_from?: number;
  failure: { code: string; message: string } | null;
}

export interface Evidence {
  source: string;
  text: string;
  start: number | null;
  end: number | null;
}

export type Verdict = "supported" | "refuted" | "not_enough_evidence" | "disputed" | "unchecked" | "unparsed";

/** How far jurors agree with a claim, which is no evidence. */
export interface Agreement {
  label: string;
  support: number;
  contradict: number;
  silent: number;
}

export interface CheckedClaim {
  text: string;
  verdict: Verdict;
  confidence: Figure;
  /** What the evidence suggests with less than `needed`, the probability of a verdict. */
  lean?: "supported" | "refuted" | null;
  needed?: Figure;
  evidence: Evidence[];
  note: string;
  start: number | null;
  end: number | null;
  probs: [number, number, number] | null;
  origins: string[];
  agreement?: Agreement | null;
}

export interface Verification {
  verdict: Verdict;
  support: Figure;
  claims: CheckedClaim[];
  verifiers: string[];
}

export interface RoleUsage extends Usage {
  model: string;
  model_calls: number;
  reward_calls: number;
  replayed_tokens: number;
  cost_usd: number | null;
  working_s: number;
}

export interface RunUsage extends Usage {
  model_calls: number;
  reward_calls: number;
  replayed_tokens: number;
  cost_usd: number | null;
  wall_seconds: number;
  by_role: Record<string, RoleUsage>;
}

export interface AnswerCandidate {
  text: string;
  answer: string | null;
  score: Figure;
  logprob: Figure;
  tokens: number;
  thinking_tokens: number;
  thought: string;
}

export interface Answer {
  answer: string | null;
  /** Text of the option whose letter `answer` is. */
  option?: string | null;
  text: string;
  strategy: string;
  model: string;
  confidence: Figure;
  stopped: "done" | "budget" | "user" | "abstained" | "loop" | "waiting" | "cancelled" | "error";
  candidates: AnswerCandidate[];
  verification: Verification | null;
  usage: RunUsage;
  run_id: string;
  seed: number;
  degraded: string[];
  calibrated_confidence: Figure;
  calibration: string;
  citations: Evidence[];
  selected_strategy: string;
  thought?: string;
  based_on?: string;
}

export interface SolutionCandidate {
  text: string;
  answer: string | null;
  score: Figure;
  tokens: number;
  thought?: string;
  thinking_tokens?: number;
  tool_calls?: { name: string; arguments: string }[];
}

export interface Solution {
  chosen: number | null;
  candidates: SolutionCandidate[];
  stopped: string;
  notes: Report;
}

type Told<Type extends string, More> = Fields & { type: Type } & More;

export type RunStarted = Told<
  "run.started",
  { question: Question; strategy: string; models: Record<string, string>; seed: number; resumed: boolean; effort?: string; thinking_tokens?: number }
>;
export type StageStarted = Told<"stage.started", { stage: string }>;
export type StageFinished = Told<"stage.finished", { stage: string; seconds: number }>;
export type CallStarted = Told<
  "call.started",
  {
    role: string;
    model: string;
    operation: string;
    requests: number;
    samples: number;
    replayed: number;
    max_tokens: number;
  }
>;
export type CallFinished = Told<
  "call.finished",
  {
    role: string;
    model: string;
    seconds: number;
    tokens: number;
    thinking_tokens: number;
    prompt_tokens: number;
    cached_tokens: number;
    failed: number;
  }
>;
export type TextDelta = Told<
  "text.delta",
  { request: number; sample: number; text: string; tokens: number; thought: string; answer_start?: number }
>;
export type SampleFinished = Told<
  "sample.finished",
  { request: number; sample: number; completion: Completion; replayed: boolean }
>;
export type StepsScored = Told<
  "steps.scored",
  { role: string; model: string; log_odds: Figure[][]; replayed: number }
>;
export type BudgetCharged = Told<
  "budget.charged",
  {
    role: string;
    model: string;
    tokens: number;
    calls: number;
    total_tokens: number;
    total_calls: number;
    total_usd: number | null;
    reward_calls: number;
    total_reward_calls: number;
    total_thinking_tokens: number;
    total_prompt_tokens?: number;
    limits: Record<string, number>;
  }
>;
export type BudgetExhausted = Told<"budget.exhausted", { kind: string; used: Figure; limit: Figure }>;
export type CandidateAdded = Told<"candidate.added", { index: number; answer: string | null; score: Figure }>;
export type VoteUpdated = Told<"vote.updated", { votes: Record<string, number>; total: number }>;
export type NodesSearched = Told<
  "search.nodes",
  { search: string; expanded: number[]; nodes: SearchNode[]; discarded: number }
>;
export type LeafSelected = Told<"search.selected", { search: string; path: number[]; attractions: Figure[] }>;
export type MemoryAssociated = Told<
  "memory.associated",
  {
    search: string;
    node: number;
    query: string;
    snippets: number;
    items: AssociatedItem[];
    dropped: Record<string, number>;
  }
>;
export type SearchEnded = Told<
  "search.ended",
  { search: string; chosen: number | null; stopped: string; cost: Record<string, number> }
>;
export type StepRouted = Told<
  "step.routed",
  {
    index: number;
    role: string;
    model: string;
    entropy: Figure;
    threshold: Figure;
    kind: string;
    tokens: number;
    reason: string;
    score: Figure;
  }
>;
export type OpinionGiven = Told<"jury.opinion", { juror: number; report: Report }>;
export type ReviewGiven = Told<"jury.review", { reviewer: number; report: Report }>;
export type OpinionsRanked = Told<"jury.ranked", { report: Report }>;
export type OpinionsMerged = Told<"jury.merged", { report: Report }>;
export type ClaimLabelled = Told<"jury.claim", { index: number; report: Report }>;
export type JuryStageEnded = Told<
  "jury.stage",
  { stage: string; num_requests: number; num_responses: number; report: Report }
>;
export type StrategyNote = Told<"strategy.note", { strategy: string; name: string; data: Report }>;
export type Degraded = Told<"run.degraded", { what: string }>;
export type SolutionFinished = Told<"solution.finished", { solution: Solution }>;
export type ClaimChecked = Told<"claim.checked", { index: number; report: Report }>;
export type VerificationFinished = Told<"verification.finished", { verification: Verification }>;
export type ToolStarted = Told<"tool.started", { call: string; tool: string; arguments: string; effect: string; turn: number }>;
export type ToolProgress = Told<"tool.progress", { call: string; tool: string; text: string }>;
export type ToolFinished = Told<
  "tool.finished",
  { call: string; tool: string; text: string; is_error: boolean; seconds: number; is_replayed?: boolean }
>;
/** What the check of a call has quoted, or why the call is not executed. */
export interface WriteCheck {
  request: string;
  policy: string;
  fault: string;
}
export type ToolChecked = Told<"tool.checked", { call: string; tool: string; arguments: string; write_check: WriteCheck }>;
export type ApprovalRequested = Told<"approval.requested", { call: string; tool: string; arguments: string; question: string }>;
export type ApprovalDecided = Told<"approval.decided", { call: string; tool: string; decision: string; by: string }>;
export type RunWaiting = Told<
  "run.waiting",
  { pending: { id: string; tool: string; arguments: string; effect: string; question: string }[] }
>;
export type RunFailed = Told<"run.failed", { code: string; message: string }>;
export type RunFinished = Told<"run.finished", { answer: Answer }>;
export type EventsDropped = Told<"events.dropped", { count: number }>;

export type SearchEvent = NodesSearched | LeafSelected | MemoryAssociated | SearchEnded;
export type JuryEvent =
  | OpinionGiven
  | ReviewGiven
  | OpinionsRanked
  | OpinionsMerged
  | ClaimLabelled
  | JuryStageEnded;

export type RunEvent =
  | RunStarted
  | StageStarted
  | StageFinished
  | CallStarted
  | CallFinished
  | TextDelta
  | SampleFinished
  | StepsScored
  | BudgetCharged
  | BudgetExhausted
  | CandidateAdded
  | VoteUpdated
  | SearchEvent
  | StepRouted
  | JuryEvent
  | StrategyNote
  | Degraded
  | SolutionFinished
  | ClaimChecked
  | VerificationFinished
  | ToolStarted
  | ToolProgress
  | ToolFinished
  | ToolChecked
  | ApprovalRequested
  | ApprovalDecided
  | RunWaiting
  | RunFailed
  | RunFinished
  | EventsDropped;

/** A number that may have come as a string; null where it is none. NaN stays NaN. */
export function number(value: Json | undefined): number | null {
  if (typeof value === "number") return value;
  if (value === "Infinity" || value === "-Infinity" || value === "NaN") return Number(value);
  return null;
}

/** A text; whatever else stands there is no text. */
export function text(value: Json | undefined): string {
  return typeof value === "string" ? value : "";
}

/** The members of a list; none where there is no list. */
export function list(value: Json | undefined): Json[] {
  return Array.isArray(value) ? value : [];
}

/** An object; an empty one where there is none. */
export function object(value: Json | undefined): Report {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? value : {};
}

/** The numbers of a list. */
export function numbers(value: Json | undefined): number[] {
  return list(value).filter((each): each is number => typeof each === "number");
}
