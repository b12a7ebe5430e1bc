// What a waiting run needs: a decision about each call that was not executed, and what became of one that was interrupted.

import { useState } from "preact/hooks";
import type { Json } from "../events";
import { pretty } from "../text/words";
import { Quotations } from "../views/conversation";
import { lineOf, type PendingCall } from "./api";

interface Props {
  pending: PendingCall[];
  /** Sends a decision; throws where it is refused. */
  onDecide: (call: string, decision: Record<string, Json>) => Promise<void>;
}

export function Decisions({ pending, onDecide }: Props) {
  return (
    <section class="card decisions" aria-label="Decisions">
      <h2>Waiting for a decision</h2>
      {pending.map((call) => (
        <Decision key={call.id} call={call} onDecide={onDecide} />
      ))}
    </section>
  );
}

/** Refuses a number that would lose digits. */
function exact(_: string, value: Json): Json {
  if (typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value)) throw new SyntaxError("a number has too many digits");
  return value;
}

function Decision({ call, onDecide }: { call: PendingCall; onDecide: Props["onDecide"] }) {
  const given = pretty(call.arguments);
  const [edited, setEdited] = useState(given);
  const [reason, setReason] = useState("");
  const [sending, setSending] = useState(false);
  const [error, setError] = useState("");
  const decide = async (decision: () => Record<string, Json>) => {
    setSending(true);
    setError("");
    try {
      await onDecide(call.id, decision());
    } catch (failed) {
      setError(failed instanceof SyntaxError ? `The arguments cannot be sent: ${failed.message}` : lineOf(failed));
      setSending(false);
    }
  };
  const approve = () => (edited === given ? { type: "approve" } : { type: "edit", arguments: JSON.parse(edited, exact) as Json });
  const button = (value: string, words: string, decision: () => Record<string, Json>) => (
    <button type="button" value={value} disabled={sending} onClick={() => void decide(decision)}>
      {words}
    </button>
  );
  return (
    <form class="decision" onSubmit={(event) => event.preventDefault()}>
      <p>
        <b class="mono">{call.tool}</b> <span class="tag">{call.effect}</span>
      </p>
      {call.note !== undefined && <pre class="mono">{call.note}</pre>}
      {call.write_check !== undefined && <Quotations check={call.write_check} />}
      {call.question === "approval" ? (
        <>
          <label>
            Arguments
            <textarea class="mono" name="arguments" rows={Math.min(12, edited.split("\n").length + 1)} value={edited} onInput={(event) => setEdited(event.currentTarget.value)} />
          </label>
          <label>
            Reason of a rejection, for the model
            <input name="reason" maxLength={2000} value={reason} onInput={(event) => setReason(event.currentTarget.value)} />
          </label>
          <div class="actions">
            {button("approve", edited === given ? "approve" : "approve the edited call", approve)}
            {button("reject", "reject", () => ({ type: "reject", reason }))}
          </div>
        </>
      ) : (
        <>
          <pre class="text" tabIndex={0}>{given}</pre>
          {call.question === "outcome" ? (
            <div class="actions">
              It was interrupted. Did it take effect?
              {button("done", "yes", () => ({ type: "done" }))}
              {button("failed", "no", () => ({ type: "failed" }))}
            </div>
          ) : (
            <p class="soft">The caller executes it, and sends its result.</p>
          )}
        </>
      )}
      {error !== "" && (
        <p class="note bad" role="alert">
          {error}
        </p>
      )}
    </form>
  );
}
