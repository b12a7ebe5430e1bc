// A passage that was looked at for a claim, with what is quoted of it.

import { list, number, object, type Report, text } from "../events";
import { Places } from "../text/codepoints";
import { fixed } from "../text/figures";
import { placed } from "../text/words";

/** Characters of a passage that are shown on each side of what is quoted of it. */
const AROUND = 600;

interface Quoted {
  passage: Report;
  span: Report | null;
  pair: Report | null;
}

/** The passages of a claim's record, each with what was said of it. */
export function quotedOf(report: Report): Quoted[] {
  const pairs = new Map(list(report["pairs"]).map(object).map((pair) => [text(pair["passage"]), pair]));
  return list(report["passages"]).map(object).map((passage) => {
    const pair = pairs.get(text(passage["id"])) ?? null;
    const span = pair === null || pair["span"] === null || pair["span"] === undefined ? null : object(pair["span"]);
    return { passage, span, pair };
  });
}

export function Passage({ quoted: { passage, span, pair } }: { quoted: Quoted }) {
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
