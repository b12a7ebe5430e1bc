// Which nodes of a large tree are drawn: the chosen path, those nearest to it, and what somebody opened.

import { scoreOf, type Tree } from "./tree";

/** Most nodes off the chosen path that are drawn unasked. */
export const MOST = 240;

/** What somebody opened and closed by hand. */
export interface Folds {
  opened: ReadonlySet<number>;
  closed: ReadonlySet<number>;
}

export const UNFOLDED: Folds = { opened: new Set(), closed: new Set() };

/** The nodes that are drawn, each before its children, and how many are left out below each. */
export interface Shown {
  order: number[];
  has: ReadonlySet<number>;
  children: ReadonlyMap<number, number[]>;
  hidden: ReadonlyMap<number, number>;
  roots: number[];
  leftOut: number;
}

/**
 * The nodes nearest to the path that was chosen (or, while none is, to the one at work), the better scored first.
 * With a node, the one that it continues is always among them.
 */
export function nearest(tree: Tree, most: number): Set<number> {
  const path = tree.chosenPath.length > 0 || tree.active === null ? tree.chosenPath : pathTo(tree, tree.active);
  const found = new Set(path);
  let layer: number[] = path;
  let rivals = tree.roots.filter((root) => !found.has(root));
  let room = most;
  while (room > 0 && (layer.length > 0 || rivals.length > 0)) {
    for (const id of layer) for (const child of tree.children.get(id) ?? []) if (!found.has(child)) rivals.push(child);
    const rank = (id: number) => rankOf(scoreOf(tree.nodes.get(id)));
    rivals.sort((a, b) => rank(b) - rank(a)); // of equals those told first
    layer = rivals.slice(0, room);
    for (const id of layer) found.add(id);
    room -= layer.length;
    rivals = [];
  }
  return found;
}

/** What is drawn, once folds are made. */
export function shownOf(tree: Tree, near: ReadonlySet<number>, folds: Folds): Shown {
  const has = new Set<number>();
  const children = new Map<number, number[]>();
  const order: number[] = [];
  const roots = tree.roots.filter((root) => near.has(root) || folds.opened.has(-1));
  const waiting = roots.slice().reverse();
  for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
    order.push(id);
    has.add(id);
    const here = id;
    const below = folds.closed.has(here)
      ? []
      : (tree.children.get(here) ?? []).filter((child) => near.has(child) || folds.opened.has(here));
    if (below.length > 0) children.set(here, below);
    for (let i = below.length - 1; i >= 0; i--) waiting.push(below[i] as number);
  }
  return { order, has, children, hidden: hiddenBelow(tree, has), roots, leftOut: tree.nodes.size - has.size };
}

/** Folds that leave a node drawn: everything that hides it is opened. */
export function openedTo(tree: Tree, folds: Folds, id: number): Folds {
  const [opened, closed] = [new Set(folds.opened), new Set(folds.closed)];
  const way = pathTo(tree, id);
  if (!tree.roots.includes(way[0] ?? NaN)) return folds;
  opened.add(-1);
  for (const each of way.slice(0, -1)) {
    opened.add(each);
    closed.delete(each);
  }
  return { opened, closed };
}

function hiddenBelow(tree: Tree, has: ReadonlySet<number>): Map<number, number> {
  const hidden = new Map<number, number>();
  for (const id of [...tree.levels.keys()].reverse()) {
    const parent = tree.parents.get(id) ?? null;
    if (has.has(id) || parent === null) continue;
    hidden.set(parent, (hidden.get(parent) ?? 0) + (hidden.get(id) ?? 0) + 1);
  }
  return hidden;
}

function pathTo(tree: Tree, id: number): number[] {
  const way: number[] = [];
  for (let at: number | null = id; at !== null; at = tree.parents.get(at) ?? null) way.push(at);
  return way.reverse();
}

/** A score that is none, or no number, comes last. */
function rankOf(score: number | null): number {
  return score === null || Number.isNaN(score) ? -1 : score;
}
