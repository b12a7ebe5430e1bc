// A text as Markdown with formulas, or as it was written. Elements are made of tokens: no text is ever read as markup, and
// a link has no target but shows its address.

import type { Tokens } from "marked";
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useMemo, useRef } from "preact/hooks";
import temml from "temml";
import { bareFormula, type Formula, type Part, partsOf, type Place, placesOf } from "../text/markdown";
import { useRaw } from "./raw_button";

/** Draws what a part of a text says: its words, and how it is drawn unmarked. */
export type Leaf = (words: string | null, place: Place, drawn: ComponentChildren) => ComponentChildren;

interface Props {
  text: string;
  /** What is shown where there is nothing to format; the text itself if it is left out. */
  plain?: ComponentChildren;
  /** Whether it is an extracted answer, which may be a formula without dollars around it. */
  answer?: boolean;
  /** Marks parts of the text by their places in it; words that can be cut are given, else null. */
  leaf?: Leaf;
}

export function Formatted({ text, plain = text, answer = false, leaf }: Props) {
  const raw = useRaw();
  const parts = useMemo(() => {
    if (raw) return null;
    const formula = answer ? bareFormula(text) : null;
    return formula === null ? partsOf(text) : [formula];
  }, [text, raw, answer]);
  const places = useMemo(() => (parts === null || leaf === undefined ? new Map<Part, Place>() : placesOf(parts, text)), [parts, text, leaf === undefined]);
  if (parts === null || places === null) return <>{plain}</>;
  const marked = (part: Part, words: string | null, drawn: ComponentChildren): ComponentChildren => {
    const place = places.get(part);
    if (leaf === undefined || place === undefined) return drawn;
    return leaf(words === text.slice(place.start, place.end) ? words : null, place, drawn);
  };
  return <div class="md">{parts.map(drawer(marked))}</div>;
}

type Marked = (part: Part, words: string | null, drawn: ComponentChildren) => ComponentChildren;

/** What draws a part, and the parts within it. */
function drawer(marked: Marked): (part: Part, key: number) => ComponentChildren {
  const within = (part: unknown): ComponentChildren => ((part as { tokens?: Part[] }).tokens ?? []).map(drawn);
  const words = (part: Part, text: string) => marked(part, text, text);
  function drawn(part: Part, key: number): ComponentChildren {
    switch (part.type) {
      case "formula":
        return <span key={key}>{marked(part, null, <Drawn formula={part as Formula} />)}</span>;
      case "space":
        return null;
      case "heading":
        return <p key={key} class="title">{within(part)}</p>;
      case "paragraph":
        return <p key={key}>{within(part)}</p>;
      case "blockquote":
        return <blockquote key={key}>{within(part)}</blockquote>;
      case "hr":
        return <hr key={key} />;
      case "code":
        return (
          <pre key={key} tabIndex={0}>
            <code>{marked(part, null, (part as Tokens.Code).text)}</code>
          </pre>
        );
      case "list": {
        const { ordered, start, items } = part as Tokens.List;
        const drawnItems = items.map((item, i) => <li key={i}>{within(item)}</li>);
        return ordered ? <ol key={key} start={start === "" ? 1 : start}>{drawnItems}</ol> : <ul key={key}>{drawnItems}</ul>;
      }
      case "table":
        return table(part as Tokens.Table, key);
      case "strong":
        return <strong key={key}>{within(part)}</strong>;
      case "em":
        return <em key={key}>{within(part)}</em>;
      case "del":
        return <del key={key}>{within(part)}</del>;
      case "codespan":
        return <code key={key}>{marked(part, null, (part as Tokens.Codespan).text)}</code>;
      case "br":
        return <br key={key} />;
      case "escape":
        return <span key={key}>{marked(part, null, (part as Tokens.Escape).text)}</span>;
      case "link":
      case "image":
        return <span key={key}>{address(part as Tokens.Link)}</span>;
      case "text":
        return (part as Tokens.Text).tokens === undefined ? <span key={key}>{words(part, (part as Tokens.Text).text)}</span> : <span key={key}>{within(part)}</span>;
      case "checkbox":
        return (part as { checked?: boolean }).checked ? "☑ " : "☐ ";
      default:
        return <span key={key}>{words(part, part.raw)}</span>; // HTML, and whatever else there may be, is text
    }
  }

  function table({ header, rows }: Tokens.Table, key: number) {
    return (
      <div class="scroll" key={key} tabIndex={0} role="group" aria-label="Table">
        <table>
          <thead>
            <tr>
              {header.map((cell, i) => (
                <th key={i}>{within(cell)}</th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((row, i) => (
              <tr key={i}>
                {row.map((cell, at) => (
                  <td key={at}>{within(cell)}</td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    );
  }

  /** Words of a link or an image, and the address that it names, as text. */
  function address(link: Tokens.Link) {
    const says = link.type === "link" && link.tokens.length > 0 ? within(link) : marked(link, null, link.text);
    const named = link.href !== link.text && link.href !== `mailto:${link.text}`;
    return (
      <>
        {says}
        {named && <span class="soft"> ({link.href})</span>}
      </>
    );
  }

  return drawn;
}

/** A formula as MathML; as it was written where it cannot be read. */
function Drawn({ formula: { tex, display, raw } }: { formula: Formula }) {
  const at = useRef<HTMLSpanElement>(null);
  useLayoutEffect(() => {
    const element = at.current;
    if (element === null) return;
    try {
      temml.render(tex, element, { displayMode: display, throwOnError: true, maxExpand: 500, maxSize: [20, 50] });
    } catch {
      element.textContent = raw;
    }
  }, [tex, display, raw]);
  return <span class={display ? "formula display" : "formula"} ref={at} title={tex} />;
}
