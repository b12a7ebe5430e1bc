// A passage that was looked at for a claim, with what is quoted of it.

import { list, number, object, type Report, text } from "../events";
import { Places } from "../text/codepoints";
import { fixed } from "../text/figures";
import { placed } from "../text/words";

/** Characters of a passage that are shown on each side of what is quoted of it. */
const AROUND = 600;

export interface Quoted {
  passage: Report;
  span: Report | null;
  pair: Report | null;
  /** Where else the same is quoted. */
  also: string[];
}

/** The passages of a claim's record, each with what was said of it. */
export function quotedOf(report: Report): Quoted[] {
  const pairs = new Map(list(report["pairs"]).map(object).map((pair) => [text(pair["passage"]), pair]));
  return list(report["passages"]).map(object).map((passage) => {
    const pair = pairs.get(text(passage["id"])) ?? null;
    const span = pair === null || pair["span"] === null || pair["span"] === undefined ? null : object(pair["span"]);
    return { passage, span, pair, also: [] };
  });
}

/** Quotations, each sentence once: with the other places that have it, those that overlap as one. */
export function withoutRepeats(quoted: readonly Quoted[]): Quoted[] {
  const kept: Quoted[] = [];
  for (const each of quoted) {
    const at = kept.findIndex((other) => textOf(other) === textOf(each) || overlap(rangeOf(other), rangeOf(each)));
    const known = kept[at];
    if (known === undefined) {
      kept.push(each);
      continue;
    }
    const [a, b] = [rangeOf(known), rangeOf(each)];
    if (overlap(a, b)) kept[at] = { ...known, span: widened(known, Math.min(a.start, b.start), Math.max(a.end, b.end)) };
    else kept[at] = { ...known, also: [...known.also, placed(b.source, b.known ? b.start : null, b.known ? b.end : null)] };
  }
  return kept;
}

interface Range {
  source: string;
  /** Whether the passage's place in its document is known. */
  known: boolean;
  start: number;
  end: number;
}

function rangeOf({ passage, span }: Quoted): Range {
  const first = number(passage["start"]);
  const start = (first ?? 0) + (number(span?.["start"]) ?? 0);
  const end = (first ?? 0) + (number(span?.["end"]) ?? 0);
  return { source: text(passage["source"]), known: first !== null, start, end };
}

function overlap(a: Range, b: Range): boolean {
  return a.known && b.known && a.source === b.source && a.start < b.end && b.start < a.end;
}

/** A quotation's span, from one place of the document to another, as far as its passage has them. */
function widened({ passage, span }: Quoted, from: number, to: number): Report {
  const places = new Places(text(passage["text"]));
  const first = number(passage["start"]) ?? 0;
  const start = Math.max(0, from - first);
  const end = Math.min(places.length, to - first);
  return { ...span, start, end, text: places.slice(start, end) };
}

function textOf({ span }: Quoted): string {
  return text(span?.["text"]);
}

export function Passage({ quoted: { passage, span, pair, also } }: { quoted: Quoted }) {
  const places = new Places(text(passage["text"]));
  const start = span === null ? 0 : (number(span["start"]) ?? 0);
  const end = span === null ? 0 : (number(span["end"]) ?? 0);
  const first = number(passage["start"]);
  const from = first === null ? null : first + start;
  const to = from === null ? null : from + (span === null ? places.length : end - start);
  const title = text(passage["title"]);
  return (
    <div>
      <span class="source">{placed(text(passage["source"]), from, to)}</span>
      {also.map((place) => (
        <span class="source" key={place}>
          , {place}
        </span>
      ))}
      {title !== "" && <span class="soft"> · {title}</span>}
      {pair !== null && <span class="soft"> · {saidOf(pair)}</span>}
      <blockquote dir="auto">
        {start > AROUND ? `…${places.slice(start - AROUND, start)}` : places.slice(0, start)}
        {span !== null && <mark>{text(span["text"])}</mark>}
        {places.length - end > AROUND ? `${places.slice(end, end + AROUND)}…` : places.slice(end, places.length)}
      </blockquote>
    </div>
  );
}

function saidOf(pair: Report): string {
  const probs = list(pair["probs"]).map((each) => number(each) ?? 0);
  const [s, r, z] = probs;
  const said =
    s === undefined || r === undefined || z === undefined
      ? "no readable verdict"
      : `supports ${fixed(s, 2)}, refutes ${fixed(r, 2)}, says nothing ${fixed(z, 2)}`;
  return `${said}; weight ${fixed(number(pair["weight"]) ?? 1, 2)}`;
}
