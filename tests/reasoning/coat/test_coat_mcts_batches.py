"""Batches of Monte Carlo tree search: resampling, several leaves at once, limits and order."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reason.reasoning.coat.mcts import RESAMPLES
from reason.reasoning.search.core import Continuation, SearchLimits
from support.mcts_cases import (
    by_score,
    name,
    resampling,
    search,
    some_options,
    steps,
    uniform,
    with_rewards,
    worlds,
)
from support.search_models import RandomWorld, as_requested, assert_within, play, seeds, some_limits, state_of
from support.tree_search_model import RaggedWorld

# -- duplicates and resampling


def test_duplicates_are_resampled_and_the_first_k_that_differ_are_kept():
    done = search(k=3)
    (expand,) = done.ask()
    results = [Continuation("a ", 1), Continuation("Step 2: a", 1), Continuation(" ", 1)]
    assert (done.num_missing(expand, results), done.kept(expand, results)) == (2, [0])
    results += [Continuation("a ", 1), Continuation("b ", 1)]
    assert (done.num_missing(expand, results), done.kept(expand, results)) == (1, [0, 4])
    results += [Continuation("a ", 1), Continuation("c ", 1), Continuation("d ", 1)]
    assert (done.num_missing(expand, results), done.kept(expand, results)) == (0, [0, 4, 6])
    assert done.indices_to_score(expand, results) == [0, 4, 6]
    done.tell(expand, results)
    assert [at.text for at in done.tree] == ["", "a ", "b ", "c "]
    ledger = done.cost
    assert (ledger.samples, ledger.empties, ledger.duplicates, ledger.expansions) == (8, 1, 4, 1)


def test_the_number_missing_is_limited_by_the_maximum_results():
    done = search(k=3)
    (expand,) = done.ask()
    results = [Continuation("a ", 1)] * 9
    assert [done.num_missing(expand, results[:n]) for n in range(10)] == [3, 2, 2, 2, 2, 2, 2, 2, 1, 0]
    done.tell(expand, results)
    assert len(done.tree) == 2


def test_the_final_answer_of_a_search_that_is_over_is_sampled_once():
    done = search(k=1, expansions=1)
    done.tell(done.ask()[0], steps(0.5))
    (expand,) = done.ask()
    results = [Continuation("", 1)]
    assert (expand.score, done.num_missing(expand, results), done.indices_to_score(expand, results)) == ("none", 0, [])
    done.tell(expand, results)
    assert (done.outcome().chosen.forced, done.cost.empties, done.cost.samples) == (True, 0, 2)


@given(seeds, st.integers(1, 4))
@settings(max_examples=40)
def test_any_number_up_to_k_and_the_resamples_is_accepted(seed, k):
    world = RandomWorld(seed, words=2, blank=0.2)
    for n in range(k, k * (1 + RESAMPLES) + 1):
        done = search(k=k, expansions=2)
        (expand,) = done.ask()
        results = [world.sample("", i, expand) for i in range(n)]
        done.tell(expand, results)
        done.tell(expand, results)  # saying it again changes nothing
        assert done.cost.samples == n
        assert len(done.tree) - 1 == n - done.cost.duplicates - done.cost.empties <= k


def test_samples_of_equal_prefixes_have_distinct_indices_also_when_resampled():
    def world(done, expand):
        path = done.tree.text(expand.node)
        return [Continuation(text, 1, False, 0.5) for text in (["x", "xy"] if not path else ["yz", "z"])[: expand.n]]

    done, chosen = search(k=2, expansions=7), {}
    while batch := done.ask():
        for expand in batch:
            mine = range(expand.first, expand.first + expand.n * (1 if expand.score == "none" else 3))
            before = chosen.setdefault(done.tree.text(expand.node), set())
            assert before.isdisjoint(mine)
            before |= set(mine)
            done.tell(expand, world(done, expand))
    assert max(map(len, chosen.values())) == 12  # "xyz" was reached in two ways
    # of each prefix: k samples plus k for each resampling, with consecutive indices
    assert all(sorted(indices) == list(range(len(indices))) for indices in chosen.values())


def test_equal_final_answers_are_kept_once_whatever_their_end():
    done = search(k=2, max_depth=1)
    (expand,) = done.ask()
    results = [Continuation("4", 1, True, 0.5), Continuation("4", 1, False, 0.5)]
    assert (expand.finish, done.kept(expand, results)) == (True, [0])


def test_an_empty_end_only_completes_its_prefix():
    nothing = [Continuation(" ", 1, True), Continuation(" ", 1, False)]
    done = search(k=2, expansions=3)
    (root,) = done.ask()
    assert done.kept(root, nothing) == []  # an empty answer does not count
    done.tell(root, steps(0.5, 0.4))
    (below,) = done.ask()
    assert done.kept(below, nothing) == [0]  # already complete
    done.tell(below, nothing)
    assert (done.cost.empties, done.cost.duplicates) == (1, 0)
    (other,) = done.ask()
    done.tell(other, [Continuation(" ", 1, True), Continuation("  ", 1, True)])
    assert (done.cost.empties, done.cost.duplicates) == (1, 1)  # the second repeats the first
    blank = search(k=2)
    (root,) = blank.ask()
    blank.tell(root, nothing)
    assert (blank.cost.empties, blank.cost.duplicates, len(blank.tree)) == (2, 0, 1)


def test_a_step_without_a_score_has_that_of_its_prefix_where_no_sibling_has_one():
    done = search(k=2, expansions=3)
    done.tell(done.ask()[0], steps(0.9, None))
    assert [at.own_score for at in done.tree] == [
        0.0,
        0.9,
        0.9,
    ]  # the root has no score: the mean of the siblings
    (expand,) = done.ask()
    assert expand.node == 1
    done.tell(expand, steps(None, None))
    assert [at.own_score for at in done.tree][3:] == [0.9, 0.9]
    single = search(k=2, expansions=3)
    single.tell(single.ask()[0], steps(None, None))
    assert [at.own_score for at in single.tree] == [0.0, 0.5, 0.5]


# -- several leaves at once


def two_sides(w=0.5):
    """A good and a bad child of the root, each with two leaves; the next batch has two requests."""
    done = search(w=w, leaves=2, expansions=5)
    scores = {"": [0.9, 0.5], "a": [0.9, 0.9], "b": [0.5, 0.5]}
    for _ in range(2):
        for expand in done.ask():
            done.tell(expand, by_score(scores)(done, expand))
    return done, [name(done, expand.node) for expand in done.ask()]


def test_virtual_loss_sends_the_next_leaf_elsewhere():
    # a has N = 3 of 6 and S = 2.7; after the lost visit 2.7/4 + w sqrt(ln 7 / 4), b 0.5 + w sqrt(ln 7 / 3)
    assert two_sides(0.5)[1] == ["aa", "ab"]  # 1.024 and 0.903
    assert two_sides(2.0)[1] == ["aa", "ba"]  # 2.070 and 2.111


def test_of_a_loss_nothing_is_left_after_the_batch():
    done, _ = two_sides()
    assert [(at.visits, at.total) for at in done.tree][:3] == [(6, pytest.approx(4.2)), (3, 2.7), (3, 1.5)]
    for expand in done.ask():
        done.tell(expand, steps(0.25, 0.25))
    assert done.tree[0].visits == 10
    assert done.tree[0].total == pytest.approx(5.2)


@given(worlds, some_options)
@settings(max_examples=100)
def test_no_leaf_is_chosen_twice_and_a_batch_is_full_while_leaves_are_open(world, options):
    done, serve = search(**{**options, "leaves": 4}), resampling(with_rewards(world))
    while batch := done.ask():
        if batch[0].score == "none":
            break
        leaves = [expand.node for expand in batch]
        open_leaves = {at.id for at in done.tree if not at.expanded and not at.terminal}
        assert len(set(leaves)) == len(leaves)
        assert set(leaves) <= open_leaves
        assert len(leaves) == min(4, len(open_leaves), options["expansions"] - len(done.selected))
        for expand in batch:
            done.tell(expand, serve(done, expand))
    assert len(set(done.selected)) == len(done.selected)


def test_a_smaller_batch_is_the_beginning_of_a_larger_one():
    for seed in range(30):
        firsts = []
        for expansions in (12, 15, 40):
            done = play(search(k=3, leaves=8, expansions=expansions), RaggedWorld(seed, widest=3))
            firsts.append([tuple(done.tree.steps(leaf)) for leaf in done.selected])
        assert firsts[2][:12] == firsts[0]
        assert firsts[2][:15] == firsts[1]


# -- limits


def test_a_batch_is_cut_to_what_the_limits_allow():
    for limits, stopped in ((SearchLimits(expansions=4), "expansions"), (SearchLimits(prm_passes=8), "prm_passes")):
        done = search(leaves=3, expansions=50, limits=limits)
        sizes = []
        while batch := done.ask():
            sizes.append(len(batch) if batch[0].score == "all" else -1)
            for expand in batch:
                done.tell(expand, uniform(done, expand))
        assert (sizes, done.outcome().stopped) == ([1, 2, 1, -1], stopped)


@given(worlds, some_options, some_limits)
@settings(max_examples=200)
def test_limits_hold_with_resampled_duplicates(world, options, limits):
    done, serve = search(**options, limits=limits, max_step_tokens=9), resampling(world)
    spent = 0
    while batch := done.ask():
        for expand in batch:
            results = as_requested(done, expand, serve(done, expand))
            assert all(step.tokens <= expand.max_tokens for step in results)
            spent += sum(step.tokens for step in results)
            done.tell(expand, results)
        if limits.gen_tokens is not None and not done.stopped:
            assert limits.gen_tokens - spent >= limits.finish_tokens  # a final answer can always be requested
    assert spent == done.cost.gen_tokens
    assert_within(limits, done.cost)
    world.assert_no_sample_is_requested_twice()


def test_resampling_does_not_depend_on_results_of_other_requests():
    limits = SearchLimits(gen_tokens=100, finish_tokens=10, min_step_tokens=1)
    done = search(k=2, leaves=2, max_step_tokens=10, limits=limits)
    done.tell(done.ask()[0], steps(0.5, 0.5))
    one, two = done.ask()
    # 98 left; 10 for an answer and 2 x 20 for pending requests leave 48, 24 for each of the two
    same = [Continuation("x", 10)] * 2
    assert (one.max_tokens, done.num_missing(one, same), done.num_missing(one, same * 2)) == (10, 1, 0)
    assert done.num_missing(one, [Continuation("x", 10)] * 3) == 1
    assert done.num_missing(two, same) == 1
    done.tell(two, same * 2)
    assert (done.num_missing(one, [Continuation("x", 10)] * 3), done.num_missing(one, same * 2)) == (1, 0)


def test_without_a_token_left_nothing_is_sampled_again():
    done = search(k=2, max_step_tokens=1, limits=SearchLimits(gen_tokens=3, finish_tokens=1, min_step_tokens=1))
    (one,) = done.ask()
    assert (one.max_tokens, done.num_missing(one, [Continuation("x", 1)] * 2)) == (1, 0)


def test_spent_tokens_are_not_allotted_again():
    limits = SearchLimits(gen_tokens=70, finish_tokens=10, min_step_tokens=1)
    done = search(k=2, leaves=2, max_step_tokens=10, limits=limits)
    done.tell(done.ask()[0], steps(0.5, 0.5))
    one, _ = done.ask()
    # 68 left; 10 for an answer and 2 x 20 for pending requests leave 18, 9 for each, which is no further sample of 10
    assert [done.num_missing(one, [Continuation("x", tokens)] * 2) for tokens in (10, 9, 100)] == [0, 1, 0]


def test_a_batch_of_steps_and_final_answers_takes_what_each_may_cost():
    limits = SearchLimits(gen_tokens=70, finish_tokens=10, min_step_tokens=7, expansions=4)
    done = search(k=3, leaves=2, max_depth=3, max_step_tokens=20, w=1.0, limits=limits)
    for _ in range(2):
        for expand in done.ask():
            done.tell(expand, steps(0.5, 0.5, 0.5))
    # 61 left, 10 of them for an answer; the third child of the root has steps to come, its first grandchild an answer
    step, answer = done.ask()
    assert [(done.tree[e.node].depth, e.n, e.max_tokens, e.finish) for e in (step, answer)] == [
        (1, 3, 7, False),
        (2, 3, 10, True),
    ]


def test_a_search_that_was_ended_keeps_its_reason_and_what_it_had_heard():
    done = search(leaves=2, tau=0.5)
    done.tell(done.ask()[0], steps(0.5, 0.5))
    one, two = done.ask()
    done.tell(two, [Continuation("x", 1, True, 0.4, reward=0.9), Continuation("y", 1, True, 0.4, reward=0.1)])
    done.end("seconds")
    assert (done.ask(), done.outcome().stopped, done.outcome().chosen.text) == ([], "seconds", "x")
    assert (done.selected, done.tree[0].visits) == ([0, two.node], 4)
    assert not done.tree[one.node].expanded


# -- determinism


@given(worlds, some_options, seeds)
@settings(max_examples=60)
def test_the_same_world_gives_the_same_search_in_any_order(world, options, shuffle):
    runs = [
        play(search(**options), resampling(with_rewards(world))),
        play(search(**options), resampling(with_rewards(world)), order=Random(shuffle)),
    ]
    assert state_of(runs[0]) == state_of(runs[1])
    assert runs[0].outcome() == runs[1].outcome()
