// The runs, kept up to date while the page is looked at: filtered, sorted, compared and deleted.

import { useEffect, useRef, useState } from "preact/hooks";
import { standingOf } from "../run/standing";
import { fixed, plural, seconds, whole } from "../text/figures";
import { shortened } from "../text/words";
import { ask, type Kind, lineOf, type RunPage as Page, type RunSummary } from "./api";
import { Charts } from "./charts";
import { DeleteButton } from "./delete_button";
import { EVERYTHING, type Filter, filterOf, queryOf, sortedBy } from "./filter";
import { FilterBar } from "./filter_bar";

const EVERY_MS = 2000;
const PAGE = 30;
const MAX_TAGS = 4;

export function RunsPage() {
  const [filter, setFilter] = useState(() => filterOf(location.search));
  const [first, setFirst] = useState<Page | null>(null);
  const [more, setMore] = useState<Page | null>(null);
  const [strategies, setStrategies] = useState<string[]>([]);
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [error, setError] = useState("");
  const [now, setNow] = useState(Date.now() / 1000);
  const [round, setRound] = useState(0);
  const lists = useRef(filter);

  useEffect(() => {
    const stop = new AbortController();
    let timer = 0;
    lists.current = filter;
    const load = async () => {
      try {
        if (!document.hidden) {
          setFirst(await ask<Page>("GET", pathOf(filter), undefined, stop.signal));
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
  }, [filter, round]);
  useEffect(() => {
    ask<{ data: Kind[] }>("GET", "/v1/strategies").then(({ data }) => setStrategies(data.map(({ name }) => name)), () => undefined);
  }, []);

  const change = (next: Filter) => {
    const query = queryOf(next).toString();
    history.replaceState(null, "", query === "" ? "/ui" : `/ui?${query}`);
    setFilter(next);
    setMore(null);
    setChosen(new Set());
  };
  const loadMore = async () => {
    const after = (more ?? first)?.last_id;
    if (after === null || after === undefined) return;
    try {
      const next = await ask<Page>("GET", pathOf(filter, after));
      if (lists.current === filter) setMore({ ...next, data: [...(more?.data ?? []), ...next.data] });
    } catch (failed) {
      setError(lineOf(failed));
    }
  };
  const remove = async () => {
    try {
      for (const id of chosen) await ask("DELETE", `/v1/runs/${encodeURIComponent(id)}`);
      setError("");
    } catch (failed) {
      setError(lineOf(failed));
    }
    setMore(null);
    setChosen(new Set());
    setRound(round + 1);
  };

  const seen = new Set<string>();
  const runs = [...(first?.data ?? []), ...(more?.data ?? [])].filter(({ id }) => !seen.has(id) && seen.add(id));
  const models = [...new Set(runs.map((run) => run.models["main"] ?? "").filter(Boolean))].sort();
  const filtered = queryOf({ ...filter, sort: EVERYTHING.sort, order: EVERYTHING.order }).size > 0;
  const [a, b] = [...chosen];
  return (
    <main>
      <h1>Runs</h1>
      {(runs.length > 0 || filtered) && <FilterBar filter={filter} strategies={strategies} models={models} onChange={change} />}
      {error !== "" && (
        <p class="note bad" role="alert">
          {error}
        </p>
      )}
      {first !== null && runs.length === 0 && !filtered && (
        <p>
          Nothing was asked yet. <a href="/ui/ask">Ask something.</a>
        </p>
      )}
      {first !== null && runs.length === 0 && filtered && (
        <p>
          No run matches.{" "}
          <button type="button" value="everything" onClick={() => change({ ...EVERYTHING, sort: filter.sort, order: filter.order })}>
            show all
          </button>
        </p>
      )}
      {runs.length > 0 && <Charts filter={filter} />}
      {chosen.size > 0 && (
        <div class="actions" role="group" aria-label="Chosen runs">
          <span>{plural(chosen.size, "run")} chosen</span>
          <button type="button" value="compare" disabled={a === undefined || b === undefined || chosen.size !== 2} title="Compares two runs" onClick={() => location.assign(`/ui/compare?a=${encodeURIComponent(a ?? "")}&b=${encodeURIComponent(b ?? "")}`)}>
            compare
          </button>
          <DeleteButton what={plural(chosen.size, "run")} onDelete={remove} />
          <button type="button" value="none" onClick={() => setChosen(new Set())}>
            choose none
          </button>
        </div>
      )}
      {runs.length > 0 && (
        <div class="scroll">
          <table class="runs">
            <thead>
              <tr>
                <th>
                  <span class="away">chosen</span>
                </th>
                <th>status</th>
                <th>question</th>
                <th>answer</th>
                <th>strategy</th>
                <SortHead name="tokens" words="tokens" filter={filter} onChange={change} />
                <SortHead name="cost" words="USD" filter={filter} onChange={change} />
                <SortHead name="seconds" words="time" filter={filter} onChange={change} />
                <SortHead name="created" words="age" filter={filter} onChange={change} />
              </tr>
            </thead>
            <tbody>
              {runs.map((run) => (
                <Row
                  key={run.id}
                  run={run}
                  now={now}
                  chosen={chosen.has(run.id)}
                  onChoose={(yes) => setChosen(new Set(yes ? [...chosen, run.id] : [...chosen].filter((id) => id !== run.id)))}
                  onTag={(tag) => change({ ...filter, tag })}
                />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {(more ?? first)?.has_more === true && (
        <button type="button" class="more" onClick={() => void loadMore()}>
          more runs
        </button>
      )}
    </main>
  );
}

function pathOf(filter: Filter, after = ""): string {
  const query = queryOf(filter);
  query.set("limit", String(PAGE));
  if (after !== "") query.set("after", after);
  return `/v1/runs?${query}`;
}

/** A column by which the list can be sorted. */
function SortHead({ name, words, filter, onChange }: { name: string; words: string; filter: Filter; onChange: (filter: Filter) => void }) {
  const mine = filter.sort === name;
  return (
    <th class="n" aria-sort={mine ? (filter.order === "asc" ? "ascending" : "descending") : "none"}>
      <button type="button" class="head" value={name} onClick={() => onChange(sortedBy(filter, name))}>
        {words}
        <span aria-hidden="true">{mine ? (filter.order === "asc" ? " ↑" : " ↓") : ""}</span>
      </button>
    </th>
  );
}

interface RowProps {
  run: RunSummary;
  now: number;
  chosen: boolean;
  onChoose: (yes: boolean) => void;
  onTag: (tag: string) => void;
}

function Row({ run, now, chosen, onChoose, onTag }: RowProps) {
  const { word, tone } = standingOf(run.status, run.stopped);
  const question = shortened(run.question, 140) || "An answer that was given";
  const tags = Object.entries(run.metadata).filter(([, value]) => typeof value === "string") as [string, string][];
  return (
    <tr>
      <td class="choose">
        <input type="checkbox" aria-label={`Choose: ${question}`} checked={chosen} onChange={(event) => onChoose(event.currentTarget.checked)} />
      </td>
      <td class="status">
        <span class={`dot ${tone}`} aria-hidden="true" /> {run.cancelling ? "cancelling" : word}
      </td>
      <td class="wide">
        <a href={`/ui/runs/${encodeURIComponent(run.id)}`} dir="auto">
          {question}
        </a>
        {tags.length > 0 && (
          <div class="tags">
            {tags.slice(0, MAX_TAGS).map(([name, value]) => (
              <button type="button" class="tag" key={name} title={`Runs with ${name}: ${value}`} onClick={() => onTag(`${name}:${value}`)}>
                {shortened(`${name}: ${value}`, 40)}
              </button>
            ))}
          </div>
        )}
      </td>
      <td class="mid" dir="auto">
        {run.answer === null ? "" : shortened(run.answer, 60)}
      </td>
      <td class="how">
        {run.strategy} <div class="soft small">{run.models["main"]}</div>
      </td>
      <Figure name="tokens" value={run.tokens === null ? "" : whole(run.tokens)} />
      <Figure name="USD" value={run.tokens === null ? "" : run.cost_usd === null ? "?" : fixed(run.cost_usd, 4)} />
      <Figure name="time" value={run.seconds === null ? "" : seconds(run.seconds)} />
      <Figure name="age" value={ageOf(now - run.created)} />
    </tr>
  );
}

/** A figure of a run; on a narrow page, where there is no head, its name is written before it. */
function Figure({ name, value }: { name: string; value: string }) {
  return (
    <td class="n" data-name={value === "" ? undefined : name}>
      {value}
    </td>
  );
}

/** How long ago: `12 s`, `5 min`, `3 h`, `12 d`. */
export function ageOf(seconds: number): string {
  for (const [unit, size] of [["d", 86_400], ["h", 3600], ["min", 60]] as const) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${Math.max(0, Math.floor(seconds))} s`;
}
