// Blocks of which a navigator put chains of thought together: one chain an attempt.

import { useState } from "preact/hooks";
import { numbers } from "../events";
import type { Block } from "../run/state";
import { plural } from "../text/figures";

const MOST_CHAINS = 24;
const KINDS = new Set(["R", "D", "Db", "Rf", "T"]);

export function Blocks({ chains }: { chains: ReadonlyMap<number, Block[]> }) {
  const [at, setAt] = useState<Block | null>(null);
  const sorted = [...chains].sort(([a], [b]) => a - b);
  return (
    <section id="blocks">
      <h2>Blocks</h2>
      {sorted.slice(0, MOST_CHAINS).map(([vote, blocks]) => (
        <div class="chain" key={vote}>
          <span class="soft small">attempt {vote + 1}</span>
          <ol>
            {blocks.map((block, i) => (
              <li key={i}>
                <button
                  type="button"
                  class={`block ${KINDS.has(block.letter) ? block.letter : ""}`.trim()}
                  aria-pressed={block === at}
                  title={block.block}
                  onClick={() => setAt(block === at ? null : block)}
                >
                  {block.letter} <span class="name">{block.block}</span>
                </button>
              </li>
            ))}
          </ol>
        </div>
      ))}
      {sorted.length > MOST_CHAINS && <p class="soft">{plural(sorted.length - MOST_CHAINS, "more attempt")}</p>}
      {at !== null && <Details block={at} />}
    </section>
  );
}

function Details({ block: { block, letter, data } }: { block: Block }) {
  const state = numbers(data["state"]);
  return (
    <div class="card slim" aria-live="polite">
      <b>
        {block} ({letter})
      </b>
      {state.length > 0 && <p class="soft">state when it was chosen: {state.join(" ")}</p>}
      <dl class="facts">
        {Object.entries(data)
          .filter(([name, value]) => !["block", "letter", "state"].includes(name) && ["string", "number", "boolean"].includes(typeof value))
          .map(([name, value]) => (
            <div key={name}>
              <dt>{name.replaceAll("_", " ")}</dt>
              <dd>{String(value)}</dd>
            </div>
          ))}
      </dl>
    </div>
  );
}
