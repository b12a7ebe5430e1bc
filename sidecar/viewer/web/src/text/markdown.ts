// Markdown and LaTeX as a tree of tokens: Markdown by marked's lexer, formulas as tokens of their own. Nothing here makes
// markup: HTML within a text is a token like any other, and is shown as the text that it is.

import { Marked, type Token, type TokenizerAndRendererExtension, type Tokens } from "marked";

export interface Formula {
  type: "formula";
  raw: string;
  tex: string;
  display: boolean;
}

export type Part = Token | Formula;

/** Longer texts are shown as they are: a hostile one of this length takes less than a second. */
const MAX_CHARS = 20_000;
const MAX_FORMULA = 4000;
const MAX_DEPTH = 40;
const ENVIRONMENTS = "(?:equation|align|aligned|gather|gathered|multline|cases|array|[pbvBV]?matrix)\\*?";

const BLOCKS = [
  new RegExp(`^ {0,3}\\$\\$([^]{1,${MAX_FORMULA}}?)\\$\\$[ \\t]*(?:\\n|$)`),
  new RegExp(`^ {0,3}\\\\\\[([^]{1,${MAX_FORMULA}}?)\\\\\\][ \\t]*(?:\\n|$)`),
  new RegExp(`^ {0,3}(\\\\begin\\{(${ENVIRONMENTS})\\}[^]{1,${MAX_FORMULA}}?\\\\end\\{\\2\\})[ \\t]*(?:\\n|$)`),
];
const DISPLAYS = [new RegExp(`^\\$\\$([^$]{1,${MAX_FORMULA}}?)\\$\\$`), new RegExp(`^\\\\\\[([^]{1,${MAX_FORMULA}}?)\\\\\\]`)];
/** Between single dollars there is a formula if neither of them has a space within, and no digit follows: "$5 and $6" is none. */
const INLINES = [new RegExp(`^\\\\\\(([^]{1,${MAX_FORMULA}}?)\\\\\\)`), /^\$(?![\s$])((?:\\[^]|[^\\$\n]){1,1000}?)(?<!\s)\$(?![\d$])/];

function formula(level: "block" | "inline"): TokenizerAndRendererExtension {
  const begin = level === "block" ? /\$\$|\\\[|\\begin\{/ : /\$|\\[([]/;
  const rules: [RegExp, boolean][] = level === "block" ? BLOCKS.map((rule) => [rule, true]) : [...DISPLAYS.map((rule): [RegExp, boolean] => [rule, true]), ...INLINES.map((rule): [RegExp, boolean] => [rule, false])];
  return {
    name: level === "block" ? "formulaBlock" : "formula",
    level,
    start: (source) => {
      const at = source.search(begin);
      return at < 0 ? undefined : at;
    },
    tokenizer: (source) => {
      for (const [rule, display] of rules) {
        const found = rule.exec(source);
        const tex = found?.[1]?.trim();
        if (found !== null && tex) return { type: "formula", raw: found[0], tex, display };
      }
      return undefined;
    },
  };
}

const markdown = new Marked({ gfm: true });
markdown.use({ extensions: [formula("block"), formula("inline")] });

const PLAIN = new Set(["space", "paragraph", "text", "html", "def"]);

/** A short answer that is a formula without the signs around it, as many data sets have them: `\\frac{3}{4}`. */
export function bareFormula(text: string): Formula | null {
  if (text.length > 300 || !/\\[a-zA-Z]+/.test(text) || /\$|\\[([]|\n/.test(text)) return null;
  return { type: "formula", raw: text, tex: text, display: false };
}

/** The parts of a text; null where there is nothing to format, so that it can be shown as it is. */
export function partsOf(text: string): Part[] | null {
  if (text.length > MAX_CHARS || !/[*_`#>|~$\\[\]]|^\s*(?:[-+]|\d+[.)])\s|^\s*[-=]{3,}/m.test(text)) return null;
  let parts: Part[];
  try {
    parts = markdown.lexer(text);
  } catch (error) {
    if (error instanceof RangeError) return null; // thousands of quotations within one another
    throw error;
  }
  return parts.every(isPlain) || depthOf(parts) > MAX_DEPTH ? null : parts;
}

/** Where a part with a text of its own stands, in UTF-16 units; what lies between it and the `next` one belongs to it. */
export interface Place {
  since: number;
  start: number;
  end: number;
  next: number;
}

/** The parts that have a text of their own; null where the place of one is not found. */
export function placesOf(parts: readonly Part[], text: string): Map<Part, Place> | null {
  const places = new Map<Part, Place>();
  let before: Place | null = null;
  let at = 0;
  const look = (part: Part): boolean => {
    const below = belowOf(part);
    if (below.length > 0) return below.every(look);
    if (part.type === "space" || part.type === "hr") return true;
    const raw = part.type === "text" ? part.raw : part.raw.trim(); // a block has the line break after it
    const found = foundAt(raw, text, at);
    if (found === null) return false;
    const [start, end] = found;
    at = end;
    if (before !== null) before.next = start;
    before = { since: before === null ? 0 : start, start, end, next: text.length };
    places.set(part, before);
    return true;
  };
  return parts.every(look) ? places : null;
}

/** Where a part's source stands at or after a place: in one piece, or line by line where a quotation or a list indents it. */
function foundAt(raw: string, text: string, at: number): [start: number, end: number] | null {
  const start = text.indexOf(raw, at);
  if (start >= 0) return [start, start + raw.length];
  let first = -1;
  let end = at;
  for (const line of raw.split("\n").map((each) => each.trim())) {
    const place = text.indexOf(line, end);
    if (place < 0) return null;
    if (first < 0) first = place;
    end = place + line.length;
  }
  return [first, end];
}

function belowOf(part: Part): Part[] {
  if (part.type === "table") return [...(part as Tokens.Table).header, ...(part as Tokens.Table).rows.flat()] as unknown as Part[];
  const { tokens, items } = part as { tokens?: Part[]; items?: Part[] };
  return [...(tokens ?? []), ...(items ?? [])];
}

function depthOf(parts: readonly Part[]): number {
  let depth = 0;
  for (let layer = parts; layer.length > 0 && depth <= MAX_DEPTH; depth += 1) {
    layer = layer.flatMap(belowOf);
  }
  return depth;
}

function isPlain(part: Part): boolean {
  if (part.type === "link") return (part as Tokens.Link).text === part.raw; // an address that is written out
  if (!PLAIN.has(part.type)) return false;
  return ((part as { tokens?: Part[] }).tokens ?? []).every(isPlain);
}
