// One run, live: its events as they come, and what can be done with it.

import { useEffect, useState } from "preact/hooks";
import type { Json } from "../events";
import { shortened } from "../text/words";
import { RunView } from "../views/run_view";
import { ask, lineOf, type RunDetail } from "./api";
import { Decisions } from "./decisions";
import { DeleteButton } from "./delete_button";
import { ACTIVE, useRun } from "./use_run";

const LOST = "the connection is lost; trying again …";

type Action = "answer" | "cancel" | "resume";

export function RunPage({ id }: { id: string }) {
  const [asked, setAsked] = useState<Action | null>(null);
  const [round, setRound] = useState(0);
  const { detail, state, loaded, error, up, setDetail, setError, stop } = useRun(id, round, () => setAsked(null));
  const path = `/v1/runs/${encodeURIComponent(id)}`;
  const title = detail?.question.slice(0, 80);
  useEffect(() => {
    if (title !== undefined) document.title = `${title || id} · reason`;
  }, [title]);

  const act = async (what: Action) => {
    setAsked(what);
    setError("");
    try {
      const found = await ask<RunDetail>("POST", `${path}/${what}`);
      if (what === "answer") setDetail(found);
      if (what === "resume") setRound(round + 1);
    } catch (failed) {
      setError(lineOf(failed));
      setAsked(null);
    }
  };
  const decide = async (call: string, decision: Record<string, Json>) => {
    const found = await ask<RunDetail>("POST", `${path}/decisions`, { decisions: { [call]: decision } });
    setDetail(found);
    if (found.status !== "waiting") setRound(round + 1);
  };
  const remove = async () => {
    stop();
    try {
      await ask("DELETE", path);
      location.assign("/ui");
    } catch (failed) {
      setError(lineOf(failed));
    }
  };

  if (detail === null || !loaded) {
    const problem = error === "" && !up ? LOST : error;
    return (
      <main>
        <p role={problem === "" ? undefined : "alert"} class={problem === "" ? "soft" : "note bad"}>
          {problem === "" ? "Looking …" : problem}
        </p>
      </main>
    );
  }
  const { status } = detail;
  const active = ACTIVE.has(status);
  const tags = Object.entries(detail.metadata).filter(([, value]) => typeof value === "string") as [string, string][];
  return (
    <>
      <RunView
        state={state}
        status={status}
        question={detail.question}
        decisions={status === "waiting" && (detail.pending ?? []).length > 0 && <Decisions pending={detail.pending ?? []} onDecide={decide} />}
        actions={
          <>
            {active && (
              <button type="button" value="answer" disabled={asked !== null || detail.concluding || detail.cancelling} onClick={() => void act("answer")}>
                {asked === "answer" || detail.concluding ? "answering …" : "answer now"}
              </button>
            )}
            {active && (
              <button type="button" value="cancel" disabled={asked === "cancel" || detail.cancelling} onClick={() => void act("cancel")}>
                {asked === "cancel" || detail.cancelling ? "cancelling …" : "cancel"}
              </button>
            )}
            {(status === "interrupted" || status === "failed") && (
              <button type="button" value="resume" disabled={asked === "resume"} onClick={() => void act("resume")}>
                {asked === "resume" ? "resuming …" : "resume"}
              </button>
            )}
            {!active && <DeleteButton what="this run" onDelete={remove} />}
            {tags.map(([name, value]) => (
              <a class="tag" key={name} href={`/ui?${new URLSearchParams({ tag: `${name}:${value}` })}`} title="Runs with this tag">
                {shortened(`${name}: ${value}`, 40)}
              </a>
            ))}
            {!up && (
              <span class="warn" role="status">
                {LOST}
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
          </>
        }
      />
      <footer>run {detail.id}</footer>
    </>
  );
}
