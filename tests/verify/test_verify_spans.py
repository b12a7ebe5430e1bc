"""The part of a passage that decides: by words, by an entailment, by a quotation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import BackendError
from reason.reasoning.knowledge import Passage
from reason.reasoning.quoting import find_quotation
from reason.verify.spans import (
    MAX_SENTENCES,
    SpanRequest,
    span_at,
    span_by_words,
    spans_by_entailment,
    spans_by_quotation,
)
from reason.verify.types import NOTHING, Support
from support.scripted_entailment import ScriptedEntailment
from support.scripted_model import ALWAYS_THINKS, ScriptedModel, replies, thinking

TEXT = "Ada was born in London.  She wrote  the first program. It ran on\tno machine. Dr. Smith knew her."
PASSAGE = Passage(id="p", source="s", text=TEXT, title="Ada Lovelace")


def check(span, passage=PASSAGE):
    assert span.passage == passage.id
    assert passage.text[span.start : span.end] == span.text


# -- by words


def test_the_sentence_with_the_most_in_common():
    span = span_by_words(PASSAGE, "Ada was born in London")
    check(span)
    assert span.text == "Ada was born in London."
    assert span.score == 1.0
    assert span_by_words(PASSAGE, "Doctor Smith knew somebody").text == "Dr. Smith knew her."
    assert span_by_words(PASSAGE, "Whales swim") is None
    assert span_by_words(PASSAGE, "") is None
    assert span_by_words(Passage(id="e", source="s", text=" \n "), "Ada") is None


@given(st.text(max_size=300), st.text(max_size=60))
def test_spans_by_words_are_substrings(text, claim):
    """Invariant 6."""
    passage = Passage(id="x", source="s", text=text)
    span = span_by_words(passage, claim)
    if span is not None:
        check(span, passage)
        assert 0 < span.score <= 1


# -- by an entailment


def marks(table):
    """A verdict by the marks that a text has, the first that fits."""

    def verdict(pair):
        return next((v for mark, v in table if all(m in pair.evidence for m in mark.split("+"))), NOTHING)

    return ScriptedEntailment(verdict)


async def test_the_sentence_that_decides_most():
    model = marks([("born", Support(0.6, 0.2, 0.2)), ("ran on", Support(0.1, 0.8, 0.1))])
    refutes, supports = await spans_by_entailment(
        [SpanRequest(PASSAGE, "claim", "refutes"), SpanRequest(PASSAGE, "claim", "supports")], model
    )
    check(refutes)
    assert (refutes.text, refutes.score) == ("It ran on\tno machine.", 0.8)
    assert supports.text == "Ada was born in London."
    assert len(model.calls) == 1
    assert {p.title for p in model.calls[0]} == {"Ada Lovelace"}
    assert len(model.calls[0]) == 2 * (4 + 3)


async def test_two_neighbours_have_to_be_clearly_surer():
    pair = "born+wrote"
    near = marks([(pair, Support(0.84, 0.1, 0.06)), ("born", Support(0.8, 0.1, 0.1))])
    (found,) = await spans_by_entailment([SpanRequest(PASSAGE, "claim", "supports")], near)
    assert found.text == "Ada was born in London."
    clear = marks([(pair, Support(0.9, 0.05, 0.05)), ("born", Support(0.8, 0.1, 0.1))])
    (found,) = await spans_by_entailment([SpanRequest(PASSAGE, "claim", "supports")], clear)
    check(found)
    assert found.text == "Ada was born in London.  She wrote  the first program."
    assert found.score == 0.9


async def test_of_many_sentences_the_nearest_are_judged():
    text = " ".join(f"Sentence {i} is about {'Ada' if i in (70, 71) else 'rain'}." for i in range(100))
    passage = Passage(id="long", source="s", text=text)
    model = marks([("Ada", Support(0.9, 0.05, 0.05))])
    (found,) = await spans_by_entailment([SpanRequest(passage, "Ada exists", "supports")], model)
    check(found, passage)
    assert found.text == "Sentence 70 is about Ada."
    assert len(model.calls[0]) <= 2 * MAX_SENTENCES - 1


async def test_what_cannot_be_judged_falls_back_to_words():
    unread = ScriptedEntailment(lambda pair: None)
    empty = Passage(id="e", source="s", text="")
    first, second = await spans_by_entailment(
        [SpanRequest(PASSAGE, "born in London", "supports"), SpanRequest(empty, "x", "supports")], unread
    )
    assert first.text == "Ada was born in London."
    assert second is None
    assert await spans_by_entailment(
        [SpanRequest(empty, "x", "supports")], ScriptedEntailment(lambda pair: None, failing=True)
    ) == [None]
    with pytest.raises(BackendError):
        await spans_by_entailment(
            [SpanRequest(PASSAGE, "x", "supports")], ScriptedEntailment(lambda pair: None, failing=True)
        )
    assert await spans_by_entailment([], unread) == []


# -- by a quotation


async def quoted(reply, claim="Ada was born in Paris", passage=PASSAGE, **model):
    (found,) = await spans_by_quotation(
        [SpanRequest(passage, claim, "supports")], ScriptedModel(replies(reply), **model)
    )
    if found is not None:
        check(found, passage)
    return found


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("She wrote\nthe first program.", "She wrote  the first program."),
        ('"It ran on no machine"', "It ran on\tno machine"),
        ("\u201cborn in London\u201d", "born in London"),
        ("> She wrote\n> the first program.", "She wrote  the first program."),
        ("London.  She wrote", "London.  She wrote"),
    ],
)
async def test_a_quotation_is_found_whatever_its_blanks(reply, text):
    found = await quoted(reply)
    assert (found.text, found.score) == (text, 1.0)


@pytest.mark.parametrize(
    "reply",
    [
        "Ada was born in Paris.",  # made up
        "She wrote a program.",
        "she wrote the first program.",  # another letter is another text
        "da was born",  # begins within a word
        "was in",  # says nothing by itself
        "",
        "None of it says so",
    ],
)
async def test_a_quotation_that_is_none_falls_through_to_words(reply):
    """Invariant 6."""
    found = await quoted(reply)
    assert (found.text, found.score < 1) == ("Ada was born in London.", True)


@pytest.mark.parametrize("reply", ["NONE", "none.", '"NONE"', " NONE\n"])
async def test_none_is_no_span(reply):
    assert await quoted(reply) is None


async def test_a_quotation_is_read_after_the_thought_and_one_cut_in_it_falls_through_to_words():
    (found,) = await spans_by_quotation(
        [SpanRequest(PASSAGE, "Ada was born in Paris", "supports")],
        ScriptedModel(thinking("Ada was born in London.", "NONE"), profile=ALWAYS_THINKS),
    )
    assert found is None
    (cut,) = await spans_by_quotation(
        [SpanRequest(PASSAGE, "Ada was born in Paris", "supports")],
        ScriptedModel(thinking("NONE " * 400, "NONE"), profile=ALWAYS_THINKS),
    )
    assert cut.text == "Ada was born in London."


async def test_all_quotations_are_asked_for_in_one_call_and_fit_the_context():
    class TwoCharacters(ScriptedModel):
        def count_tokens(self, prompt):
            return super().count_tokens(prompt) // 2

    model = TwoCharacters(replies("NONE"), context_tokens=3000)
    long = Passage(id="l", source="s", text="Rain fell. " * 5000)
    assert (
        await spans_by_quotation([SpanRequest(long, "c", "supports"), SpanRequest(PASSAGE, "c", "supports")], model)
        == [None] * 2
    )
    assert len(model.generate_calls) == 1
    assert all(r.sampling.default_temperature == 0 for r in model.generate_calls[0])
    assert await spans_by_quotation([], model) == []
    assert len(model.generate_calls) == 1


@given(st.text("ab \n\t.", min_size=1, max_size=60), st.data())
def test_a_piece_of_a_text_is_found_with_its_exact_place(text, data):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    place = find_quotation(text, text[start:end])
    folded = " ".join(text[start:end].split())
    if place is not None:
        assert " ".join(text[slice(*place)].split()) == folded
    elif (start == 0 or text[start - 1].isspace()) and (end == len(text) or text[end].isspace()):
        assert set(folded.replace(".", " ").split()) <= {"a"}  # "a" alone has no meaning of its own


def test_a_place_outside_is_the_callers():
    assert span_at(PASSAGE, 0, 3, 0.5).text == "Ada"
    assert find_quotation("x" * 1_000_000, "x" * 1000) is None
    assert find_quotation("party art", "art") == (6, 9)


async def test_where_no_sentence_decides_alone_words_choose():
    text = "It is a tower in Paris, France. It was built from 1887 to 1889 for a fair."
    passage = Passage(id="p", source="d", text=text)
    judge = ScriptedEntailment(lambda pair: Support(0.15, 0.15, 0.7))
    (selected,) = await spans_by_entailment(
        [SpanRequest(passage, "The thing was built in 1889 for a fair.", "supports")], judge
    )
    assert selected is not None
    assert "1889" in selected.text
    assert "Paris" not in selected.text
