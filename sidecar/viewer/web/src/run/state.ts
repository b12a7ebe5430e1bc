// Where a run stands: everything the views show, and nothing that the events did not tell.

import type {
  Answer,
  AssociatedItem,
  CallFinished,
  CallStarted,
  CandidateAdded,
  Report,
  RunEvent,
  RunFailed,
  RunStarted,
  SampleFinished,
  SearchEnded,
  SearchNode,
  Solution,
  StageFinished,
  StepRouted,
  TextDelta,
  Verification,
} from "../events";

/** An event that stands in the list; pieces of text do not. */
export type Entry = Exclude<RunEvent, TextDelta>;

/** The text of a sample as it was generated: pieces, each with the number of tokens that made it. */
export interface Writing {
  text: string;
  thought: string;
  tokens: number;
  pieces: [text: string, tokens: number][];
}

/** A model call. */
export interface Call {
  started: CallStarted;
  finished: CallFinished | null;
  /** Samples that are complete. */
  done: number;
  /** Tokens that were generated and not yet charged. */
  fresh: number;
}

/** What one model in one role has cost so far. */
export interface RoleCost {
  role: string;
  model: string;
  calls: number;
  rewardCalls: number;
  tokens: number;
  thinking: number;
  prompt: number;
  cached: number;
  seconds: number;
}

/** A search as it was told so far. */
export interface Search {
  search: string;
  nodes: Map<number, SearchNode>;
  expanded: number[];
  discarded: number;
  end: SearchEnded | null;
  notes: Map<number, AssociatedItem[]>;
  /** The way to the leaf that was chosen last. */
  selected: number[];
}

/** Workers on one problem: their names, what each has finished, what each is writing, what became of it. */
export interface Workers {
  names: string[];
  steps: string[][];
  writing: string[];
  answers: { worker: number; answer: string }[];
}

/** A block of a chain of thought that a navigator puts together. */
export interface Block {
  number: number;
  atS: number;
  block: string;
  letter: string;
  data: Report;
}

/** A jury: whole records by juror, as `reason.verify.edgejury.types` has them. */
export interface Jury {
  opinions: Map<number, Report>;
  reviews: Map<number, Report>;
  ranking: Report | null;
  merged: Report | null;
  labels: Map<number, Report>;
  stages: { stage: string; asked: number; replied: number; report: Report }[];
}

export interface State {
  started: RunStarted | null;
  answer: Answer | null;
  failed: RunFailed | null;
  solution: Solution | null;
  /** The last event's place and time. */
  last: number;
  atS: number;
  entries: Entry[];
  /** Entries by the number of the one they belong under; those under none, or under one never told, by 0. */
  below: Map<number, Entry[]>;
  known: Set<number>;
  /** Ends of calls and stages, by the number of their beginnings. */
  ends: Map<number, CallFinished | StageFinished>;
  stage: string;
  calls: Map<number, Call>;
  writings: Map<string, Writing>;
  samples: SampleFinished[];
  wanted: number;
  spent: { tokens: number; thinking_tokens: number; calls: number; reward_calls: number; usd: number | null };
  limits: Map<string, number>;
  exhausted: string | null;
  roles: Map<string, RoleCost>;
  candidates: Map<number, CandidateAdded>;
  votes: [answer: string, count: number][];
  counted: number;
  searches: Map<string, Search>;
  /** Searches of each name that were begun, and the key of the one that is open. */
  begun: Map<string, number>;
  open: Map<string, string>;
  /** Searches of which neither node nor end was told yet. */
  pending: Map<string, Search>;
  steps: StepRouted[];
  blocks: Map<number, Block[]>;
  workers: Workers | null;
  jury: Jury | null;
  reports: { index: number; report: Report }[];
  verification: Verification | null;
  /** Which strategy was chosen and why, where one chooses among others. */
  ran: string;
  degraded: string[];
  missing: number;
}

/** Before anything is told. */
export function nothing(): State {
  return {
    started: null,
    answer: null,
    failed: null,
    solution: null,
    last: 0,
    atS: 0,
    entries: [],
    below: new Map(),
    known: new Set(),
    ends: new Map(),
    stage: "",
    calls: new Map(),
    writings: new Map(),
    samples: [],
    wanted: 0,
    spent: { tokens: 0, thinking_tokens: 0, calls: 0, reward_calls: 0, usd: 0 },
    limits: new Map(),
    exhausted: null,
    roles: new Map(),
    candidates: new Map(),
    votes: [],
    counted: 0,
    searches: new Map(),
    begun: new Map(),
    open: new Map(),
    pending: new Map(),
    steps: [],
    blocks: new Map(),
    workers: null,
    jury: null,
    reports: [],
    verification: null,
    ran: "",
    degraded: [],
    missing: 0,
  };
}

/** The key of a sample's writing. */
export function slot(call: number | null, request: number, sample: number): string {
  return `${call ?? 0}/${request}/${sample}`;
}
