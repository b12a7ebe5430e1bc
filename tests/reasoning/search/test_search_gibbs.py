"""Particle Gibbs: the target is left unchanged (by enumeration), and properties of the reference."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from reason.reasoning.search.particles import ParticleFilter, ParticleOptions, softmax
from support.enumerable_steps import UNEVEN
from support.search_models import RandomWorld, executions, play


def gibbs(rng, **options):
    return ParticleFilter(ParticleOptions(**options), rng)


@pytest.mark.parametrize("n", [2, 3])
def test_a_pass_with_a_reference_leaves_the_target_unchanged(n):
    def after(chance, reference):
        search = gibbs(chance, n=n, iterations=2, weight_mode="likelihood", stopped_weight="one")
        UNEVEN.start_with_reference(search, reference, chance)
        play(search, UNEVEN.serve(chance))
        references = {}
        for node_id, weight in zip(search.records[1].nodes, search.records[1].theta, strict=True):
            text = search.tree.text(node_id)
            references[text] = references.get(text, 0.0) + weight
        return references

    target = UNEVEN.posterior()
    moved = dict.fromkeys(target, 0.0)
    for reference, probability in target.items():
        for p, references in executions(lambda chance, reference=reference: after(chance, reference)):
            for text, weight in references.items():
                moved[text] += probability * p * weight
    assert sum(moved.values()) == pytest.approx(1, abs=1e-12)
    assert moved == pytest.approx(target, abs=1e-12)


@given(
    st.integers(0, 10**6),
    st.integers(2, 5),
    st.integers(1, 4),
    st.sampled_from(["odds", "likelihood", "telescoped"]),
)
def test_what_holds_for_the_reference(seed, n, iterations, mode):
    world = RandomWorld(seed, ending=0.3, words=3)
    search = gibbs(
        Random(seed),
        n=n,
        iterations=iterations,
        weight_mode=mode,
        max_depth=8,
    )
    roots = 0
    while batch := search.ask():
        for expand in batch:
            if search.tree[expand.node].depth == 0 and not expand.finish:
                assert expand.n == n - (roots > 0)  # N·J particles in all, the references included
                roots += 1
            search.tell(expand.node, world(search, expand))
    tree = search.tree
    assert len(search.records) == roots == iterations
    world.assert_no_sample_is_requested_twice()
    for before, record in zip(search.records, search.records[1:], strict=False):
        reference = tree.path(tree[record.nodes[-1]])
        originals = [tree[node.copied_from] for node in reference]
        assert originals[-1].id in before.nodes
        assert originals == tree.path(originals[-1])
        for copy, original in zip(reference, originals, strict=True):
            for name in ("text", "tokens", "score", "terminal", "log_g", "level", "depth"):
                assert getattr(copy, name) == getattr(original, name)
        for t, particle_step in enumerate(record.steps, 1):
            # in every population, unchanged, at its step t, with its potential of step t
            assert particle_step.nodes[-1] == reference[min(t, len(reference)) - 1].id
            assert particle_step.ancestors[-1] == n - 1
            if t <= len(reference) and mode != "telescoped":
                gains = [tree[i].log_g for i in particle_step.nodes]
                assert particle_step.theta == pytest.approx(softmax(gains), abs=1e-12)
        assert len(record.steps) >= len(reference)
    # copies cost nothing
    born = [node for node in tree if node.parent is not None and node.copied_from is None]
    assert search.cost.samples == len(born)
    assert search.cost.gen_tokens == sum(node.tokens for node in born)


def test_a_truncated_copy_of_the_reference_continues():
    forks = unshared = 0
    for seed in range(60):
        search = gibbs(Random(seed), n=3, iterations=3, max_depth=12)
        world, requested = RandomWorld(seed, ending=0.4), {}
        while batch := search.ask():
            for expand in batch:
                requested[expand.node] = expand.n
                search.tell(expand, world(search, expand))
        for record in search.records[1:]:
            reference = [node.id for node in search.tree.path(search.tree[record.nodes[-1]])]
            for t, particle_step in enumerate(record.steps, 1):
                from_reference = [a for a in particle_step.ancestors[:-1] if a == 2]
                if t < len(reference) and from_reference:
                    # it was active again: the next step of that prefix was requested
                    assert requested[reference[t - 1]] == len(from_reference)
                    forks += 1
                unshared += t > 1 and not any(search.tree[i].depth == t for i in particle_step.nodes[:-1])
    assert forks > 10
    assert unshared > 0  # the reference went on where all others had finished


def test_one_iteration_is_the_filter():
    one = play(gibbs(Random(4), n=4, iterations=1), RandomWorld(4))
    other = play(ParticleFilter(ParticleOptions(n=4), Random(4)), RandomWorld(4))
    assert one.records == other.records
    assert one.outcome() == other.outcome()


def test_the_answer_is_of_the_last_pass():
    search = play(gibbs(Random(4), n=4, iterations=3), RandomWorld(4))
    last = search.records[-1]
    outcome = search.outcome()
    assert {node.id for node in outcome.terminals} <= set(last.nodes)
    best = max(range(4), key=lambda i: (last.theta[i], search.tree[last.nodes[i]].log_g))
    assert outcome.chosen.log_g == search.tree[last.nodes[best]].log_g
    assert math.fsum(outcome.weights) == pytest.approx(1)


def test_what_would_be_biased_is_refused():
    for wrong in ({"resampling": "systematic", "iterations": 2}, {"iterations": 0}):
        with pytest.raises(ValidationError):
            ParticleOptions(**wrong)
