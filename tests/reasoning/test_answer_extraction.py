"""Answer extraction: a corpus of nasty outputs, properties, and inputs of a megabyte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.types import CodeTest, Question
from reason.reasoning.answers.extraction import ExtractedAnswer, answer_kind, extract_answer, has_value_answer
from reason.reasoning.answers.normalization import parse_numeral, visible_text

ROWS: list[dict[str, Any]] = [
    json.loads(line)
    for line in (Path(__file__).parent / "nasty_outputs.jsonl").read_text(encoding="utf-8").splitlines()
]
KINDS = ("auto", "choice", "number", "math", "yes_no", "text")
WAYS = {"boxed", "marker", "choice", "number", "yes_no", "math", "sentence", "text"}


def question(kind: str, text: str = "What is the capital of France?", choices: tuple[str, ...] = ()) -> Question:
    if kind == "choice" and not choices:
        choices = ("Lyon", "Paris", "Nice", "Lille")
    return Question.model_validate({"text": text, "kind": kind, "choices": choices})


@pytest.mark.parametrize(
    ("text", "asked"),
    [("He did not win.", "Did he win?"), ("The bridge was never closed.", "When was the bridge closed?")],
)
def test_an_answer_keeps_its_negation(text, asked):
    found = extract_answer(text, question("text", asked))
    assert found is not None
    assert "not" in found.value or "never" in found.value


@pytest.mark.parametrize(
    ("asked", "text", "value"),
    [
        ("What is 17 * 23?", "To find 17 * 23", None),
        ("What is 17 * 23?", "To find 17 * 23, we multiply", None),
        ("What is 17 * 23?", "391 = 17 * 23", "391"),
        ("What is 17 * 23?", "17 * 23 = 391", "391"),
        ("What is 17 * 23?", "I do not know.", None),
        ("What is 17 * 23?", "1. First, multiply", None),
        ("What is the capital of Spain?", "1. Madrid...", "Madrid"),
        ("What is the capital of Spain?", "I do not know.", None),
        ("What is the capital of Spain?", "The answer is I don't know.", None),
        ("What is the capital of Spain?", "I'm not sure", None),
    ],
)
def test_fragments_are_no_answers(asked, text, value):
    extracted = extract_answer(text, Question(text=asked))
    assert (extracted.value if extracted else None) == value


@pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])
def test_nasty_output(row):
    extracted = extract_answer(row["text"], question(row["kind"], row["question"], tuple(row["choices"])))
    assert (extracted.value if extracted else None) == row["expected"], row["why"]
    if extracted and "how" in row:
        assert extracted.method == row["how"]


PIECES = st.sampled_from(
    [
        *(
            "\\boxed{",
            "\\boxed",
            "\\fbox{",
            "\\text{",
            "\\frac{3}{4}",
            "}",
            "{",
            "$",
            "$$",
            "\\(",
            "\\)",
            "\\[",
            "\\]",
            "\\",
        ),
        *("The answer is ", "Answer: ", "**Final answer**", "not ", "but ", "####", "<think>", "</think>", "答案是"),
        *("A", "(B)", "C.", "option D", "Paris", "Lyon", "yes", "no", "42", "-7", "1,000", "3/4", "50%", ".5", "€"),
        *("\n", "\n\n", " ", ".", ",", ":", "=", "**", "`", '"', "\u200b", "\u200f", "４２", "٤", "Step 1:", "1. "),
    ]
)
TEXTS = st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=30).map("".join))


@given(text=TEXTS, kind=st.sampled_from(KINDS))
def test_any_text_gives_an_answer_with_its_span_or_none(text, kind):
    extracted = extract_answer(text, question(kind))
    if extracted is None:
        return
    assert extracted.method in WAYS
    assert extracted.value
    assert extracted.value == extracted.value.strip()
    assert 0 <= extracted.start < extracted.end <= len(text)
    written = visible_text(text[extracted.start : extracted.end]).text
    if kind == "choice":
        assert extracted.value in "ABCD"
    elif extracted.value in ("yes", "no") and kind in ("yes_no", "auto"):
        assert written
    elif extracted.value != written:  # a number, in plain form
        numeral = parse_numeral(written)
        assert numeral is not None
        assert numeral.text.rstrip("%") == extracted.value.rstrip("%")


@given(text=TEXTS)
def test_thoughts_change_nothing(text):
    visible = text.replace("<think>", "").replace("</think>", "")
    thought = "The answer is \\boxed{99}"
    plain = extract_answer(visible, question("number"))
    with_thought = extract_answer(f"<think>{thought}</think>{visible}", question("number"))
    assert (plain and plain.value) == (with_thought and with_thought.value)


REPEATED = [
    *(
        "the answer is ",
        "answer ",
        "answer to ",
        "\\boxed{",
        "\\boxed{1}",
        "{",
        "$",
        "$$",
        "\\(",
        "\\[",
        "1",
        "1,",
        "1 ",
    ),
    *(" ", "\n", ".", "<think>", "<think></think>", "\u200b", "A ", "(B) ", "Paris ", "option B ", "yes ", "a.", "**"),
    *("the capital of france is ", "\\text{", "=", "not ", "1/", "-", "####\n", "\n####", "٤", "x", "'", '"'),
]


@pytest.mark.nightly
@pytest.mark.parametrize("number", range(len(REPEATED)))
@pytest.mark.timeout(60)
def test_a_megabyte_is_read(number):
    """Patterns are bounded, so that no repetition makes the work grow faster than the text; the timeout is the guard.

    A pattern quadratic in the text would take 10^12 steps here.
    """
    kind = KINDS[number % len(KINDS)]
    text = REPEATED[number] * (1_000_000 // len(REPEATED[number]))
    extracted = extract_answer(text, question(kind))
    assert extracted is None or isinstance(extracted, ExtractedAnswer)


def test_positions_are_those_of_the_source():
    text = "<think>is it 5?</think>The answer is 4\u200b2."
    extracted = extract_answer(text, question("number"))
    assert extracted == ExtractedAnswer("42", "marker", text.index("4\u200b2"), text.index("4\u200b2") + 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is the capital of France?", "text"),
        ("Who wrote Hamlet?", "text"),
        ("How many apples are left?", "number"),
        ("What is 2 + 3?", "number"),
        ("A train goes 60 miles in 2 hours. What is the speed?", "number"),
        ("Is the sky blue?", "yes_no"),
        ("Is it a cat or a dog?", "text"),
        ("Is it true or not?", "yes_no"),
        ("Simplify $\\frac{x^2}{x}$.", "math"),
        ("Solve for x: 2x = 4", "math"),
    ],
)
def test_the_kind_of_answer(text, expected):
    assert answer_kind(Question(text=text)) == expected


def test_options_make_a_choice_and_an_explicit_kind_wins():
    assert answer_kind(Question(text="How many?", choices=("1", "2"))) == "choice"
    assert answer_kind(Question(text="How many?", kind="text")) == "text"


@pytest.mark.parametrize("blank", ["\u00a0", "\u2009", "\u3000", "\u202f"])
def test_blanks_of_any_kind_are_no_part_of_an_answer(blank):
    for text in (f"0{blank}:", f"The answer is{blank}Rome{blank}.", f"The answer is {blank}Rome."):
        extracted = extract_answer(text, question("text"))
        assert extracted is not None
        assert extracted.value == ("0" if text[0] == "0" else "Rome")


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (Question(text="What is 17 * 23?"), True),
        (Question(text="Ann has 3 apples and eats one. How many apples does she have?"), True),
        (Question(text="Simplify $x^2 / x$."), True),
        (Question(text="Why is that one prime?", choices=("21", "23")), True),
        (Question(text="Write f.", tests=(CodeTest(name="t", code="assert f(1) == 1"),)), True),
        (Question(text="What is 17 * 23? Explain each step."), False),
        (Question(text="How do you simplify $x^2 / x$?"), False),
        (Question(text="What is the capital of France?"), False),
        (Question(text="Is the earth flat?"), False),  # "no" alone would leave out why
        (Question(text="Can you explain TCP?"), False),
    ],
)
def test_a_value_is_the_complete_answer_unless_an_explanation_is_asked_for(question, expected):
    assert has_value_answer(question) is expected
