"""The particle filter: unbiasedness by enumeration, lineage, weights, equivalences."""

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reason.reasoning.search.core import Continuation, SearchLimits
from reason.reasoning.search.particles import ParticleFilter, ParticleOptions, effective_size, log_level, softmax
from support.search_models import RandomWorld, executions, play, random_worlds, seeds


def particles(rng=None, **options):
    return ParticleFilter(ParticleOptions(**options), Random(1) if rng is None else rng)


# -- the toy of two steps

FIRST = {"a": 0.7, "b": 0.3}
SECOND = {"a": {"x": 0.5, "y": 0.5}, "b": {"x": 0.2, "y": 0.8}}
G = {"a": 0.3, "b": 0.9, "ax": 0.2, "ay": 0.6, "bx": 0.9, "by": 0.1}


def toy(chance):
    def world(search, expand):
        prefix = search.tree.text(expand.node)
        ways = SECOND[prefix] if prefix else FIRST
        picks = [list(ways)[chance.pick(list(ways.values()))] for _ in range(expand.n)]
        return [Continuation(pick, 1, bool(prefix), G[prefix + pick]) for pick in picks]

    return world


def one_pass(chance, **options):
    """(estimate of Z, estimate of the share of those whose second symbol is x)."""
    search = play(particles(chance, weight_mode="likelihood", **options), toy(chance))
    record = search.records[0]
    share = sum(w for i, w in zip(record.nodes, record.theta, strict=True) if search.tree.text(i).endswith("x"))
    return math.exp(record.log_z), share


def test_unnormalised_estimates_are_unbiased():
    runs = list(executions(lambda chance: one_pass(chance, n=2)))
    assert sum(p for p, _ in runs) == pytest.approx(1, abs=1e-12)
    assert sum(p * z for p, (z, _) in runs) == pytest.approx(0.1542, abs=1e-12)
    assert sum(p * z * f for p, (z, f) in runs) == pytest.approx(0.0696, abs=1e-12)
    assert len(runs) == 64
    biased = sum(p * f for p, (_, f) in runs)
    assert biased == pytest.approx(0.367804, abs=5e-7)  # the posterior has 0.451362


def test_unbiased_with_solutions_of_several_lengths_only_if_the_stopped_weigh_one():
    # "s" ends at once; "g" goes on to "x" or "y"
    potentials = {"s": 0.5, "g": 0.8, "gx": 0.9, "gy": 0.2}
    exact = 0.4 * 0.5 + 0.6 * 0.8 * (0.3 * 0.9 + 0.7 * 0.2)

    def estimate(chance, **options):
        def world(search, expand):
            prefix = search.tree.text(expand.node)
            ways = {"x": 0.3, "y": 0.7} if prefix else {"s": 0.4, "g": 0.6}
            picks = [list(ways)[chance.pick(list(ways.values()))] for _ in range(expand.n)]
            return [Continuation(pick, 1, pick != "g", potentials[prefix + pick]) for pick in picks]

        done = play(particles(chance, n=2, weight_mode="likelihood", **options), world)
        return done.records[0].log_z

    means = {}
    for stopped in ("one", "last"):
        runs = executions(lambda chance, stopped=stopped: estimate(chance, stopped_weight=stopped))
        means[stopped] = sum(p * math.exp(z) for p, z in runs)
    assert means["one"] == pytest.approx(exact, abs=1e-12)
    assert abs(means["last"] - exact) > 0.01


# -- one population

some_options = st.fixed_dictionaries(
    {
        "n": st.integers(1, 6),
        "weight_mode": st.sampled_from(["odds", "likelihood", "telescoped"]),
        "tau": st.sampled_from([0.5, 1.0, 2.0]),
        "entropic": st.sampled_from([None, "size", "entropy"]),
        "resampling": st.sampled_from(["multinomial", "systematic"]),
        "stopped_weight": st.sampled_from(["last", "one"]),
        "max_depth": st.integers(1, 6),
    }
)


@given(random_worlds(unscored=[0.0, 0.4, 1.0], ending=[0.1, 0.5]), some_options, seeds)
def test_lineage_and_ledger(world, options, seed):
    search = particles(Random(seed), **options)
    active = []
    while batch := search.ask():
        if not batch[0].finish:
            active.append(sum(expand.n for expand in batch))
        for expand in batch:
            search.tell(expand.node, world(search, expand))
    record, tree = search.records[0], search.tree
    assert len(record.steps) == len(active) <= options["max_depth"]
    parents = [0] * options["n"]
    for t, particle_step in enumerate(record.steps, 1):
        assert math.fsum(particle_step.theta) == pytest.approx(1, abs=1e-12)
        assert active[t - 1] == sum(tree[i].depth == t for i in particle_step.nodes)
        for before, after in zip(parents, particle_step.nodes, strict=True):
            if after == before:  # stopped particles do not change
                assert tree[after].terminal
            else:
                assert (tree[after].parent, tree[after].depth) == (before, t)
        parents = [particle_step.nodes[a] for a in particle_step.ancestors]
    assert parents == record.nodes
    last = record.steps[-1]
    if all(tree[i].terminal or tree[i].depth == options["max_depth"] for i in last.nodes):
        assert last.ancestors == list(range(options["n"]))  # where all have finished, nothing is resampled
    # the cost counts each generated step once, however often it was copied
    born = list(tree)[1:]
    assert search.cost.samples == len(born)
    assert search.cost.gen_tokens == sum(node.tokens for node in born)
    assert search.cost.prm_passes == sum(node.score is not None for node in born)
    if world.unscored == 0:
        assert search.cost.prm_passes == sum(active) - sum(not node.text.strip() for node in born if not node.forced)
    world.assert_no_sample_is_requested_twice()
    outcome = search.outcome()
    assert outcome.stopped == "done"
    assert outcome.chosen.terminal
    if not outcome.chosen.forced:
        assert outcome.chosen.id in record.nodes
        complete = sum(w for i, w in zip(record.nodes, record.theta, strict=True) if tree[i].terminal)
        assert math.fsum(outcome.weights) == pytest.approx(complete, abs=1e-12)
        assert list(outcome.weights) == sorted(outcome.weights, reverse=True)
    else:
        assert not any(tree[i].terminal for i in record.nodes)


@given(seeds, st.sampled_from([0.5, 1.0, 2.0]))
def test_weights_are_the_odds_of_the_current_scores(seed, tau):
    search = play(particles(Random(seed), n=5, tau=tau), RandomWorld(seed, ending=0.3))
    for particle_step in search.records[0].steps:
        logits = [log_level(search.tree[i].score, "logit") / tau for i in particle_step.nodes]
        assert particle_step.theta == pytest.approx(softmax(logits), abs=1e-12)
        assert particle_step.ess == pytest.approx(effective_size(particle_step.theta))
    record = search.records[0]
    if all(search.tree[i].terminal for i in record.steps[-1].nodes):
        assert record.theta == record.steps[-1].theta
    else:  # the last resampling drew only finished ones
        assert record.theta == [1 / 5] * 5
        potentials = [search.tree[i].log_g for i in record.nodes]
        assert search.tree[search.outcome().chosen.id].log_g == max(potentials)


@given(seeds)
def test_telescoped_weights_follow_only_the_last_score(seed):
    world = RandomWorld(seed, ending=0.3, unscored=0.3)
    search = play(particles(Random(seed), n=4, weight_mode="telescoped", max_depth=99), world)
    for node in search.tree:
        if node.score is not None:
            assert math.fsum(n.log_g for n in search.tree.path(node)) == pytest.approx(
                log_level(node.score, "log"), abs=1e-9
            )


@given(seeds)
@settings(max_examples=20)
def test_one_particle_is_plain_sampling(seed):
    world = RandomWorld(seed)
    search = play(particles(Random(0), n=1, max_depth=99), world)
    assert search.tree.steps(search.outcome().chosen.id) == [step.text for step in world.chain()]
    assert search.outcome().weights == (1.0,)


@pytest.mark.parametrize("mode", ["odds", "likelihood"])
def test_constant_scores_weigh_all_alike(mode):
    search = play(particles(n=6, weight_mode=mode), RandomWorld(3, scores=lambda text: 0.7))
    for particle_step in search.records[0].steps:
        assert particle_step.theta == pytest.approx([1 / 6] * 6, abs=1e-12)
        assert particle_step.ess == pytest.approx(6)


def test_constant_scores_with_systematic_resampling_run_side_by_side():
    search = play(particles(n=6, resampling="systematic"), RandomWorld(3, scores=lambda text: 0.5))
    assert all(particle_step.ancestors == list(range(6)) for particle_step in search.records[0].steps)


def told(search, *scores):
    (expand,) = search.ask()
    search.tell(expand.node, [Continuation(f"{i}\n\n", 1, False, r) for i, r in enumerate(scores)])


def test_a_missing_score_is_the_mean_potential_of_its_step():
    search = particles(n=3)
    told(search, 0.9, None, 0.6)
    first, last = log_level(0.9, "logit"), log_level(0.6, "logit")
    assert [node.log_g for node in list(search.tree)[1:]] == pytest.approx([first, (first + last) / 2, last])
    assert search.cost.unscored == 1


def test_a_step_without_any_score_is_not_resampled():
    search = particles(n=3)
    told(search, None, None, None)
    (particle_step,) = search.steps
    assert (particle_step.ancestors, particle_step.theta) == ([0, 1, 2], pytest.approx([1 / 3] * 3))
    assert search.rng.getstate() == Random(1).getstate()
    assert search.cost.unscored == 3


def test_the_entropic_temperature_softens_only_early_steps():
    scores = (0.9999, 0.1, 0.1, 0.1)
    early, late = (particles(n=4, entropic="size", max_depth=depth) for depth in (8, 2))
    for search in (early, late):
        told(search, *scores)
    assert early.steps[0].tau > 2
    assert max(early.steps[0].theta) < max(softmax([log_level(r, "logit") for r in scores]))
    assert late.steps[0].tau == 1


def test_without_a_complete_solution_the_heaviest_particle_is_completed():
    search = play(particles(n=4, max_depth=3), RandomWorld(2, ending=0.0))
    outcome = search.outcome()
    record = search.records[0]
    assert outcome.chosen.forced
    assert outcome.chosen.parent == record.nodes[max(range(4), key=record.theta.__getitem__)]
    assert (search.cost.completions, outcome.weights, outcome.stopped) == (1, (1.0,), "done")


def test_a_spent_budget_ends_between_steps():
    search = play(particles(n=4, limits=SearchLimits(prm_passes=11)), RandomWorld(2, ending=0.0))
    assert (search.outcome().stopped, search.cost.prm_passes) == ("prm_passes", 8)
    assert search.outcome().chosen.forced
