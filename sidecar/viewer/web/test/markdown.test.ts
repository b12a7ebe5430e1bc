import assert from "node:assert/strict";
import { test } from "node:test";
import { pieces, within } from "../src/text/marks";
import { type Formula, type Part, partsOf, placesOf } from "../src/text/markdown";

/** Formulas of a text, those of display in brackets. */
function formulas(text: string): string[] {
  const found: string[] = [];
  const look = (parts: readonly Part[]) => {
    for (const part of parts) {
      if (part.type === "formula") found.push((part as Formula).display ? `[${(part as Formula).tex}]` : (part as Formula).tex);
      look((part as { tokens?: Part[] }).tokens ?? []);
      for (const item of (part as { items?: Part[] }).items ?? []) look([item]);
    }
  };
  look(partsOf(text) ?? []);
  return found;
}

test("what needs no formatting is left as it is", () => {
  for (const text of ["", "Plain.", "With 18 cars each time, that would be 12 * 18 = 216 cars.\n\n", "a_b and c_d", "it costs $5 and $10", "https://a.b/c_d", "</script><b>x</b> &lt;", "a < b > c", "one\ntwo", "2.5 is more", "US$5-$10"]) {
    assert.equal(partsOf(text), null, text);
  }
});

test("formulas in each way in which models write them", () => {
  assert.deepEqual(formulas("so $x^2$ is"), ["x^2"]);
  assert.deepEqual(formulas("so \\(x_1 * y\\) is \\[z\\]"), ["x_1 * y", "[z]"]);
  assert.deepEqual(formulas("first:\n\\[\na = b\n\\]\nthen\n$$\nc = d\n$$\nend"), ["[a = b]", "[c = d]"]);
  assert.deepEqual(formulas("\\begin{align*}\na &= b\n\\end{align*}"), ["[\\begin{align*}\na &= b\n\\end{align*}]"]);
  assert.deepEqual(formulas("- one: $a$\n- two: **$b$**"), ["a", "b"]);
  assert.deepEqual(formulas("`$a$` and $5 for 2 and $ a $"), []);
});

test("Markdown becomes tokens and markup none", () => {
  const parts = partsOf("# Head\n\n**bold** <img src=x onerror=alert(1)>\n\n1. one\n2. two\n\n```py\nx = 1\n```");
  assert.deepEqual(parts?.map((part) => part.type).filter((type) => type !== "space"), ["heading", "paragraph", "list", "code"]);
  const html = (parts?.find((part) => part.type === "paragraph") as { tokens: Part[] }).tokens.find((part) => part.type === "html");
  assert.equal(html?.raw, "<img src=x onerror=alert(1)>");
});

test("hostile texts end", () => {
  for (const piece of ["$", "\\[", "\\(", "*", "_", "`", "[", "<", "$$", "> ", "- ", "|", "![", "**a ", "\\begin{align}", "[a](", "~", "a@", "(", "<a ", "$a"]) {
    partsOf(piece.repeat(20_000 / piece.length));
    partsOf(`${piece.repeat(200)}\n`.repeat(20_000 / (200 * piece.length + 1)));
  }
});

test("claims are marked in a formatted text, each number once", () => {
  const text = "The **Loire is long.** It has $n$ km:\n\n- one *a* b\n- two\n\n> three\n> four\n\n| x | y |\n| --- | --- |\n| z | $w$ |";
  const claims = ["**Loire is long.**", "It has $n$ km", "one *a* b\n- two", "z | $w$", "three"].map((words, i) => {
    const start = text.indexOf(words);
    return { start, end: start + words.length, verdict: i % 2 === 0 ? "supported" : "refuted" } as never;
  });
  const parts = partsOf(text) ?? [];
  const places = placesOf(parts, text);
  assert.notEqual(places, null);
  const told = [...(places ?? [])].map(([part, place]) => {
    const words = text.slice(place.start, place.end);
    return within(pieces(text, claims), part.type === "text" ? words : null, place);
  });
  assert.deepEqual(told.flat().flatMap(({ ends }) => ends).sort(), [0, 1, 2, 3, 4]);
  const marked = [...(places ?? [])].filter((_, i) => told[i]?.some(({ claims }) => claims.length > 0)).map(([part]) => part.raw.trim());
  assert.deepEqual(marked, ["Loire is long.", "It has", "$n$", "km:", "one", "a", "b", "two", "three\nfour", "z", "$w$"].filter((each) => marked.includes(each)));
  for (const words of ["Loire is long.", "$n$", "a", "two", "z", "$w$"]) assert.ok(marked.includes(words), words);
});
