// Workers on one problem, side by side: what each has finished, and what each is writing.

import { useEffect, useRef } from "preact/hooks";
import type { Workers as Team } from "../run/state";
import { plural } from "../text/figures";

export function Workers({ workers, running }: { workers: Team; running: boolean }) {
  return (
    <section id="workers">
      <h2>Workers</h2>
      <div class="workers">
        {workers.names.map((name, i) => (
          <Worker
            key={i}
            name={name}
            steps={workers.steps[i] ?? []}
            writing={workers.writing[i] ?? ""}
            answers={workers.answers.filter((each) => each.worker === i).map((each) => each.answer)}
            running={running}
          />
        ))}
      </div>
    </section>
  );
}

interface Props {
  name: string;
  steps: string[];
  writing: string;
  answers: string[];
  running: boolean;
}

function Worker({ name, steps, writing, answers, running }: Props) {
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const element = box.current; // its end stays in sight while it grows
    if (running && element !== null) element.scrollTop = element.scrollHeight;
  }, [steps.length, writing, running]);
  return (
    <article class="worker">
      <h3>
        {name} <span class="soft small">{plural(steps.length, "step")}</span>
      </h3>
      <div class="steps" ref={box} tabIndex={0} role="log" aria-label={`What ${name} writes`}>
        {steps.map((step, i) => (
          <p key={i} dir="auto">
            {step}
          </p>
        ))}
        {writing.trim() !== "" && (
          <p class={running ? "now" : "soft"} dir="auto">
            {writing}
          </p>
        )}
      </div>
      {answers.map((answer, i) => (
        <p key={i} class="found" dir="auto">
          answer: {answer}
        </p>
      ))}
    </article>
  );
}
