// A text that something else wrote, verified: the claims alone.

import { number, object, type Report, text, type Verification } from "../events";
import { paired } from "../run/checked";
import { fixed, whole } from "../text/figures";
import { countsText } from "../text/verdicts";
import { spaced, tone } from "../text/words";
import { Chip } from "./header";
import { Claims } from "./claims";

/** What `reason.agents.verify_text.TextVerification` has. */
export interface TextVerification {
  answer: string;
  question: string;
  verification: Verification;
  reports: Report[];
  usage: Report;
  run_id: string;
  degraded: string[];
}

export function VerificationView({ found }: { found: TextVerification }) {
  const { verification } = found;
  const judges = new Set(found.reports.map((report) => text(report["backend"])).filter((name) => name !== "" && name !== "program"));
  return (
    <main class="verification">
      <header class="question">
        <h1 dir="auto">{found.question || "A text, verified"}</h1>
        <p class="answer">{countsText(verification.claims)}</p>
        <div class="chips">
          <Chip value={spaced(verification.verdict)} tone={tone(verification.verdict)} />
          {verification.verifiers.map((name) => (
            <Chip key={name} label="verifier" value={name} />
          ))}
          {[...judges].map((name) => (
            <Chip key={name} label="judged by" value={name.replace(/\b([0-9a-f]{8})[0-9a-f]{8,}\b/g, "$1…")} title={name} />
          ))}
        </div>
      </header>
      {found.degraded.map((what) => (
        <p class="note" key={what}>
          Note: {what}
        </p>
      ))}
      <section class="card">
        <h2 class="away">Claims</h2>
        <Claims text={found.answer} checked={paired(verification.claims, found.reports)} />
      </section>
      <h2>Cost</h2>
      <p>{costOf(found.usage)}</p>
    </main>
  );
}

function costOf(usage: Report): string {
  const amount = (name: string) => number(object(usage)[name]) ?? 0;
  const parts: string[] = [];
  if (amount("reward_calls") > 0) parts.push(`${whole(amount("reward_calls"))} passes of what judges`);
  if (amount("model_calls") > 0) {
    parts.push(`${whole(amount("model_calls"))} model calls, ${whole(amount("completion_tokens"))} tokens`);
  }
  if (amount("cost_usd") > 0) parts.push(`${fixed(amount("cost_usd"), 4)} USD`);
  return [...parts, `${fixed(amount("wall_seconds"), 1)} s`].join(", ");
}
