"""Long snippets are quoted by the sentences that matter, and by the same ones in a run and in its replay."""

from hypothesis import given
from hypothesis import strategies as st
from reason.reasoning.coat.association import GAP, estimate_tokens, select_sentences
from reason.reasoning.segmentation import sentence_spans

TOWERS = (
    "Towers\nThe oldest tower of the region was begun long ago. The Wibble Tower stands in Quax. "
    "Many people come by train. Its bells were cast in bronze. The Wibble Tower was built by Ada Zorn."
)


def test_short_text_is_unchanged():
    assert select_sentences("  Anything\n at all. ", "something else", 6) == "  Anything\n at all. "


def test_relevant_sentences_are_kept_in_order():
    assert select_sentences(TOWERS, "Who built the Wibble Tower?", 20) == (
        "The Wibble Tower stands in Quax. … The Wibble Tower was built by Ada Zorn."
    )
    assert select_sentences(TOWERS, "What are the bells made of? cast bronze", 8) == "Its bells were cast in bronze."


def test_ties_keep_earlier_sentence_without_gap():
    assert (
        select_sentences("One is here. Two is here. Three is here.", "nothing of it", 7) == "One is here. Two is here."
    )


def test_text_without_fitting_sentence_is_empty():
    assert select_sentences("word " * 100, "word", 10) == ""


TEXTS = st.text(alphabet="ab .\n?é中", max_size=200)


@given(TEXTS, TEXTS, st.integers(1, 40))
def test_selection_fits_and_has_complete_sentences(text, about, most):
    made = select_sentences(text, about, most)
    if estimate_tokens(text) <= most:
        assert made == text
        return
    assert made == "" or estimate_tokens(made) <= most
    sentences = [text[start:end] for start, end in sentence_spans(text)]
    assert made == "" or is_joined_from(made, sentences)


def is_joined_from(made, sentences):
    """Whether a text is some of the sentences, in their order: with a space between neighbours, else with the gap.

    All ways at once: a sentence may begin another one, or be written twice.
    """
    ends = {(len(s), i) for i, s in enumerate(sentences) if made.startswith(s)}
    reached = set(ends)
    while ends:
        found = set()
        for at, last in ends:
            for i in range(last + 1, len(sentences)):
                piece = (" " if i == last + 1 else GAP) + sentences[i]
                if made.startswith(piece, at):
                    found.add((at + len(piece), i))
        ends = found - reached
        reached |= found
    return any(at == len(made) for at, _ in reached)
