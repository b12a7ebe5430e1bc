"""Parallel tempering: the joint target of the chains is left unchanged, and they run in lock-step as one search."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise, product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from reason.reasoning.search.core import SearchLimits
from reason.reasoning.search.particles import ParticleFilter, ParticleOptions, softmax, swap_probability
from support.enumerable_steps import KnownSteps, RandomChooser
from support.search_models import RandomWorld, executions, play

EXACT = {"weight_mode": "likelihood", "stopped_weight": "one"}
SMALL = KnownSteps(
    {"": {"a": 0.7, "b": 0.3}, "a": {"x": 0.5, "y": 0.5}},
    {"a": 0.3, "b": 0.2, "ax": 0.2, "ay": 0.9},
)


def tempered(rng, **options):
    return ParticleFilter(ParticleOptions(**options), rng)


def references(search):
    return tuple(search.tree.text(one.reference[-1]) for one in search.passes)


@pytest.mark.nightly
def test_a_pass_and_the_swaps_leave_the_joint_target_unchanged():
    taus = (2.0, 0.5)
    targets = [SMALL.posterior(tau) for tau in taus]

    def after(chance, counts):
        search = tempered(chance, n=2, iterations=3, taus=taus, **EXACT)
        SMALL.start_with_references(search, counts, chance)
        serve = SMALL.serve(chance)
        while len(search.records) < 2:
            for expand in search.ask():
                if len(search.records) == 2:
                    break
                search.tell(expand, serve(search, expand))
        chance.counting = False
        return references(search), search.swaps[-1][0]

    joint = {(x, y): targets[0][x] * targets[1][y] for x, y in product(*targets)}
    moved, swapped = dict.fromkeys(joint, 0.0), 0.0
    for counts, probability in joint.items():
        for p, (now, swap) in executions(lambda chance, counts=counts: after(chance, counts)):
            if p:
                moved[now] += probability * p
                swapped += probability * p * swap.accepted
    assert sum(moved.values()) == pytest.approx(1, abs=1e-12)
    assert moved == pytest.approx(joint, abs=1e-12)
    assert swapped > 0.1


def test_swaps_are_tried_between_neighbours_from_the_hottest_on():
    taus, done, tried = (4.0, 2.0, 1.0), 0, 0
    for seed in range(20):
        search, world = tempered(Random(seed), n=3, iterations=4, taus=taus), RandomWorld(seed, ending=0.3)
        num_seen = 0
        while batch := search.ask():
            if len(search.swaps) > num_seen:  # a pass has started with swapped references
                num_seen += 1
                levels = [search.log_target(one.reference[-1]) for one in search.passes]
                assert [swap.chain for swap in search.swaps[-1]] == [0, 1]
                for swap in reversed(search.swaps[-1]):
                    k = swap.chain
                    if swap.accepted:  # swapping back restores the values that it was decided by
                        levels[k], levels[k + 1] = levels[k + 1], levels[k]
                    chance = swap_probability(taus[k], taus[k + 1], levels[k], levels[k + 1])
                    assert swap.probability == pytest.approx(chance)
                    done, tried = done + swap.accepted, tried + 1
            for expand in batch:
                search.tell(expand, world(search, expand))
        assert len(search.swaps) == num_seen == 3
    assert 0 < done < tried == 120


@given(
    st.integers(0, 10**6),
    st.integers(2, 4),
    st.integers(1, 3),
    st.sampled_from([(1.0,), (2.0, 1.0), (4.0, 2.0, 0.5)]),
)
@settings(max_examples=60)
def test_the_chains_are_one_search(seed, n, iterations, taus):
    world = RandomWorld(seed, ending=0.25, words=3)
    search = tempered(Random(seed), n=n, iterations=iterations, taus=taus, max_depth=7)
    batches, requested = 0, {}
    while batch := search.ask():
        batches += not batch[0].finish
        for expand in batch:
            requested.setdefault(expand.node, expand.n)
            search.tell(expand, world(search, expand))
    tree, m = search.tree, len(taus)
    roots = [node.id for node in tree if node.parent is None]
    assert len(roots) == m * iterations
    num_requested = [requested[root] for root in roots]
    # N·J·M particles in all, the references included
    assert num_requested == [n] * m + [n - 1] * (m * (iterations - 1))
    assert [len(history) for history in search.histories] == [iterations] * m
    # in lock-step: as many batches as the longest parallel pass has steps
    longest = [max(len(h[j].steps) for h in search.histories) for j in range(iterations)]
    assert batches <= sum(longest)
    for tau, history in zip(taus, search.histories, strict=True):
        for record in history:
            for particle_step in record.steps:
                assert particle_step.tau == tau
                gains = [tree[i].log_g / tau for i in particle_step.nodes]
                assert particle_step.theta == pytest.approx(softmax(gains), abs=1e-12)
    for j in range(1, iterations):
        assert set(origins(search, j)) <= {i for history in search.histories for i in history[j - 1].nodes}
    born = [node for node in tree if node.parent is not None and node.copied_from is None]
    assert search.cost.samples == len(born)
    assert search.cost.gen_tokens == sum(node.tokens for node in born)
    assert len(set(world.served)) == len(world.served)
    outcome = search.outcome()
    if not outcome.chosen.forced:
        assert {node.id for node in outcome.terminals} <= set(search.histories[-1][-1].nodes)  # of the coldest


def origins(search, j):
    """The originals of the references of pass `j`."""
    m = len(search.histories)
    roots = [node.id for node in search.tree if node.parent is None][m * j : m * (j + 1)]
    for root in roots:
        node_id = root
        while node_id + 1 < len(search.tree) and search.tree[node_id + 1].parent == node_id:
            if search.tree[node_id + 1].copied_from is None:
                break
            node_id += 1
        yield search.tree[node_id].copied_from


def test_limits_are_those_of_all_chains_together():
    search = play(
        tempered(Random(1), n=3, iterations=3, taus=(2.0, 1.0), limits=SearchLimits(prm_passes=20)),
        RandomWorld(1, ending=0.05),
    )
    assert search.outcome().stopped == "prm_passes"
    assert 14 < search.cost.prm_passes <= 20
    assert search.outcome().chosen.terminal


def test_hot_chains_hand_down_what_the_cold_one_would_not_find():
    # "b" is a trap: good at once, worthless later; "a" is the other way round
    g = {"a": 0.05, "b": 0.9} | {"ax": 0.9, "ay": 0.9, "bx": 0.02, "by": 0.02}
    world = KnownSteps({"": {"a": 0.5, "b": 0.5}, "a": {"x": 0.5, "y": 0.5}, "b": {"x": 0.5, "y": 0.5}}, g)
    target = world.posterior(0.2)

    def share(taus, iterations=400):
        rng = Random(6)
        search = tempered(rng, n=2, iterations=iterations, taus=taus, **EXACT)
        play(search, world.serve(RandomChooser(rng)))
        counts = Counter()
        for record in search.records[1:]:
            for node_id, theta in zip(record.nodes, record.theta, strict=True):
                counts[search.tree.text(node_id)[0]] += theta / iterations
        moves = sum(
            search.tree.text(a.nodes[-1])[0] != search.tree.text(b.nodes[-1])[0]
            for a, b in pairwise(search.records[1:])
        )
        return counts["b"], moves

    exact = sum(p for text, p in target.items() if text.startswith("b"))
    without, few = share((0.2,))
    together, many = share((2.0, 0.7, 0.2))
    assert exact == pytest.approx(0.01, abs=0.001)
    assert (without > 0.9, few) == (True, 0)  # it never leaves the trap
    assert together == pytest.approx(exact, abs=0.01)
    assert many > 0


def test_invalid_options_are_refused():
    for wrong, match in (
        ({"taus": (1.0, 2.0)}, "fall"),
        ({"taus": (1.0, 1.0)}, "fall"),
        ({"taus": ()}, "at least 1"),
        ({"taus": (1.0, 0.0)}, "greater than 0"),
        ({"taus": (2.0, 1.0), "entropic": "size"}, "no swap would be right"),
        ({"iterations": 2, "resampling": "systematic"}, "biased"),
    ):
        with pytest.raises(ValidationError, match=match):
            ParticleOptions(**wrong)
