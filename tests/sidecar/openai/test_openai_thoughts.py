"""Thoughts and content are split equally for complete and streamed texts, and as in `reasoning.reading`."""

import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reason.core.errors import InvalidResponse
from reason.reasoning.answers.normalization import visible_text
from reason.sidecar.openai.streaming import AnswerText, ThoughtSplitter, in_pieces, split_thoughts, until_stop

PARTS = st.lists(
    st.sampled_from(["<think>", "</think>", "<Thinking>", "</thought>", "<", "</", "a", "b c", "\n", "</th", "ink>"]),
    max_size=12,
)


def cut(text, at):
    """Split the text at the given positions."""
    places = sorted({0, len(text), *(i % (len(text) + 1) for i in at)})
    return [text[a:b] for a, b in itertools.pairwise(places)]


@pytest.mark.parametrize(
    ("text", "thoughts", "content"),
    [
        ("42", "", "42"),
        ("<think>hm</think>42", "hm", "42"),
        ("  <think>\nhm\n</think>\n\n42 ", "hm", "42"),
        ("hm</think>42", "hm", "42"),
        ("<think>never ends", "never ends", ""),
        ("a<think>b</think>c", "b", "a\nc"),
        ("a < b and </b>", "", "a < b and </b>"),
        ("a</think>b<think>c</think>d", "a\nc", "b\nd"),
    ],
)
def test_thoughts_and_content(text, thoughts, content):
    assert split_thoughts(text) == (thoughts, content)


@given(PARTS.map("".join))
def test_content_is_what_a_reader_of_answers_sees(text):
    _, content = split_thoughts(text)
    assert re.sub(r"\s+", " ", content).strip() == re.sub(r"\s+", " ", visible_text(text).text).strip()


@given(PARTS.map("".join), st.lists(st.integers(0, 80), max_size=8))
def test_pieces_come_to_the_same_as_the_whole(text, at):
    whole, piecewise = ThoughtSplitter(), ThoughtSplitter()
    expected = [*whole.feed(text), *whole.end()]
    found = [p for piece in cut(text, at) for p in piecewise.feed(piece)] + piecewise.end()
    for kind in ("reasoning", "content"):
        assert "".join(p.text for p in found if p.kind == kind) == "".join(p.text for p in expected if p.kind == kind)
    assert piecewise.late == whole.late


def test_an_end_without_a_beginning_is_noticed():
    splitter = ThoughtSplitter()
    assert [p.kind for p in splitter.feed("thought")] == ["content"]
    assert not splitter.late
    splitter.feed("</think>")
    assert splitter.late


def test_a_text_that_begins_inside_a_thought():
    splitter = ThoughtSplitter(opened=True)
    pieces = splitter.feed("hm</think>42")
    assert [tuple(p) for p in pieces if p.text] == [("reasoning", "hm"), ("content", "42")]
    assert not splitter.late


@given(PARTS.map("".join), st.lists(st.integers(0, 80), max_size=8))
def test_content_that_is_streamed_is_the_whole_content(text, at):
    splitter, said = ThoughtSplitter(), AnswerText()
    for piece in [p for new in cut(text, at) for p in splitter.feed(new)] + splitter.end():
        if piece.kind == "reasoning":
            said.part()
        else:
            said.add(piece.text)
    _, content = split_thoughts(text)
    said.finish(content, late=splitter.late)
    assert said.answer_text.endswith(content) if splitter.late else said.answer_text == content


@given(
    st.text(alphabet="ab \n", max_size=30),
    st.lists(st.integers(0, 40), max_size=6),
    st.lists(st.text(alphabet="ab\n", min_size=1, max_size=3), max_size=3),
)
@example("aba", [2], ["b", "aba"])  # the second one starts earlier and ends later
@example("xab", [1, 2], ["b", "xab"])
def test_what_was_said_is_never_taken_back(text, at, stop):
    whole = until_stop(text.strip(), stop)
    said = AnswerText(stop)
    given_out = ""
    for piece in cut(text, at):
        given_out += said.add(piece)
        assert whole.startswith(given_out)
    assert given_out + said.finish(whole) == whole


def test_a_text_that_goes_on_otherwise_is_an_error():
    said = AnswerText()
    said.add("one")
    with pytest.raises(InvalidResponse, match="does not go on"):
        said.finish("two")


def test_the_rest_behind_thoughts_that_were_said():
    said = AnswerText()
    said.add("a thought")
    said.add("\n4")
    assert said.finish("42", late=True) == "2"


@given(st.text(max_size=200), st.integers(1, 20))
def test_pieces_are_the_text(text, size):
    pieces = in_pieces(text, size)
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= size for piece in pieces)
