// The node that is looked at: its figures, its step, the solution up to it, the notes that came with it.

import { figure } from "../text/figures";
import { number } from "../events";
import { Formatted } from "../views/formatted";
import { linkTo } from "./node_link";
import type { Tree } from "./tree";
import { before, headOf, nodeFacts, sourceOf } from "./words";

export function NodeDetails({ tree, id }: { tree: Tree; id: number | null }) {
  const node = id === null ? undefined : tree.nodes.get(id);
  if (node === undefined) return null;
  const above = before(tree, node.id);
  const notes = tree.notes.get(node.id) ?? [];
  return (
    <section class="panel" aria-label="Node" tabIndex={-1}>
      <h4 aria-live="polite">{headOf(tree, node)}</h4>
      <p class="small">
        <a href={`#${linkTo({ place: tree.place, node: node.id })}`}>link to this node</a>
      </p>
      <dl class="facts">
        {nodeFacts(tree, node).map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      {node.text !== "" && (
        <>
          <h5>this step</h5>
          <div class="text step" dir="auto">
            <Formatted text={node.text} />
          </div>
        </>
      )}
      {above !== "" && (
        <>
          <h5>the solution up to here</h5>
          <div class="text whole" dir="auto">
            <Formatted
              text={above + node.text}
              plain={
                <>
                  <span class="soft">{above}</span>
                  {node.text}
                </>
              }
            />
          </div>
        </>
      )}
      {notes.length > 0 && (
        <>
          <h5>notes that came with it</h5>
          <ul class="sources notes">
            {notes.map((item, i) => (
              <li key={i} dir="auto">
                <span class="source">{sourceOf(item)}</span> {item.text} <span class="soft">{figure(number(item.score), 2)}</span>
              </li>
            ))}
          </ul>
        </>
      )}
    </section>
  );
}
