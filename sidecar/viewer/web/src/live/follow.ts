// A run's events as they come: taken up again after the last one where the connection breaks.

import type { RunEvent } from "../events";
import { ApiError, send } from "./api";
import { Messages } from "./sse";

const EVERY_MS = 60; // events are handed on in batches, however fast they come
const LONGEST_WAIT_MS = 15_000;

interface Follower {
  /** Events with a higher number than those before; pieces of text among them. */
  onEvents(events: RunEvent[]): void;
  /** Whether the connection stands. */
  onLink(up: boolean): void;
}

/**
 * Follows a run until its last event.
 *
 * @throws ApiError if the server refuses, or says that the stream cannot go on.
 */
export async function follow(id: string, after: number, follower: Follower, signal: AbortSignal): Promise<void> {
  let last = after;
  let failures = 0;
  while (!signal.aborted) {
    try {
      const ended = await readOnce(id, last, signal, (events) => {
        failures = 0;
        for (const event of events) last = Math.max(last, event.number);
        follower.onEvents(events);
      }, () => follower.onLink(true));
      if (ended) return;
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ApiError && error.status < 500 && error.status !== 429) throw error;
    }
    follower.onLink(false);
    failures += 1;
    await pause(Math.min(LONGEST_WAIT_MS, 250 * 2 ** failures), signal);
  }
}

async function readOnce(id: string, after: number, signal: AbortSignal, onEvents: (events: RunEvent[]) => void, onUp: () => void): Promise<boolean> {
  const path = `/v1/runs/${encodeURIComponent(id)}/events?text=true`;
  const headers = { Accept: "text/event-stream", "Last-Event-ID": String(after) };
  const response = await send("GET", path, undefined, headers, signal);
  if (response.body === null) return true;
  onUp();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const messages = new Messages();
  let batch: RunEvent[] = [];
  let timer = 0;
  const flush = () => {
    timer = 0;
    if (batch.length === 0 || signal.aborted) return;
    const events = batch;
    batch = [];
    onEvents(events);
  };
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return true;
      for (const { event, data } of messages.take(value)) {
        if (event === "error") throw errorOf(data);
        batch.push(JSON.parse(data) as RunEvent);
      }
      if (timer === 0 && batch.length > 0) timer = window.setTimeout(flush, EVERY_MS);
    }
  } finally {
    window.clearTimeout(timer);
    flush();
    void reader.cancel().catch(() => undefined);
  }
}

/** What ends a stream: of a run that failed nothing else is to come, of a server that stops the rest comes from the next. */
function errorOf(data: string): ApiError {
  const { error } = JSON.parse(data) as { error: { message: string; code?: string | null } };
  return new ApiError(error.code === "shutting_down" ? 503 : 400, error.message);
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = window.setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      window.clearTimeout(timer);
      resolve();
    });
  });
}
