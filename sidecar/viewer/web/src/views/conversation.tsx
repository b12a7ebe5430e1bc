// A run with tools as a conversation: what the model said and called, what came back, what each step cost.

import type { WriteCheck } from "../events";
import type { State } from "../run/state";
import { type CallStatus, type ToolCallStep, type TrajectoryStep, trajectoryOf } from "../run/trajectory";
import { fixed, seconds, whole } from "../text/figures";
import { countsText, verdictText } from "../text/verdicts";
import { pretty, shortened, spaced, tone } from "../text/words";
import { Formatted } from "./formatted";
import { Writing, writingNow } from "./samples";
import { Thought } from "./thought";

const SHORT_RESULT = 400;
const TONES: Partial<Record<CallStatus, string>> = {
  executed: "good", recorded: "good", failed: "bad", rejected: "warn", waiting: "warn", "outcome unknown": "bad",
};
const CUT = /\[… [\d,]+ of [\d,]+ characters left out/;

export function Conversation({ state, running }: { state: State; running: boolean }) {
  const steps = trajectoryOf(state.entries);
  return (
    <section id="conversation">
      <h2>Conversation</h2>
      <ol class="conversation">
        {steps.map((step, i) => (
          <li key={step.number}>
            <h3>
              {step.name} <span class="soft small">{costOf(step)}</span>
            </h3>
            {step.turn === null ? running && i === steps.length - 1 && <Writing live={writingNow(state).slice(0, 1)} /> : <Turn step={step} />}
            {step.calls.map((call, n) => (
              <Call key={call.id || n} call={call} running={running} />
            ))}
            {step.verification !== null && <Findings step={step} />}
          </li>
        ))}
      </ol>
    </section>
  );
}

/** `120 tokens, 0.0012 USD, 1.50 s`. */
function costOf({ tokens, usd, seconds: took }: TrajectoryStep): string {
  const money = usd === null ? "price unknown" : usd > 0 ? `${fixed(usd, 4)} USD` : "";
  return [`${whole(tokens)} tokens`, money, took === null ? "not finished" : seconds(took)].filter(Boolean).join(", ");
}

function Turn({ step: { turn } }: { step: TrajectoryStep }) {
  if (turn === null) return null;
  return (
    <>
      <Thought text={turn.thought ?? ""} tokens={turn.thinking_tokens ?? 0} />
      {turn.text.trim() !== "" && (
        <div class="text" dir="auto">
          <Formatted text={turn.text} />
        </div>
      )}
    </>
  );
}

/** What the check of a call has quoted. */
export function Quotations({ check: { request, policy } }: { check: WriteCheck }) {
  return (
    <p class="small">
      {request !== "" && <>Requested: <q>{request}</q> </>}
      {policy !== "" && <>Policy: <q>{policy}</q></>}
    </p>
  );
}

function Call({ call, running }: { call: ToolCallStep; running: boolean }) {
  const status = call.status === "running" && !running ? "not finished" : call.status;
  const cut = CUT.test(call.text);
  return (
    <div class="call">
      <p>
        <b class="mono">{call.tool}</b>
        {call.effect !== "" && <span class="tag">{call.effect}</span>}
        <span class={`tag ${TONES[call.status] ?? ""}`.trim()}>{status}</span>
        {call.decision !== "" && <span class="tag">decision: {call.decision}</span>}
        {cut && <span class="tag warn">cut</span>}
        {call.seconds > 0 && <span class="soft small">{seconds(call.seconds)}</span>}
      </p>
      {call.check !== undefined && call.check.fault === "" && <Quotations check={call.check} />}
      <pre class="text" tabIndex={0} aria-label={`arguments of ${call.tool}`}>{pretty(call.arguments)}</pre>
      {call.text !== "" && (
        <details open={call.text.length <= SHORT_RESULT}>
          <summary class="soft small">
            result, {whole(call.text.length)} characters{call.text.length > SHORT_RESULT && `: ${shortened(call.text, 80)}`}
          </summary>
          <pre class="text" tabIndex={0} dir="auto">{pretty(call.text)}</pre>
        </details>
      )}
    </div>
  );
}

function Findings({ step: { verification } }: { step: TrajectoryStep }) {
  if (verification === null) return null;
  const { verdict, claims } = verification;
  return (
    <>
      <p>
        <span class={`tag ${tone(verdict)}`.trim()}>{spaced(verdict)}</span> {claims.length > 0 && countsText(claims)}
      </p>
      <ul class="sources">
        {claims.filter((claim) => claim.verdict !== "supported").map((claim, i) => (
          <li key={i} dir="auto">
            {verdictText(claim)}: {claim.text}
          </li>
        ))}
      </ul>
    </>
  );
}
