// Where nodes lie: layers by steps, parents centred over their children (d3-hierarchy's tidy tree).

import { hierarchy, tree as tidy } from "d3-hierarchy";
import type { Shown } from "./shown";

export interface Spot {
  x: number;
  y: number;
  layer: number;
  /** Its place in its layer, from the left or from the top. */
  nth: number;
}

export interface Layout {
  spots: ReadonlyMap<number, Spot>;
  layers: number[][];
  width: number;
  height: number;
}

/** How nodes are drawn: as dots from the top down, or as cards with their words, from left to right. */
export type Style = "dots" | "cards";

/** Distances between neighbours and between layers, and the margin, in units of the drawing. */
const SIZES: Record<Style, { across: number; down: number; margin: [x: number, y: number] }> = {
  dots: { across: 50, down: 76, margin: [34, 38] },
  cards: { across: 58, down: 246, margin: [112, 40] },
};
export const CARD = { width: 206, height: 46 };
export const RADIUS = 16;

const ABOVE = -1; // one more node above the roots, which is not drawn

export function layoutOf(shown: Shown, style: Style): Layout {
  const { across, down, margin } = SIZES[style];
  const top = hierarchy<number>(ABOVE, (id) => (id === ABOVE ? shown.roots : shown.children.get(id)));
  tidy<number>().nodeSize([1, 1]).separation(() => 1)(top);
  let left = Infinity;
  let right = -Infinity;
  let deepest = 0;
  const layers: number[][] = [];
  const placed: { id: number; at: number; layer: number }[] = [];
  top.each((node) => {
    if (node.data === ABOVE) return;
    const at = (node as typeof node & { x: number }).x;
    const layer = node.depth - 1;
    placed.push({ id: node.data, at, layer });
    left = Math.min(left, at);
    right = Math.max(right, at);
    deepest = Math.max(deepest, layer);
    (layers[layer] ??= []).push(node.data);
  });
  const span = placed.length === 0 ? 0 : right - left;
  const spots = new Map<number, Spot>();
  for (const { id, at, layer } of placed) {
    const beside = (at - left) * across;
    const along = layer * down;
    spots.set(id, {
      x: margin[0] + (style === "dots" ? beside : along),
      y: margin[1] + (style === "dots" ? along : beside),
      layer,
      nth: 0,
    });
  }
  const beside = (id: number) => spots.get(id)?.[style === "dots" ? "x" : "y"] ?? 0;
  for (const layer of layers) {
    layer.sort((a, b) => beside(a) - beside(b));
    layer.forEach((id, nth) => {
      const spot = spots.get(id);
      if (spot !== undefined) spot.nth = nth;
    });
  }
  const [one, other] = [span * across, deepest * down];
  return {
    spots,
    layers,
    width: 2 * margin[0] + (style === "dots" ? one : other),
    height: 2 * margin[1] + (style === "dots" ? other : one),
  };
}

/** The line from a node to one that continues it. */
export function curve(from: Spot, to: Spot, style: Style): string {
  if (style === "dots") {
    const bend = (from.y + to.y) / 2;
    return `M${from.x} ${from.y}C${from.x} ${bend} ${to.x} ${bend} ${to.x} ${to.y}`;
  }
  const [start, end] = [from.x + CARD.width / 2, to.x - CARD.width / 2];
  const bend = (start + end) / 2;
  return `M${start} ${from.y}C${bend} ${from.y} ${bend} ${to.y} ${end} ${to.y}`;
}
