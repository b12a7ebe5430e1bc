"""Long evidence: windows of whole sentences, and where the verdict was found."""

from hypothesis import given
from hypothesis import strategies as st
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


async def test_the_surest_window_decides():
    inner = ScriptedEntailment(by_marks, max_words=20)
    text = text_of({3: "yes!", 30: "no!"})
    assert await WindowedEntailment(inner).judge([Pair(text, "claim", "title")]) == [NO]
    assert {(p.claim, p.title) for p in inner.calls[0]} == {("claim", "title")}
    assert all(len(p.evidence.split()) <= 20 and p.evidence.startswith("Here are") for p in inner.calls[0])


async def test_short_evidence_is_passed_on_as_it_is():
    inner = ScriptedEntailment(by_marks, max_words=20)
    pairs = [Pair("  All of this fits. yes!\n", "claim", "title"), Pair("", "claim")]
    assert await WindowedEntailment(inner).judge(pairs) == [YES, NOTHING]
    assert inner.calls == [pairs]


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
    assert await model.judge(pairs) == [YES, YES, YES, NO]
    assert len(inner.calls) == 1
    assert await model.judge([]) == []
    assert len(inner.calls) == 1


async def test_a_window_that_could_not_be_read_is_left_out():
    inner = ScriptedEntailment(by_marks, max_words=20)
    mixed, all_bad = text_of({1: "?!", 30: "yes!"}), text_of(dict.fromkeys(range(40), "?!"))
    assert await WindowedEntailment(inner).judge([Pair(mixed, "c"), Pair(all_bad, "c")]) == [YES, None]


async def test_what_a_cut_parts_is_found_in_the_overlap():
    def needs_both(pair):
        return YES if "yes!" in pair.evidence and "also!" in pair.evidence else NOTHING

    text = text_of({7: "yes!", 8: "also!"}, 20)
    starts = [start for start, _ in window_spans(text, 46, 0)]
    assert text.index("Here are words number 8") in starts  # without an overlap the cut falls between the two
    model = WindowedEntailment(ScriptedEntailment(needs_both, max_words=46))
    assert [v.label for v in await model.judge([Pair(text, "c")])] == ["supports"]


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


async def test_limit_identity_and_closing():
    inner = ScriptedEntailment(by_marks, max_words=10)
    model = WindowedEntailment(inner)
    assert isinstance(model, Entailment)
    assert model.max_words is None
    assert model.identity == f"{inner.identity}+windows-10-2"
    await model.aclose()
    assert inner.closed == 1
