// What was asked, of whom, and how it stands.

import { number } from "../events";
import type { State } from "../run/state";
import { type Standing, standingOf } from "../run/standing";
import { fixed, seconds, whole } from "../text/figures";
import { spaced, tone } from "../text/words";
import { Formatted } from "./formatted";

/** How the run stands: as its events tell it, or as the store has it where they do not say. */
export function standing(state: State, status: string | null): Standing {
  if (state.answer !== null) return standingOf("finished", state.answer.stopped);
  if (state.failed !== null) return standingOf("failed", null);
  return status === null ? { word: "not finished", tone: "warn" } : standingOf(status, null);
}

export function Header({ state, status, question }: { state: State; status: string | null; question?: string | undefined }) {
  const { started } = state;
  const asked = started?.question.text ?? question ?? "A run that did not begin";
  return (
    <header class="question">
      <h1 dir="auto">{asked.trim() === "" ? "An answer that was given" : <Formatted text={asked} />}</h1>
      {started !== null && started.question.choices.length > 0 && (
        <ol class="choices soft">
          {started.question.choices.map((choice, i) => (
            <li key={i} dir="auto">
              {choice}
            </li>
          ))}
        </ol>
      )}
      <Chips state={state} status={status} />
    </header>
  );
}

function Chips({ state, status }: { state: State; status: string | null }) {
  const { answer, started } = state;
  const how = standing(state, status);
  const running = how.tone === "busy";
  const confidence = number(answer?.confidence ?? null);
  const calibrated = number(answer?.calibrated_confidence ?? null);
  const verdict = state.verification !== null && state.verification.verifiers.length > 0 ? state.verification.verdict : null;
  const tokens = answer?.usage.completion_tokens ?? state.spent.tokens + freshTokens(state);
  const thinking = answer?.usage.thinking_tokens ?? state.spent.thinking_tokens;
  const usd = answer === null ? state.spent.usd : answer.usage.cost_usd;
  const took = answer?.usage.wall_seconds ?? state.atS;
  return (
    <div class="chips">
      <Chip value={how.word} tone={how.tone} />
      {running && state.stage !== "" && <Chip label="stage" value={state.stage} />}
      {verdict !== null && <Chip value={spaced(verdict)} tone={tone(verdict)} />}
      {confidence !== null && <Chip label="confidence" value={fixed(confidence, 2)} />}
      {calibrated !== null && <Chip label="calibrated" value={fixed(calibrated, 2)} title={answer?.calibration ?? ""} />}
      {started !== null && (
        <>
          <Chip label="strategy" value={started.strategy} />
          {Object.entries(started.models).map(([role, model]) => (
            <Chip key={role} label={role === "main" ? "model" : role} value={model} />
          ))}
          {started.effort !== undefined && <Chip label="effort" value={started.effort} />}
          {started.thinking_tokens !== undefined && <Chip label="most thinking" value={whole(started.thinking_tokens)} />}
          <Chip label="seed" value={String(started.seed)} />
        </>
      )}
      <Chip label="tokens" value={whole(tokens)} />
      {thinking > 0 && <Chip label="thinking" value={whole(thinking)} />}
      {usd !== 0 && <Chip label="USD" value={usd === null ? "?" : fixed(usd, 4)} />}
      <Chip label="time" value={seconds(took)} />
      {(answer?.selected_strategy || state.ran) && <Chip label="ran" value={answer?.selected_strategy || state.ran} />}
    </div>
  );
}

export function Chip({ label, value, tone, title }: { label?: string; value: string; tone?: string; title?: string }) {
  return (
    <span class={`chip ${tone ?? ""}`.trim()} title={title || undefined}>
      {label !== undefined && `${label} `}
      <b>{value}</b>
    </span>
  );
}

/** Tokens of calls under way, which are not charged yet. */
export function freshTokens(state: State): number {
  let fresh = 0;
  for (const call of state.calls.values()) fresh += call.fresh;
  return fresh;
}
