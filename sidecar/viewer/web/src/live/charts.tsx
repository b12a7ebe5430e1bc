// Cost, tokens and latency by strategy, as bars.

import { useEffect, useState } from "preact/hooks";
import { fixed, plural, seconds, whole } from "../text/figures";
import { type Aggregate, aggregated } from "./aggregate";
import { ask, lineOf, type RunPage, type RunSummary } from "./api";
import { type Filter, queryOf } from "./filter";

const MAX_PAGES = 10;
const PAGE = 100;

export function Charts({ filter }: { filter: Filter }) {
  const [open, setOpen] = useState(false);
  return (
    <details id="charts" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>Cost, tokens and latency by strategy</summary>
      {open && <Bars filter={filter} />}
    </details>
  );
}

function Bars({ filter }: { filter: Filter }) {
  const [runs, setRuns] = useState<RunSummary[] | null>(null);
  const [error, setError] = useState("");
  useEffect(() => {
    const stop = new AbortController();
    runsOf(filter, stop.signal).then(setRuns, (failed: unknown) => {
      if (!stop.signal.aborted) setError(lineOf(failed));
    });
    return () => stop.abort();
  }, [filter]);
  if (error !== "") return <p class="note bad" role="alert">{error}</p>;
  if (runs === null) return <p class="soft">Counting …</p>;
  const rows = aggregated(runs);
  if (rows.length === 0) return <p class="soft">None of these runs has ended.</p>;
  const columns: [head: string, value: (row: Aggregate) => number | null, words: (value: number) => string][] = [
    ["mean cost in USD", (row) => row.usd, (value) => fixed(value, 4)],
    ["mean tokens", (row) => row.tokens, whole],
    ["median time", (row) => row.seconds, seconds],
  ];
  const most = columns.map(([, value]) => Math.max(0, ...rows.map((row) => value(row) ?? 0)));
  return (
    <>
      <div class="scroll" tabIndex={0} role="region" aria-label="Runs by strategy">
        <table class="charts">
          <thead>
            <tr>
              <th>strategy</th>
              <th class="n">runs</th>
              <th class="n">done</th>
              {columns.map(([head]) => (
                <th key={head}>{head}</th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={row.strategy}>
                <th scope="row">{row.strategy}</th>
                <td class="n">{row.runs}</td>
                <td class="n">{row.done}</td>
                {columns.map(([head, value, words], i) => (
                  <td key={head}>
                    <Bar value={value(row)} most={most[i] ?? 0} words={words} />
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p class="soft small">
        {plural(rows.reduce((sum, row) => sum + row.runs, 0), "run")} that have ended
        {runs.length >= MAX_PAGES * PAGE && `, of the first ${whole(runs.length)} listed`}. Done: without a limit, an error or a user ending it. Cost is of runs with known prices.
      </p>
    </>
  );
}

function Bar({ value, most, words }: { value: number | null; most: number; words: (value: number) => string }) {
  if (value === null) return <span class="soft">unknown</span>;
  return (
    <span class="measure">
      <svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
        <rect class="track-fill" width="100" height="8" />
        <rect class="bar-fill" width={most > 0 ? Math.max(0.5, (100 * value) / most) : 0} height="8" />
      </svg>
      <span class="n">{words(value)}</span>
    </span>
  );
}

/** All runs that match, as far as ten pages go. */
async function runsOf(filter: Filter, signal: AbortSignal): Promise<RunSummary[]> {
  const runs: RunSummary[] = [];
  const query = queryOf(filter);
  query.set("limit", String(PAGE));
  for (let page = 0; page < MAX_PAGES; page += 1) {
    const found = await ask<RunPage>("GET", `/v1/runs?${query}`, undefined, signal);
    runs.push(...found.data);
    if (!found.has_more || found.last_id === null) break;
    query.set("after", found.last_id);
  }
  return runs;
}
