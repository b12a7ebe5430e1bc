"""The ask/tell protocol of all searches: idempotence, rejected results, order of arrival, early end."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from reason.core.errors import UserError
from reason.reasoning.coat.mcts import MCTSOptions, MonteCarloTreeSearch
from reason.reasoning.search.astar import AStarOptions, AStarSearch
from reason.reasoning.search.beam import BeamOptions, BeamSearch
from reason.reasoning.search.core import Continuation, SearchLimits
from reason.reasoning.search.particles import ParticleFilter, ParticleOptions
from support.search_models import RandomWorld, play, seeds, state_of

MAKE = {
    "best-first": lambda seed, **o: AStarSearch(AStarOptions(k=3, beam_pop=2, m=2, **o)),
    "best-first-local": lambda seed, **o: AStarSearch(AStarOptions(k=2, frontier="local", **o)),
    "beam": lambda seed, **o: BeamSearch(BeamOptions(width=3, k=2, **o)),
    "best-of-n": lambda seed, **o: BeamSearch(BeamOptions(width=4, k=1, **o)),
    "dvts": lambda seed, **o: BeamSearch(BeamOptions(width=3, k=2, diverse=True, **o)),
    "mcts": lambda seed, **o: MonteCarloTreeSearch(MCTSOptions(k=3, expansions=9, **o)),
    "mcts-batch": lambda seed, **o: MonteCarloTreeSearch(MCTSOptions(k=2, expansions=14, leaves=3, **o)),
    "particles": lambda seed, **o: ParticleFilter(ParticleOptions(n=4, **o), Random(seed)),
    "particles-systematic": lambda seed, **o: ParticleFilter(
        ParticleOptions(n=4, resampling="systematic", entropic="size", **o), Random(seed)
    ),
    "gibbs": lambda seed, **o: ParticleFilter(ParticleOptions(n=3, iterations=3, **o), Random(seed)),
}
ALL = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


def world(seed):
    return RandomWorld(seed, blank=0.15, unscored=0.2, words=3)


@ALL
@given(seed=seeds, shuffle=seeds)
def test_the_order_of_arrival_has_no_influence(make, seed, shuffle):
    one = play(make(seed, max_depth=6), world(seed))
    other = play(make(seed, max_depth=6), world(seed), order=Random(shuffle))
    assert state_of(one) == state_of(other)


@ALL
def test_repeated_results_have_no_effect_and_different_ones_are_refused(make):
    search, serve = make(3, max_depth=5), world(3)
    history = []
    while batch := search.ask():
        for expand in batch:
            results = serve(search, expand)
            search.tell(expand, results)
            history.append((expand, results))
            before = state_of(search)
            for earlier, reported in history:
                search.tell(earlier, reported)
                other = [*reported[:-1], Continuation("something else", 99)]
                with pytest.raises(UserError, match="has other results"):
                    search.tell(earlier, other)
            assert state_of(search) == before
    assert len({(expand.node, expand.score == "none") for expand, _ in history}) == len(history)


@ALL
def test_results_without_a_request_are_refused(make):
    search = make(3)
    with pytest.raises(UserError, match="there is no request for node"):
        search.tell(0, [])
    expand = search.ask()[0]
    fresh = state_of(search)
    for n in (0, expand.n - 1, search._max_results(expand) + 1):
        with pytest.raises(UserError, match=f"got {n} continuations, expected {expand.n}"):
            search.tell(0, [Continuation("a", 1, False, 0.5)] * n)
    for node in (-1, len(search.tree), 99):
        with pytest.raises(UserError, match=f"no request for node {node}"):
            search.tell(node, [Continuation("a", 1, False, 0.5)] * expand.n)
    assert state_of(search) == fresh


@ALL
def test_ask_returns_requests_without_results(make):
    num_seen = 0
    for seed in range(10):
        search, serve = make(seed, max_depth=6), world(seed)
        while batch := search.ask():
            for expand in reversed(batch[1:]):
                search.tell(expand, serve(search, expand))
                batch.remove(expand)
                assert search.ask() == batch
                num_seen += 1
            search.tell(batch[0], serve(search, batch[0]))
    # one prefix at a time leaves nothing to show
    at_a_time = {AStarSearch: "beam_pop", MonteCarloTreeSearch: "leaves"}.get(type(search))
    assert (num_seen > 0) == (at_a_time is None or getattr(search.options, at_a_time) > 1)


@ALL
@given(seed=seeds, after=st.integers(0, 12), complete=st.booleans())
def test_a_search_can_be_ended_at_any_point(make, seed, after, complete):
    search, serve = make(seed, max_depth=6), world(seed)
    tells, withdrawn = 0, []
    while tells < after and (batch := search.ask()):
        for expand in batch[: after - tells]:
            search.tell(expand, serve(search, expand))
            tells += 1
    withdrawn = [expand.node for key, expand in search._batch_requests.items() if key not in search._batch_results]
    over, before = search.is_over, search.cost.gen_tokens
    search.end("seconds", complete=complete)
    batch = search.ask()
    assert search.cost.gen_tokens == before
    assert len(batch) <= complete
    if over:
        assert not batch
    for expand in batch:
        assert (expand.n, expand.finish, expand.score) == (1, True, "none")
        assert not any(node.terminal for node in search.outcome().terminals)
        search.tell(expand, [Continuation("so it is 4", 3)])
        assert search.outcome().chosen.text == "so it is 4"
        assert search.outcome().chosen.forced
    assert search.ask() == []
    assert search.is_over
    outcome = search.outcome()
    assert outcome.stopped
    if not over and search.stopped == "seconds":
        assert outcome.chosen is None or outcome.chosen.depth
    still = state_of(search)
    search.end("again")
    assert state_of(search) == still
    for node in withdrawn:
        if (node, 0) not in search._result_digests:
            with pytest.raises(UserError, match="there is no request for node"):
                search.tell(node, [])


@ALL
@given(seed=seeds)
@settings(max_examples=15)
def test_the_indices_to_score_are_those_the_search_uses(make, seed):
    search, serve = make(seed, max_depth=6), RandomWorld(seed, blank=0.15, words=3)
    while batch := search.ask():
        for expand in batch:
            results = [replace(step, score=0.5) for step in serve(search, expand)]
            indices, before = search.indices_to_score(expand, results), len(search.tree)
            assert indices == search.indices_to_score(expand, [replace(step, score=None) for step in results])
            assert not any(results[i].is_blank for i in indices)
            reported = [step if i in indices else replace(step, score=None) for i, step in enumerate(results)]
            passes = search.cost.prm_passes
            search.tell(expand, reported)
            assert search.cost.prm_passes == passes + len(indices)
            if len(batch) == 1 and expand.score == "all":
                born = [node for node in list(search.tree)[before:] if node.parent == expand.node]
                assert sum(node.score is not None for node in born) == len(indices)
                assert all(node.score is not None or not node.text.strip() for node in born)
    assert search.cost.unscored == 0


def test_limits_are_checked():
    with pytest.raises(ValidationError, match="no room"):
        SearchLimits(gen_tokens=10, finish_tokens=11)


@ALL
def test_a_search_ends_before_it_has_more_samples_than_a_run_may_have(make, monkeypatch):
    monkeypatch.setattr("reason.reasoning.search.core.MAX_RUN_SAMPLES", 20)
    search = play(make(1, max_depth=30), RandomWorld(1, ending=0.0))
    assert search.outcome().stopped == "samples"
    assert search.cost.samples <= 20 + 1  # and one final answer


@ALL
@given(seed=seeds)
@settings(max_examples=10)
def test_the_tree_knows_its_complete_solutions_and_the_children_of_each_node(make, seed):
    tree = play(make(seed, max_depth=6), world(seed)).tree
    assert tree.terminals == [node for node in tree if node.terminal]
    for node in tree:
        assert tree.children(node) == [child for child in tree if child.parent == node.id]
