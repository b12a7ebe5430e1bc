// A run as the server has it, and its events as they come.

import { useEffect, useRef, useState } from "preact/hooks";
import { reduceAll } from "../run/reduce";
import { nothing, type State } from "../run/state";
import { ask, lineOf, type RunDetail } from "./api";
import { follow } from "./follow";

export const ACTIVE = new Set(["queued", "running"]);

export interface LiveRun {
  detail: RunDetail | null;
  state: State;
  /** Whether `state` can be shown: the events of a run that has ended have come, or could not be read. */
  loaded: boolean;
  /** What the server refused; empty if nothing. */
  error: string;
  /** Whether the connection stands. */
  up: boolean;
  setDetail: (detail: RunDetail) => void;
  setError: (error: string) => void;
  /** Stops following, before the run is deleted. */
  stop: () => void;
}

/** Follows a run to its end, and again from its last event whenever `round` changes; `onEnd` is called at each end. */
export function useRun(id: string, round: number, onEnd: () => void): LiveRun {
  const [detail, setDetail] = useState<RunDetail | null>(null);
  const [state, setState] = useState<State>(nothing);
  const [read, setRead] = useState(false);
  const [error, setError] = useState("");
  const [up, setUp] = useState(true);
  const last = useRef(0);
  const following = useRef<AbortController | null>(null);

  useEffect(() => {
    const stop = new AbortController();
    following.current = stop;
    const look = async () => {
      const found = await ask<RunDetail>("GET", `/v1/runs/${encodeURIComponent(id)}`, undefined, stop.signal);
      setDetail(found);
      return found;
    };
    const watch = async () => {
      try {
        let found = await look();
        let before = -1;
        let looking: Promise<void> | null = null;
        const lookAgain = async () => {
          // whether a queued run has begun, which its events do not say
          found = await look().catch(() => found);
          looking = null;
        };
        while (ACTIVE.has(found.status) || last.current > before) {
          before = last.current; // a stream may end before its run does: it is over when nothing more comes
          await follow(found.id, last.current, {
            onEvents: (events) => {
              for (const event of events) last.current = Math.max(last.current, event.number);
              setState((before) => reduceAll(before, events));
              setRead(true);
              if (found.status === "queued") looking ??= lookAgain();
            },
            onLink: setUp,
          }, stop.signal);
          await looking;
          setRead(true); // also where there are none
          found = await look();
        }
        setUp(true);
        onEnd();
      } catch (failed) {
        if (stop.signal.aborted) return;
        setError(lineOf(failed));
        setRead(true);
        void look().catch(() => undefined);
      }
    };
    void watch();
    return () => stop.abort();
  }, [id, round]);

  const loaded = read || (detail !== null && ACTIVE.has(detail.status));
  return { detail, state, loaded, error, up, setDetail, setError, stop: () => following.current?.abort() };
}
