"""Orders of options: every option in different positions, and letters mapped back correctly."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reason.core.types import Question
from reason.reasoning.answers.extraction import extract_answer
from reason.verify.edgejury.answering import read_opinion
from reason.verify.edgejury.jurors import OptionOrder, identity_order, option_orders

CITIES = ("Oslo", "Paris", "Rome", "Bern", "Wien", "Riga", "Kiev", "Bonn", "Lima", "Nice", "Graz", "Linz", "Bari")
QUESTION = Question(text="Which city is the capital of France?", choices=CITIES[:4])
ORDER = OptionOrder((2, 0, 3, 1))  # shown: A Rome, B Oslo, C Bern, D Paris


def question(count: int) -> Question:
    return QUESTION.model_copy(update={"choices": CITIES[:count]})


@given(st.integers(2, 13), st.integers(1, 8), st.integers(0, 2**31))
def test_options_have_different_positions_over_a_jury(count, jurors, seed):
    orders = option_orders(question(count), jurors, seed)
    assert all(sorted(order.order) == list(range(count)) for order in orders)
    for option in range(count):
        places = Counter(order.order.index(option) for order in orders)
        assert max(places.values()) == -(-jurors // count)
    assert option_orders(question(count), jurors, seed) == orders


def test_option_letters_are_inverse():
    assert ORDER.shown(QUESTION).choices == ("Rome", "Oslo", "Bern", "Paris")
    assert [ORDER.to_question(letter) for letter in "ABCDE"] == ["C", "A", "D", "B", None]
    assert [ORDER.to_shown(letter) for letter in "CADBE"] == ["A", "B", "C", "D", None]
    assert ORDER.to_question("b") == "A"
    assert [ORDER.to_question(wrong) for wrong in ("", "AB", "1", "\u00e4")] == [None] * 4
    assert identity_order(QUESTION).to_question("C") == "C"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("The answer is B.", "The answer is A."),
        ("**Answer: (D)**", "**Answer: (B)**"),
        ("answer: c", "answer: d"),
        ("A) Rome is wrong, and C, D and A are too.", "C) Rome is wrong, and D, B and C are too."),
        ("A is wrong. A dog barks. Option B or C.", "C is wrong. A dog barks. Option A or D."),
        ("(A) and (B), not [D]", "(C) and (A), not [B]"),
        ("I think it's B, not A.", "I think it's A, not C."),
        ("\\boxed{B}", "\\boxed{A}"),
        (
            "In plan B we use C++, C# and vitamin C for A. B. Cole.",
            "In plan B we use C++, C# and vitamin C for A. B. Cole.",
        ),
        ("Bern is D.", "Bern is B."),
        ("So:\n b \nand a dog", "So:\n a \nand a dog"),
        ("E and F are none.", "E and F are none."),
    ],
)
def test_option_letters_are_rewritten_in_text(text, told):
    assert ORDER.to_question_letters(text, QUESTION) == told


def test_single_capitals_stay_if_the_question_uses_them():
    blood = Question(text="Which blood group is rarest, A, B or O?", choices=("A only", "B only", "AB", "O"))
    text = "B is rarer than A, so B it is.\nAnswer: "
    assert ORDER.to_question_letters(f"{text}B", blood) == f"{text}A"


FORMS = st.sampled_from([
    "I weigh them up.\nAnswer: {}", "The answer is {}.", "The answer is ({}).", "**{}**", "{}) {}", "\\boxed{{{}}}",
    "It must be option {}.", "So the correct choice is {} because it is so.", "Answer: **{}**",
])  # fmt: skip


@example(12, 4, 0, "**{}**")  # shown as I
@given(st.integers(2, 13), st.integers(0, 12), st.integers(0, 2**31), FORMS)
def test_rewriting_preserves_the_chosen_option(count, option, seed, form):
    asked, option = question(count), option % count
    (order,) = option_orders(asked, 1, seed)
    place = order.order.index(option)
    letter = "ABCDEFGHIJKLM"[place]
    text = form.format(letter, CITIES[option])
    found = extract_answer(text, order.shown(asked))
    assert found is not None
    assert found.value == letter
    told, choice = read_opinion(text, asked, order)
    assert choice == "ABCDEFGHIJKLM"[option]
    again = extract_answer(told, asked)
    assert again is not None
    assert again.value == choice
