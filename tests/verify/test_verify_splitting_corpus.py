"""Answers that are hard to split, with their questions: the exact claims, and what holds of all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest
from reason.core.types import Question
from reason.reasoning.retrieval.words import number_values
from reason.verify.claims.questions import question_text
from reason.verify.claims.splitter import split_claims


class Case(NamedTuple):
    """An answer and the claims it makes."""

    id: str
    question: str
    answer: str
    claims: list[str]


LINES = (Path(__file__).parent / "nasty_answers.jsonl").read_text(encoding="utf-8").splitlines()
CASES = [Case(**json.loads(line)) for line in LINES]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
def test_an_answer_makes_these_claims(case: Case) -> None:
    claims = split_claims(case.answer, case.question)
    assert [claim.text for claim in claims] == case.claims
    ends = 0
    for claim in claims:
        assert ends <= claim.start < claim.end <= len(case.answer)
        ends = claim.end


def test_the_corpus_has_every_kind_of_answer() -> None:
    kinds = {case.id.rsplit("-", 1)[0] for case in CASES}
    assert kinds == {"short", "yes-no", "negation", "reference", "modality", "structure", "layout", "instruction"}
    assert len({case.id for case in CASES}) == len(CASES) >= 150


def test_a_claim_that_is_split_again_stays_as_it_is() -> None:
    texts = [text for case in CASES if not case.id.startswith("layout") for text in case.claims]
    split_again = {text: [claim.text for claim in split_claims(text)] for text in texts}
    changed = {text: claims for text, claims in split_again.items() if claims != [text]}
    # a short answer is not split where it is joined with its question
    assert list(changed) == ["The capital of France is Paris, which lies on the Seine."]


def test_claims_state_no_number_that_neither_answer_nor_question_has() -> None:
    for case in CASES:
        known = number_values(f"{case.question} {case.answer}")
        assert number_values(" ".join(case.claims)) <= known, case.id


def test_a_letter_stands_for_the_option_of_its_question() -> None:
    question = Question(text="Which planet is largest?", choices=("Mars", "Jupiter", "Venus"))
    assert question_text(question) == "Which planet is largest?\nA) Mars\nB) Jupiter\nC) Venus"
    assert [c.text for c in split_claims("The answer is B.", question_text(question))] == [
        "Jupiter is the largest planet."
    ]
    assert question_text(Question(text="Why?")) == "Why?"
