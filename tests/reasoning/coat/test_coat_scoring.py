"""Scores of nodes, parsing of judge responses, and citations of a solution."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import UserError
from reason.reasoning.coat.association import ProposedItem, read_items
from reason.reasoning.coat.coat import cite
from reason.reasoning.coat.judge import node_score, read_scores
from reason.reasoning.knowledge import MemoryItem
from reason.reasoning.retrieval.deduplication import text_hash

unit = st.floats(0, 1)
weight = st.floats(0, 10)


@given(unit, unit, weight)
def test_score_is_in_unit_interval(step, notes, beta):
    assert 0 <= node_score(step, notes, beta) <= 1


@given(unit, unit, unit, weight)
def test_score_is_monotonic_in_its_parts(low, high, other, beta):
    low, high = sorted((low, high))
    assert node_score(low, other, beta) <= node_score(high, other, beta)
    assert node_score(other, low, beta) <= node_score(other, high, beta)


@given(unit, weight)
def test_empty_association_costs_nothing(step, beta):
    assert node_score(step, None, beta) == step


@given(unit, unit)
def test_zero_beta_ignores_notes(step, notes):
    assert node_score(step, notes, 0.0) == step


def test_worked_scores():
    assert node_score(0.8, 0.4, 0.25) == pytest.approx((0.8 + 0.1) / 1.25)


@pytest.mark.parametrize(("step", "notes", "beta"), [(1.1, None, 0.0), (0.5, -0.1, 0.0), (0.5, 0.5, -1.0)])
def test_out_of_range_scores_raise(step, notes, beta):
    with pytest.raises(UserError):
        node_score(step, notes, beta)


ITEMS = [
    ('{"items": [{"text": "Paris is in France."}]}', [ProposedItem("Paris is in France.")]),
    (
        '{"items": [{"text": "a", "source": 2}, {"text": "b", "source": "[1]"}]}',
        [ProposedItem("a", 2), ProposedItem("b", 1)],
    ),
    ('{"items": ["one", {"text": ""}, {"text": 3}, 4]}', [ProposedItem("one")]),
    ('```json\n{"items": [{"text": "x"}]}\n```', [ProposedItem("x")]),
    ('Sure. {"items": [{"text": "x"}]} Anything else?', [ProposedItem("x")]),
    ('{"items": [{"text": "whole", "source": 1}, {"text": "cut in the mid', [ProposedItem("whole", 1)]),
    ('{"items": [{"text": "say \\"yes\\""}, {"te', [ProposedItem('say "yes"')]),
    ('[{"text": "a", "source": 2}, {"text": "b"}]', [ProposedItem("a", 2), ProposedItem("b")]),
    ('{"text": "a"}\n{"text": "b"}', [ProposedItem("a"), ProposedItem("b")]),
    ("- first\n- second", [ProposedItem("first"), ProposedItem("second")]),
    ("[2] the fact\n[1] another", [ProposedItem("the fact", 2), ProposedItem("another", 1)]),
    ('{"items": []}', []),
    ("None.", []),
    ("nothing to add", []),
]


@pytest.mark.parametrize(("reply", "said"), ITEMS)
def test_items_are_parsed_from_various_formats(reply, said):
    assert read_items(reply) == (said, True)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "I cannot help with that.",
        "{",
        '{"items": 3}',
        "[[[[",
        '{"items": [{"tex',
        '{"items": ' + "[" * 99_999 + "}",
    ],
)
def test_completion_without_items_is_unparsed(reply):
    assert read_items(reply) == ([], False)


@given(st.text(max_size=300))
def test_parsing_items_never_raises(reply):
    items, _ = read_items(reply)
    assert all(item.text.strip() for item in items)
    for score in read_scores(reply, ["step", "notes"]):
        assert score is None or 0 <= score <= 1


SCORES = [
    ('{"step": 8, "notes": 3}', ["step", "notes"], [0.8, 0.3]),
    ('{"notes": 3, "step": 8}', ["step", "notes"], [0.8, 0.3]),
    ('{"step": 7.5}', ["step"], [0.75]),
    ('{"step": "9"}', ["step"], [0.9]),
    ("Step: 10", ["step"], [1.0]),
    ("I would say 6/10.", ["step"], [0.6]),
    ("7 out of 10", ["step"], [0.7]),
    ("step 0-10: 4", ["step"], [0.4]),
    ("99", ["step"], [1.0]),
    ("8, 2", ["step", "notes"], [0.8, 0.2]),
    ('{"step": 8', ["step", "notes"], [0.8, None]),
    ("great!", ["step", "notes"], [None, None]),
    ("", ["step"], [None]),
]


@pytest.mark.parametrize(("reply", "aspects", "scores"), SCORES)
def test_scores_are_parsed_by_name_or_position(reply, aspects, scores):
    assert read_scores(reply, aspects) == [s if s is None else pytest.approx(s) for s in scores]


def note(text, source=""):
    return MemoryItem(text=text, source_id=source, hash=text_hash(text))


NOTES = [
    note("Ada Lovelace was born in London in 1815.", "a.txt"),
    note("Byron was a poet.", "b.txt"),
    note("Irrelevant."),
]


def test_citations_are_renumbered_by_first_mention():
    text, cited = cite("Byron [2] was her father. [1, 2] Therefore 1815 [1].", NOTES)
    assert text == "Byron [1] was her father. [2, 1] Therefore 1815 [2]."
    assert [c.source for c in cited] == ["b.txt", "a.txt"]


def test_restated_notes_are_cited():
    text, cited = cite("She was born in London in 1815, Ada Lovelace.", NOTES)
    assert [c.source for c in cited] == ["a.txt"]
    assert text == "She was born in London in 1815, Ada Lovelace."


def test_question_words_do_not_count_as_restated():
    assert cite("Ada Lovelace was born in London.", NOTES, question="Was Ada Lovelace born in London in 1815?")[1] == ()


def test_other_brackets_are_kept():
    text = "The list [7] and [0], and x[1, 9]."
    assert cite(text, NOTES) == (text, ())
    assert cite("See [1].", []) == ("See [1].", ())


def test_self_associated_note_names_the_model():
    assert cite("It is so [3].", NOTES)[1][0].source == "the model itself"
