// A search and its nodes in words and figures.

import { type AssociatedItem, number, type SearchNode } from "../events";
import { figure, plural, whole } from "../text/figures";
import { oneLine, spaced } from "../text/words";
import { path, scoreOf, type Tree, valueNames } from "./tree";

export const SHADES = 10;
const OWN_FIGURES = new Set(["continued", "continues", "notes", "score", "step", "tokens", "turn"]);

/** What there is to say of a search as a whole: how it ended, how large its tree is, what it cost. */
export function searchFacts(tree: Tree): string[] {
  const complete = [...tree.nodes.values()].filter((node) => node.terminal).length;
  const facts = [tree.stopped === null ? "not ended" : `stopped: ${tree.stopped}`, plural(tree.nodes.size, "node")];
  facts.push(`${whole(complete)} complete`, `${whole(tree.expanded.length)} expanded`);
  if (tree.discarded > 0) facts.push(`${whole(tree.discarded)} discarded`);
  if (tree.stopped !== null && tree.chosen === null) facts.push("none was chosen");
  else if (tree.chosen !== null && tree.chosenPath.length === 0) facts.push(`the chosen node ${tree.chosen} was not told`);
  for (const [name, count] of Object.entries(tree.cost)) if (count > 0) facts.push(`${spaced(name)} ${whole(count)}`);
  return facts;
}

/** What a node is, in words. */
export function kindOf(node: SearchNode): string {
  if (node.forced) return "final answer asked for";
  if (node.terminal) return "complete";
  return node.parent === null ? "start" : "unfinished";
}

/** A node's step on one line; where there is none, what the node is. */
export function stepWords(tree: Tree, node: SearchNode): string {
  const words = oneLine(node.text);
  if (tree.orphans.has(node.id)) return `[continues node ${node.parent}, which was not told] ${words}`;
  return words || (node.parent === null ? "start" : "[nothing but white space]");
}

/** A node in a line, for who hears the page. */
export function spoken(tree: Tree, node: SearchNode, hidden: number): string {
  const parts = [`node ${node.id}`, kindOf(node)];
  const score = scoreOf(node);
  if (score !== null) parts.push(`score ${figure(score, 2)}`);
  const turns = tree.turns.get(node.id);
  if (turns !== undefined) parts.push(`continued as number ${turns[0]}`);
  const notes = tree.notes.get(node.id)?.length ?? 0;
  if (notes > 0) parts.push(plural(notes, "note"));
  if (hidden > 0) parts.push(`${plural(hidden, "node")} folded away below`);
  if (node.id === tree.chosen) parts.push("chosen");
  else if (tree.chosenPath.includes(node.id)) parts.push("on the chosen path");
  else if (node.id === tree.active) parts.push("at work");
  return parts.join(", ");
}

/** The head of a node's details. */
export function headOf(tree: Tree, node: SearchNode): string {
  return `node ${node.id}, step ${node.depth}, ${kindOf(node)}${node.id === tree.chosen ? ", chosen" : ""}`;
}

/** Names and figures of what is known of a node. */
export function nodeFacts(tree: Tree, node: SearchNode): [name: string, value: string][] {
  const facts: [string, string][] = [];
  const score = scoreOf(node);
  if (score !== null) facts.push(["score", figure(score, 3)]);
  for (const [name, value] of Object.entries(node.values)) {
    facts.push([OWN_FIGURES.has(name) ? `${name} value` : name, figure(number(value))]);
  }
  facts.push(["tokens", whole(node.tokens)]);
  const turns = tree.turns.get(node.id);
  const first = `#${turns?.[0]}`;
  facts.push(["continued", turns === undefined ? "never" : turns.length > 1 ? `${first} x${turns.length}` : first]);
  if (tree.orphans.has(node.id)) facts.push(["continues", `node ${node.parent}, which was not told`]);
  return facts;
}

/** The solution up to a node, without the node's own step: steps that nothing parts are parted by a blank line. */
export function before(tree: Tree, id: number): string {
  const texts = path(tree, id).map((each) => tree.nodes.get(each)?.text ?? "");
  return texts
    .slice(0, -1)
    .map((text, i) => (text !== "" && texts[i + 1] !== "" && !/\s$/.test(text) ? `${text}\n\n` : text))
    .join("");
}

/** Where a piece of knowledge comes from. */
export function sourceOf(item: AssociatedItem): string {
  return item.source_id || (item.source_kind === "self" ? "the model itself" : item.source_kind);
}

/** What nodes are coloured by: their score; else the first value that lies in [0, 1] everywhere; else nothing. */
export function colourSource(tree: Tree): string | null {
  const nodes = [...tree.nodes.values()];
  if (nodes.some((node) => scoreOf(node) !== null)) return "score";
  const within = (value: number | null) => value !== null && value >= 0 && value <= 1;
  const fits = (name: string) => nodes.every((node) => !(name in node.values) || within(number(node.values[name])));
  return valueNames(tree).find(fits) ?? null;
}

/** What a node is coloured by; null where it has none. */
export function colourValue(node: SearchNode, source: string | null): number | null {
  return source === "score" ? scoreOf(node) : source === null ? null : number(node.values[source]);
}

/** The class of a value in [0, 1], from 0. */
export function shade(value: number): number {
  return Math.min(SHADES - 1, Math.max(0, Math.floor(value * SHADES)));
}
