"""The n-gram index, and how many draft tokens are worth their time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.serving.local.spec_decode import (
    MAX_AGREEING_TOKENS,
    MAX_POSITIONS,
    QUERY_TOKENS,
    UNSEEN_WEIGHT,
    DraftBudget,
    DraftTree,
    NgramIndex,
    NgramSpeculator,
)

END = 99
FEW = st.lists(st.integers(0, 3), max_size=30)


def paths(draft: DraftTree) -> dict[tuple[int, ...], float]:
    """The draft tokens by their complete paths."""
    actual: dict[tuple[int, ...], float] = {}
    spelled: list[tuple[int, ...]] = []
    for token, parent, chance in zip(draft.tokens, draft.parents, draft.probabilities, strict=True):
        spelled.append((*(spelled[parent] if parent >= 0 else ()), token))
        actual[spelled[-1]] = chance
    return actual


def by_hand(texts: Sequence[Sequence[int]], tail: Sequence[int], depth: int) -> dict[tuple[int, ...], float]:
    """Probabilities of all paths, from every occurrence of the query."""
    positions = []
    for text in texts:
        for at in range(QUERY_TOKENS, len(text)):
            if tuple(text[at - QUERY_TOKENS : at]) == tuple(tail[-QUERY_TOKENS:]):
                agreeing = 0
                while (
                    agreeing < MAX_AGREEING_TOKENS
                    and at - QUERY_TOKENS - 1 - agreeing >= 0
                    and len(tail) > QUERY_TOKENS + agreeing
                    and text[at - QUERY_TOKENS - 1 - agreeing] == tail[-QUERY_TOKENS - 1 - agreeing]
                ):
                    agreeing += 1
                positions.append((text, at, 2.0**agreeing))
    actual: dict[tuple[int, ...], float] = {}
    level = {(): (1.0, positions)}
    for _ in range(depth):
        below: dict[tuple[int, ...], tuple[float, list[tuple[Sequence[int], int, float]]]] = {}
        for path, (chance, reached) in level.items():
            total = UNSEEN_WEIGHT + sum(weight for _, _, weight in reached)
            for token in {text[at] for text, at, _ in reached if at < len(text) and text[at] != END}:
                further = [(t, at + 1, w) for t, at, w in reached if at < len(t) and t[at] == token]
                below[(*path, token)] = (chance * sum(w for _, _, w in further) / total, further)
        actual |= {path: chance for path, (chance, _) in below.items()}
        level = below
    return actual


@given(texts=st.lists(FEW, min_size=1, max_size=2), tail=st.lists(st.integers(0, 3), min_size=2, max_size=8))
def test_path_probabilities_are_products_and_the_most_probable_paths_are_drafted(texts, tail):
    index = NgramIndex((END,))
    for text in texts:
        index.add(text)
    if sum(tuple(t[i : i + 2]) == tuple(tail[-2:]) for t in texts for i in range(len(t))) > MAX_POSITIONS:
        return  # the oldest occurrences are ignored
    expected = by_hand(texts, tail, 3)
    everything = index.draft(tail, 1000, 3, 1e-9)
    assert paths(everything) == pytest.approx(expected)
    some = index.draft(tail, 4, 3, 0.05)
    likely = sorted((c for c in expected.values() if c >= 0.05), reverse=True)[:4]
    assert sorted(some.probabilities, reverse=True) == pytest.approx(likely)
    assert list(some.probabilities) == sorted(some.probabilities, reverse=True)
    assert all(parent < i for i, parent in enumerate(some.parents))
    assert some.cut(2).tokens == some.tokens[:2]


def test_tokens_after_eos_are_never_drafted():
    index = NgramIndex((END,))
    index.add([10, 11, 12, 13, 14, END, 77])
    assert index.draft([11, 12], 8, 8, 0.01).tokens == (13, 14)
    assert len(index.draft([14, END], 8, 8, 0.0001).tokens) <= 1
    assert not len(index.draft([55, 56], 8, 8, 0.01))


def test_a_growing_text_is_a_source_of_drafts_except_its_own_end():
    index = NgramIndex()
    text = index.add([5, 6])
    assert not len(index.draft([5, 6], 8, 8, 0.01))
    index.extend(text, [7, 8, 5, 6])
    assert index.draft([5, 6], 2, 8, 0.01).tokens == (7, 8)


def test_the_oldest_texts_go_first_and_a_text_that_went_stays_away():
    index = NgramIndex(max_tokens=6)
    old = index.add([1, 2, 3])
    index.add([1, 2, 4])
    assert len(index) == 6
    index.add([5])
    assert len(index) == 4
    assert index.draft([1, 2], 8, 8, 0.01).tokens == (4,)
    index.extend(old, [1, 2, 3])
    assert len(index) == 4
    assert not old.is_kept
    while len(index):
        index.drop_oldest()
    assert not index._positions


@given(texts=st.lists(FEW, max_size=8), most=st.integers(1, 40))
def test_a_dropped_text_leaves_no_trace_in_the_index(texts, most):
    index = NgramIndex(max_tokens=most)
    for text in texts:
        index.add(text)
    kept = [list(text.tokens) for text in index._texts]
    assert sum(map(len, kept)) == len(index)
    assert len(kept) <= 1 or len(index) <= most
    fresh = NgramIndex()
    for tokens in kept:
        fresh.add(tokens)
    for pair, positions in index._positions.items():
        was = [(text.tokens, at) for text, at in fresh._positions[pair]]
        assert [(text.tokens, at) for text, at in positions] == was[-len(positions) :]


def test_the_number_of_draft_tokens_maximises_tokens_per_second():
    budget = DraftBudget()
    assert budget.num_draft_tokens(1, [1.0] * 9) == 0  # nothing was timed yet
    budget.observe_time(1, 1.0)
    budget.observe_time(8, 1.7)
    assert budget.step_seconds(1) == 1.0
    assert budget.step_seconds(4) == pytest.approx(1.3)
    assert budget.step_seconds(10) == pytest.approx(1.7 + 2 * 0.12)
    assert budget.num_draft_tokens(1, [0.9, 0.8, 0.7]) == 3
    assert budget.num_draft_tokens(1, [0.9, 0.05, 0.04]) == 1
    assert budget.num_draft_tokens(1, [0.1, 0.1]) == 0


def test_delayed_steps_count_little_and_acceptance_follows_results():
    budget = DraftBudget()
    budget.observe_time(1, 1.0)
    budget.observe_time(1, 1000.0)
    assert budget.step_seconds(1) == pytest.approx(1.2)
    for _ in range(50):
        budget.observe_acceptance(4.0, 1)
    assert budget.calibration == pytest.approx(0.26, abs=0.02)
    assert budget.num_draft_tokens(1, [0.4]) == 0
    before = budget.calibration
    for _ in range(2000):
        budget.observe_acceptance(0.0, 0)
    assert before < budget.calibration <= 1


class Waiting:
    """A sequence that may have ten more tokens."""

    max_draft_tokens = 10

    def __init__(self, salt: str, tokens: list[int]) -> None:
        self.salt, self.tokens = salt, tokens

    def tail(self, count: int) -> list[int]:
        """Its last tokens."""
        return self.tokens[-count:]


def test_texts_of_one_tenant_are_never_drafted_for_another():
    look = NgramSpeculator((END,), "on")
    look.add_prompt("a", [1, 2, 3], 0)
    mine, others = look.draft([Waiting("a", [1, 2]), Waiting("b", [1, 2])], [9, 9])
    assert mine.tokens == (3,)
    assert not len(others)


def test_nothing_is_drafted_where_slot_order_matters_unless_requested():
    for mode, expected in (("auto", 0), ("on", 1), ("off", 0)):
        look = NgramSpeculator((END,), mode)
        look.add_prompt("", [1, 2, 3], 0)
        look.observe(1, [], 0, 1.0)
        assert len(look.draft([Waiting("", [1, 2])], [0])[0]) == expected


def test_drafts_are_one_path_unless_a_tree_is_requested():
    for mode, tokens, parents in (("auto", (3, 4), (-1, 0)), ("on", (3, 4, 5), (-1, 0, -1))):
        look = NgramSpeculator((END,), mode)
        for text in ([1, 2, 3, 4], [1, 2, 5, 6], [0, 1, 2, 3, 4]):
            look.add_prompt("", text, 0)
        for size, seconds in ((1, 1.0), (8, 1.001)):  # further tokens cost nothing
            look._budget.observe_time(size, seconds)
        (draft,) = look.draft([Waiting("", [0, 1, 2])], [9])
        assert (draft.tokens, draft.parents) == (tokens, parents)


@given(texts=st.lists(FEW, min_size=1, max_size=3), tail=st.lists(st.integers(0, 3), min_size=2, max_size=4))
def test_a_chain_has_the_most_probable_draft_token_after_each_token(texts, tail):
    index = NgramIndex((END,))
    for text in texts:
        index.add(text)
    draft = index.draft(tail, 16, 4, 0.01)
    chain, known = draft.most_likely_path(), paths(draft)
    path = ()
    for token, parent, chance in zip(chain.tokens, chain.parents, chain.probabilities, strict=True):
        assert parent == len(path) - 1
        below = {p[-1]: c for p, c in known.items() if p[:-1] == path}
        path = (*path, token)
        assert known[path] == chance == max(below.values())
    assert not [p for p in known if p[:-1] == path and p != path]


def test_a_partly_indexed_prompt_adds_its_new_part():
    look = NgramSpeculator((END,), "on")
    look.add_prompt("", [1, 2, 3, 4, 5, 6], 0)
    look.add_prompt("", [1, 2, 3, 4, 5, 6, 7, 8], 6)
    assert len(look._index("")) == 6 + QUERY_TOKENS + 2
