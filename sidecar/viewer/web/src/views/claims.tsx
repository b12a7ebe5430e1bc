// A text with its claims marked, and a panel of evidence for each; the same for a run's answer and a given text.

import type { ComponentChildren } from "preact";
import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { type CheckedClaim, number, type Verdict } from "../events";
import type { Checked } from "../run/checked";
import { type Piece, pieces, within } from "../text/marks";
import { verdictText } from "../text/verdicts";
import { MEANINGS, SIGNS, spaced } from "../text/words";
import { ClaimPanel } from "./claim_panel";
import { Formatted } from "./formatted";

const ALL = -1;

interface Props {
  text: string;
  checked: Checked[];
}

export function Claims({ text, checked }: Props) {
  const first = checked.findIndex(({ claim }) => claim.verdict === "refuted");
  const [wish, setWish] = useState<number | null>(null);
  const at = wish ?? Math.max(0, first);
  const panels = useRef<HTMLOListElement>(null);
  const marks = useRef<HTMLDivElement>(null);
  const wants = useRef<"panel" | "text" | null>(null);
  const claims = checked.map(({ claim }) => claim);
  const stretches = useMemo(() => pieces(text, claims), [text, checked]);

  useLayoutEffect(() => {
    const where = wants.current;
    wants.current = null;
    if (where === "panel") panels.current?.querySelector<HTMLElement>(`[data-panel="${at}"]`)?.focus();
    if (where === "text") marks.current?.querySelector<HTMLElement>(`a[data-n="${at}"]`)?.focus();
  });

  const show = (n: number, focus: boolean) => {
    if (n < 0 || n >= checked.length) return;
    wants.current = focus ? "panel" : null;
    setWish(n);
  };
  const press = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey || at === ALL) return;
    if (event.key === "ArrowRight") show(at + 1, true);
    else if (event.key === "ArrowLeft") show(at - 1, true);
    else if (event.key === "Escape") {
      wants.current = "text";
      setWish(at);
      // the state may stay as it was: then no effect runs
      marks.current?.querySelector<HTMLElement>(`a[data-n="${at}"]`)?.focus();
    } else return;
    event.preventDefault();
  };

  return (
    <div class="claims">
      <div class="given" dir="auto" ref={marks}>
        <Formatted
          text={text}
          plain={stretches.map((piece, i) => (
            <Stretch key={i} piece={piece} drawn={piece.text} checked={checked} at={at} onShow={show} />
          ))}
          leaf={(words, place, drawn) =>
            within(stretches, words, place).map((piece, i) => (
              <Stretch key={i} piece={piece} drawn={words === null ? drawn : piece.text} checked={checked} at={at} onShow={show} />
            ))
          }
        />
      </div>
      <Legend claims={claims} />
      {checked.length === 0 ? (
        <p>No claim was found that could be checked.</p>
      ) : (
        <>
          {checked.length > 1 && (
            <div class="steps" role="group" aria-label="Claims">
              <button type="button" value="before" disabled={at <= 0} onClick={() => show(at - 1, false)}>
                previous
              </button>
              <button type="button" value="after" disabled={at === ALL || at >= checked.length - 1} onClick={() => show(at + 1, false)}>
                next
              </button>
              <button type="button" value="all" aria-pressed={at === ALL} onClick={() => setWish(at === ALL ? 0 : ALL)}>
                all
              </button>
            </div>
          )}
          <ol class="panels" ref={panels} onKeyDown={press}>
            {checked.map((each, n) => (at === ALL || at === n ? <ClaimPanel key={n} n={n} checked={each} /> : null))}
          </ol>
        </>
      )}
    </div>
  );
}

interface StretchProps {
  piece: Piece;
  drawn: ComponentChildren;
  checked: Checked[];
  at: number;
  onShow: (n: number, focus: boolean) => void;
}

/** A stretch of the text: underlined in the manner of its gravest verdict, and followed by the numbers that end there. */
function Stretch({ piece, drawn, checked, at, onShow }: StretchProps) {
  const first = piece.claims[0];
  const verdict = first === undefined ? undefined : checked[first]?.claim.verdict;
  return (
    <>
      {first === undefined ? (
        drawn
      ) : (
        <span class={`claim ${verdict}${piece.claims.includes(at) ? " at" : ""}`} data-n={first} onClick={() => onShow(first, false)}>
          {drawn}
        </span>
      )}
      {piece.ends.map((n) => {
        const claim = checked[n]?.claim;
        if (claim === undefined) return null;
        const place = n + 1;
        const said = `claim ${place}: ${verdictText(claim)}`;
        return (
          <a
            key={n}
            class={`number ${claim.verdict}`}
            href={`#claim-${place}`}
            id={`at-${place}`}
            data-n={n}
            aria-label={said}
            aria-current={n === at}
            title={said}
            onClick={(event) => {
              event.preventDefault();
              onShow(n, true);
            }}
          >
            {place}
            {SIGNS[claim.verdict]}
          </a>
        );
      })}
    </>
  );
}

/** What the marks that are there mean. */
function Legend({ claims }: { claims: CheckedClaim[] }) {
  const verdicts = claims.map(({ verdict }) => verdict);
  const there = (Object.keys(MEANINGS) as Verdict[]).filter((verdict) => verdicts.includes(verdict));
  if (there.length === 0) return null;
  return (
    <div class="legend">
      <ul>
        {there.map((verdict) => (
          <li key={verdict}>
            <span class={`claim ${verdict}`}>{spaced(verdict)}</span> {SIGNS[verdict]} {MEANINGS[verdict]}
          </li>
        ))}
      </ul>
      {claims.some(({ confidence }) => (number(confidence) ?? 0) > 0) && (
        <p class="hint">
          “93% sure” is the probability that the verdict is right. A claim whose probability is below the one that is needed
          stays open.
        </p>
      )}
      <p class="hint">
        Click a claim, or go to its number with Tab and press Enter. Arrows go from panel to panel, Escape goes back to the
        text.
      </p>
    </div>
  );
}
