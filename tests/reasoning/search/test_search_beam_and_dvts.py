"""Beam search and diverse verifier tree search: the beams, the number of samples, and degenerate cases."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.reasoning.search.beam import BeamOptions, BeamSearch
from reason.reasoning.search.core import Continuation, SearchLimits
from support.search_models import STEP, FixedTree, RandomWorld, play, random_tree, seeds


def beam(**options):
    return BeamSearch(BeamOptions(**options))


def dvts(**options):
    return BeamSearch(BeamOptions(diverse=True, **options))


def plain_beam(tree, width):
    """Beam search over a fixed tree in which complete solutions keep their slots; returns paths and scores."""
    beams = [((), 0.0, False)]
    while any(not terminal for _, _, terminal in beams):
        pool = [entry for entry in beams if entry[2]]
        for path, _, terminal in beams:
            if not terminal:
                pool += [((*path, name), 1 - h, ends) for name, h, ends in tree.children[path]]
        beams = sorted(pool, key=lambda entry: -entry[1])[:width]
    return beams


@pytest.mark.parametrize("width", [1, 2, 4])
def test_beam_search_keeps_what_a_plain_implementation_keeps(width):
    rng = Random(21)
    for _ in range(100):
        tree = random_tree(rng)
        done = play(beam(width=width, k=3), tree)
        expected = plain_beam(tree, width)
        assert [tuple(done.tree.steps(i)) for i in done.beam] == [path for path, _, _ in expected]
        outcome = done.outcome()
        assert outcome.stopped == "done"
        assert outcome.chosen.value == max(node.value for node in outcome.terminals)


def greedy(tree):
    path, score, terminal = (), 0.0, False
    while not terminal:
        name, h, terminal = min(tree.children[path], key=lambda entry: entry[1])
        path, score = (*path, name), 1 - h
    return path, score


def test_dvts_runs_a_greedy_beam_in_each_subtree():
    rng = Random(22)
    for _ in range(50):
        parts = [random_tree(rng) for _ in range(3)]
        children = {}
        for i, part in enumerate(parts):  # one tree, whose first steps are those of all parts in turn
            for path, listed in part.children.items():
                renamed = tuple(f"{i}{name}" for name in path)
                children.setdefault(renamed, []).extend((f"{i}{name}", h, ends) for name, h, ends in listed)
        done = play(dvts(width=3, k=3), FixedTree(children))
        expected = [greedy(part) for part in parts]
        reached = [tuple(step[1:] for step in done.tree.steps(leaf)) for leaf in done.beam]
        assert reached == [path for path, _ in expected]
        assert done.outcome().chosen.value == max(score for _, score in expected)


def test_subtrees_score_steps_equal_to_another_subtrees():
    search = dvts(width=2, k=2)
    (expand,) = search.ask()
    results = [Continuation(text, 1) for text in ("a", "a", "a", "b")]
    assert search.indices_to_score(expand, results) == [0, 2, 3]
    search.tell(
        expand, [Continuation(text, 1, False, r) for text, r in (("a", 0.4), ("a", 0.3), ("a", 0.6), ("b", 0.5))]
    )
    assert [search.tree[leaf].score for leaf in search.beam] == [0.4, 0.6]
    assert (search.cost.duplicates, search.cost.unscored) == (1, 0)


@given(seeds, st.integers(1, 5))
def test_best_of_n_is_the_degenerate_case_of_both(seed, n):
    world = RandomWorld(seed, ending=0.3, words=2)
    chains = []
    num_samples = {}  # samples requested of each prefix: nodes of equal text share their indices
    running = [("", None)] * n
    while running:
        after = []
        for prefix, _ in running:
            index = num_samples.get(prefix, 0)
            num_samples[prefix] = index + 1
            step = world.sample(prefix, index, STEP)
            (chains if step.terminal else after).append((prefix + step.text, step.score))
        running = after
    for make in (beam, dvts):
        done = play(make(width=n, k=1, max_depth=99), world)
        outcome = done.outcome()
        terminals = sorted((done.tree.text(node.id), node.score) for node in outcome.terminals)
        assert len(terminals) == n
        assert sorted(text for text, _ in terminals) == sorted(text for text, _ in chains)
        assert done.cost.prm_passes == n  # only finished chains
        assert outcome.chosen.score == max(score for _, score in terminals)
        assert done.cost.duplicates == 0


@given(seeds, st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.sampled_from([0.0, 0.3]))
def test_ledger_of_both(seed, width, k, max_depth, blank):
    for make in (beam, dvts):
        search = make(width=width, k=k, max_depth=max_depth)
        world = RandomWorld(seed, blank=blank, words=3, unscored=blank)
        while batch := search.ask():
            assert sum(expand.n for expand in batch) <= width * k
            for expand in batch:
                search.tell(expand.node, world(search, expand))
        ledger, outcome, requests = search.cost, search.outcome(), [expand for _, expand in world.requests]
        assert len({expand.node for expand in requests}) == len(requests)
        assert ledger.samples == sum(expand.n for expand in requests)
        assert len(search.tree) - 1 == ledger.samples - ledger.duplicates - ledger.empties
        assert ledger.prm_passes == sum(node.score is not None for node in search.tree)
        world.assert_no_sample_is_requested_twice()
        assert max(node.depth - node.forced for node in search.tree) <= max_depth
        if not blank:
            assert outcome.chosen.terminal
            assert outcome.stopped == "done"


def test_a_complete_solution_dropped_from_the_beam_still_counts():
    tree = FixedTree({(): [("A", 0.5, True), ("B", 0.6, False)], ("B",): [("C", 0.1, False), ("D", 0.2, False)]})
    search = beam(width=2, k=2)
    for _ in range(2):
        for expand in search.ask():
            search.tell(expand.node, tree(search, expand))
    assert [search.tree[i].text for i in search.beam] == ["C", "D"]
    assert [node.text for node in search.outcome().terminals] == ["A"]
    search.end("seconds")
    assert search.ask() == []
    assert search.outcome().chosen.text == "A"


@pytest.mark.parametrize("make", [beam, dvts])
def test_a_spent_budget_completes_the_best_prefix(make):
    limits = SearchLimits(expansions=3, finish_tokens=5)
    done = play(make(width=2, k=2, limits=limits), RandomWorld(5, ending=0.0))
    outcome = done.outcome()
    assert (outcome.stopped, outcome.chosen.forced, done.cost.completions) == ("expansions", True, 1)
    assert done.tree[outcome.chosen.parent].depth == 2


def test_where_nothing_follows_a_subtree_ends():
    def world(search, expand):
        if search.tree[expand.node].depth:
            return [Continuation("", 0)] * expand.n
        return [Continuation(f"{i}", 1, False, 0.1 * i) for i in range(expand.n)]

    for search in (beam(width=2, k=2), dvts(width=2, k=2)):
        outcome = play(search, world).outcome()
        assert (outcome.stopped, outcome.chosen.text, outcome.terminals) == ("exhausted", "3", ())
