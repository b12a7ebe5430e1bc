"""Duplicates among siblings, dropped continuations, and substitutes for missing scores."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import UserError
from reason.reasoning.search.core import (
    UNKNOWN_SCORE,
    Continuation,
    Node,
    Tree,
    fill_missing_scores,
    kept_indices,
    step_key,
)
from reason.reasoning.segmentation import normalize_step


@given(st.text(max_size=40))
def test_collapsing_is_stable_but_for_further_labels(text):
    once = normalize_step(text)
    assert once == " ".join(once.split())
    assert normalize_step(f"  {once} ") == normalize_step(once)


def test_survivors():
    results = [
        Continuation("Step 1: add\n\n", 3),
        Continuation(" \n", 1),
        Continuation("add", 1),
        Continuation("add", 1, terminal=True),
        Continuation("", 1, terminal=True),
        Continuation("\n", 1, terminal=True),
        Continuation("carry", 1),
    ]
    assert kept_indices(results) == [0, 3, 4, 6]
    assert kept_indices(results, at_root=True) == [0, 3, 6]
    assert kept_indices(results, distinct=False) == [0, 2, 3, 4, 5, 6]


@given(st.lists(st.builds(Continuation, st.sampled_from(["a", "a ", "b", " "]), st.just(1), st.booleans())))
def test_no_two_survivors_say_the_same_and_none_is_lost(results):
    indices = kept_indices(results)
    keys = [step_key(results[i]) for i in indices]
    assert len(set(keys)) == len(keys)
    assert indices == sorted(indices)
    all_keys = {step_key(step) for step in results if not step.is_blank or step.terminal}
    assert set(keys) == all_keys


def node(text, score):
    return Node(1, 0, 1, text, score=score)


def test_missing_scores():
    assert fill_missing_scores([node("a", 0.2), node("b", None), node("c", 0.6)], 0.9) == pytest.approx([0.2, 0.4, 0.6])
    assert fill_missing_scores([node("a", None), node("b", None)], 0.9) == [0.9, 0.9]
    assert fill_missing_scores([node("a", None)], None) == [UNKNOWN_SCORE]
    assert fill_missing_scores([node("a", 0.2), node(" ", None)], 0.9) == [0.2, 0.9]
    assert fill_missing_scores([], 0.9) == []


def test_a_continuation_is_checked():
    for score in (-0.1, 1.1, float("nan")):
        with pytest.raises(UserError, match="outside"):
            Continuation("a", 1, score=score)
    with pytest.raises(UserError, match="-1 tokens"):
        Continuation("a", -1)
    assert type(Continuation("a", 1, score=1).score) is float


def test_nodes_of_the_same_text_share_their_sample_indices():
    tree = Tree(Node)
    root = tree.add_root()
    one, two = (tree.add(root, Continuation("ab", 1)) for _ in range(2))
    longer = tree.add(tree.add(root, Continuation("a", 1)), Continuation("b", 1))
    assert [tree.reserve_samples(node, 3) for node in (one, two, longer, one, root)] == [0, 3, 6, 9, 0]
    assert tree.reserve_samples(tree[2], 1) == 12
