"""Ancestor sampling: the target is invariant, by enumeration and in the long run; requests and counts."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from reason.reasoning.search.core import SearchLimits
from reason.reasoning.search.particle_gibbs import GibbsOptions, ParticleGibbs
from reason.reasoning.search.resampling import log_potential
from reason.reasoning.search.tree import Continuation
from scipy import stats
from support.enumerable_steps import THREE, UNEVEN, KnownSteps, RandomChooser
from support.search_models import Chooser, RandomWorld, executions, play

EXACT = {"weight_mode": "likelihood", "stopped_weight": "one"}


def gibbs(rng, *, ancestor_sampling=True, **options):
    return ParticleGibbs(GibbsOptions(ancestor_sampling=ancestor_sampling, **options), rng)


def moved_by_a_pass(world, target, **options):
    """By enumeration: the distribution after a pass from `target`, and how often references are re-attached."""
    moved, attached = dict.fromkeys(target, 0.0), 0.0

    def after(chance, reference):
        search = gibbs(chance, iterations=2, **EXACT, **options)
        world.start_with_references(search, [reference], chance)
        return play(search, world.serve(chance))

    for reference, probability in target.items():
        for p, search in executions(lambda chance, reference=reference: after(chance, reference)):
            record = search.records[1]
            if not p:
                continue  # an impossible continuation was attached to a prefix
            for node_id, weight in zip(record.nodes, record.theta, strict=True):
                moved[search.tree.text(node_id)] += probability * p * weight
            attached += probability * p * any(g.ancestors[-1] != len(g.nodes) - 1 for g in record.steps)
    return moved, attached


@pytest.mark.parametrize(
    ("world", "n", "options"),
    [
        (UNEVEN, 2, {}),
        (UNEVEN, 3, {}),
        (UNEVEN, 2, {"tau": 0.6}),
        (THREE, 2, {}),
        (THREE, 2, {"anneal": (1.5, 0.5, 3)}),
        (THREE, 2, {"ess_trigger": 0.8}),
    ],
)
def test_a_pass_with_ancestor_sampling_leaves_the_target_unchanged(world, n, options):
    if "anneal" in options:
        taus = {depth: 1.5 - 0.5 * (depth - 1) for depth in (1, 2, 3)}
        tempered = KnownSteps(world.steps, {text: g ** (1 / taus[len(text)]) for text, g in world.g.items()})
        target = tempered.posterior()
    else:
        target = world.posterior(options.get("tau", 1.0))
    moved, attached = moved_by_a_pass(world, target, n=n, **options)
    assert sum(moved.values()) == pytest.approx(1, abs=1e-12)
    assert moved == pytest.approx(target, abs=1e-12)
    assert attached > 0.01


@pytest.mark.parametrize("ancestor_sampling", [False, True])
def test_references_follow_the_target_in_the_long_run(ancestor_sampling):
    every, rng = 8, Random(19)
    search = gibbs(rng, n=5, iterations=6000, ancestor_sampling=ancestor_sampling, **EXACT)
    serve = THREE.serve(RandomChooser(rng))
    while batch := search.ask():
        for expand in batch:
            search.tell(expand, serve(search, expand))
    roots = [node.id for node in search.tree if node.parent is None]
    references = [search.tree.text(first_reference(search, root)) for root in roots[1::every]]  # far apart
    target = THREE.posterior()
    counts = Counter(references)
    expected = [len(references) * p for p in target.values()]
    assert min(expected) > 5
    assert stats.chisquare([counts[text] for text in target], expected).pvalue > 0.01


def first_reference(search, root):
    """The initial reference of a pass: copies of copies, each the first child of its predecessor."""
    node_id = root
    while True:
        copies = (i for i in range(node_id + 1, min(node_id + 2, len(search.tree))) if search.tree[i].parent == node_id)
        after = next((i for i in copies if search.tree[i].copied_from is not None), None)
        if after is None:
            return node_id
        node_id = after


def test_the_first_steps_are_renewed_where_all_particles_descend_from_the_reference():
    length = 12
    texts = [""]
    steps, g = {}, {}
    for _ in range(length):
        for text in texts:
            steps[text] = {"a": 0.5, "b": 0.5}
        texts = [text + step for text in texts for step in "ab"]
        g |= {text: 0.8 if text[-1] == "a" else 0.3 for text in texts}
    world = KnownSteps(steps, g)

    def renewed(ancestor_sampling):
        rng = Random(3)
        search = gibbs(rng, n=4, iterations=120, ancestor_sampling=ancestor_sampling, **EXACT)
        play(search, world.serve(RandomChooser(rng)))
        firsts = []
        for record in search.records[1:]:
            is_copied = {search.tree.path(search.tree[i])[0].copied_from is None for i in record.nodes}
            firsts.append(True in is_copied)  # some particle's first step is new
        return sum(firsts) / len(firsts)

    assert renewed(False) < 0.1
    assert renewed(True) > 0.4


# -- one re-attachment in numbers


def at_the_first_step(continuations, chance, *, reference=("a", "b", "c"), free="z", **options):
    """A search with a reference whose free particle took another first step; `continuations` are its rescored steps."""
    search = gibbs(chance, n=2, iterations=2, weight_mode="likelihood", **options)
    scores = {"a": 0.9, "b": 0.8, "c": 0.7}
    chance.choices = lambda population, weights, k: list(population)[:k]
    for i, step in enumerate(reference):
        last = i + 1 == len(reference)
        for expand in search.ask():
            search.tell(expand, [Continuation(step, 3, last, scores[step], -0.5 - i)] * expand.n)
    (expand,) = search.ask()
    search.tell(expand, [Continuation(free, 1, False, 0.6, -1.0)])
    del chance.choices
    return search, search.ask(), continuations


def test_the_ancestor_is_sampled_by_weight_probability_and_potentials():
    continuations = [Continuation("b", 0, False, 0.4, -2.0), Continuation("c", 0, True, 0.5, -3.0)]
    own = math.log(0.9) - 1.5 - 2.5 + math.log(0.8) + math.log(0.7)
    other = math.log(0.6) - 2.0 - 3.0 + math.log(0.4) + math.log(0.5)
    outcomes = {}

    def run(chance):
        search, batch, results = at_the_first_step(continuations, chance)
        chance.p, chance.counting = 1.0, True
        rescoring = [expand for expand in batch if expand.given_steps]
        for expand in batch:
            if not expand.given_steps:
                search.tell(expand, [Continuation("q", 1, True, 0.5, -1.0)] * expand.n)
        chance.counting, before = True, chance.p
        (expand,) = rescoring
        assert (search.tree[expand.node].text, expand.given_steps, expand.n, expand.first) == ("z", ("b", "c"), 2, 0)
        search.tell(expand, results)
        chance.counting = False
        return before, search, search.passes[-1].reference

    for p, (_, search, reference) in executions(run):
        texts = "".join(search.tree[i].text for i in reference)
        outcomes[texts] = outcomes.get(texts, 0.0) + p
        if texts == "zbc":
            grafted = [search.tree[i] for i in reference[1:]]
            assert [node.log_g for node in grafted] == [log_potential("likelihood", r, None) for r in (0.4, 0.5)]
            assert [(node.tokens, node.score, node.logprob) for node in grafted] == [(3, 0.4, -2.0), (3, 0.5, -3.0)]
            assert [search.tree[node.copied_from].text for node in grafted] == ["b", "c"]
            assert grafted[-1].terminal
        assert search.cost.rescorings == 1
        assert search.cost.skipped_rescorings == 0
    odds = math.exp(other - own)
    assert set(outcomes) == {"abc", "zbc"}
    assert outcomes["zbc"] / outcomes["abc"] == pytest.approx(odds, rel=1e-9)


def test_prefixes_equal_to_the_reference_are_not_rescored():
    search, batch, _ = at_the_first_step(None, Chooser([]), free="a")
    assert not any(expand.given_steps for expand in batch)
    assert search.cost.skipped_rescorings == 0


@pytest.mark.parametrize(
    "continuations",
    [
        [Continuation("b", 0, False, 0.4), Continuation("c", 0, True, 0.5, -3.0)],
        [Continuation("b", 0, False, None, -2.0), Continuation("c", 0, True, 0.5, -3.0)],
    ],
)
def test_without_a_probability_or_a_score_the_reference_stays(continuations):
    search, batch, _ = at_the_first_step(continuations, Chooser([]))
    for expand in batch:
        search.tell(expand, continuations if expand.given_steps else [Continuation("q", 1, True, 0.5, -1.0)] * expand.n)
    assert [search.tree[i].text for i in search.passes[-1].reference] == ["a", "b", "c"]
    assert (search.cost.rescorings, search.cost.skipped_rescorings) == (1, 1)
    assert search.outcome().cost.skipped_rescorings == 1


# -- requests and counts


@given(
    st.integers(0, 10**6),
    st.integers(2, 5),
    st.sampled_from(["odds", "likelihood", "telescoped"]),
    st.booleans(),
    st.sampled_from([0.0, 0.2]),
    st.sampled_from([0.0, 0.3]),
)
@settings(max_examples=100)
def test_what_holds_for_the_reference(seed, n, mode, resample_stopped, unknown, blank):
    world = RandomWorld(seed, ending=0.15, words=3, unknown=unknown, unscored=unknown, blank=blank)
    search = gibbs(Random(seed), n=n, iterations=4, weight_mode=mode, resample_stopped=resample_stopped, max_depth=8)
    rescoring = scored = 0
    while batch := search.ask():
        assert len({expand.key for expand in batch}) == len(batch)
        for expand in batch:
            continuations = world(search, expand)
            if expand.given_steps:
                assert (expand.first, expand.max_tokens, expand.finish) == (0, 0, False)
                assert search.tree[expand.node].depth + expand.n == len(search.passes[-1].reference)
                rescoring += 1
            scored += sum(step.score is not None for step in continuations)
            search.tell(expand, continuations)
    tree = search.tree
    for before, record in zip(search.records, search.records[1:], strict=False):
        original = tree[tree[record.steps[0].nodes[-1]].copied_from]
        assert original.depth == 1
        parents = [tree[i].parent for i in record.steps[0].nodes]
        for t, particle_step in enumerate(record.steps, 1):
            mine = tree[particle_step.nodes[-1]]
            assert mine.copied_from is not None
            assert mine.text == tree[mine.copied_from].text
            assert mine.tokens == tree[mine.copied_from].tokens
            if mine.depth == t:
                assert mine.parent == parents[-1]
            parents = [particle_step.nodes[a] for a in particle_step.ancestors]
            if mine.depth < t or mine.terminal:
                assert particle_step.ancestors[-1] == n - 1  # a finished reference has no remaining steps to attach
            chosen = tree[parents[-1]]
            assert chosen.depth == mine.depth
            assert chosen.terminal == mine.terminal
        assert parents == record.nodes
        assert len(before.nodes) == n
    born = [node for node in tree if node.parent is not None and node.copied_from is None]
    ledger = search.cost
    assert ledger.samples == len(born)
    assert ledger.gen_tokens == sum(node.tokens for node in born)
    assert ledger.prm_passes == scored
    assert ledger.rescorings == rescoring
    if unknown == 0:
        assert ledger.skipped_rescorings == 0
    assert len(set(world.served)) == len(world.served)


def test_a_node_may_be_expanded_and_rescored_in_one_batch():
    both = 0
    for seed in range(8):
        search, world = gibbs(Random(seed), n=4, iterations=3, max_depth=8), RandomWorld(seed, ending=0.1)
        while batch := search.ask():
            turns = Counter(expand.node for expand in batch)
            for expand in batch:
                if turns[expand.node] == 2:
                    assert expand.attempt == bool(expand.given_steps)
                    both += 1
            for expand in reversed(batch):
                search.tell(expand, world(search, expand))
    assert both > 10


def test_without_probabilities_it_is_plain_particle_gibbs():
    blind = play(gibbs(Random(4), n=4, iterations=4), RandomWorld(4, ending=0.1, unknown=1.0))
    plain = play(gibbs(Random(4), n=4, iterations=4, ancestor_sampling=False), RandomWorld(4, ending=0.1, unknown=1.0))
    assert blind.records == plain.records
    assert blind.cost.rescorings == 0
    assert blind.cost.skipped_rescorings > 0
    assert plain.cost.skipped_rescorings == 0


def test_rescoring_keeps_within_the_passes_of_the_reward_model():
    stayed = 0
    for most in (30, 60, 90, 150):
        limits = SearchLimits(prm_passes=most)
        search = play(gibbs(Random(2), n=4, iterations=6, limits=limits), RandomWorld(2, ending=0.15))
        assert search.cost.prm_passes <= most
        stayed += search.cost.skipped_rescorings
    assert stayed > 0


def test_temperatures_not_known_in_advance_are_refused():
    with pytest.raises(ValidationError, match="temperatures of steps to come"):
        GibbsOptions(ancestor_sampling=True, entropic="size")
