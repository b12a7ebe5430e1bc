"""Long snippets are quoted by the sentences that matter, and by the same ones in a run and in its replay."""

from hypothesis import given
from hypothesis import strategies as st
from reason.reasoning.coat.shortening import GAP, approximate_tokens, shortened
from reason.reasoning.sentences import sentence_spans

TOWERS = (
    "Towers\nThe oldest tower of the region was begun long ago. The Wibble Tower stands in Quax. "
    "Many people come by train. Its bells were cast in bronze. The Wibble Tower was built by Ada Zorn."
)


def test_a_short_text_stays_as_it_is():
    assert shortened("  Anything\n at all. ", "something else", 6) == "  Anything\n at all. "


def test_the_sentences_that_bear_on_the_question_stay_whole_and_in_order():
    assert shortened(TOWERS, "Who built the Wibble Tower?", 20) == (
        "The Wibble Tower stands in Quax. … The Wibble Tower was built by Ada Zorn."
    )
    assert shortened(TOWERS, "What are the bells made of? cast bronze", 8) == "Its bells were cast in bronze."


def test_of_equals_the_earlier_stays_and_neighbours_have_no_gap():
    assert shortened("One is here. Two is here. Three is here.", "nothing of it", 7) == "One is here. Two is here."


def test_a_text_without_a_sentence_that_fits_says_nothing():
    assert shortened("word " * 100, "word", 10) == ""


TEXTS = st.text(alphabet="ab .\n?é中", max_size=200)


@given(TEXTS, TEXTS, st.integers(1, 40))
def test_what_stays_fits_and_is_made_of_whole_sentences(text, about, most):
    made = shortened(text, about, most)
    if approximate_tokens(text) <= most:
        assert made == text
        return
    assert made == "" or approximate_tokens(made) <= most
    sentences = [text[start:end] for start, end in sentence_spans(text)]
    at = 0
    for part in made.split(GAP) if made else []:
        rest = part
        while rest:
            at = next(i for i in range(at, len(sentences)) if rest.startswith(sentences[i])) + 1
            rest = rest[len(sentences[at - 1]) :].removeprefix(" ")
