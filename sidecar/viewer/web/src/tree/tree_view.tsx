// A search tree that can be moved, enlarged, folded and walked through by keyboard, and that grows while it is watched.

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { plural, whole as wholeNumber } from "../text/figures";
import { Key } from "./key";
import { CARD, curve, type Layout, layoutOf, RADIUS, type Style } from "./layout";
import { NodeDetails } from "./node_details";
import { DrawnNode } from "./node_shape";
import { linkedNode, setLinkedNode } from "./node_link";
import { mark, MiniMap } from "./mini_map";
import { around, begin, kept, listen, revealing, type View, whole, zoomed } from "./pan_zoom";
import { type Folds, MOST, nearest, openedTo, type Shown, shownOf, UNFOLDED } from "./shown";
import { path, type Tree } from "./tree";
import { colourSource, searchFacts } from "./words";

const LEAST_CARD = 0.68; // a card that would have to be drawn smaller could not be read
const MOST_DRAWN = 320; // above that, what is out of sight is not drawn
const STEP = 1.3;
const FAR = 0.45; // what is drawn smaller has no figures, and is drawn larger than to scale
const MOST_GROWN = { dots: 1.5, path: 2.1 }; // nodes of a layer still lie apart

export function SearchView({ tree }: { tree: Tree }) {
  const name = tree.place > 1 ? `${tree.place}. ${tree.search}` : tree.search;
  return (
    <section class="search">
      <h3>{name}</h3>
      <p class="soft">{searchFacts(tree).join(", ")}</p>
      {tree.nodes.size === 0 ? <p>No node of it was told.</p> : <Desk tree={tree} />}
    </section>
  );
}

function Desk({ tree }: { tree: Tree }) {
  const [folds, setFolds] = useState<Folds>(UNFOLDED);
  const [most, setMost] = useState(MOST);
  const [wish, setWish] = useState<Style | null>(null);
  const [stepped, setStepped] = useState<number | null>(null);
  const [clicked, setClicked] = useState<number | null>(null);
  const [size, setSize] = useState({ width: 760, height: 420 });
  const [, setDrawn] = useState(0);

  const near = useMemo(() => nearest(tree, most), [tree, most]);
  const shown = useMemo(() => shownOf(tree, near, folds), [tree, near, folds]);
  const cards = useMemo(() => layoutOf(shown, "cards"), [shown]);
  const style = wish ?? (whole(cards, { ...size, height: mostHeight() }).k >= LEAST_CARD ? "cards" : "dots");
  const layout = useMemo(() => (style === "cards" ? cards : layoutOf(shown, style)), [shown, cards, style]);
  const least = style === "cards" ? LEAST_CARD : FAR; // what is drawn smaller cannot be read
  const onPath = useMemo(() => new Set(tree.chosenPath), [tree]);
  const source = useMemo(() => colourSource(tree), [tree]);

  const first = tree.chosenPath.at(-1) ?? tree.active ?? tree.roots[0] ?? null;
  const here = stepped !== null && shown.has.has(stepped) ? stepped : first !== null && shown.has.has(first) ? first : (shown.order[0] ?? null);
  const picked = clicked !== null && tree.nodes.has(clicked) ? clicked : first;

  const stage = useRef<HTMLDivElement>(null);
  const svg = useRef<SVGSVGElement>(null);
  const canvas = useRef<SVGGElement>(null);
  const map = useRef<SVGSVGElement>(null);
  const view = useRef<View>({ x: 0, y: 0, k: 1 });
  const own = useRef(false); // whether somebody has moved it: then it stays where it was put
  const dragged = useRef(false);
  const wantsFocus = useRef(false);
  const wantsMiddle = useRef(false);
  const now = useRef({ layout, size });
  now.current = { layout, size };

  const set = (next: View) => {
    view.current = next;
    canvas.current?.setAttribute("transform", `translate(${next.x} ${next.y}) scale(${next.k})`);
    svg.current?.classList.toggle("far", next.k < FAR);
    svg.current?.style.setProperty("--grown", String(Math.min(MOST_GROWN.dots, FAR / next.k)));
    svg.current?.style.setProperty("--path-grown", String(Math.min(MOST_GROWN.path, FAR / next.k)));
    mark(map.current, next, now.current.layout, now.current.size);
    if (shown.order.length > MOST_DRAWN) setDrawn((n) => n + 1);
  };
  const zoom = (factor: number, at = { x: size.width / 2, y: size.height / 2 }) => {
    const next = zoomed(view.current, factor, at, now.current.layout, now.current.size);
    if (Math.abs(next.k - view.current.k) < 1e-9) return false;
    own.current = true;
    set(next);
    return true;
  };
  const fit = () => {
    own.current = true;
    set(whole(layout, size));
  };
  const reveal = (id: number) => {
    const spot = layout.spots.get(id);
    const room = style === "dots" ? { width: 36, height: 52 } : { width: CARD.width / 2 + 8, height: CARD.height };
    if (spot !== undefined) set(revealing(view.current, spot, room, size));
  };

  useLayoutEffect(() => {
    const element = stage.current;
    if (element === null) return undefined;
    const measure = () => {
      const width = element.clientWidth;
      const height = Math.round(Math.min(Math.max(layout.height, 220), mostHeight()));
      setSize((was) => (was.width === width && was.height === height ? was : { width, height }));
    };
    measure();
    const watch = new ResizeObserver(measure);
    watch.observe(element);
    return () => watch.disconnect();
  }, [layout.height]);

  const anchor = tree.active ?? path(tree, first ?? -1)[0] ?? null;
  useLayoutEffect(() => {
    const spot = anchor === null ? undefined : layout.spots.get(anchor);
    if (!own.current) set(begin(layout, size, spot, style === "dots"));
    else set(view.current);
  }, [layout, size, anchor]);

  useLayoutEffect(() => {
    const spot = here === null ? undefined : layout.spots.get(here);
    if (spot === undefined) return;
    if (wantsMiddle.current) {
      wantsMiddle.current = false;
      const all = whole(layout, size);
      set(all.k >= least ? all : around(view.current, spot, least, layout, size));
    }
    if (!wantsFocus.current || here === null) return;
    wantsFocus.current = false;
    reveal(here);
    svg.current?.querySelector<SVGGElement>(`[data-node="${here}"]`)?.focus({ preventScroll: true });
  });

  const arrive = useRef(() => {});
  arrive.current = () => {
    const link = linkedNode(location.hash);
    if (link?.place !== tree.place || !tree.nodes.has(link.node) || link.node === clicked) return;
    visit(link.node);
    stage.current?.scrollIntoView({ block: "center" });
  };
  useEffect(() => arrive.current(), [tree.nodes.size]); // the node may have been told only now
  useEffect(() => {
    const look = () => arrive.current();
    window.addEventListener("hashchange", look);
    return () => window.removeEventListener("hashchange", look);
  }, []);

  const hands = useRef({ zoom, set, layout, size });
  hands.current = { zoom, set, layout, size };
  useEffect(() => {
    const element = svg.current;
    if (element === null) return undefined;
    return listen(element, {
      zoom: (factor, at) => hands.current.zoom(factor, at),
      move: (dx, dy) => {
        own.current = true;
        const { x, y, k } = view.current;
        hands.current.set(kept({ k, x: x + dx, y: y + dy }, hands.current.layout, hands.current.size));
      },
      dragging: (yes) => {
        dragged.current = yes;
      },
    });
  }, []);

  const step = (id: number | null | undefined) => {
    if (id === null || id === undefined || !shown.has.has(id)) return;
    own.current = true;
    wantsFocus.current = true;
    setStepped(id);
    setDrawn((n) => n + 1);
  };
  /** Goes to a node wherever it is: unfolds what hides it, and enlarges what could not be read. */
  const visit = (id: number) => {
    if (!shown.has.has(id)) setFolds(openedTo(tree, folds, id));
    own.current = true;
    wantsFocus.current = true;
    wantsMiddle.current = view.current.k < least || !shown.has.has(id);
    setStepped(id);
    pick(id);
    setDrawn((n) => n + 1);
  };
  const pick = (id: number) => {
    setClicked(id);
    setLinkedNode({ place: tree.place, node: id });
  };
  const fold = (id: number) => setFolds(toggled(folds, shown, id));
  const beside = (by: number) => {
    const spot = here === null ? undefined : layout.spots.get(here);
    return spot === undefined ? undefined : layout.layers[spot.layer]?.[spot.nth + by];
  };
  const onward = () => {
    const below = shown.children.get(here ?? -1) ?? [];
    return below.find((id) => onPath.has(id)) ?? below[0];
  };

  const press = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const onNode = (event.target as Element).closest(".node") !== null;
    const [up, down, left, right] =
      style === "dots"
        ? ["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"]
        : ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"];
    const does: Record<string, () => void> = { "+": () => zoom(STEP), "=": () => zoom(STEP), "-": () => zoom(1 / STEP), "0": fit };
    if (onNode && here !== null) {
      does[up as string] = () => step(tree.parents.get(here));
      does[down as string] = () => step(onward());
      does[left as string] = () => step(beside(-1));
      does[right as string] = () => step(beside(1));
      does["Home"] = () => step(path(tree, here)[0]);
      does["End"] = () => step(tree.chosenPath.at(-1));
      does["Enter"] = () => pick(here);
      does[" "] = () => {
        wantsFocus.current = true;
        fold(here);
      };
    }
    const act = Object.hasOwn(does, event.key) ? does[event.key] : undefined;
    if (act === undefined) return;
    event.preventDefault();
    act();
  };
  const click = (event: MouseEvent) => {
    const dot = (event.target as Element).closest("[data-node]");
    if (dot === null || dragged.current) return;
    const id = Number(dot.getAttribute("data-node"));
    if ((event.target as Element).classList.contains("more")) {
      fold(id);
      return;
    }
    step(id);
    pick(id);
  };

  const drawn = inSight(shown, layout, view.current, size, [here, picked]);
  const edges = useMemo(() => edgesOf(tree, shown, layout, style, onPath), [tree, shown, layout, style, onPath]);
  const label = `Tree of search ${tree.place}, ${tree.search}: ${plural(tree.nodes.size, "node")}`;
  return (
    <div class="desk">
      <div>
        <div class="canvas">
          <div class="stage" ref={stage} onKeyDown={press}>
            <div class="tools">
              {tree.chosenPath.length > 0 && (
                <button
                  type="button"
                  value="chosen"
                  title="The node whose solution was returned"
                  onClick={() => {
                    if (tree.chosen !== null) visit(tree.chosen);
                  }}
                >
                  chosen
                </button>
              )}
              <button type="button" value="style" title="Cards show each step's words" aria-pressed={style === "cards"} onClick={() => {
                own.current = clicked !== null; // then the node that is looked at stays in sight
                wantsMiddle.current = own.current;
                if (own.current) setStepped(picked);
                setWish(style === "cards" ? "dots" : "cards");
              }}>
                words
              </button>
              <button type="button" value="farther" aria-label="Zoom out" title="Zoom out (-)" onClick={() => zoom(1 / STEP)}>
                −
              </button>
              <button type="button" value="nearer" aria-label="Zoom in" title="Zoom in (+)" onClick={() => zoom(STEP)}>
                +
              </button>
              <button type="button" value="fit" title="The whole tree (0)" onClick={fit}>
                whole
              </button>
            </div>
            <svg ref={svg} role="tree" aria-label={label} width={size.width} height={size.height} onClick={click} onDblClick={(event) => {
              const dot = (event.target as Element).closest("[data-node]");
              if (dot !== null) fold(Number(dot.getAttribute("data-node")));
            }}>
              <g class="view" role="presentation" ref={canvas}>
                <path class="edge" d={edges.plain} aria-hidden="true" />
                <path class="edge on" d={edges.on} aria-hidden="true" />
                {drawn.map((id) => {
                  const [node, spot] = [tree.nodes.get(id), layout.spots.get(id)];
                  if (node === undefined || spot === undefined) return null;
                  const parent = tree.parents.get(id) ?? null;
                  const row = parent === null ? shown.roots : (shown.children.get(parent) ?? []);
                  const branches = tree.children.has(id);
                  return (
                    <DrawnNode
                      key={id}
                      tree={tree}
                      node={node}
                      spot={spot}
                      style={style}
                      source={source}
                      hidden={shown.hidden.get(id) ?? 0}
                      open={branches ? shown.children.has(id) : null}
                      onPath={onPath.has(id)}
                      picked={id === picked}
                      here={id === here}
                      siblings={[row.indexOf(id) + 1, row.length]}
                      fromRight={parent !== null && (layout.spots.get(parent)?.x ?? 0) > spot.x + 0.1}
                    />
                  );
                })}
              </g>
            </svg>
          </div>
          <MiniMap layout={layout} onPath={onPath} map={map} onMove={({ x, y }) => {
            own.current = true;
            const { k } = view.current;
            set(kept({ k, x: size.width / 2 - k * x, y: size.height / 2 - k * y }, layout, size));
          }} />
        </div>
        {shown.leftOut > 0 && (
          <p class="hint">
            {plural(shown.leftOut, "node")} of {wholeNumber(tree.nodes.size)} folded away, the nearest to the path are
            drawn.{" "}
            <button type="button" value="all" onClick={() => {
              setFolds(UNFOLDED);
              setMost(Infinity);
            }}>
              draw all
            </button>
          </p>
        )}
        <Key source={source} style={style} notes={tree.notes.size > 0} />
        <p class="legend">
          Drag to move, turn the wheel or pinch to enlarge; click a node for its text. Arrows go from node to node, Enter
          shows one, Space folds what is below it.
        </p>
      </div>
      <NodeDetails tree={tree} id={picked} />
    </div>
  );
}

/** How high a drawing may be on this screen. */
function mostHeight(): number {
  return Math.min(Math.max(260, window.innerHeight * 0.68), 620);
}

/** All edges as one path, and those of the chosen path as another above it. */
function edgesOf(tree: Tree, shown: Shown, layout: Layout, style: Style, onPath: ReadonlySet<number>) {
  const plain: string[] = [];
  const on: string[] = [];
  for (const id of shown.order) {
    const parent = tree.parents.get(id) ?? null;
    const [from, to] = [layout.spots.get(parent ?? -1), layout.spots.get(id)];
    if (parent === null || from === undefined || to === undefined) continue;
    (onPath.has(id) ? on : plain).push(curve(from, to, style)); // who is on the path, its parent is too
  }
  return { plain: plain.join(""), on: on.join("") };
}

/** What has to be drawn: of a large tree only what can be seen, and the nodes that somebody is at. */
function inSight(shown: Shown, layout: Layout, view: View, size: { width: number; height: number }, always: (number | null)[]) {
  if (shown.order.length <= MOST_DRAWN) return shown.order;
  const room = CARD.width + RADIUS;
  return shown.order.filter((id) => {
    const spot = layout.spots.get(id);
    if (spot === undefined) return false;
    const [x, y] = [view.k * spot.x + view.x, view.k * spot.y + view.y];
    return (x > -room && x < size.width + room && y > -room && y < size.height + room) || always.includes(id);
  });
}

/** Folds what is open below a node; else opens all of its children. */
function toggled(folds: Folds, shown: Shown, id: number): Folds {
  const [opened, closed] = [new Set(folds.opened), new Set(folds.closed)];
  if ((shown.hidden.get(id) ?? 0) > 0) {
    if (!closed.delete(id)) opened.add(id);
  } else if (shown.children.has(id)) {
    closed.add(id);
    opened.delete(id);
  }
  return { opened, closed };
}
