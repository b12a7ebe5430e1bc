// Small turns of phrase that several views share.

import type { Verdict } from "../events";

/** A text on one line, cut where it is longer than `most` characters. */
export function shortened(text: string, most = 160): string {
  const line = oneLine(text);
  if (line.length <= most) return line;
  const cut = line.slice(0, most - 1);
  return `${/[\ud800-\udbff]$/.test(cut) ? cut.slice(0, -1) : cut}…`; // no half of a character
}

/** A text on one line. */
export function oneLine(text: string): string {
  return text.split(/\s+/).filter(Boolean).join(" ");
}

/** A name in which underscores stand for spaces. */
export function spaced(name: string): string {
  return name.replaceAll("_", " ");
}

/** A sign for each verdict, for those who do not see its colour. */
export const SIGNS: Record<Verdict, string> = {
  supported: "✓",
  refuted: "✗",
  disputed: "±",
  not_enough_evidence: "?",
  unchecked: "-",
  unparsed: "-",
};

export const MEANINGS: Record<Verdict, string> = {
  supported: "the evidence says so",
  refuted: "the evidence says otherwise",
  disputed: "the evidence contradicts itself",
  not_enough_evidence: "nothing found decides it surely enough",
  unchecked: "the budget did not reach it",
  unparsed: "what judges gave no readable verdict",
};

/** How a verdict is coloured. */
export function tone(verdict: string): string {
  return { supported: "good", refuted: "bad", disputed: "warn" }[verdict] ?? "";
}

/** A source with the place of the quotation in it: `facts.md:41-72`. */
export function placed(source: string, start: number | null, end: number | null): string {
  return start === null || end === null ? source : `${source}:${start}-${end}`;
}

/** JSON with line breaks; anything else as it is, and numbers that would lose digits. */
export function pretty(text: string): string {
  if (/\d{16}/.test(text)) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
