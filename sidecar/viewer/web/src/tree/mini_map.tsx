// A small picture of the whole drawing with the part of it that is in sight, which can be dragged.

import { useMemo } from "preact/hooks";
import type { Layout } from "./layout";
import type { Size, View } from "./pan_zoom";

const MOST: Size = { width: 168, height: 104 };
const LEAST = 28; // a chain is not drawn to scale

interface Props {
  layout: Layout;
  onPath: ReadonlySet<number>;
  /** Of the element: the drawing's part in sight is set on its rectangle by `mark`. */
  map: { current: SVGSVGElement | null };
  /** Brings a point of the drawing into the middle. */
  onMove: (point: { x: number; y: number }) => void;
}

export function MiniMap({ layout, onPath, map, onMove }: Props) {
  const { width, height } = sizeOf(layout);
  const [plain, on] = useMemo(() => {
    const dots: [string[], string[]] = [[], []];
    for (const [id, { x, y }] of layout.spots) dots[onPath.has(id) ? 1 : 0].push(`M${Math.round(x)} ${Math.round(y)}h0`);
    return [dots[0].join(""), dots[1].join("")];
  }, [layout, onPath]);
  const move = (event: PointerEvent & { currentTarget: SVGSVGElement }) => {
    if (event.buttons === 0) return;
    const box = event.currentTarget.getBoundingClientRect();
    if (event.type === "pointerdown") event.currentTarget.setPointerCapture(event.pointerId);
    onMove({ x: ((event.clientX - box.left) * layout.width) / box.width, y: ((event.clientY - box.top) * layout.height) / box.height });
  };
  return (
    <svg class="map" ref={map} aria-hidden="true" width={width} height={height} viewBox={`0 0 ${layout.width} ${layout.height}`} preserveAspectRatio="none" onPointerDown={move} onPointerMove={move}>
      <path class="all" d={plain} />
      <path class="all on" d={on} />
      <rect class="sight" />
    </svg>
  );
}

function sizeOf({ width, height }: Size): Size {
  const scale = Math.min(MOST.width / width, MOST.height / height);
  return { width: Math.max(LEAST, width * scale), height: Math.max(LEAST, height * scale) };
}

/** Marks the part that is in sight; the map is hidden where that is everything. */
export function mark(map: SVGSVGElement | null, view: View, drawing: Size, window: Size): void {
  if (map === null) return;
  const [left, top] = [Math.max(0, -view.x / view.k), Math.max(0, -view.y / view.k)];
  const right = Math.min(drawing.width, (window.width - view.x) / view.k);
  const bottom = Math.min(drawing.height, (window.height - view.y) / view.k);
  map.classList.toggle("gone", right - left > 0.98 * drawing.width && bottom - top > 0.98 * drawing.height);
  const sight = map.querySelector("rect");
  for (const [name, value] of Object.entries({ x: left, y: top, width: right - left, height: bottom - top })) sight?.setAttribute(name, String(Math.max(0, value)));
}
