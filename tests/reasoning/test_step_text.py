"""What must not be cut, normal forms of steps, and what a model says again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.reasoning.continuations import Prefix
from reason.reasoning.segmentation import (
    FORMULA_CHARS,
    find_boundary,
    is_inside_block,
    normalize_step,
    split_steps,
    strip_repeated_steps,
)

OPEN = [
    ("", False),
    ("a\n\nb", False),
    ("```\na", True),
    ("```python\na\n```", False),
    ("say ```x``` here", False),
    ("```\n$$\n```\n", False),
    ("$$ x", True),
    ("$$ x $$", False),
    ("\\[ x", True),
    ("\\[ x \\]", False),
    ("\\begin{a} \\begin{b} \\end{b}", True),
    ("\\begin{a} \\begin{b} \\end{b} \\end{a}", False),
    ("a \\\\[2pt] b", False),
    ("costs \\$$5", False),
    ("~~~\n```\n", True),
    ("````\n```\n", True),
    ("$$ stray\n```\ncode\n```\n", False),
    ("$$" + "x" * FORMULA_CHARS, False),
    ("$$" + "x" * FORMULA_CHARS + " $$ real", True),
    ("\\]", False),
    ("\\end{a}", False),
]


@pytest.mark.parametrize(("text", "expected"), OPEN)
def test_open_regions(text, expected):
    assert is_inside_block(text) is expected


REGIONS = st.sampled_from(
    ["```\nx\n\ny\n```\n", "$$ a\n\nb $$", "\\[ a\n\nb \\]", "\\begin{c}\n\nd\\end{c}", "e\n\nf", "g "]
)


@given(st.lists(REGIONS, min_size=1, max_size=8).map(lambda parts: "\n\n".join(parts) + "\n\nend"))
def test_what_is_cut_is_what_a_whole_text_is_cut_into(text):
    steps, done, left = [], "", text
    while (at := find_boundary(left, "\n\n", done)) is not None:
        steps.append(left[:at])
        done, left = done + left[: at + 2], left[at + 2 :]
    assert [s.strip() for s in (*steps, left)] == [s.strip() for s in split_steps(text)]


@given(st.text(alphabet="`~$\\[]{}begin nd\n", max_size=300))
def test_what_stays_open_far_behind_its_mark_is_code(text):
    far = text + "\n" + "x" * (FORMULA_CHARS + 1)
    assert not is_inside_block(far) or "```" in text or "~~~" in text


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Step 3: add.", "add.", True),
        ("## Step 3 - add.", "**Step 4:** add.", True),
        ("2) add", "2. add", True),
        ("add   up\n now", "add up now", True),
        ("\uff21dd", "Add", True),
        ("add", "Add", False),
        ("3.5 is it", "5 is it", False),
        ("Steps 3", "3", False),
    ],
)
def test_normal_forms(one, other, same):
    assert (normalize_step(one) == normalize_step(other)) is same


@pytest.mark.parametrize(
    ("steps", "text", "rest"),
    [
        (["a b", "c"], "a b\n\nc\n\nd", "d"),
        (["a b", "c"], "c d", "d"),
        (["a b", "c"], "d", "d"),
        (["a b", "c"], "a  b", ""),
        (["a b", "c"], "a b new", "a b new"),
        ([], "x", "x"),
    ],
)
def test_what_is_repeated_is_cut(steps, text, rest):
    assert strip_repeated_steps(steps, text) == rest


def test_a_prefix_is_a_sequence_of_its_steps():
    prefix = Prefix.from_steps(["a", "b"])
    assert (list(prefix), len(prefix), prefix[0], prefix[1:]) == (["a", "b"], 2, "a", ("b",))
    assert prefix.text == "a\n\nb\n\n"
    assert Prefix.from_steps([]) == Prefix()
