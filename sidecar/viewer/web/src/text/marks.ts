// An answer cut where its claims begin and end.

import type { CheckedClaim, Verdict } from "../events";
import { Places } from "./codepoints";
import type { Place } from "./markdown";

const GRAVITY: Verdict[] = ["supported", "not_enough_evidence", "unparsed", "unchecked", "disputed", "refuted"];

/** A stretch of the answer: the claims that it is part of, the gravest verdict first, and those that end with it. */
export interface Piece {
  text: string;
  claims: number[];
  ends: number[];
}

/**
 * The answer as stretches, each within the same claims from its beginning to its end.
 *
 * Claims without a place, or with one that is none of the text's, are part of no stretch.
 */
export function pieces(text: string, claims: readonly CheckedClaim[]): Piece[] {
  const places = new Places(text);
  const begins = new Map<number, number[]>();
  const ends = new Map<number, number[]>();
  const cuts = new Set([0, places.length]);
  claims.forEach(({ start, end }, number) => {
    if (start === null || end === null || start < 0 || start >= end || end > places.length) return;
    begins.set(start, [...(begins.get(start) ?? []), number]);
    ends.set(end, [...(ends.get(end) ?? []), number]);
    cuts.add(start).add(end);
  });
  const sorted = [...cuts].sort((a, b) => a - b);
  const found: Piece[] = [];
  const inside = new Set<number>();
  sorted.slice(1).forEach((end, i) => {
    const start = sorted[i] ?? 0;
    for (const number of ends.get(start) ?? []) inside.delete(number);
    for (const number of begins.get(start) ?? []) inside.add(number);
    const gravity = (number: number) => GRAVITY.indexOf(claims[number]?.verdict ?? "unchecked");
    const gravest = [...inside].sort((a, b) => gravity(b) - gravity(a) || a - b);
    found.push({ text: places.slice(start, end), claims: gravest, ends: ends.get(end) ?? [] });
  });
  return found;
}

/** The stretches of a part of the answer, and the numbers that end in it or before the next one; one if it cannot be cut. */
export function within(stretches: readonly Piece[], words: string | null, { since, start, end, next }: Place): Piece[] {
  const found: Piece[] = [];
  let at = 0;
  for (const piece of stretches) {
    const [from, to] = [at, at + piece.text.length];
    at = to;
    const ends = to > since && to <= next ? piece.ends : [];
    const inside = from < end && to > start;
    if (!inside && ends.length === 0) continue;
    const text = words === null || !inside ? "" : words.slice(Math.max(from, start) - start, Math.min(to, end) - start);
    found.push({ text, claims: inside ? piece.claims : [], ends });
  }
  if (words !== null) return found;
  const claims = [...new Set(found.flatMap((piece) => piece.claims))];
  return [{ text: "", claims, ends: found.flatMap((piece) => piece.ends) }];
}
