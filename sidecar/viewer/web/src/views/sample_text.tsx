// A sample's text, every token shaded by how sure the model was of it.

import { type Completion, number } from "../events";
import type { Writing } from "../run/state";
import { Formatted } from "./formatted";
import { Thought } from "./thought";

/** Probabilities below which a token takes the next darker shade, 1 to 5. */
export const SHADES = [0.9, 0.7, 0.5, 0.3, 0.1];

export interface Piece {
  text: string;
  logprobs: number[];
}

/** The text cut where its tokens end, each piece with its tokens' log-probabilities; null if that is not known. */
export function align(completion: Completion, writing: Writing | undefined): Piece[] | null {
  const { logprobs, text } = completion;
  if (logprobs === null || writing === undefined || writing.pieces.length === 0) return null;
  const pieces: Piece[] = [];
  let used = 0;
  for (const [piece, tokens] of writing.pieces) {
    pieces.push({ text: piece, logprobs: logprobs.slice(used, used + tokens).map((each) => number(each) ?? 0) });
    used += tokens;
  }
  return writing.text === text && used <= logprobs.length ? pieces : null;
}

function shadeOf(logprob: number): string {
  const p = Math.exp(Math.min(logprob, 0));
  const darkness = SHADES.filter((bound) => p < bound).length;
  return darkness > 0 ? `p${darkness}` : "";
}

/** Probabilities as they are told: `p = 0.9 (log -0.11)`. */
export function told(logprobs: number[]): string {
  return logprobs.map((lp) => `p = ${Number(Math.exp(Math.min(lp, 0)).toPrecision(3))} (log ${lp.toFixed(2)})`).join(", ");
}

export function SampleText({ completion, writing }: { completion: Completion; writing: Writing | undefined }) {
  const pieces = align(completion, writing);
  const { failure } = completion;
  return (
    <>
      {failure !== null && (
        <div class="text" dir="auto">
          {failure.code}: {failure.message}
        </div>
      )}
      {completion.thought && <Thought {...completion.thought} />}
      {failure === null && (completion.text !== "" || !completion.thought) && (
        <div class="text" dir="auto">
          {pieces === null ? <Formatted text={completion.text} /> : pieces.map((piece, i) => <Shaded key={i} piece={piece} />)}
        </div>
      )}
      {failure === null && pieces === null && completion.logprobs !== null && completion.logprobs.length > 0 && (
        <div class="strip" aria-hidden="true">
          {completion.logprobs.map((each, i) => (
            <span key={i} class={shadeOf(number(each) ?? 0)} title={`token ${i + 1}: ${told([number(each) ?? 0])}`} />
          ))}
        </div>
      )}
    </>
  );
}

function Shaded({ piece: { text, logprobs } }: { piece: Piece }) {
  if (logprobs.length === 0 || text === "") return <>{text}</>;
  return (
    <span class={shadeOf(Math.min(...logprobs)) || undefined} title={told(logprobs)}>
      {text}
    </span>
  );
}

/** What the shades mean. */
export function ShadeLegend() {
  return (
    <p class="legend">
      Shade of a token: the model's probability for it is{" "}
      {SHADES.map((bound, i) => (
        <span key={bound} class={`p${i + 1}`}>
          below {bound}
        </span>
      ))}
    </p>
  );
}
