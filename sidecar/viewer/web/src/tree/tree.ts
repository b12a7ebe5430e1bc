// The tree that a search grew. The trace may be incomplete: nodes whose parents were never told, parents that lead in
// a circle, a search without an end. All of that gives a tree; nothing here recurses, and all of it takes linear time.

import { type AssociatedItem, number, type SearchNode } from "../events";
import type { Search } from "../run/state";

export interface Tree {
  search: string;
  /** Its place among the run's searches, from 1, by when they began. */
  place: number;
  /** The nodes by id, as last told, in the order in which they were first told. */
  nodes: ReadonlyMap<number, SearchNode>;
  /** Parent of each node; null for a root and for an orphan. */
  parents: ReadonlyMap<number, number | null>;
  children: ReadonlyMap<number, number[]>;
  roots: number[];
  /** Roots that name a parent which was never told, or which descends from them. */
  orphans: ReadonlySet<number>;
  levels: ReadonlyMap<number, number>;
  expanded: readonly number[];
  /** When each expanded node was continued: its places in `expanded`, from 1. */
  turns: ReadonlyMap<number, number[]>;
  discarded: number;
  stopped: string | null;
  chosen: number | null;
  /** The known nodes from a root to the chosen one. */
  chosenPath: number[];
  cost: Record<string, number>;
  notes: ReadonlyMap<number, AssociatedItem[]>;
  /** The node at work: the leaf selected last, or the one continued last; null once the search has ended. */
  active: number | null;
}

export function treeOf(search: Search, place: number): Tree {
  const { nodes, expanded, end } = search;
  const parents = parentsOf(nodes);
  const children = new Map<number, number[]>();
  const roots: number[] = [];
  for (const [id, parent] of parents) {
    if (parent === null) roots.push(id);
    else push(children, parent, id);
  }
  const turns = new Map<number, number[]>();
  expanded.forEach((id, i) => push(turns, id, i + 1));
  const chosen = end?.chosen ?? null;
  const at = search.selected.at(-1) ?? expanded.at(-1);
  const levels = new Map<number, number>();
  const tree: Tree = {
    search: search.search,
    place,
    nodes,
    parents,
    children,
    roots,
    orphans: new Set(roots.filter((id) => nodes.get(id)?.parent !== null)),
    levels,
    expanded,
    turns,
    discarded: search.discarded,
    stopped: end?.stopped ?? null,
    chosen,
    chosenPath: chosen !== null && nodes.has(chosen) ? pathIn(parents, chosen) : [],
    cost: end?.cost ?? {},
    notes: search.notes,
    active: end === null && at !== undefined && nodes.has(at) ? at : null,
  };
  for (const id of walk(tree)) {
    const parent = parents.get(id) ?? null;
    levels.set(id, parent === null ? 0 : (levels.get(parent) ?? 0) + 1);
  }
  return tree;
}

/** The nodes from a root to this one. */
export function path(tree: Tree, id: number): number[] {
  return pathIn(tree.parents, id);
}

/** Each node before its children, siblings in order. */
export function* walk(tree: Pick<Tree, "roots" | "children">): Generator<number> {
  const waiting = tree.roots.slice().reverse();
  for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
    yield id;
    const below = tree.children.get(id) ?? [];
    for (let i = below.length - 1; i >= 0; i--) waiting.push(below[i] as number);
  }
}

export function scoreOf(node: SearchNode | undefined): number | null {
  return node === undefined ? null : number(node.score);
}

/** Names of what the search orders its nodes by, in the order in which they were first told. */
export function valueNames(tree: Tree): string[] {
  const names = new Set<string>();
  for (const node of tree.nodes.values()) for (const name of Object.keys(node.values)) names.add(name);
  return [...names];
}

/** Parents such that each node leads up to a root: unknown ones are left away, and circles are cut. */
function parentsOf(nodes: ReadonlyMap<number, SearchNode>): Map<number, number | null> {
  const parents = new Map<number, number | null>();
  for (const [id, node] of nodes) parents.set(id, node.parent !== null && nodes.has(node.parent) ? node.parent : null);
  const leadsUp = new Set<number>();
  for (const id of nodes.keys()) {
    const way = new Set<number>();
    let at: number | null = id;
    while (at !== null && !leadsUp.has(at)) {
      if (way.has(at)) {
        parents.set(at, null);
        break;
      }
      way.add(at);
      at = parents.get(at) ?? null;
    }
    for (const each of way) leadsUp.add(each);
  }
  return parents;
}

function pathIn(parents: ReadonlyMap<number, number | null>, id: number): number[] {
  const backwards: number[] = [];
  for (let at: number | null = id; at !== null; at = parents.get(at) ?? null) backwards.push(at);
  return backwards.reverse();
}

function push(map: Map<number, number[]>, key: number, value: number): void {
  const known = map.get(key);
  if (known === undefined) map.set(key, [value]);
  else known.push(value);
}
