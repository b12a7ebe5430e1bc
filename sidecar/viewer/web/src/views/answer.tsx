// The answer: what it is, its text with the claims marked, what it cites, what could not be done.

import type { Answer } from "../events";
import { checkedOf } from "../run/checked";
import { shownAnswer } from "../run/standing";
import type { State } from "../run/state";
import { countsText } from "../text/verdicts";
import { Claims } from "./claims";
import { Formatted } from "./formatted";
import { Writing, writingNow } from "./samples";
import { Thought } from "./thought";

export function AnswerCard({ state, running }: { state: State; running: boolean }) {
  const { answer, failed } = state;
  const checked = checkedOf(state);
  const text = answer?.text ?? textSoFar(state);
  const shown = answer === null ? soFar(state, running) : shownAnswer(answer);
  const same = text.trim() === shown.trim();
  const notes = [...new Set([...state.degraded, ...(answer?.degraded ?? [])])];
  return (
    <section class={running ? "card answering" : "card"} id="answer">
      <h2 class="away">Answer</h2>
      <div class={answer === null || answer.answer === null ? "answer soft" : "answer"} dir="auto" aria-live="polite">
        {failed !== null && answer === null ? `The run failed: ${failed.message}` : <Formatted text={shown} answer />}
      </div>
      {answer !== null && <Thought text={answer.thought ?? ""} tokens={thinkingOf(answer)} />}
      {running && <Writing live={writingNow(state).slice(0, 1)} />}
      {checked.length > 0 ? (
        <>
          {state.verification !== null && (
            <p class="soft">{countsText(checked.map(({ claim }) => claim))}</p>
          )}
          <Claims text={text} checked={checked} />
        </>
      ) : (
        text.trim() !== "" &&
        !same && (
          <details open={text.length < 900}>
            <summary class="soft">the whole text</summary>
            <div class="text" dir="auto">
              <Formatted text={text} />
            </div>
          </details>
        )
      )}
      {answer !== null && answer.citations.length > 0 && (
        <>
          <h3 class="soft">Sources</h3>
          <ol class="sources">
            {answer.citations.map((each, i) => (
              <li key={i} dir="auto">
                <span class="source">{each.source}</span> {each.text}
              </li>
            ))}
          </ol>
        </>
      )}
      {answer?.based_on && !notes.some((what) => what.includes(answer.based_on ?? "")) && (
        <p class="note" id="based-on" dir="auto">
          Answered early: it rests on {answer.based_on}.
        </p>
      )}
      {notes.map((what) => (
        <p class="note" key={what} dir="auto">
          Note: {what}
        </p>
      ))}
      {state.missing > 0 && <p class="note">{state.missing} events are missing here; the run store has them.</p>}
    </section>
  );
}

/** Tokens of the thought before the answer; 0 where they are unknown. */
function thinkingOf(answer: Answer): number {
  return answer.candidates.find((each) => each.text === answer.text && each.thought === (answer.thought ?? ""))?.thinking_tokens ?? 0;
}

/** What stands in the answer's place while there is none. */
function soFar(state: State, running: boolean): string {
  if (!running) return "The run was not finished.";
  const { solution } = state;
  const best = solution === null || solution.chosen === null ? undefined : solution.candidates[solution.chosen]?.answer;
  if (best !== undefined && best !== null) return best;
  const leading = state.votes[0];
  if (leading !== undefined) return `${leading[0]} leads so far`;
  if (state.started === null) return "The run has not begun.";
  return writingNow(state).some(({ thinking }) => !thinking) ? "Writing…" : "Thinking…";
}

function textSoFar(state: State): string {
  const { solution } = state;
  return solution === null || solution.chosen === null ? "" : (solution.candidates[solution.chosen]?.text ?? "");
}
