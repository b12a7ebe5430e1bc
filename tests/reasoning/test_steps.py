"""Cutting a chain into steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.reasoning.segmentation import split_steps

CASES = [
    ("", []),
    ("  \n", ["  \n"]),
    ("One sentence.", ["One sentence."]),
    ("First. Second! Third?", ["First. ", "Second! ", "Third?"]),
    ("It is 3.5 m. Dr. Who agrees.", ["It is 3.5 m. ", "Dr. Who agrees."]),
    ("A line\nanother", ["A line\n", "another"]),
    ("One. Two.\n\nThree.", ["One. Two.\n\n", "Three."]),
    ("One.\n \n\n\nTwo.", ["One.\n \n\n\n", "Two."]),
    ("Step 1: add.\nStep 2: carry.", ["Step 1: add.\n", "Step 2: carry."]),
    ("Intro.\n**Step 1:** add.\n**Step 2:** carry.", ["Intro.\n", "**Step 1:** add.\n", "**Step 2:** carry."]),
    ("## Step 1\nadd\n## Step 2\ncarry", ["## Step 1\nadd\n", "## Step 2\ncarry"]),
    ("1. add\n2. carry\n3) done", ["1. add\n", "2. carry\n", "3) done"]),
    ("3.5 is it\n4.5 is not", ["3.5 is it\n", "4.5 is not"]),
    ("The steps:\n1. add\n   more\n2. carry\n", ["The steps:\n", "1. add\n   more\n", "2. carry\n"]),
    ("\n\nStep 1: add.\n\nStep 2: carry.\n\n", ["\n\nStep 1: add.\n\n", "Step 2: carry.\n\n"]),
    ("Code:\n```\na\n\n1. b\n```\n\nDone.", ["Code:\n```\na\n\n1. b\n```\n\n", "Done."]),
    ("So\n\\[\nx\n\n= 1\n\\]\n\nDone.", ["So\n\\[\nx\n\n= 1\n\\]\n\n", "Done."]),
    ("So\n$$\nx\n\n= 1\n$$\n\nDone.", ["So\n$$\nx\n\n= 1\n$$\n\n", "Done."]),
    ("\\begin{a}\n\n\\begin{b}\n\n\\end{b}\n\n\\end{a}\n\nDone", None),
]


@pytest.mark.parametrize(("text", "steps"), CASES)
def test_split(text: str, steps: list[str] | None) -> None:
    expected = steps if steps is not None else [text.removesuffix("Done"), "Done"]
    assert split_steps(text) == expected


PIECES = st.sampled_from(
    ["\n", "\n\n", " ", "Step 1: ", "## ", "1. ", "2) ", "a.", "b! ", "```", "$$", "\\[", "\\]", "x", "\\begin{", "。"]
)


@given(st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=40).map("".join)))
def test_nothing_is_lost_and_no_step_is_blank(text: str) -> None:
    steps = split_steps(text)
    assert "".join(steps) == text
    assert all(step.strip() for step in steps) or len(steps) == 1
    assert (steps == []) == (text == "")


@pytest.mark.parametrize(
    "piece", ["a. ", "\n", "\n\n", " ", "1. \n", "$$", "\\[", "```\n", "Step 1 \n", "\n \n", "a.\n"]
)
@pytest.mark.timeout(60)
def test_a_megabyte_is_cut(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    assert "".join(split_steps(text)) == text
