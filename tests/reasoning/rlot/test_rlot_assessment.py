"""Reading self-assessments: a golden set of what models write, and properties over all states and many forms."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.reasoning.rlot.assessment import ASPECTS, Assessment, read_assessment

FULL = (3, 2, 1, 0, 3, 2, 1)
PAIRS = list(zip(ASPECTS, FULL, strict=True))

# every response scores all seven aspects as FULL
WHOLE = {
    "json": '{"A1": 3, "A2": 2, "A3": 1, "B1": 0, "B2": 3, "C1": 2, "C2": 1}',
    "json in a fence": '```json\n{"A1": 3, "A2": 2, "A3": 1,\n "B1": 0, "B2": 3, "C1": 2, "C2": 1}\n```',
    "json amid prose": 'Sure {here}: {"A1":3,"A2":2,"A3":1,"B1":0,"B2":3,"C1":2,"C2":1} [done] {"x": 9}.',
    "json with texts": '{"A1":"3","A2":"2","A3":"1","B1":"0","B2":"3/3","C1":"2.0","C2":"1 - not all is known, 2 are"}',
    "json with floats": '{"A1":3.0,"A2":2.0,"A3":1.0,"B1":0.0,"B2":3e0,"C1":2,"C2":1}',
    "json in other order": '{"C2": 1, "C1": 2, "B2": 3, "B1": 0, "A3": 1, "A2": 2, "A1": 3}',
    "json with reasons": json.dumps({a: {"reason": f"step {i} has 3", "score": s} for i, (a, s) in enumerate(PAIRS)}),
    "json with lists": json.dumps({a: [s, "why"] for a, s in PAIRS}),
    "json one level down": json.dumps({"step": 2, "scores": dict(PAIRS)}),
    "json two groups": '{"A": {"A1": 3, "A2": 2, "A3": 1}, "B": {"B1": 0, "B2": 3}, "C": [{"C1": 2}, {"C2": 1}]}',
    "json list of named": json.dumps([{"aspect": a, "reason": "1", "score": s} for a, s in PAIRS]),
    "json labelled names": json.dumps({f"{a}: correctness of 1 thing": s for a, s in PAIRS}),
    "json small names": json.dumps({f" {a.lower()}": s for a, s in PAIRS}),
    "json and reasons beside": json.dumps(
        {k: v for a, s in PAIRS for k, v in ((a, s), (f"{a}_reason", "because 2 hold"))}
    ),
    "json several": '{"A1": 3, "A2": 2} and {"A3": 1, "B1": 0}\n{"B2": 3, "C1": 2, "C2": 1}',
    "json line by line": "\n".join(f'{{"{a}": {s}}}' for a, s in PAIRS),
    "json cut short": '{"A1": 3, "A2": 2, "A3": 1, "B1": 0, "B2": 3, "C1": 2, "C2": 1, "comm',
    "json with reasons cut short": '{"A1": {"score": 3, "reason": "2 + 2"}, "A2": {"score": 2}, "A3": {"score": 1}, '
    '"B1": {"score": 0, "reason": ""}, "B2": {"score": 3}, "C1": {"score": 2}, "C2": {"score": 1, "rea',
    "a trailing comma": '{"A1": 3, "A2": 2, "A3": 1, "B1": 0, "B2": 3, "C1": 2, "C2": 1,}',
    "python": "{'A1': 3, 'A2': 2, 'A3': 1, 'B1': 0, 'B2': 3, 'C1': 2, 'C2': 1}",
    "equals signs": '"A1" = 3, "A2" = 2, "A3" = 1, "B1" = 0, "B2" = 3, "C1" = 2, "C2" = 1',
    "plain lines": "A1: 3\nA2: 2\nA3: 1\nB1: 0\nB2: 3\nC1: 2\nC2: 1",
    "one line": "A1: 3, A2: 2, A3: 1, B1: 0, B2: 3, C1: 2, C2: 1.",
    "one line, nothing between": "A1:3;A2:2;A3:1;B1:0;B2:3;C1:2;C2:1",
    "blanks alone": "A1 3 A2 2 A3 1 B1 0 B2 3 C1 2 C2 1",
    "brackets": "A1 [3] A2 [2] A3 [1] B1 [0] B2 [3] C1 [2] C2 [1]",
    "bold names": "**A1**: 3\n**A2**: 2\n**A3**: 1\n**B1**: 0\n**B2**: 3\n**C1**: 2\n**C2**: 1",
    "bold with the colon": "**A1:** 3\n**A2:** 2\n**A3:** 1\n**B1:** 0\n**B2:** 3\n**C1:** 2\n**C2:** 1",
    "bold scores": "A1: **3**\nA2: **2**\nA3: **1**\nB1: **0**\nB2: **3**\nC1: __2__\nC2: *1*",
    "bracketed names": "(A1): 3\n(A2) 2\n[A3]: 1\n(B1) - 0\n(B2) = 3\n(C1) -> 2\n(C2) → 1",
    "names with labels": "A1 (correctness of modelling): 3\nA2 (clarity): 2\nA3 - calculation - 1\nB1. Complexity: 0\n"
    "B2: Alternative methods: 3\nC1 closeness to the answer = 2\nC2 completeness 1",
    "bold names with labels": "**A1 (correctness of modelling):** 3 - it follows from step 1\n- **A2** Clarity: **2**\n"
    "* **A3 Calculation** — 1\n**B1 (complexity ahead)** : 0, as all 4 are done\n**B2**: *Alternatives*: 3\n"
    "### C1: Closeness: 2\n### C2\n1",
    "numbered": "1. A1: 3\n2. A2: 2\n3. A3: 1\n4. B1: 0\n5. B2: 3\n6. C1: 2\n7. C2: 1",
    "numbered and bold": "1. **A1**: 3\n2. **A2**: 2\n3. **A3**: 1\n4) **B1**: 0\n5) **B2**: 3\n6) **C1**: 2\n"
    "7) **C2**: 1",
    "table": "| Aspect | Score |\n|---|---|\n| A1 | 3 |\n| A2 | 2 |\n| A3 | 1 |\n| B1 | 0 |\n| B2 | 3 |\n"
    "| C1 | 2 |\n| C2 | 1 |",
    "table with labels": "| A1 | modelling | 3 | fits 2 |\n| A2 | clear | 2 |\n| A3 | sum of step 2 | 1 |\n"
    "| B1 | n | 0 |\n| B2 | m | 3 |\n| C1 | c | 2 |\n| C2 | k | 1 |",
    "words, then the score": "A1: True (3)\nA2: unsure (2)\nA3: False (1)\nB1: not involved (0)\nB2: True [3]\n"
    "C1: Unsure = 2\nC2: false - 1",
    "the score, then words": "A1: 3 (true)\nA2: 2 (unsure), A3: 1 = false; B1: 0, not involved\nB2: 3. Methods: 4\n"
    "C1: 2 of 3\nC2: 1 – 3 things are missing",
    "reasons first": "A1: The step 4 + 5 = 9 follows. Score: 3\nA2: 7 words, clear enough. **Score:** 2\n"
    "A3: 12 * 2 is 25, which is wrong. Rating = 1\nB1: score 0\nB2: scored 3\nC1: A score of 2\nC2: rated as 1.",
    "the scale told": "A1 (0-3): 3\nA2 (score 0-3): 2\nA3 [0..3]: 1\nB1 (0 to 3): 0\nB2 (1–3): 3\n"
    "C1 (from 0 to 3) 2\nC2 (0 - 3) = 1",
    "of three": "A1: 3/3\nA2: 2/3\nA3: 1 / 3\nB1: 0/3\nB2: 3 out of 3\nC1: (2/3)\nC2: [1/3]",
    "a line below": "A1:\n3\nA2:\n2\n**A3**\n1\nB1\n\n0\nB2:\n- Score: 3\nC1:\n  2\nC2\n: 1",
    "small letters": "a1: 3, a2: 2, a3: 1, b1: 0, b2: 3, c1: 2, c2: 1",
    "underscores": "A1_score: 3\nA2_score: 2\nA3_score = 1\nB1_score: 0\nB2_: 3\nC1_score: 2\n_C2_: 1",
    "dashes": "A1 - 3\nA2 -- 2\nA3 — 1\nB1 – 0\nB2-3\nC1 -2\n- C2-1",
    "full width": "A1：３\nA2：２\nA3＝1\nB1：0\nB2（3）\nC1: ２\nC2: １",
    "thoughts before": '<think>A1: 0, {"A3": 3} and B1: 2</think>A1: 3, A2: 2, A3: 1, B1: 0, B2: 3, C1: 2, C2: 1',
    "corrected": "A1: 1, A2: 1, C2: 0. No, wait.\nA1: 3, A2: 2, A3: 1, B1: 0, B2: 3, C1: 2, C2: 1",
    "corrected json": '{"A1": 0, "A2": 2, "A3": 1, "B1": 0} becomes {"A1": 3, "B2": 3, "C1": 2, "C2": 1}',
    "a name twice in json": '{"A1": 1, "A2": 2, "A3": 1, "B1": 0, "B2": 3, "C1": 2, "C2": 1, "A1": 3}',
    "a later number that is no score": "A1: 3, A2: 2, A3: 1, B1: 0, B2: 3, C1: 2, C2: 1\nA1: 17 and A2: fine, C2: 1.5",
    "json for some, text for others": '{"A1": 3, "A2": 2, "A3": 1, "B1": 0}\nB2: 3\nC1: 2\nC2: 1',
}

# what is missing is a point: it is 0, and counted
PARTIAL = [
    ("", "......."),
    ("I think the step is correct.", "......."),
    ("{}", "......."),
    ("[3, 2, 1, 0, 3, 2, 1]", "......."),  # which is which?
    ("<think>A1: 3, A2: 3", "......."),
    ("A1: 3, A2: 2", "32....."),
    ("A1: 0", "0......"),
    ('{"A1": 0, "B1": 0}', "0..0..."),
    ('{"A1": 4, "A2": -1, "A3": 2.5, "B1": 10, "B2": null, "C1": true, "C2": "high"}', "......."),
    (
        '{"A1": 1e400, "A2": NaN, "A3": [], "B1": {}, "B2": [1, 2], "C1": {"x": 1, "y": 2}, "C2": 2}',
        "......2",
    ),
    ("A1: 4, A2: -1, A3: 2.5, B1: 10, B2: none, C1: true, C2: high", "......."),
    ("A1: 30%, A2: 3rd, A3: 2x, B1: 1.2.3, B2: 03, C1: .5, C2: 2nd", "......."),
    ("A1: 0-3, A2: 0/1/2/3, A3: 1 or 2, B1: 2 to 3, B2: 0..3, C1: 0, 1, 2 or 3, C2: 2-3", "......."),
    ("A1: as step 2 shows\nA2: there are 3 ways\nA3: 2", "..2...."),
    ("1. A1:\n2. A2: 3\n3. A3:", ".3....."),
    ("A1 and A2: 3", ".3....."),
    ("AA1: 3, A11: 2, A4: 1, D1: 2, BA1: 3, A1x: 2, xC2: 3", "......."),
    ("A1: 7 (3)", "......."),
    ("A1: 5/3, A2: 2/30, A3: 2/3/4", "......."),
    ('{"A1": "not 3", "A2": "1-3", "A3": "3"}', "..3...."),
    ('{"A1_reason": "3 steps", "A2": 1}', ".1....."),
    ('{"A1": {"score": 9, "reason": "see (2)"}, "A2": 3}', ".3....."),
    ("A1: correct (2 steps remain), A2: (2)", ".2....."),
]

states = st.tuples(*[st.integers(0, 3)] * 7)


@pytest.mark.parametrize("form", WHOLE)
def test_golden_complete_assessments(form):
    assert read_assessment(WHOLE[form]) == Assessment(FULL, 0)


@pytest.mark.parametrize(("reply", "expected"), PARTIAL)
def test_golden_partial_assessments(reply, expected):
    state = tuple(int(score) for score in expected.replace(".", "0"))
    assert read_assessment(reply) == Assessment(state, expected.count("."))


@given(
    states,
    st.sets(st.sampled_from(ASPECTS)),
    st.permutations(ASPECTS),
    st.sampled_from(
        ["{a}: {s}", "**{a}**: {s}", "**{a} (some label):** {s}", "- ({a}) {s}", "{a} = [{s}]", "| {a} | words | {s} |"]
    ),
)
def test_any_state_is_parsed_in_any_form_with_missing_counted(state, left_out, order, form):
    scores = dict(zip(ASPECTS, state, strict=True))
    told = [aspect for aspect in order if aspect not in left_out]
    expected = tuple(0 if aspect in left_out else scores[aspect] for aspect in ASPECTS)
    text = "\n".join(form.format(a=aspect, s=scores[aspect]) for aspect in told)
    assert read_assessment(text) == Assessment(expected, len(left_out))
    as_json = json.dumps({aspect: scores[aspect] for aspect in told})
    assert read_assessment(f"Here it is:\n{as_json}\nThat is all.") == Assessment(expected, len(left_out))


@given(states, st.integers(0, 60))
def test_truncated_json_keeps_complete_scores(state, length):
    whole = json.dumps(dict(zip(ASPECTS, state, strict=True)))
    cut = whole[:length]
    there = sum(f'"{aspect}": {score}' in cut for aspect, score in zip(ASPECTS, state, strict=True))
    assert read_assessment(cut) == Assessment((*state[:there], *(0,) * (7 - there)), 7 - there)


pieces = st.sampled_from(
    [*ASPECTS, *"0123456789{}[]():=|*,.-/\"' \n", "Score", "true", "null", "of 3", "<think>", "</think>"]
)


@given(st.one_of(st.text(), st.lists(pieces, max_size=60).map("".join)))
def test_parsing_never_raises_and_counts_add_up(reply):
    read = read_assessment(reply)
    assert len(read.state) == 7
    assert all(type(score) is int and 0 <= score <= 3 for score in read.state)
    assert 0 <= read.missing <= read.state.count(0)


def test_end_of_long_completion_counts():
    assert read_assessment("A1: 1\n" + "word " * 100_000 + "A1: 3") == Assessment((3, 0, 0, 0, 0, 0, 0), 6)
