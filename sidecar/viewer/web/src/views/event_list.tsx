// Everything that happened, as a tree: each event under the one that it belongs to. Filtered, it is a flat list.

import { useMemo, useState } from "preact/hooks";
import { number } from "../events";
import type { Entry, State } from "../run/state";
import { slot } from "../run/state";
import { lineOf } from "../text/event_lines";
import { figure, fixed, plural } from "../text/figures";
import { sourceOf } from "../tree/words";
import { SampleText } from "./sample_text";
import { More } from "./samples";

const PAGE = 60;
const MOST_SAMPLES_OPEN = 2;
const CLOSED = new Set(["call.started", "sample.finished"]); // not open where there are many beside them
const MOST_BESIDE = 8;

export function EventList({ state }: { state: State }) {
  const [words, setWords] = useState("");
  const [kind, setKind] = useState("");
  const [most, setMost] = useState(PAGE);
  const kinds = useMemo(() => [...new Set(state.entries.map((event) => event.type))].sort(), [state.entries]);
  const filtered = words.trim() !== "" || kind !== "";
  const found = useMemo(() => (filtered ? matching(state, words.trim().toLowerCase(), kind) : []), [state, words, kind]);
  return (
    <section id="events">
      <h2>What happened</h2>
      <div class="filter" role="search">
        <label>
          <span class="away">Words in an event</span>
          <input type="search" placeholder="filter by words" value={words} onInput={(event) => setWords(event.currentTarget.value)} />
        </label>
        <label>
          <span class="away">Type of event</span>
          <select value={kind} onChange={(event) => setKind(event.currentTarget.value)}>
            <option value="">all types</option>
            {kinds.map((each) => (
              <option key={each} value={each}>
                {each}
              </option>
            ))}
          </select>
        </label>
        <span class="soft small" aria-live="polite">
          {filtered ? `${plural(found.length, "event")} of ${state.entries.length}` : plural(state.entries.length, "event")}
        </span>
      </div>
      {filtered ? (
        <>
          {found.slice(0, most).map((event, i) => (
            <Event key={event.number || i} event={event} state={state} flat beside={found.length} />
          ))}
          <More count={found.length - most} what="event" onMore={() => setMost(most + 4 * PAGE)} />
        </>
      ) : (
        <Branch state={state} under={0} />
      )}
    </section>
  );
}

/** The events below one, some at a time. */
function Branch({ state, under }: { state: State; under: number }) {
  const [most, setMost] = useState(PAGE);
  const below = state.below.get(under) ?? [];
  return (
    <>
      {below.slice(0, most).map((event, i) => (
        <Event key={event.number || i} event={event} state={state} flat={false} beside={below.length} />
      ))}
      <More count={below.length - most} what="event" onMore={() => setMost(most + 4 * PAGE)} />
    </>
  );
}

function Event({ event, state, flat, beside }: { event: Entry; state: State; flat: boolean; beside: number }) {
  const line = lineOf(event, state.ends.get(event.number));
  const branches = !flat && event.number > 0 && state.below.has(event.number);
  const more = line.record !== undefined || event.type === "sample.finished" || event.type === "memory.associated";
  const first = !flat && opensItself(event, state, beside);
  const [open, setOpen] = useState(first);
  const head = (
    <>
      <span class="when">{fixed(event.at_s, 2)} s</span>
      <span class={`kind ${line.tone ?? ""}`.trim()} dir="auto">
        {line.kind}
      </span>{" "}
      <span dir="auto">{line.what}</span>
    </>
  );
  if (!branches && !more) return <div class="leaf">{head}</div>;
  return (
    <details class="event" open={open} onToggle={(toggle) => setOpen(toggle.currentTarget.open)}>
      <summary>{head}</summary>
      {open && (
        <>
          <Body event={event} state={state} record={line.record} />
          {branches && <Branch state={state} under={event.number} />}
        </>
      )}
    </details>
  );
}

function Body({ event, state, record }: { event: Entry; state: State; record: unknown }) {
  if (event.type === "sample.finished") {
    return <SampleText completion={event.completion} writing={state.writings.get(slot(event.parent, event.request, event.sample))} />;
  }
  if (event.type === "memory.associated") {
    return (
      <>
        {event.query !== "" && (
          <div class="soft" dir="auto">
            asked: {event.query}
          </div>
        )}
        <ul class="sources">
          {event.items.map((item, i) => (
            <li key={i} dir="auto">
              <span class="source">{sourceOf(item)}</span> {item.text} <span class="soft">{figure(number(item.score), 2)}</span>
            </li>
          ))}
        </ul>
      </>
    );
  }
  if (record === undefined) return null;
  return (
    <pre class="text" tabIndex={0}>
      {JSON.stringify(record, null, 2)}
    </pre>
  );
}

function opensItself(event: Entry, state: State, beside: number): boolean {
  if (event.type === "sample.finished") {
    const siblings = (state.below.get(event.parent ?? 0) ?? []).filter((each) => each.type === "sample.finished");
    return siblings.length <= MOST_SAMPLES_OPEN && beside <= MOST_BESIDE;
  }
  return event.type === "stage.started" || (CLOSED.has(event.type) && beside <= MOST_BESIDE);
}

function matching(state: State, words: string, kind: string): Entry[] {
  return state.entries.filter((event) => {
    if (kind !== "" && event.type !== kind) return false;
    if (words === "") return true;
    const line = lineOf(event, state.ends.get(event.number));
    return `${line.kind} ${line.what} ${wordsIn(event, line.record)}`.toLowerCase().includes(words);
  });
}

/** What is said in an event beside its line. */
function wordsIn(event: Entry, record: unknown): string {
  if (event.type === "sample.finished") {
    const { text, thought, failure } = event.completion;
    return `${text} ${thought?.text ?? ""} ${failure?.message ?? ""}`;
  }
  if (event.type === "memory.associated") return `${event.query} ${event.items.map((item) => item.text).join(" ")}`;
  return record === undefined ? "" : JSON.stringify(record);
}
