// The votes so far, most first.

import type { State } from "../run/state";
import { plural } from "../text/figures";

const MOST = 12;

export function Votes({ state }: { state: State }) {
  const most = state.votes[0]?.[1] ?? 0;
  const more = state.votes.length - MOST;
  return (
    <section id="votes">
      <h2>Votes</h2>
      <ul class="votes">
        {state.votes.slice(0, MOST).map(([answer, count], i) => (
          <li key={answer} class={i === 0 ? "first" : ""}>
            <span class="name" dir="auto">
              {answer}
            </span>
            <span class="track" aria-hidden="true">
              <span class="fill" style={{ width: `${(100 * count) / Math.max(1, most)}%` }} />
            </span>
            <span class="n">{count}</span>
          </li>
        ))}
      </ul>
      <p class="soft small">
        {plural(state.counted, "candidate")} counted, those without an answer included
        {more > 0 && `; ${plural(more, "more answer")} with fewer votes`}
      </p>
    </section>
  );
}
