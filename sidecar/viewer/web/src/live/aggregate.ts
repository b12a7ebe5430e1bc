// What runs cost by strategy. Means are of runs that have ended; a median is not moved by one run that waited.

import type { RunSummary } from "./api";

export interface Aggregate {
  strategy: string;
  runs: number;
  /** Runs that ended of themselves, not by a limit, an error or a user. */
  done: number;
  /** Mean cost in US dollars of the runs with known prices; null where no price is known. */
  usd: number | null;
  /** Mean of generated tokens. */
  tokens: number | null;
  /** Median of seconds. */
  seconds: number | null;
}

/** Runs that have ended, by strategy: those of most runs first. */
export function aggregated(runs: readonly RunSummary[]): Aggregate[] {
  const groups = new Map<string, RunSummary[]>();
  for (const run of runs) {
    if (run.stopped === null && run.status !== "failed") continue;
    groups.set(run.strategy, [...(groups.get(run.strategy) ?? []), run]);
  }
  const found = [...groups].map(([strategy, all]) => ({
    strategy,
    runs: all.length,
    done: all.filter(({ stopped }) => stopped === "done").length,
    usd: mean(all.map((run) => run.cost_usd)),
    tokens: mean(all.map((run) => run.tokens)),
    seconds: median(all.map((run) => run.seconds)),
  }));
  return found.sort((a, b) => b.runs - a.runs || a.strategy.localeCompare(b.strategy));
}

function mean(values: (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  return known.length === 0 ? null : known.reduce((sum, value) => sum + value, 0) / known.length;
}

function median(values: (number | null)[]): number | null {
  const known = values.filter((value) => value !== null).sort((a, b) => a - b);
  const middle = known.length / 2;
  const [low, high] = [known[Math.ceil(middle) - 1], known[Math.floor(middle)]];
  return low === undefined || high === undefined ? null : (low + high) / 2;
}
