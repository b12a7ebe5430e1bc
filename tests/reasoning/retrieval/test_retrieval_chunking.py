"""Chunks: whole sentences, every word, bounded length and overlap, headings as context."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.reasoning.retrieval.chunking import TextChunk, split_chunks

SENTENCES = "One two three. Four five six. Seven eight nine. Ten eleven twelve."


def shown(text, **how):
    return [text[c.start : c.end] for c in split_chunks(text, **how)]


def test_pieces_end_where_sentences_end():
    assert shown(SENTENCES, words=6, overlap=0) == [
        "One two three. Four five six.",
        "Seven eight nine. Ten eleven twelve.",
    ]
    assert shown(SENTENCES, words=8, overlap=3) == [
        "One two three. Four five six.",
        "Four five six. Seven eight nine.",
        "Seven eight nine. Ten eleven twelve.",
    ]
    assert shown(SENTENCES, words=5, overlap=2) == SENTENCES.replace(". ", ".|").split("|")
    assert shown(SENTENCES) == [SENTENCES]


def test_paragraphs_go_together_and_a_long_sentence_is_cut():
    assert shown("A b.\n\nC d.\n \n\nE", words=4, overlap=0) == ["A b.\n\nC d.", "E"]
    assert shown("a b c d e f g", words=3, overlap=0) == ["a b c", "d e f", "g"]
    assert [len(t) for t in shown("x" * 1000, words=1, overlap=0)] == [400, 400, 200]


def test_empty_texts_have_none():
    assert split_chunks("") == split_chunks(" \n\n ") == split_chunks("# Only a heading\n", headings=True) == []


def test_headings_are_context_and_no_text():
    text = "Before.\n# Guide #\nIntro.\n## Linux\nRun it.\n### Old\nNo.\n## Mac\n\nToo.\n# API\nEnd."
    found = split_chunks(text, headings=True)
    assert [(text[c.start : c.end], c.heading) for c in found] == [
        ("Before.", ""),
        ("Intro.", "Guide"),
        ("Run it.", "Guide > Linux"),
        ("No.", "Guide > Linux > Old"),
        ("Too.", "Guide > Mac"),
        ("End.", "API"),
    ]
    assert [c.heading for c in split_chunks(text)] == [""]


def test_a_comment_in_code_is_no_heading():
    text = "# Use\n```\n# not one\nx = 1\n```\nDone.\n~~~\n# open to the end"
    assert {c.heading for c in split_chunks(text, headings=True)} == {"Use"}
    assert "# not one" in shown(text, headings=True)[0]


@pytest.mark.parametrize(("words", "overlap"), [(5, 5), (5, 9), (5, -1), (0, 0)])
def test_an_overlap_that_never_ends_is_refused(words, overlap):
    with pytest.raises(ValueError, match="overlap"):
        split_chunks("a", words=words, overlap=overlap)


WRITTEN = st.lists(st.sampled_from(["word", "b.", "Dr.", "x!", "\n", "\n\n", " ", "  ", "# H", "```", "é?", "y" * 30]))


@given(WRITTEN.map(" ".join), st.integers(1, 9), st.data(), st.booleans())
def test_every_word_is_in_a_piece_and_the_bounds_hold(text, words, data, headings):
    overlap = data.draw(st.integers(0, words - 1))
    found = split_chunks(text, words=words, overlap=overlap, headings=headings)
    covered = set()
    for chunk in found:
        piece = text[chunk.start : chunk.end]
        assert piece == piece.strip() != ""
        assert len(piece.split()) <= words
        covered |= set(range(chunk.start, chunk.end))
    for one, two in pairwise(found):
        assert one.start < two.start
        assert one.end < two.end
        assert len(text[two.start : one.end].split()) <= overlap
    if not headings:
        assert [i for i, c in enumerate(text) if not c.isspace() and i not in covered] == []


@given(st.text(max_size=300))
def test_any_text_can_be_cut(text):
    for chunk in split_chunks(text, words=3, overlap=1, headings=True):
        assert isinstance(chunk, TextChunk)
        assert text[chunk.start : chunk.end].strip()


def test_a_long_text_without_ends_or_blanks_is_cut_in_linear_time():
    assert len(split_chunks("a " * 200_000, headings=True)) == 1667
    assert len(split_chunks("x" * 1_000_000, words=10, overlap=2)) >= 250
    assert split_chunks("#" * 100_000 + "\n" * 100_000, headings=True)
