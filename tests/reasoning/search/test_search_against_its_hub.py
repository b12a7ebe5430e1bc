"""The particle filter against the formulas of the library `its_hub`, reimplemented here, and against itself.

Two differences of the library's filter are not compared: it resamples once more after the last step, and its
step generation allows one step more than `max_steps`.
"""

import asyncio
import random

import numpy as np
import pytest
from reason.reasoning.search.core import Continuation
from reason.reasoning.search.particles import ParticleFilter, ParticleOptions

CLIP = 1e-7
STEPS = 12


class Unrepeated:
    """Steps and scores determined by prefix and index; all samples of a prefix differ."""

    def __init__(self, seed, *, saturated):
        self.seed, self.saturated, self.samples = seed, saturated, {}

    def step(self, prefix):
        """The next sample of a prefix: its text, and whether the solution is complete."""
        index = self.samples.get(prefix, 0)
        self.samples[prefix] = index + 1
        rng = random.Random(f"{self.seed}|{prefix}|{index}")
        return f"{index}.", prefix.count(".") + 1 == STEPS or rng.random() < 0.2

    def score(self, text):
        rng = random.Random(f"{self.seed}|{text}|score")
        return rng.choice([0.0, 1e-9, 0.5, 1.0]) if self.saturated and rng.random() < 0.3 else rng.uniform(0.03, 0.97)


def temperature(theta, progress, entropic):
    ratio = 1 / np.sum(theta**2) / len(theta)
    if entropic is None or ratio >= 0.5 or progress >= 0.5:
        return 1.0
    if entropic == "size":
        return max(1.0, (1 - progress) / ratio)
    entropy = -np.sum(theta * np.log(theta)) / np.log(len(theta))
    return max(1.0, 1 / (entropy + (1 - entropy) * progress))


def softmax(w):
    raised = np.exp(w - np.max(w))
    return raised / raised.sum()


def by_the_formulas(world, n, seed, entropic):
    """(theta, chosen positions) of each step: logits of the scores, softmax, `random.choices`."""
    rng, observed = random.Random(seed), []
    particles = [("", False, 0.0)] * n
    while not all(ended for _, ended, _ in particles):
        grown = []
        for text, ended, weight in particles:
            if not ended:
                step, ended = world.step(text)
                text += step
                r = min(max(world.score(text), CLIP), 1 - CLIP)
                weight = np.log(r / (1 - r))
            grown.append((text, ended, weight))
        w = np.array([weight for _, _, weight in grown])
        theta = softmax(w / temperature(softmax(w), (len(observed) + 1) / STEPS, entropic))
        chosen = rng.choices(range(n), weights=theta, k=n)
        observed.append((theta, chosen))
        particles = [grown[i] for i in chosen]
    return observed


def by_its_hub(world, n, seed, entropic):
    """The same of the library."""
    hub = pytest.importorskip(
        "its_hub.core.algorithms.particle_gibbs",
        reason="its_hub is not installed; its formulas are compared",
    )
    observed = []

    class Recording(hub.ParticleGibbs):
        def _resampling(self, particles, probabilities, num_particles):
            chosen = super()._resampling(particles, probabilities, num_particles)
            positions = {id(particle): i for i, particle in enumerate(particles)}
            observed.append((probabilities, [positions[id(particle)] for particle in chosen]))
            return chosen

    class Steps:
        max_steps = STEPS

        async def aforward(self, lm, prompts, steps_so_far, **_):
            return [world.step("".join(steps)) for steps in steps_so_far]

        def _post_process(self, steps, stopped):
            return "".join(steps)

    class Rewards:
        async def ascore(self, prompt, texts):
            return [world.score(text) for text in texts]

    method = {None: "base", "size": "ess", "entropy": "entropy"}[entropic]
    search = Recording(
        Steps(), Rewards(), does_entropic_annealing=entropic is not None, temperature_method=method, num_ref_particles=0
    )
    random.seed(seed)
    asyncio.run(search.ainfer(None, "question", n, return_response_only=False))
    return observed


@pytest.mark.parametrize("other", [by_the_formulas, by_its_hub])
@pytest.mark.parametrize("entropic", [None, "size", "entropy"])
@pytest.mark.parametrize("n", [3, 8, 16])
def test_weights_and_ancestors_are_those_of_its_hub(n, entropic, other):
    softened = 0
    for seed in range(6):
        saturated = entropic is None  # the library clips theta too where it softens
        theirs = other(Unrepeated(seed, saturated=saturated), n, seed, entropic)

        world = Unrepeated(seed, saturated=saturated)
        options = ParticleOptions(n=n, parity="reference", entropic=entropic, max_depth=STEPS)
        search = ParticleFilter(options, random.Random(seed))
        while batch := search.ask():
            for expand in batch:
                prefix, results = search.tree.text(expand.node), []
                for _ in range(expand.n):
                    step, ends = world.step(prefix)
                    results.append(Continuation(step, 1, ends, world.score(prefix + step)))
                search.tell(expand, results)
        ours = search.records[0].steps
        assert len(ours) == len(theirs)
        for particle_step, (theta, chosen) in zip(ours, theirs, strict=True):
            assert particle_step.theta == pytest.approx(list(theta), abs=1e-9)
            if particle_step is not ours[-1]:
                assert particle_step.ancestors == chosen
            softened += particle_step.tau > 1
    assert (softened > 0) == (entropic is not None)
