// How a run stands, in a word and a colour: one that a limit stopped or a user cancelled never reads as if it were done.

import type { Answer } from "../events";

export interface Standing {
  word: string;
  tone: "good" | "warn" | "bad" | "busy";
}

const STOPPED: Record<string, Standing> = {
  done: { word: "done", tone: "good" },
  user: { word: "answered early", tone: "good" },
  budget: { word: "budget", tone: "warn" },
  loop: { word: "repeated itself", tone: "warn" },
  waiting: { word: "waiting", tone: "warn" },
  cancelled: { word: "cancelled", tone: "warn" },
  error: { word: "error", tone: "bad" },
};

const STATUS: Record<string, Standing["tone"]> = { finished: "good", running: "busy", queued: "busy", failed: "bad" };

/** By the store's status, and by what stopped the run where its answer tells it. */
export function standingOf(status: string, stopped: string | null): Standing {
  const ended = stopped === null || STATUS[status] === "busy" ? undefined : STOPPED[stopped];
  return ended ?? { word: status, tone: STATUS[status] ?? "warn" };
}

/** What stands in the answer's place: the option and its letter of a multiple-choice question, or why there is none. */
export function shownAnswer(answer: Answer): string {
  if (answer.answer === null) return withoutAnswer(answer.text.trim() === "" ? answer.stopped : "done");
  return answer.option == null ? answer.answer : `${answer.option} (${answer.answer})`;
}

function withoutAnswer(stopped: string): string {
  switch (stopped) {
    case "budget":
      return "The budget was spent before there was an answer.";
    case "cancelled":
      return "The run was cancelled before there was an answer.";
    case "waiting":
      return "The run waits for decisions about tool calls.";
    case "loop":
      return "The run ended because the model repeated itself.";
    default:
      return "No answer was found in the text.";
  }
}
