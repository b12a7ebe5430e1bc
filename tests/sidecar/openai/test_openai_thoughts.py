"""Streamed content is never taken back, and complete texts are streamed in pieces."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reason.core.errors import InvalidResponse
from reason.sidecar.openai.streaming import AnswerText, in_pieces, until_stop


def cut(text, at):
    """Split the text at the given positions."""
    places = sorted({0, len(text), *(i % (len(text) + 1) for i in at)})
    return [text[a:b] for a, b in itertools.pairwise(places)]


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
