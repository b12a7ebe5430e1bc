"""Provenance by the same words, and agreement of samples."""

from __future__ import annotations

import pytest
from reason.verify.attribution import MIN_CONTAINED, Segment, attribute_by_agreement, attribute_by_provenance
from reason.verify.types import Claim, Pair, Support
from support.scripted_entailment import ScriptedEntailment


def claim(text: str) -> Claim:
    return Claim(text=text, start=0, end=1)


def segment(name: str, text: str, kind: str = "step") -> Segment:
    return Segment(name=name, kind=kind, text=text)


def is_contained(claim_text: str, text: str) -> bool:
    return bool(attribute_by_provenance([claim(claim_text)], [segment("s", text)])[0])


def test_all_parts_that_say_it_are_told_in_their_order():
    segments = [
        segment("question", "Who was captain of the ship?", "question"),
        segment("notes", "The captain of the ship Marigold was — as all knew — called Zelinka.", "document"),
        segment("step 1", "So: THE CAPTAIN of the ship Marigold was called Zelinka!"),
        segment("sample 1", "the captain of the ship Marigold was Zelinka", "sample"),
    ]
    (found,) = attribute_by_provenance([claim("The captain of the ship Marigold was called Zelinka.")], segments)
    # seven sequences: the document has "the captain of" … "ship Marigold was", but for two; the last part too
    assert [(a.component, a.weight, a.detail["rank"], a.detail["first"]) for a in found] == [
        ("notes", 5 / 7, 1, True),
        ("step 1", 1.0, 2, False),
        ("sample 1", 5 / 7, 3, False),
    ]
    assert {a.kind for a in found} == {"provenance"}
    assert found[0].detail["sequences"] == 7


def test_exactly_six_tenths_count_and_less_does_not():
    text = "one two three four five six seven"  # five sequences
    (found,) = attribute_by_provenance(
        [claim(text)], [segment("a", "one two three four five"), segment("b", "one two three four")]
    )
    assert [(a.component, a.weight) for a in found] == [("a", MIN_CONTAINED)]


@pytest.mark.parametrize(
    ("text", "source", "contained"),
    [
        ("Paris", "In paris, yes", True),
        ("Paris burns", "Paris. It burns", False),  # a short claim is one sequence
        ("no no no no yes", "no no no", False),  # a repeated sequence counts once: one of two
    ],
)
def test_a_source_contains_a_claim(text, source, contained):
    assert is_contained(text, source) == contained


def test_a_claim_without_words_comes_from_nowhere():
    assert attribute_by_provenance([claim("—!"), claim("a b c")], [segment("s", "—! a b c")])[0] == ()


def test_a_long_hostile_text_is_read():  # what is not linear runs into the limit of every test
    found = attribute_by_provenance(
        [claim("a b c d"), claim("a a"), claim("b")], [segment("s", "a'" * 100_000 + "a " * 100_000)]
    )
    assert len(found) == 3


YES, NO, SILENT = Support(0.9, 0.05, 0.05), Support(0.1, 0.8, 0.1), Support(0.2, 0.2, 0.6)
SAMPLES = [segment(f"sample {i}", text, "sample") for i, text in enumerate(("yes", "no", "hm", "yes!", "?"), 1)]


async def test_signs_and_shares_of_the_samples():
    verdicts = {"yes": YES, "yes!": YES, "no": NO, "hm": SILENT, "?": None}
    judge = ScriptedEntailment(lambda pair: YES if pair == Pair("hm", "B.") else verdicts[pair.evidence])
    first, second = await attribute_by_agreement([claim("A."), claim("B.")], SAMPLES, judge)
    assert [(a.component, a.weight) for a in first] == [
        ("sample 1", 1.0),
        ("sample 2", -1.0),
        ("sample 3", 0.0),
        ("sample 4", 1.0),
    ]
    told = first[0].detail
    assert (told["entail"], told["contradict"], told["neither"]) == (0.5, 0.25, 0.25)
    assert (told["samples"], told["unread"], told["judge"], told["probs"]) == (4, 1, "scripted@1", list(YES))
    assert [a.weight for a in second] == [1.0, -1.0, 1.0, 1.0]
    assert [second[0].detail[name] for name in ("entail", "contradict", "neither")] == [0.75, 0.25, 0.0]
    assert len(judge.calls) == 1
    assert judge.calls[0][5] == Pair("yes", "B.")
