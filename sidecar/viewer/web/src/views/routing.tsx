// Which model wrote each step of a chain, and what decided that: a ribbon, and a curve of the entropy above it.

import { useState } from "preact/hooks";
import { number, type StepRouted } from "../events";
import { figure, plural, whole } from "../text/figures";
import { routedBecause, routedLine } from "../text/event_lines";

const WIDTH = 26;
const HEIGHT = 56;

export function Routing({ steps }: { steps: StepRouted[] }) {
  const [at, setAt] = useState<number | null>(null);
  const large = steps.filter((step) => step.role === "main").length;
  const tokens = (main: boolean) => steps.filter((step) => (step.role === "main") === main).reduce((sum, step) => sum + step.tokens, 0);
  const shown = at === null ? undefined : steps[at];
  return (
    <section id="routing">
      <h2>Routing</h2>
      <p class="soft">
        {plural(steps.length, "step")}, {large} by the large model ({whole(tokens(true))} tokens), {steps.length - large} by the
        small one ({whole(tokens(false))} tokens)
      </p>
      <div class="ribbon" role="group" aria-label="Steps by the model that wrote them">
        {steps.map((step, i) => (
          <button
            type="button"
            key={i}
            class={`${step.role === "main" ? "large" : "small"}${i === at ? " at" : ""}`}
            aria-label={`step ${step.index + 1}: ${routedLine(step)}`}
            title={`step ${step.index + 1}: ${routedLine(step)}`}
            aria-pressed={i === at}
            onClick={() => setAt(i === at ? null : i)}
          >
            <Entropy step={step} most={highest(steps)} />
            <span class="who">{step.role === "main" ? "L" : "S"}</span>
            <span class="nth">{step.index + 1}</span>
          </button>
        ))}
      </div>
      <p class="legend">
        <span class="swatch small" /> small model <span class="swatch large" /> large model; bars: entropy of the step's first
        token in nats, the line its threshold
      </p>
      {shown !== undefined && (
        <p class="card slim" aria-live="polite">
          <b>step {shown.index + 1}</b>: {routedLine(shown)}
        </p>
      )}
      <details>
        <summary>as a table</summary>
        <div class="scroll">
          <table>
            <thead>
              <tr>
                <th class="n">step</th>
                <th>model</th>
                <th class="n">tokens</th>
                <th class="n">entropy</th>
                <th class="n">threshold</th>
                <th>why</th>
              </tr>
            </thead>
            <tbody>
              {steps.map((step, i) => (
                <tr key={i}>
                  <td class="n">{step.index + 1}</td>
                  <td>
                    {step.role === "main" ? "large" : "small"} <span class="soft">{step.model}</span>
                  </td>
                  <td class="n">{whole(step.tokens)}</td>
                  <td class="n">{figure(number(step.entropy))}</td>
                  <td class="n">{figure(number(step.threshold))}</td>
                  <td>{routedBecause(step)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </details>
    </section>
  );
}

function Entropy({ step, most }: { step: StepRouted; most: number }) {
  const [entropy, threshold] = [number(step.entropy), number(step.threshold)];
  const height = (value: number) => (HEIGHT - 4) * Math.min(1, Math.max(0, value / most));
  return (
    <svg width={WIDTH} height={HEIGHT} aria-hidden="true">
      {entropy !== null && <rect class="bar" x={5} width={WIDTH - 10} y={HEIGHT - height(entropy)} height={height(entropy)} />}
      {threshold !== null && <path class="threshold" d={`M0 ${HEIGHT - height(threshold)}H${WIDTH}`} />}
    </svg>
  );
}

function highest(steps: StepRouted[]): number {
  const values = steps.flatMap((step) => [number(step.entropy) ?? 0, number(step.threshold) ?? 0]);
  return Math.max(1e-9, ...values.filter(Number.isFinite));
}
