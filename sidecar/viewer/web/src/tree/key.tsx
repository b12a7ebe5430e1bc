// What colours, shapes and small signs of a drawing mean.

import { SHADES } from "./words";
import type { Style } from "./layout";

export function Key({ source, style, notes }: { source: string | null; style: Style; notes: boolean }) {
  return (
    <div class="key">
      {source !== null && (
        <span class="scale">
          {source} 0{" "}
          <span>
            {Array.from({ length: SHADES }, (_, n) => (
              <i key={n} class={`c${n}`} />
            ))}
          </span>{" "}
          1
        </span>
      )}
      {style === "dots" ? (
        <>
          <Sign name="step">
            <circle class="shape" cx="8" cy="8" r="7" />
          </Sign>
          <Sign name="complete">
            <rect class="shape" x="1.5" y="1.5" width="13" height="13" rx="2" />
          </Sign>
          <Sign name="final answer asked for">
            <path class="shape" d="M8 0L16 8L8 16L0 8Z" />
          </Sign>
        </>
      ) : (
        <>
          <span>■ complete</span>
          <span>◆ final answer asked for</span>
        </>
      )}
      <Sign name="chosen path">
        <path class="shape thick" d="M0 8H16" />
      </Sign>
      <span>#n continued as number n</span>
      {notes && <span>+n notes that came with it</span>}
    </div>
  );
}

function Sign({ name, children }: { name: string; children: preact.ComponentChildren }) {
  return (
    <span>
      <svg viewBox="0 0 16 16" aria-hidden="true">
        {children}
      </svg>
      {name}
    </span>
  );
}
