// The runs, newest first, kept up to date while the page is looked at.

import { useEffect, useState } from "preact/hooks";
import { fixed, whole } from "../text/figures";
import { shortened } from "../text/words";
import { ask, lineOf, type RunPage as Page, type RunSummary } from "./api";

const EVERY_MS = 2000;
const PAGE = 30;

export function RunsPage() {
  const [newest, setNewest] = useState<Page | null>(null);
  const [older, setOlder] = useState<Page | null>(null);
  const [error, setError] = useState("");
  const [now, setNow] = useState(Date.now() / 1000);

  useEffect(() => {
    const stop = new AbortController();
    let timer = 0;
    const load = async () => {
      try {
        if (!document.hidden) {
          setNewest(await ask<Page>("GET", `/v1/runs?limit=${PAGE}`, undefined, stop.signal));
          setNow(Date.now() / 1000);
          setError("");
        }
      } catch (failed) {
        if (stop.signal.aborted) return;
        setError(lineOf(failed));
      }
      timer = window.setTimeout(() => void load(), EVERY_MS);
    };
    void load();
    return () => {
      stop.abort();
      window.clearTimeout(timer);
    };
  }, []);

  const loadOlder = async () => {
    const before = older?.next ?? newest?.next;
    if (before === null || before === undefined) return;
    try {
      const next = await ask<Page>("GET", `/v1/runs?limit=${PAGE}&before=${encodeURIComponent(before)}`);
      setOlder({ runs: [...(older?.runs ?? []), ...next.runs], next: next.next });
    } catch (failed) {
      setError(lineOf(failed));
    }
  };

  const seen = new Set<string>();
  const runs = [...(newest?.runs ?? []), ...(older?.runs ?? [])].filter(({ id }) => !seen.has(id) && seen.add(id));
  const more = older === null ? newest?.next : older.next;
  return (
    <main>
      <h1>Runs</h1>
      {error !== "" && (
        <p class="note bad" role="alert">
          {error}
        </p>
      )}
      {newest !== null && runs.length === 0 && (
        <p>
          Nothing was asked yet. <a href="/ui/ask">Ask something.</a>
        </p>
      )}
      {runs.length > 0 && (
        <div class="scroll">
          <table class="runs">
            <thead>
              <tr>
                <th>status</th>
                <th>question</th>
                <th>answer</th>
                <th>strategy</th>
                <th class="n">tokens</th>
                <th class="n">USD</th>
                <th class="n">age</th>
              </tr>
            </thead>
            <tbody>
              {runs.map((run) => (
                <Row key={run.id} run={run} now={now} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {more !== null && more !== undefined && (
        <button type="button" class="more" onClick={() => void loadOlder()}>
          older runs
        </button>
      )}
    </main>
  );
}

function Row({ run, now }: { run: RunSummary; now: number }) {
  const word = run.cancelling ? "cancelling" : run.status;
  return (
    <tr>
      <td>
        <span class={`dot ${dotOf(run.status)}`} aria-hidden="true" /> {word}
      </td>
      <td class="wide">
        <a href={`/ui/runs/${encodeURIComponent(run.id)}`} dir="auto">
          {shortened(run.question, 140) || "An answer that was given"}
        </a>
      </td>
      <td class="mid" dir="auto">
        {run.answer === null ? "" : shortened(run.answer, 60)}
      </td>
      <td>
        {run.strategy} <div class="soft small">{run.models["main"]}</div>
      </td>
      <td class="n">{run.tokens === null ? "" : whole(run.tokens)}</td>
      <td class="n">{run.tokens === null ? "" : run.cost_usd === null ? "?" : fixed(run.cost_usd, 4)}</td>
      <td class="n">{ageOf(now - run.created)}</td>
    </tr>
  );
}

function dotOf(status: RunSummary["status"]): string {
  return { queued: "wait", running: "busy", finished: "good", interrupted: "warn", failed: "bad" }[status];
}

/** How long ago: `12 s`, `5 min`, `3 h`, `12 d`. */
export function ageOf(seconds: number): string {
  for (const [unit, size] of [["d", 86_400], ["h", 3600], ["min", 60]] as const) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${Math.max(0, Math.floor(seconds))} s`;
}
