// What happens in a jury, a line each.

import { type JuryEvent, type JuryStageEnded, list, number, object, type Report, text } from "../events";
import { fixed, whole } from "./figures";

export interface JuryLine {
  kind: string;
  what: string;
  tone?: string;
}

export function juryLine(event: JuryEvent): JuryLine {
  const { report } = event;
  switch (event.type) {
    case "jury.opinion": {
      const kind = `opinion #${event.juror}`;
      if (report["ok"] !== true) return { kind, what: `${juror(report)}: none, ${text(report["failure"])}`, tone: "bad" };
      return { kind, what: `${juror(report)}: ${text(report["choice"]) || text(report["text"])}` };
    }
    case "jury.review":
      return reviewLine(event.reviewer, report);
    case "jury.ranked":
      return { kind: "ranking", what: `by ${text(report["rule"])}: ${ranked(report)}` };
    case "jury.merged": {
      const choice = text(report["choice"]);
      const by = report["source"] === "chair" ? "the chair" : "the best opinion, in the place of the chair";
      return { kind: "jury's answer", what: `${choice === "" ? "" : `${choice}: `}${text(report["answer"])} (by ${by})` };
    }
    case "jury.claim": {
      const label = text(report["label"]);
      const counts = ["support", "contradict", "silent"].map((name) => `${list(report[name]).length} ${name}`).join(", ");
      return {
        kind: `agreement ${event.index + 1}`,
        what: `${label} (${counts}): ${text(object(report["claim"])["text"])}`,
        tone: label === "contradicted" ? "warn" : "",
      };
    }
    case "jury.stage":
      return { kind: `${event.stage} stage`, what: stageLine(event) };
  }
}

/** A juror's model, and the role that it plays: `local/a as devil's advocate`. */
export function juror(report: Report): string {
  const role = text(report["role"]);
  return text(report["model"]) + (role === "" ? "" : ` as ${role}`);
}

/** The order of a ranking: `#2 1.00 > #1 0.50`. */
export function ranked(report: Report): string {
  return list(report["standings"])
    .map(object)
    .filter((standing) => number(standing["juror"]) !== null && number(standing["score"]) !== null)
    .map((standing) => `#${number(standing["juror"])} ${fixed(number(standing["score"]) ?? 0, 2)}`)
    .join(" > ");
}

function reviewLine(reviewer: number, report: Report): JuryLine {
  const kind = `review by #${reviewer}`;
  if (report["ok"] !== true) {
    return { kind, what: `none that can be read: ${text(report["failure"]) || "no marks"}`, tone: "warn" };
  }
  const marks = list(report["scores"])
    .map(object)
    .filter((score) => number(score["candidate"]) !== null)
    .map((score) => `#${number(score["candidate"])} ${markOf(score)}`);
  const issues = list(report["issues"]).length;
  return { kind, what: marks.join(", ") + (issues > 0 ? `; ${issues} issue${issues === 1 ? "" : "s"}` : "") };
}

/** Accuracy, insight and clarity: `8/7/9`. */
export function markOf(score: Report): string {
  return ["accuracy", "insight", "clarity"].map((name) => number(score[name]) ?? "?").join("/");
}

function stageLine(event: JuryStageEnded): string {
  const { report } = event;
  const amount = (name: string) => {
    const value = number(report[name]);
    return value === null ? "?" : whole(value);
  };
  const [took, price] = [number(report["latency_ms"]), number(report["cost_usd"])];
  return [
    `${event.num_responses} of ${event.num_requests} replied`,
    `${amount("calls")} calls, ${amount("completion_tokens")} tokens`,
    took === null ? "" : `${fixed(took / 1000, 2)} s`,
    price === null ? "price unknown" : price > 0 ? `${fixed(price, 4)} USD` : "",
  ]
    .filter(Boolean)
    .join(", ");
}
