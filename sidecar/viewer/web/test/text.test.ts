import assert from "node:assert/strict";
import { test } from "node:test";
import { pretty } from "../src/text/words";
import { changedOf, fieldsOf } from "../src/live/schema_form";
import { othersOf } from "../src/live/other_models";
import { ageOf } from "../src/live/runs_page";
import { Places } from "../src/text/codepoints";
import { amount, figure, fixed, plural, seconds, short, whole } from "../src/text/figures";
import { shortened } from "../src/text/words";
import { shade } from "../src/tree/words";

test("figures are those of the terminal", () => {
  assert.deepEqual([0, 7, 1234567, 0.5, 9.8765, 98.765, 987.65, -0.25].map((x) => figure(x)), ["0", "7", "1,234,567", "0.500", "9.877", "98.77", "987.6", "-0.250"]);
  assert.deepEqual([1e-5, 2.5e9, NaN, Infinity, -Infinity].map((x) => figure(x)), ["1.0e-05", "2.5e+09", "nan", "inf", "-inf"]);
  assert.deepEqual([figure(null), figure(0.666, 2), figure(-0.001, 2)], ["-", "0.67", "0.00"]);
  assert.deepEqual([whole(12400), fixed(1234.5, 1), amount(0.00001, 4), amount(12345.6, 6), amount(2, 4)], ["12,400", "1,234.5", "1e-05", "12,345.6", "2"]);
  assert.deepEqual([plural(1, "node"), plural(2000, "node")], ["1 node", "2,000 nodes"]);
  assert.deepEqual([short(null), short(0.714), short(1), short(0), short(NaN)], ["", ".71", "1", ".00", "?"]);
  assert.deepEqual([seconds(0.42), seconds(41.83), seconds(200), seconds(7300)], ["0.42 s", "41.8 s", "3 min 20 s", "2 h 1 min"]);
  assert.deepEqual([5, 300, 7300, 1e6].map(ageOf), ["5 s", "5 min", "2 h", "11 d"]);
});

test("shades", () => {
  assert.deepEqual([-1, 0, 0.05, 0.1, 0.55, 0.999, 1, 2].map(shade), [0, 0, 0, 1, 5, 9, 9, 9]);
});

test("places are counted in characters", () => {
  const places = new Places("a🙂é𝕏z");
  assert.deepEqual([places.length, places.slice(1, 3), places.slice(3, 5), places.slice(0, 99)], [5, "🙂é", "𝕏z", "a🙂é𝕏z"]);
  assert.equal(new Places("plain").slice(1, 3), "la");
});

test("a text that is cut keeps its characters whole", () => {
  assert.equal(shortened("ab\n  c", 9), "ab c");
  assert.equal(shortened("🙂🙂🙂", 4), "🙂…");
});

test("fields follow the schema, and only what was changed is sent", () => {
  const fields = fieldsOf({
    $defs: { Rule: { enum: ["first", "agreed"], type: "string" } },
    properties: {
      n: { type: "integer", default: 8, minimum: 1, maximum: 64, description: "samples" },
      threshold: { anyOf: [{ type: "number" }, { type: "null" }], default: null },
      rule: { $ref: "#/$defs/Rule", default: "first" },
      sure: { type: "boolean", default: false },
      names: { type: "array", default: [] },
      system: { type: "string", default: "" },
    },
  });
  assert.deepEqual(fields.map(({ name, kind }) => [name, kind]), [["n", "whole"], ["threshold", "number"], ["rule", "choice"], ["sure", "flag"], ["names", "json"], ["system", "text"]]);
  assert.deepEqual([fields[0]?.least, fields[0]?.most, fields[2]?.choices], [1, 64, ["first", "agreed"]]);
  assert.deepEqual(changedOf(fields, { n: "8", threshold: "0.5", rule: "agreed", sure: "true", names: '["a"]', system: "" }), { threshold: 0.5, rule: "agreed", sure: true, names: ["a"] });
  assert.deepEqual(changedOf(fields, { n: " " }), {});
  assert.throws(() => changedOf(fields, { names: "[" }), /names is not JSON/);
});

test("models of other roles are said where the strategy has the role", () => {
  const chosen = { small_model: ["a"], jurors: ["a", "b"], judge_model: [""] };
  assert.deepEqual(othersOf(["main", "small", "judge", "reward"], chosen), { small_model: "a" });
  assert.deepEqual(othersOf(["main", "jury", "chair", "judge"], chosen), { jurors: ["a", "b"] });
  assert.deepEqual(othersOf([], chosen), {});
});

test("JSON is spread over lines without losing a digit", () => {
  assert.equal(pretty('{"a":1}'), '{\n  "a": 1\n}');
  assert.equal(pretty('{"a":12345678901234567890}'), '{"a":12345678901234567890}');
  assert.equal(pretty("<b>no"), "<b>no");
});
