// The evidence for one claim: verdict, probabilities, passages, origins, what jurors say of it.

import { type CheckedClaim, type Evidence, list, number, object, type Report, text } from "../events";
import type { Checked } from "../run/checked";
import { fixed } from "../text/figures";
import { agreementText, isComputed, percent, verdictText } from "../text/verdicts";
import { placed, SIGNS, spaced } from "../text/words";
import { Stances } from "./jury";
import { Passage, quotedOf, withoutRepeats } from "./passages";

const WARNINGS: Record<string, string> = {
  unfitted: "the verdict model was fitted to no data of this judge: probabilities are estimates",
  no_evidence: "no passage was found",
  verifier_failed: "what judges failed on every passage",
  passage_left_out: "what judges failed on a passage, which was left out",
  duplicates_unfinished: "the search for copies among the passages was ended",
};

export function ClaimPanel({ n, checked: { claim, report, label } }: { n: number; checked: Checked }) {
  const program = text(report?.["program"]);
  return (
    <li class={`panel ${claim.verdict}`} id={`claim-${n + 1}`} data-panel={n} tabIndex={-1} aria-label={`Evidence for claim ${n + 1}`}>
      <h3 dir="auto">
        <span class="badge">
          {n + 1} {SIGNS[claim.verdict]} {verdictText(claim)}
        </span>{" "}
        {claim.text}
      </h3>
      {program !== "" ? (
        <>
          <h4>checked by a program</h4>
          <div class="mono">{program}</div>
        </>
      ) : (
        claim.note !== "" && <p dir="auto">{claim.note}</p>
      )}
      <EvidenceOf claim={claim} report={report} />
      {claim.probs !== null && !isComputed(claim) && <Bars probs={claim.probs} calibrated={isCalibrated(report)} />}
      {label === null && claim.agreement && <p class="soft">{agreementText(claim.agreement)}</p>}
      {label !== null && (
        <>
          <h4>what the jurors say, which is no evidence</h4>
          <p>
            {text(label["label"])} <Stances label={label} />
          </p>
          {text(label["note"]) !== "" && <p class="soft">{text(label["note"])}</p>}
        </>
      )}
      <Origins origins={report === null ? claim.origins.map((name) => [name, ""]) : originsOf(report)} />
      {report !== null && <Remarks remarks={remarksOf(report)} />}
    </li>
  );
}

/** Whether the probabilities come from a verdict model that was fitted to the judge. */
function isCalibrated(report: Report | null): boolean {
  return text(report?.["calibrator"]) !== "" && !list(report?.["warnings"] ?? []).includes("unfitted");
}

function Bars({ probs, calibrated }: { probs: number[]; calibrated: boolean }) {
  const names = [
    ["supports", "s"],
    ["refutes", "r"],
    ["says nothing", "z"],
  ] as const;
  return (
    <>
      <h4>{calibrated ? "calibrated probabilities" : "probabilities, not calibrated"}</h4>
      <dl class="bars">
        {names.map(([name, kind], i) => (
          <div key={kind}>
            <dt>{name}</dt>
            <dd class="track">
              <div class={`fill ${kind}`} style={{ width: `${(100 * (probs[i] ?? 0)).toFixed(1)}%` }} />
            </dd>
            <dd class="n">{percent(probs[i] ?? 0)}</dd>
          </div>
        ))}
      </dl>
    </>
  );
}

/** Quotations within their passages, each sentence once; without a record the quotations alone. */
function EvidenceOf({ claim, report }: { claim: CheckedClaim; report: Report | null }) {
  const name = claim.verdict === "not_enough_evidence" ? "closest" : "evidence";
  const shown = claim.evidence.filter(({ source }) => source !== "program");
  const looked = report === null ? [] : quotedOf(report);
  const quoted = withoutRepeats(looked.filter(({ span }) => span !== null));
  const others = looked.filter(({ span }) => span === null);
  return (
    <>
      {quoted.length > 0 && (
        <>
          <h4>{name}</h4>
          {quoted.map((each, i) => (
            <Passage key={i} quoted={each} />
          ))}
        </>
      )}
      {quoted.length === 0 && shown.length > 0 && <Bare name={name} evidence={shown} />}
      {others.length > 0 && (
        <details>
          <summary>
            {others.length} {quoted.length > 0 ? "other " : ""}passage{others.length > 1 ? "s" : ""} looked at
          </summary>
          {others.map((each, i) => (
            <Passage key={i} quoted={each} />
          ))}
        </details>
      )}
    </>
  );
}

function Bare({ name, evidence }: { name: string; evidence: Evidence[] }) {
  return (
    <>
      <h4>{name}</h4>
      {[...new Set(evidence.map(({ text }) => text))].map((quote) => (
        <div key={quote}>
          <div class="source">
            {evidence
              .filter(({ text }) => text === quote)
              .map(({ source, start, end }) => placed(source, start, end))
              .join(", ")}
          </div>
          <blockquote dir="auto">
            <mark>{quote}</mark>
          </blockquote>
        </div>
      ))}
    </>
  );
}

function Origins({ origins }: { origins: [name: string, how: string][] }) {
  if (origins.length === 0) return null;
  return (
    <>
      <h4>where it comes from</h4>
      <ul>
        {origins.map(([name, how], i) => (
          <li key={i} dir="auto">
            {name} <span class="soft">{how}</span>
          </li>
        ))}
      </ul>
    </>
  );
}

function Remarks({ remarks }: { remarks: string[] }) {
  if (remarks.length === 0) return null;
  return (
    <>
      <h4>remarks</h4>
      <ul>
        {remarks.map((remark, i) => (
          <li key={i}>{remark}</li>
        ))}
      </ul>
    </>
  );
}

/** Name, kind and weight of each part of the run that the claim came from. */
function originsOf(report: Report): [string, string][] {
  return list(report["internal"])
    .map(object)
    .filter((origin) => number(origin["weight"]) !== 0)
    .map((origin) => [text(origin["component"]), `${text(origin["kind"])} ${fixed(number(origin["weight"]) ?? 0, 2)}`]);
}

/** What a reader should know of how the verdict was reached. */
function remarksOf(report: Report): string[] {
  const told = list(report["warnings"]).map(text).map((name) => WARNINGS[name] ?? spaced(name));
  for (const origin of list(report["internal"]).map(object)) {
    const left = object(origin["detail"])["left_out"];
    if (left !== undefined) told.push(`${text(origin["kind"])}: ${String(left)}`);
  }
  const conflict = number(report["conflict"]) ?? 0;
  if (conflict >= 0.5 && ["disputed", "not_enough_evidence"].includes(text(report["verdict"]))) {
    told.push(`the evidence contradicts itself (conflict ${fixed(conflict, 2)} of 1)`);
  }
  return told;
}
