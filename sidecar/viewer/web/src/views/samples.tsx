// Candidates for the answer, and every sample that a model wrote.

import { useState } from "preact/hooks";
import { number, type SampleFinished } from "../events";
import { slot, type State } from "../run/state";
import { figure, plural, whole } from "../text/figures";
import { shortened } from "../text/words";
import { Formatted } from "./formatted";
import { SampleText, ShadeLegend } from "./sample_text";
import { Thought } from "./thought";

const PAGE = 16;

interface Candidate {
  answer: string | null;
  score: number | null;
  text: string;
  tokens: number | null;
  thought: string;
  thinking: number;
  chosen: boolean;
}

/** What is known of the candidates: with their texts once the strategy has ended. */
export function candidatesOf(state: State): Candidate[] {
  if (state.solution !== null) {
    const { chosen, candidates } = state.solution;
    return candidates.map((each, i) => ({
      answer: each.answer,
      score: number(each.score),
      text: each.text,
      tokens: each.tokens,
      thought: each.thought ?? "",
      thinking: each.thinking_tokens ?? 0,
      chosen: i === chosen,
    }));
  }
  if (state.answer !== null && state.answer.candidates.length > 0) {
    return state.answer.candidates.map((each) => ({
      ...each,
      score: number(each.score),
      thinking: each.thinking_tokens,
      chosen: each.text === state.answer?.text,
    }));
  }
  return [...state.candidates.values()].map((each) => ({
    answer: each.answer,
    score: number(each.score),
    text: "",
    tokens: null,
    thought: "",
    thinking: 0,
    chosen: false,
  }));
}

export function Candidates({ state }: { state: State }) {
  const [most, setMost] = useState(PAGE);
  const found = candidatesOf(state);
  return (
    <section id="candidates">
      <h2>Candidates</h2>
      <ol class="rows">
        {found.slice(0, most).map((candidate, i) => (
          <li key={i}>
            <details class={candidate.chosen ? "row chosen" : "row"}>
              <summary>
                <span class="num">{i + 1}</span>
                <span class="grow" dir="auto">
                  {shortened(candidate.answer ?? "no answer found in it", 120)}
                </span>
                {candidate.chosen && <span class="tag good">chosen</span>}
                <span class="n">{candidate.score === null ? "" : `score ${figure(candidate.score)}`}</span>
                <span class="n">{candidate.tokens === null ? "" : tokensOf(candidate.tokens, candidate.thinking)}</span>
              </summary>
              <Thought text={candidate.thought} tokens={candidate.thinking} />
              <div class="text" dir="auto">
                {candidate.text === "" ? "Its text is told when the strategy has ended." : <Formatted text={candidate.text} />}
              </div>
            </details>
          </li>
        ))}
      </ol>
      <More count={found.length - most} what="candidate" onMore={() => setMost(most + PAGE)} />
    </section>
  );
}

export function Samples({ state }: { state: State }) {
  const [most, setMost] = useState(PAGE);
  const { samples } = state;
  const live = writingNow(state);
  const shaded = samples.some((sample) => (sample.completion.logprobs?.length ?? 0) > 0);
  return (
    <section id="samples">
      <h2>Samples</h2>
      <Writing live={live.slice(1)} />
      {shaded && <ShadeLegend />}
      <ol class="rows">
        {samples.slice(0, most).map((sample) => (
          <li key={`${sample.number}/${sample.parent}/${sample.request}/${sample.sample}`}>
            <Sample sample={sample} state={state} />
          </li>
        ))}
      </ol>
      <More count={samples.length - most} what="sample" onMore={() => setMost(most + PAGE)} />
    </section>
  );
}

function Sample({ sample, state }: { sample: SampleFinished; state: State }) {
  const [open, setOpen] = useState(false);
  const { completion } = sample;
  const call = state.calls.get(sample.parent ?? 0)?.started;
  const logprobs = (completion.logprobs ?? []).slice(completion.answer_from ?? 0);
  const sum = logprobs.reduce<number>((all, each) => all + (number(each) ?? 0), 0);
  const { completion_tokens: tokens, thinking_tokens: thinking } = completion.usage;
  return (
    <details class={completion.failure === null ? "row" : "row failed"} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <span class="num">
          {sample.request + 1}.{sample.sample + 1}
        </span>
        <span class="grow" dir="auto">
          {shortened(completion.failure === null ? completion.text || "[no text]" : completion.failure.message, 110)}
        </span>
        {sample.replayed && <span class="tag">from the store</span>}
        {completion.finish_reason !== "stop" && <span class="tag warn">{completion.finish_reason}</span>}
        <span class="n">{logprobs.length === 0 ? "" : `${figure(sum / logprobs.length, 2)} nats/token`}</span>
        <span class="n">{tokensOf(tokens, thinking)}</span>
        {call !== undefined && <span class="n soft role">{call.role}</span>}
      </summary>
      {open && <SampleText completion={completion} writing={state.writings.get(slot(sample.parent, sample.request, sample.sample))} />}
    </details>
  );
}

/** Tokens of a sample: `120 tokens`, or `120 tokens, 100 thinking`. */
function tokensOf(tokens: number, thinking: number): string {
  return `${whole(tokens)} tokens${thinking > 0 ? `, ${whole(thinking)} thinking` : ""}`;
}

/** What is being written, each from its end. */
export function Writing({ live }: { live: Live[] }) {
  if (live.length === 0) return null;
  return (
    <ul class="writing">
      {live.map(({ key, name, text, tokens }) => (
        <li key={key}>
          <span class="soft small">
            {name}, {whole(tokens)} tokens
          </span>
          <div class="tail">
            <div dir="auto">{text}</div>
          </div>
        </li>
      ))}
    </ul>
  );
}

interface Live {
  key: string;
  name: string;
  thinking: boolean;
  text: string;
  tokens: number;
}

/** Samples that are being written: those with text whose call has not ended. */
export function writingNow(state: State): Live[] {
  const done = new Set(state.samples.map((each) => slot(each.parent, each.request, each.sample)));
  const found: Live[] = [];
  for (const [key, writing] of state.writings) {
    const call = state.calls.get(Number(key.split("/")[0]));
    if (done.has(key) || call === undefined || call.finished !== null || call.started.operation === "workers") continue;
    if (state.answer !== null || state.failed !== null) continue;
    const [, request = "0", sample = "0"] = key.split("/");
    const thinking = writing.text === "" && writing.thought !== "";
    const name = `${call.started.role}, sample ${Number(request) + 1}.${Number(sample) + 1}${thinking ? ", thinking" : ""}`;
    found.push({ key, name, thinking, text: (thinking ? writing.thought : writing.text).slice(-420), tokens: writing.tokens });
  }
  return found.slice(-8);
}

export function More({ count, what, onMore }: { count: number; what: string; onMore: () => void }) {
  if (count <= 0) return null;
  return (
    <button type="button" class="more" onClick={onMore}>
      {plural(count, `more ${what}`)}
    </button>
  );
}
