// Two runs side by side: what differs in how they were asked, what they cost, and what they answered.

import { useMemo, useState } from "preact/hooks";
import { countsText } from "../text/verdicts";
import { Formatted } from "../views/formatted";
import { shownAnswer } from "../run/standing";
import { type Fact, factsOf } from "./compare";
import { type LiveRun, useRun } from "./use_run";

export function ComparePage({ a, b }: { a: string; b: string }) {
  const runs = [useRun(a, 0, () => undefined), useRun(b, 0, () => undefined)] as const;
  const [all, setAll] = useState(false);
  const [left, right] = [useFacts(runs[0]), useFacts(runs[1])];
  const names = [...new Set([...left, ...right].map(({ name }) => name))];
  const rows = names.map((name) => [name, find(left, name), find(right, name)] as const);
  const shown = rows.filter(([, one, other]) => all || one !== other);
  const ids = [a, b];
  return (
    <main class="compare">
      <h1>Two runs</h1>
      {runs.map(({ error }, i) => error !== "" && (
        <p class="note bad" role="alert" key={i}>
          {ids[i]}: {error}
        </p>
      ))}
      <div class="sides">
        {runs.map((run, i) => (
          <Side key={i} id={ids[i] ?? ""} run={run} />
        ))}
      </div>
      <h2>{all ? "Everything" : "What differs"}</h2>
      <div class="actions">
        <button type="button" value="all" aria-pressed={all} onClick={() => setAll(!all)}>
          also what is the same
        </button>
      </div>
      {shown.length === 0 ? (
        <p class="soft">{runs.every(({ loaded }) => loaded) ? "Nothing differs." : "Looking …"}</p>
      ) : (
        <div class="scroll" tabIndex={0} role="region" aria-label="Differences">
          <table class="differences">
            <thead>
              <tr>
                <th>
                  <span class="away">name</span>
                </th>
                <th>first</th>
                <th>second</th>
              </tr>
            </thead>
            <tbody>
              {shown.map(([name, one, other]) => (
                <tr key={name} class={one === other ? "" : "differs"}>
                  <th scope="row">{name}</th>
                  <td dir="auto">{one ?? "-"}</td>
                  <td dir="auto">{other ?? "-"}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </main>
  );
}

function useFacts({ detail, state }: LiveRun): Fact[] {
  return useMemo(() => (detail === null ? [] : factsOf(detail, state)), [detail, state]);
}

function find(facts: Fact[], name: string): string | null {
  return facts.find((fact) => fact.name === name)?.value ?? null;
}

function Side({ id, run: { detail, state } }: { id: string; run: LiveRun }) {
  const answer = state.answer ?? detail?.result ?? null;
  const text = answer?.text ?? "";
  const shown = answer === null ? "There is no answer yet." : shownAnswer(answer);
  const verification = answer?.verification ?? state.verification;
  return (
    <article class="card">
      <h2>
        <a href={`/ui/runs/${encodeURIComponent(id)}`}>{id}</a>
      </h2>
      <p class="asked" dir="auto">
        <Formatted text={detail?.question ?? ""} />
      </p>
      <div class={answer?.answer == null ? "answer soft" : "answer"} dir="auto">
        <Formatted text={shown} answer />
      </div>
      {verification != null && <p class="soft">{countsText(verification.claims)}</p>}
      {text.trim() !== "" && text.trim() !== shown.trim() && (
        <div class="text" dir="auto" tabIndex={0} role="region" aria-label={`The whole text of ${id}`}>
          <Formatted text={text} />
        </div>
      )}
    </article>
  );
}
