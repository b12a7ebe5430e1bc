// A run with tools as a conversation: its turns with the calls that they made, and its verifications.

import type { SolutionCandidate, Verification, WriteCheck } from "../events";
import type { Entry } from "./state";

export type CallStatus = "proposed" | "waiting" | "running" | "executed" | "failed" | "rejected" | "recorded" | "outcome unknown";

export interface ToolCallStep {
  /** ID of the call; empty before it is known. */
  id: string;
  tool: string;
  arguments: string;
  effect: string;
  status: CallStatus;
  decision: string;
  check?: WriteCheck;
  /** The result, or the last line of progress. */
  text: string;
  seconds: number;
}

export interface TrajectoryStep {
  name: string;
  number: number;
  seconds: number | null;
  turn: SolutionCandidate | null;
  calls: ToolCallStep[];
  verification: Verification | null;
  tokens: number;
  /** US dollars; null where a price is unknown. */
  usd: number | null;
}

const TURN = /^turn \d+$/;
const REJECTED = "Error: the call was rejected";

/** The steps of a run with tools; none of a run without. A step that a resumed run repeats is shown once. */
export function trajectoryOf(entries: readonly Entry[]): TrajectoryStep[] {
  const steps: TrajectoryStep[] = [];
  const calls = new Map<string, ToolCallStep>();
  let usd: number | null = 0;
  for (const event of entries) {
    const last = steps.at(-1);
    switch (event.type) {
      case "stage.started":
        if (event.parent !== null || !(TURN.test(event.stage) || (event.stage === "verify" && last !== undefined))) break;
        if (last?.name === event.stage) steps.pop();
        steps.push({ name: event.stage, number: event.number, seconds: null, turn: null, calls: [], verification: null, tokens: 0, usd: 0 });
        break;
      case "stage.finished":
        if (last?.number === event.parent) last.seconds = event.seconds;
        break;
      case "solution.finished": {
        const { chosen, candidates } = event.solution;
        if (last === undefined || chosen === null) break;
        last.turn = candidates[chosen] ?? null;
        last.calls = (last.turn?.tool_calls ?? []).map(({ name, arguments: given }) => ({
          id: "", tool: name, arguments: given, effect: "", status: "proposed", decision: "", text: "", seconds: 0,
        }));
        break;
      }
      case "budget.charged":
        if (last !== undefined) {
          last.tokens += event.tokens;
          last.usd = usd === null || event.total_usd === null || last.usd === null ? null : last.usd + event.total_usd - usd;
        }
        usd = event.total_usd;
        break;
      case "verification.finished":
        if (last?.name === "verify") last.verification = event.verification;
        break;
      case "tool.started":
        Object.assign(callOf(last, calls, event), { effect: event.effect, arguments: event.arguments, status: "running", text: "" });
        break;
      case "tool.checked":
        callOf(last, calls, event).check = event.write_check;
        break;
      case "tool.progress":
        callOf(last, calls, event).text = event.text;
        break;
      case "tool.finished": {
        const failed = event.text.startsWith(REJECTED) ? "rejected" : "failed";
        const status = event.is_error ? failed : event.is_replayed ? "recorded" : "executed";
        Object.assign(callOf(last, calls, event), { status, text: event.text, seconds: event.seconds });
        break;
      }
      case "approval.requested":
        callOf(last, calls, event).status = event.question === "outcome" ? "outcome unknown" : "waiting";
        break;
      case "approval.decided": {
        const call = callOf(last, calls, event);
        Object.assign(call, { decision: event.decision, status: "proposed" });
        break;
      }
      case "run.waiting":
        for (const each of event.pending) {
          const status = each.question === "outcome" ? "outcome unknown" : "waiting";
          Object.assign(callOf(last, calls, { ...each, call: each.id }), { status, effect: each.effect });
        }
        break;
      default:
        break;
    }
  }
  return steps;
}

/** The call of an event: by its ID, else the first of the turn's calls that it can be. */
function callOf(step: TrajectoryStep | undefined, calls: Map<string, ToolCallStep>, event: { call: string; tool: string; arguments?: string }): ToolCallStep {
  const known = calls.get(event.call);
  if (known !== undefined && step?.calls.includes(known)) return known;
  const free = (step?.calls ?? []).filter(({ id, tool }) => id === "" && tool === event.tool);
  let call = free.find((each) => each.arguments === event.arguments) ?? free[0];
  if (call === undefined) {
    call = { id: "", tool: event.tool, arguments: event.arguments ?? "{}", effect: "", status: "proposed", decision: "", text: "", seconds: 0 };
    step?.calls.push(call);
  }
  call.id = event.call;
  calls.set(event.call, call);
  return call;
}
