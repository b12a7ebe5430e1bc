// One node of the drawing: as a dot with its figure, or as a card with its words.

import type { SearchNode } from "../events";
import { short } from "../text/figures";
import { shortened } from "../text/words";
import { CARD, RADIUS, type Spot, type Style } from "./layout";
import type { Tree } from "./tree";
import { colourValue, shade, spoken, stepWords } from "./words";

const COLUMNS = 26; // characters of a card's line
const TOOLTIP = 200;

interface Props {
  tree: Tree;
  node: SearchNode;
  spot: Spot;
  style: Style;
  source: string | null;
  hidden: number;
  /** Whether it can be folded, and is. */
  open: boolean | null;
  onPath: boolean;
  picked: boolean;
  here: boolean;
  siblings: [nth: number, of: number];
  /** Whether the line from its parent comes from the right. */
  fromRight: boolean;
}

export function DrawnNode(props: Props) {
  const { tree, node, spot, style, source, hidden, open, onPath, picked, here } = props;
  const value = colourValue(node, source);
  const turns = tree.turns.get(node.id);
  const classes = ["node", style, value === null || !Number.isFinite(value) ? "blank" : `c${shade(value)}`];
  if (turns === undefined) classes.push("open");
  if (onPath) classes.push("on");
  if (picked) classes.push("picked");
  if (node.id === tree.active) classes.push("active");
  return (
    <g
      class={classes.join(" ")}
      data-node={node.id}
      role="treeitem"
      aria-level={spot.layer + 1}
      aria-posinset={props.siblings[0]}
      aria-setsize={props.siblings[1]}
      aria-selected={picked}
      aria-expanded={open ?? undefined}
      aria-label={spoken(tree, node, hidden)}
      tabindex={here ? 0 : -1}
      transform={`translate(${round(spot.x)} ${round(spot.y)})`}
    >
      <title>{shortened(stepWords(tree, node), TOOLTIP)}</title>
      <g aria-hidden="true">{style === "dots" ? <Dot {...props} value={value} /> : <Card {...props} value={value} />}</g>
    </g>
  );
}

function Dot({ tree, node, value, hidden, fromRight }: Props & { value: number | null }) {
  const turns = tree.turns.get(node.id);
  const notes = tree.notes.get(node.id)?.length ?? 0;
  const at = fromRight ? 4 - RADIUS : RADIUS - 4; // beside its edge
  return (
    <>
      <Shape node={node} />
      <text class="figure">{short(value)}</text>
      {turns !== undefined && (
        <text class={fromRight ? "turn left" : "turn"} x={at} y={-RADIUS - 4}>
          #{turns[0]}
        </text>
      )}
      {notes > 0 && (
        <text class="turn note" x={RADIUS - 4} y={RADIUS + 5}>
          +{notes}
        </text>
      )}
      {node.id === tree.chosen && (
        <text class="tick" y={RADIUS + 16}>
          ✓
        </text>
      )}
      {hidden > 0 && (
        <text class="more" x={-RADIUS + 2} y={RADIUS + 7}>
          {hidden} more
        </text>
      )}
    </>
  );
}

function Shape({ node }: { node: SearchNode }) {
  if (node.forced) {
    const reach = RADIUS + 4;
    return <path class="shape" d={`M0 ${-reach}L${reach} 0L0 ${reach}L${-reach} 0Z`} />;
  }
  if (node.terminal) {
    const reach = RADIUS - 1;
    return <rect class="shape" x={-reach} y={-reach} width={2 * reach} height={2 * reach} rx={3} />;
  }
  return <circle class="shape" r={RADIUS} />;
}

function Card({ tree, node, value, hidden }: Props & { value: number | null }) {
  const [left, top] = [-CARD.width / 2, -CARD.height / 2];
  const [first, second] = twoLines(stepWords(tree, node));
  const turns = tree.turns.get(node.id);
  const notes = tree.notes.get(node.id)?.length ?? 0;
  const marks = [node.forced ? "◆" : node.terminal ? "■" : "", node.id === tree.chosen ? "✓" : ""].join("");
  const small = [turns === undefined ? "" : `#${turns[0]}`, notes > 0 ? `+${notes}` : ""].filter(Boolean).join(" ");
  return (
    <>
      <rect class="back" x={left} y={top} width={CARD.width} height={CARD.height} rx={7} />
      <path class="shape" d={`M${left + 7} ${top}h29v${CARD.height}h-29a7 7 0 0 1 -7 -7v${14 - CARD.height}a7 7 0 0 1 7 -7Z`} />
      <text class="figure" x={left + 18} y={marks === "" ? 0 : -7}>
        {short(value)}
      </text>
      {marks !== "" && (
        <text class="figure mark" x={left + 18} y={9}>
          {marks}
        </text>
      )}
      <svg x={left + 42} y={top} width={CARD.width - 46} height={CARD.height}>
        <text class="words" y={18}>
          {first}
        </text>
        <text class="words" y={33}>
          {second}
        </text>
      </svg>
      <rect class="frame" x={left} y={top} width={CARD.width} height={CARD.height} rx={7} />
      {small !== "" && (
        <text class="turn end" x={-left - 2} y={top - 5}>
          {small}
        </text>
      )}
      {hidden > 0 && (
        <text class="more end" x={-left - 2} y={-top + 11}>
          {hidden} more
        </text>
      )}
    </>
  );
}

/** A text as two lines of a card, broken between words where there is a space. */
function twoLines(words: string): [string, string] {
  if (words.length <= COLUMNS) return [words, ""];
  const space = words.lastIndexOf(" ", COLUMNS);
  const at = space > COLUMNS / 2 ? space : COLUMNS;
  return [words.slice(0, at), shortened(words.slice(at), COLUMNS)];
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
