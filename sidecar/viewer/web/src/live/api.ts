// The sidecar's native API. The key is kept for this tab alone, and goes nowhere but into requests to this origin.

import type { Answer, Json, Report, WriteCheck } from "../events";

const KEY = "reason-api-key";
export const LOCKED = "reason-locked"; // told to the window when a key is wanted

export interface RunSummary {
  id: string;
  status: "queued" | "running" | "waiting" | "finished" | "interrupted" | "failed";
  created: number;
  updated: number;
  cancelling: boolean;
  concluding: boolean;
  /** In lists the first 200 characters of it, and of the answer. */
  question: string;
  strategy: string;
  models: Record<string, string>;
  metadata: Record<string, Json>;
  answer: string | null;
  /** Why the run ended; null until then. */
  stopped: string | null;
  seconds: number | null;
  tokens: number | null;
  thinking_tokens: number | null;
  cost_usd: number | null;
}

/** A tool call that a run waits for. */
export interface PendingCall {
  id: string;
  tool: string;
  arguments: string;
  effect: string;
  question: "approval" | "outcome" | "result";
  note?: string;
  write_check?: WriteCheck;
}

export interface RunDetail extends RunSummary {
  parameters: Report;
  verify: string[];
  budget: Record<string, number | null>;
  effort: string | null;
  seed: number;
  text: string | null;
  result: Answer | null;
  pending?: PendingCall[];
  error: { code: string; message: string } | null;
}

/** A page of runs; `last_id` is where the next one begins. */
export interface RunPage {
  data: RunSummary[];
  has_more: boolean;
  last_id: string | null;
}

export interface Kind {
  name: string;
  summary: string;
  stability: string;
  paper: string;
  roles: string[];
  parameters: Report;
}

/** A name that a request may give as its model, and the model behind it. */
export interface Model {
  id: string;
  model: string;
}

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly param: string | null = null,
    readonly retryAfterS: number | null = null,
  ) {
    super(message);
  }
}

export function key(): string {
  return sessionStorage.getItem(KEY) ?? "";
}

export function setKey(value: string): void {
  if (value === "") sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, value);
}

/** Asks for something and waits for its reply; throws `ApiError` where it is refused. */
export async function ask<T>(method: string, path: string, body?: Json, signal?: AbortSignal): Promise<T> {
  const response = await send(method, path, body, {}, signal);
  return (await response.json()) as T;
}

/** The response itself, once it is known to be good. */
export async function send(
  method: string,
  path: string,
  body: Json | undefined,
  more: Record<string, string>,
  signal?: AbortSignal,
): Promise<Response> {
  const headers: Record<string, string> = { ...more };
  if (key() !== "") headers["Authorization"] = `Bearer ${key()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(path, {
    method,
    headers,
    cache: "no-store",
    credentials: "omit",
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    ...(signal === undefined ? {} : { signal }),
  });
  if (response.ok) return response;
  if (response.status === 401) window.dispatchEvent(new Event(LOCKED));
  throw await refusal(response);
}

async function refusal(response: Response): Promise<ApiError> {
  const wait = Number(response.headers.get("Retry-After"));
  const retry = Number.isFinite(wait) && wait > 0 ? wait : null;
  try {
    const { error } = (await response.json()) as { error: { message: string; param?: string | null } };
    return new ApiError(response.status, error.message, error.param ?? null, retry);
  } catch {
    return new ApiError(response.status, `the server said ${response.status}`, null, retry);
  }
}

/** An error in a line. */
export function lineOf(error: unknown): string {
  if (error instanceof TypeError) return "the server cannot be reached";
  return error instanceof Error ? error.message : String(error);
}
