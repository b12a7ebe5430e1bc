"""Long evidence: windows of whole sentences, and where the verdict was found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import UserError
from reason.verify.entailment.windows import WindowedEntailment, window_spans
from reason.verify.types import NOTHING, Entailment, Pair, Support
from support.scripted_entailment import ScriptedEntailment

YES, NO = Support(0.8, 0.1, 0.1), Support(0.05, 0.9, 0.05)


def by_marks(pair):
    """Refutes where the text has "no!", else supports where it has "yes!"; a part with "?!" cannot be read."""
    if "?!" in pair.evidence:
        return None
    return NO if "no!" in pair.evidence else YES if "yes!" in pair.evidence else NOTHING


def text_of(marks, sentences=40):
    """Sentences of five words, some ending in a mark: {place: mark}."""
    return " ".join(f"Here are words number {i}{' ' + marks[i] if i in marks else '.'}" for i in range(sentences))


async def test_the_surest_window_decides_and_tells_its_place():
    inner = ScriptedEntailment(by_marks, max_words=20)
    model = WindowedEntailment(inner)
    text = text_of({3: "yes!", 30: "no!"})
    (judged,) = await model.judge_windows([Pair(text, "claim", "title")])
    assert judged.support == NO
    assert "no!" in text[judged.start : judged.end]
    assert len(text[judged.start : judged.end].split()) <= 20
    assert text[judged.start : judged.end].startswith("Here are")
    assert await model.judge([Pair(text, "claim", "title")]) == [NO]
    assert {(p.claim, p.title) for p in inner.calls[0]} == {("claim", "title")}


async def test_short_evidence_is_passed_on_as_it_is():
    inner = ScriptedEntailment(by_marks, max_words=20)
    pairs = [Pair("  All of this fits. yes!\n", "claim", "title"), Pair("", "claim")]
    judged = await WindowedEntailment(inner).judge_windows(pairs)
    assert inner.calls == [pairs]
    assert [(j.support, j.start, j.end) for j in judged] == [(YES, 0, len(pairs[0].evidence)), (NOTHING, 0, 0)]


async def test_without_a_limit_nothing_is_cut():
    inner = ScriptedEntailment(by_marks)
    model = WindowedEntailment(inner)
    pair = Pair(text_of({}, 4000), "claim")
    assert await model.judge([pair]) == [NOTHING]
    assert inner.calls == [[pair]]
    assert model.identity == inner.identity


async def test_all_windows_of_all_pairs_go_in_one_call():
    inner = ScriptedEntailment(by_marks, max_words=20)
    model = WindowedEntailment(inner)
    pairs = [Pair(text_of({i: "yes!"}), f"claim {i}") for i in (0, 20, 39)] + [Pair("no!", "last")]
    judged = await model.judge_windows(pairs)
    assert len(inner.calls) == 1
    assert [j.support for j in judged] == [YES, YES, YES, NO]
    assert await model.judge([]) == []
    assert len(inner.calls) == 1


async def test_a_window_that_could_not_be_read_is_left_out():
    inner = ScriptedEntailment(by_marks, max_words=20)
    mixed, all_bad = text_of({1: "?!", 30: "yes!"}), text_of(dict.fromkeys(range(40), "?!"))
    first, second = await WindowedEntailment(inner).judge_windows([Pair(mixed, "c"), Pair(all_bad, "c")])
    assert first.support == YES
    assert (second.support, second.start, second.end) == (None, 0, len(all_bad))


async def test_equals_go_to_the_first():
    text = text_of({5: "yes!", 35: "yes!"})
    (judged,) = await WindowedEntailment(ScriptedEntailment(by_marks, max_words=20)).judge_windows([Pair(text, "c")])
    assert text[: judged.end].count("yes!") == 1


async def test_what_a_cut_parts_is_found_in_the_overlap():
    def needs_both(pair):
        return YES if "yes!" in pair.evidence and "also!" in pair.evidence else NOTHING

    text = text_of({7: "yes!", 8: "also!"}, 20)
    apart = WindowedEntailment(ScriptedEntailment(needs_both, max_words=46), overlap=0)
    shared = WindowedEntailment(ScriptedEntailment(needs_both, max_words=46), overlap=12)
    starts = [start for start, _ in window_spans(text, 46, 0)]
    assert text.index("Here are words number 8") in starts  # the cut falls between the two
    assert [v.label for v in await apart.judge([Pair(text, "c")])] == ["neutral"]
    assert [v.label for v in await shared.judge([Pair(text, "c")])] == ["supports"]
    assert apart.identity != shared.identity


@given(st.text("ab .\n中。", max_size=600), st.integers(1, 30), st.integers(0, 29))
def test_parts_have_every_word_and_no_more_than_allowed(text, words, overlap):
    places = window_spans(text, words, min(overlap, words - 1))
    covered = set()
    for start, end in places:
        assert 0 <= start <= end <= len(text)
        covered.update(range(start, end))
        if len(places) > 1:
            assert len(text[start:end].split()) <= words
    assert all(i in covered for i, c in enumerate(text) if not c.isspace())


def test_text_without_blanks_is_counted_by_its_characters():
    text = "这是一个没有空格的句子。" * 500
    places = window_spans(text, 100, 20)
    assert len(places) > 1
    assert max(end - start for start, end in places) <= 800


async def test_sizes_that_make_no_sense_and_closing():
    inner = ScriptedEntailment(by_marks)
    for words, overlap in ((0, 0), (5, 5), (5, -1)):
        with pytest.raises(UserError, match="overlap must be in"):
            WindowedEntailment(inner, max_words=words, overlap=overlap)
    model = WindowedEntailment(inner, max_words=10)
    assert isinstance(model, Entailment)
    assert model.max_words is None
    assert model.identity != inner.identity
    await model.aclose()
    assert inner.closed == 1
