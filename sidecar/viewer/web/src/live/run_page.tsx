// One run, live: its events as they come, and what can be done with it.

import { useEffect, useRef, useState } from "preact/hooks";
import { reduceAll } from "../run/reduce";
import { nothing, type State } from "../run/state";
import { RunView } from "../views/run_view";
import { ask, lineOf, type RunDetail } from "./api";
import { follow } from "./follow";

type Action = "answer" | "cancel" | "resume";

const ON = new Set(["queued", "running"]);

export function RunPage({ id }: { id: string }) {
  const [detail, setDetail] = useState<RunDetail | null>(null);
  const [state, setState] = useState<State>(nothing);
  const [error, setError] = useState("");
  const [up, setUp] = useState(true);
  const [asked, setAsked] = useState<Action | null>(null);
  const [round, setRound] = useState(0);
  const last = useRef(0);
  const path = `/v1/runs/${encodeURIComponent(id)}`;

  useEffect(() => {
    const stop = new AbortController();
    const look = async () => {
      const found = await ask<RunDetail>("GET", path, undefined, stop.signal);
      setDetail(found);
      document.title = `${found.question.slice(0, 80) || id} · reason`;
      return found;
    };
    const watch = async () => {
      try {
        let found = await look();
        let before = -1;
        while (ON.has(found.status) || last.current > before) {
          before = last.current; // a stream may end before its run does: it is over when nothing more comes
          await follow(found.id, last.current, {
            onEvents: (events) => {
              for (const event of events) last.current = Math.max(last.current, event.number);
              setState((before) => reduceAll(before, events));
            },
            onLink: setUp,
          }, stop.signal);
          found = await look();
        }
        setUp(true);
        setAsked(null);
      } catch (failed) {
        if (stop.signal.aborted) return;
        setError(lineOf(failed));
        void look().catch(() => undefined);
      }
    };
    void watch();
    return () => stop.abort();
  }, [id, round]);

  const act = async (what: Action) => {
    setAsked(what);
    setError("");
    try {
      if (what === "answer") setDetail(await ask<RunDetail>("POST", `${path}/answer`));
      else if (what === "cancel") await ask("DELETE", path);
      else {
        await ask("POST", `${path}/resume`);
        setRound(round + 1);
      }
    } catch (failed) {
      setError(lineOf(failed));
      setAsked(null);
    }
  };

  if (detail === null) {
    return (
      <main>
        <p role={error === "" ? undefined : "alert"} class={error === "" ? "soft" : "note bad"}>
          {error === "" ? "Looking …" : error}
        </p>
      </main>
    );
  }
  const status = detail.status;
  return (
    <>
      <RunView
        state={state}
        status={status}
        actions={
          <div class="actions">
            {ON.has(status) && (
              <button type="button" value="answer" disabled={asked !== null || detail.concluding || detail.cancelling} onClick={() => void act("answer")}>
                {asked === "answer" || detail.concluding ? "answering …" : "answer now"}
              </button>
            )}
            {ON.has(status) && (
              <button type="button" value="cancel" disabled={asked === "cancel" || detail.cancelling} onClick={() => void act("cancel")}>
                {asked === "cancel" || detail.cancelling ? "cancelling …" : "cancel"}
              </button>
            )}
            {(status === "interrupted" || status === "failed") && (
              <button type="button" value="resume" disabled={asked === "resume"} onClick={() => void act("resume")}>
                {asked === "resume" ? "resuming …" : "resume"}
              </button>
            )}
            {!up && (
              <span class="warn" role="status">
                the connection is lost; trying again …
              </span>
            )}
            {error !== "" && (
              <span class="bad" role="alert">
                {error}
              </span>
            )}
            {detail.error !== null && state.failed === null && (
              <span class="bad">
                {detail.error.message} ({detail.error.code})
              </span>
            )}
          </div>
        }
      />
      <footer>run {detail.id}</footer>
    </>
  );
}
