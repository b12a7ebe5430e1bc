// The node that is looked at: its figures, its step, the solution up to it, the notes that came with it.

import { figure } from "../text/figures";
import { number } from "../events";
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
            {node.text}
          </div>
        </>
      )}
      {above !== "" && (
        <>
          <h5>the solution up to here</h5>
          <div class="text whole" dir="auto">
            <span class="soft">{above}</span>
            {node.text}
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
