"""Closed questions: reading answers, leaving early, the weighted vote, and the chair held against it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.types import Question
from reason.verify.edgejury.answering import canonical, read_opinion
from reason.verify.edgejury.jurors import OptionOrder, identity_order
from reason.verify.edgejury.jury import JuryVote, settle, unanimous_choice, weighted_vote
from reason.verify.edgejury.types import Opinion, Ranking, Standing, Synthesis

CHOICE = Question(text="Which city is the capital of France?", choices=("Lyon", "Paris", "Nice"))


def opinions(*choices: str | None) -> list[Opinion]:
    return [Opinion(juror=i, model="m", text=f"text {i}", choice=c, ok=True) for i, c in enumerate(choices)]


def failed(juror: int) -> Opinion:
    return Opinion(juror=juror, model="m", ok=False)


def ranking(*borda: float) -> Ranking:
    standings = [Standing(juror=i, score=b, borda=b) for i, b in enumerate(borda)]
    return Ranking(rule="borda", standings=tuple(sorted(standings, key=lambda s: -s.borda)))


def vote(given: list[Opinion], weights: dict[int, float] | None = None, order: tuple[int, ...] = ()) -> JuryVote:
    found = weighted_vote(given, weights or {}, order)
    assert found is not None
    return found


def test_answer_is_mapped_from_shown_order():
    order = OptionOrder((1, 2, 0))
    text = "Option C is in the south. It is Paris.\nAnswer: A"
    assert read_opinion(text, CHOICE, order) == ("Option A is in the south. It is Paris.\nAnswer: B", "B")
    assert read_opinion(text, CHOICE, identity_order(CHOICE)) == (text, "A")
    assert read_opinion("Why not", Question(text="Why?"), OptionOrder()) == ("Why not", None)
    assert read_opinion("It is 1,000.", Question(text="How many?"), OptionOrder()) == ("It is 1,000.", "1000")
    assert read_opinion("No idea.", CHOICE, order) == ("No idea.", None)
    as_number = CHOICE.model_copy(update={"kind": "number"})
    assert read_opinion("It is 5, option A", as_number, order) == ("It is 5, option B", "5")
    assert read_opinion("Option A", CHOICE.model_copy(update={"kind": "text"}), order) == ("Option B", None)


def test_truncated_sentence_is_not_parsed():
    number = Question(text="How many?")
    assert read_opinion("It is 12. Or is it 1", number, OptionOrder(), finished=False)[1] == "12"
    assert read_opinion("It is 12. Or is it 1", number, OptionOrder())[1] == "1"


def test_equal_answers_get_equal_form():
    assert canonical(["1/2", None, "0.5", "3"], [[0, 2], [3]]) == ["1/2", None, "1/2", "3"]


def test_early_exit_needs_three_unanimous_opinions():
    assert unanimous_choice(opinions("B", "B", "B")) == "B"
    assert unanimous_choice([*opinions("B", "B", "B"), failed(3)]) == "B"
    assert unanimous_choice([*opinions("B", "B"), failed(2)]) is None
    assert unanimous_choice(opinions("B", "B")) is None
    assert unanimous_choice(opinions("B", "B", "A")) is None
    assert unanimous_choice(opinions("B", "B", None)) is None
    assert unanimous_choice(opinions(None, None, None)) is None
    assert unanimous_choice([failed(0), failed(1), failed(2)]) is None


@given(st.lists(st.sampled_from(["A", "B", "C", None]), min_size=1, max_size=7))
def test_unweighted_vote_is_majority_with_first_tie_break(choices):
    found = weighted_vote(opinions(*choices), {})
    counts = Counter(c for c in choices if c is not None)
    if not counts:
        assert found is None
        return
    assert found is not None
    assert found.choice == max(counts, key=counts.__getitem__)  # of equals the first that was reached
    assert found.support == {c: n / counts.total() for c, n in found.support.items() for n in [counts[c]]}
    assert found.voters == {c: tuple(i for i, said in enumerate(choices) if said == c) for c in found.support}


def test_votes_are_weighted():
    assert vote(opinions("A", "B", "B"), {0: 0.9, 1: 0.3, 2: 0.5}).choice == "A"
    assert vote(opinions("A", "B", "B"), {0: 0.5}).support == {"B": 0.8, "A": 0.2}
    assert (
        vote(opinions("A", "B", "B"), {0: 0.0, 1: 0.0, 2: 0.0}).choice == "B"
    )  # all weights are zero, so all count equally
    tied = vote(opinions("A", "B", "B"), {0: 1.0, 1: 0.5, 2: 0.5})
    assert tied.choice == "B"  # more jurors chose it
    assert vote(opinions("A", "B"), {}, (1, 0)).choice == "B"  # the better juror chose it


CHAIR = Synthesis(answer="The chair's text.", choice="B", rationale=("because",), source="chair")


def test_chair_choice_of_well_ranked_juror_is_accepted():
    synthesis, found, overruled = settle(CHAIR, opinions("A", "A", "B"), ranking(0.5, 0.4, 0.5), {})
    assert (synthesis, overruled) == (CHAIR, False)
    assert found is not None
    assert found.choice == "A"


@pytest.mark.parametrize(
    ("choices", "borda", "why"),
    [
        (("A", "A", "C"), (0.2, 0.9, 0.4), "no juror chose 'B', as the chair did"),
        (("A", "A", "B"), (0.2, 0.9, 0.4), "no well-ranked juror chose 'B', as the chair did"),
    ],
)
def test_other_chair_choices_are_overruled_with_rationale(choices, borda, why):
    synthesis, _, overruled = settle(CHAIR, opinions(*choices), ranking(*borda), {})
    assert overruled
    assert (synthesis.choice, synthesis.answer) == ("A", "text 1")  # the best of those that chose A
    assert synthesis.rationale == ("because", f"{why}: the jurors' vote, weighted by rank, is used instead")


def test_settlement_without_choices():
    silent = CHAIR.model_copy(update={"choice": None})
    assert settle(silent, opinions("A", "C", "C"), ranking(1.0, 0.4, 0.4), {})[0].choice == "A"
    assert settle(CHAIR, opinions(None, None), ranking(1.0, 0.0), {}) == (CHAIR, None, False)


def test_weights_multiply_rank():
    given, rank_opinions = opinions("A", "C", None), ranking(0.6, 0.5, 0.1)
    assert settle(CHAIR, given, rank_opinions, {})[0].choice == "A"
    assert settle(CHAIR, given, rank_opinions, {1: 2.0})[0].choice == "C"
