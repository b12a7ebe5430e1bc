// Moves and enlarges a drawing: mouse, wheel, one finger or two. What was at p is drawn at k * p + (x, y), in pixels.

export interface View {
  x: number;
  y: number;
  k: number;
}

export interface Size {
  width: number;
  height: number;
}

const NEAREST = 4;
const SLACK = 4; // pixels that a hand may tremble in a click
const LEGIBLE = 0.5; // a drawing that would be smaller as a whole is begun at one of its nodes
const READING = 0.7; // how large it is then

/** The whole drawing in the middle of the window; never enlarged. */
export function whole(drawing: Size, window: Size): View {
  const k = Math.min(1, window.width / drawing.width, window.height / drawing.height);
  return { k, x: (window.width - k * drawing.width) / 2, y: Math.max(0, (window.height - k * drawing.height) / 2) };
}

/** The whole drawing where it can be read, else as much of it as can be, around a point. */
export function begin(drawing: Size, window: Size, point: { x: number; y: number } | undefined, down: boolean): View {
  const view = whole(drawing, window);
  if (view.k >= LEGIBLE || point === undefined) return view;
  const k = READING;
  const x = down ? window.width / 2 - k * point.x : 24 - k * (point.x - 112);
  const y = down ? 40 - k * point.y : window.height / 2 - k * point.y;
  return kept({ k, x, y }, drawing, window);
}

/** A point in the middle, at least so large that it can be read. */
export function around(view: View, point: { x: number; y: number }, least: number, drawing: Size, window: Size): View {
  const k = view.k < least ? Math.max(READING, least) : view.k;
  return kept({ k, x: window.width / 2 - k * point.x, y: window.height / 2 - k * point.y }, drawing, window);
}

/** A view in which some of the drawing stays in sight. */
export function kept(view: View, drawing: Size, window: Size): View {
  const edge = 40;
  return {
    k: view.k,
    x: Math.min(window.width - edge, Math.max(edge - drawing.width * view.k, view.x)),
    y: Math.min(window.height - edge, Math.max(edge - drawing.height * view.k, view.y)),
  };
}

/** Enlarged by a factor around a point of the window. */
export function zoomed(view: View, factor: number, at: { x: number; y: number }, drawing: Size, window: Size): View {
  const least = Math.min(1, whole(drawing, window).k);
  const k = Math.min(NEAREST, Math.max(least, view.k * factor));
  const scale = k / view.k;
  return kept({ k, x: at.x - (at.x - view.x) * scale, y: at.y - (at.y - view.y) * scale }, drawing, window);
}

/** Moved so far that a point of the drawing is in sight, with room around it. */
export function revealing(view: View, point: { x: number; y: number }, room: Size, window: Size): View {
  const [px, py] = [view.k * point.x + view.x, view.k * point.y + view.y];
  const shift = (at: number, space: number, end: number) =>
    2 * space > end ? end / 2 - at : at < space ? space - at : at > end - space ? end - space - at : 0;
  return {
    k: view.k,
    x: view.x + shift(px, room.width * view.k, window.width),
    y: view.y + shift(py, room.height * view.k, window.height),
  };
}

interface Hands {
  zoom(factor: number, at: { x: number; y: number }): boolean;
  move(dx: number, dy: number): void;
  /** Whether what is under way is a drag. */
  dragging(yes: boolean): void;
}

/** Listens to wheel, mouse and fingers over an element; returns what ends that. */
export function listen(element: SVGSVGElement, hands: Hands): () => void {
  const fingers = new Map<number, { x: number; y: number }>();
  let moves = 0;
  const place = (event: MouseEvent) => {
    const box = element.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const wheel = (event: WheelEvent) => {
    const lines = event.deltaMode === 1 ? 16 : 1;
    const factor = Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0015));
    if (hands.zoom(factor, place(event))) event.preventDefault(); // at its end, the page scrolls
  };
  const lift = (event: PointerEvent) => {
    fingers.delete(event.pointerId);
    if (fingers.size === 0) element.classList.remove("moving");
  };
  const down = (event: PointerEvent) => {
    if (event.button !== 0) return;
    if (fingers.size === 0) {
      moves = 0;
      hands.dragging(false);
    }
    fingers.set(event.pointerId, place(event));
  };
  const move = (event: PointerEvent) => {
    const was = fingers.get(event.pointerId);
    if (was === undefined) return;
    if (event.buttons === 0) {
      lift(event); // let go of outside the drawing
      return;
    }
    const is = place(event);
    if (moves === 0 && fingers.size === 1 && Math.hypot(is.x - was.x, is.y - was.y) < SLACK) return;
    if (moves === 0) {
      element.setPointerCapture(event.pointerId);
      element.classList.add("moving");
      hands.dragging(true);
    }
    moves += 1;
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    fingers.set(event.pointerId, is);
    if (other === undefined) {
      hands.move(is.x - was.x, is.y - was.y);
      return;
    }
    const apart = Math.hypot(was.x - other.x, was.y - other.y);
    hands.move((is.x - was.x) / 2, (is.y - was.y) / 2);
    const middle = { x: (is.x + other.x) / 2, y: (is.y + other.y) / 2 };
    if (apart > 0) hands.zoom(Math.hypot(is.x - other.x, is.y - other.y) / apart, middle);
  };
  element.addEventListener("wheel", wheel, { passive: false });
  element.addEventListener("pointerdown", down);
  element.addEventListener("pointermove", move);
  element.addEventListener("pointerup", lift);
  element.addEventListener("pointercancel", lift);
  return () => {
    element.removeEventListener("wheel", wheel);
    element.removeEventListener("pointerdown", down);
    element.removeEventListener("pointermove", move);
    element.removeEventListener("pointerup", lift);
    element.removeEventListener("pointercancel", lift);
  };
}
