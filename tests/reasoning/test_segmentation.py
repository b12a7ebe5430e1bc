"""Segmentation of a chain into steps: protected regions, normal forms of steps, and repeated text."""

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
def test_split(text, steps):
    expected = steps if steps is not None else [text.removesuffix("Done"), "Done"]
    assert split_steps(text) == expected


PIECES = st.sampled_from(
    ["\n", "\n\n", " ", "Step 1: ", "## ", "1. ", "2) ", "a.", "b! ", "```", "$$", "\\[", "\\]", "x", "\\begin{", "。"]
)


@given(st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=40).map("".join)))
def test_nothing_is_lost_and_no_step_is_blank(text):
    steps = split_steps(text)
    assert "".join(steps) == text
    assert all(step.strip() for step in steps) or len(steps) == 1
    assert (steps == []) == (text == "")


@pytest.mark.parametrize(
    "piece", ["a. ", "\n", "\n\n", " ", "1. \n", "$$", "\\[", "```\n", "Step 1 \n", "\n \n", "a.\n"]
)
@pytest.mark.timeout(60)
def test_long_texts_are_cut_in_linear_time(piece):
    text = piece * (250_000 // len(piece))
    assert "".join(split_steps(text)) == text


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
def test_boundaries_agree_with_the_steps_of_the_complete_text(text):
    steps, done, rest = [], "", text
    while (at := find_boundary(rest, "\n\n", done)) is not None:
        steps.append(rest[:at])
        done, rest = done + rest[: at + 2], rest[at + 2 :]
    assert [s.strip() for s in (*steps, rest)] == [s.strip() for s in split_steps(text)]


MARKS = st.sampled_from(["$$", "\\[", "\\begin{c}", "~~~", "\n", "h" * (FORMULA_CHARS + 1)])


@given(
    st.lists(REGIONS | MARKS, max_size=12),
    st.sampled_from(["\n\n", "\n", "h", "b", "d"]),
)
def test_a_boundary_is_the_first_delimiter_outside_of_blocks(parts, delimiter):
    text = "".join(parts)
    first = len(text) - len(text.lstrip())
    places = [at for at in range(first, len(text)) if text.startswith(delimiter, at)]
    outside = [at for at in places if not is_inside_block(text[:at])]
    assert find_boundary(text, delimiter) == (outside[0] if outside else None)


@pytest.mark.parametrize("mark", ["x", "$$", "\\[x", "\\begin{x", "\n```"])
def test_a_long_text_in_blocks_is_searched_in_linear_time(mark):
    """10,000 delimiters inside a block took minutes, each with the text before it."""
    find_boundary("```\n" + f"{mark}x " * 20_000, "x")


@given(st.text(alphabet="`~$\\[]{}begin nd\n", max_size=300))
def test_a_block_open_far_after_its_mark_is_code(text):
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
    prefix = Prefix(("a", "b"))
    assert (list(prefix), len(prefix), prefix[0], prefix[1:]) == (["a", "b"], 2, "a", ("b",))
