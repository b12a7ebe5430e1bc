"""One pass of a particle filter over a tree that several passes may share: propagate, weigh, resample, to the end.

With a reference, which a pass of particle Gibbs is run beside, the last particle holds the reference's first t steps at
step t, whatever the weights say; the others compete with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from random import Random
from typing import Any

from .ancestors import Rivals, alike, behind, graft
from .population import Generation, Particle, ParticleOptions, Sweep
from .potentials import potential
from .resampling import effective_size, log_sum, multinomial, softmax, systematic
from .tempering import entropic_temperature
from .tree import Continuation, Ledger, Tree

Told = Mapping[int, Sequence[Continuation]]
"""By id of a prefix what given steps come to behind it."""


class Pass:
    """One pass.

    Args:
        options: Its parameters.
        rng: Draws ancestors.
        tree: Where its particles live; whoever runs the pass adds the steps that it wants.
        ledger: Counts what could not be weighed.
        root: Id of the empty prefix that they start from.
        reference: Ids of the reference's steps; empty without one.
        reattach: Whether the rest of the reference may go on behind another particle (`ancestors`).

    Attributes:
        step: Steps so far.
        population: Ids of what the particles hold, `[particles]`.
        reference: Ids of the reference's steps, held by the last particle.
        generations: Steps so far.
        carried: Log-weights that no resampling has reset, `[particles]`.
        log_z: Logarithm of the estimated normalising constant so far.
    """

    def __init__(
        self,
        options: ParticleOptions,
        rng: Random,
        tree: Tree[Particle],
        ledger: Ledger,
        root: int,
        reference: Sequence[int] = (),
        *,
        reattach: bool = False,
    ) -> None:
        self.options, self._rng, self._tree, self._ledger, self._reattach = options, rng, tree, ledger, reattach
        self.step = 0
        self.population = [root] * options.n
        self.reference = list(reference)
        self.generations: list[Generation] = []
        self.carried = [0.0] * options.n
        self.log_z = 0.0
        self._rivals: Rivals = {}

    # -- propagate

    @property
    def over(self) -> bool:
        """Whether all particles have finished."""
        return not any(map(self._active, self.population))

    @property
    def free(self) -> list[int]:
        """Ids of what the particles but the reference hold."""
        return self.population[: self.options.n - bool(self.reference)]

    def wanted(self) -> list[tuple[Particle, int]]:
        """The prefixes to continue, each with the number of particles that hold it; none once the pass is over."""
        while True:
            free = self.free
            held = [self._tree[node_id] for node_id in dict.fromkeys(free) if self._active(node_id)]
            if held or self._rivals or self.over:
                return [(node, free.count(node.id)) for node in held]
            self.take({}, {})  # the reference goes on alone; others may fork from it

    def trials(self) -> list[tuple[Particle, tuple[str, ...]]]:
        """The prefixes behind which the rest of the reference is to be weighed."""
        given = tuple(self._tree[node_id].text for node_id in self.reference[self.step :])
        return [(self._tree[node_id], given) for node_id in self._to_weigh()]

    def decline(self) -> None:
        """Leave the rest of the reference where it is at this step."""
        self._ledger.unweighed += len(self._to_weigh())
        self._rivals = {}

    def take(self, fresh: Mapping[int, Sequence[Particle]], told: Told) -> None:
        """Take in the step that was wanted.

        Args:
            fresh: By id of each prefix wanted its continuations, as nodes.
            told: By id of each prefix of `trials` what was told of it.
        """
        if self._rivals:
            self._draw_ancestor(told)
        born = [child for node_id in dict.fromkeys(self.free) for child in fresh.get(node_id, ())]
        self._advance(self._moved(fresh), born)

    def halt(self, fresh: Mapping[int, Sequence[Particle]]) -> None:
        """Take in a part of a step, which is never weighed: the pass goes no further."""
        self.population, self._rivals = self._moved(fresh), {}

    def _active(self, node_id: int) -> bool:
        node = self._tree[node_id]
        return not node.terminal and node.depth < self.options.max_depth

    def _moved(self, fresh: Mapping[int, Sequence[Particle]]) -> list[int]:
        """What the particles hold after a step; the reference alone stays where it is."""
        free = self.free
        left: dict[int, Iterator[Particle]] = {node_id: iter(children) for node_id, children in fresh.items()}
        return [next(left[i]).id if i in left else i for i in free] + self.population[len(free) :]

    # -- weigh and resample

    def _advance(self, nodes: list[int], born: Sequence[Particle]) -> None:
        scored = self._set_potentials(born)
        self.step += 1
        if self.reference:
            nodes[-1] = self.reference[min(self.step, len(self.reference)) - 1]
        gains = [self._gain(node_id) if scored else 0.0 for node_id in nodes]

        rivals = [i for i, node_id in enumerate(nodes) if self.options.resample_stopped or self._active(node_id)]
        rivals = rivals or list(range(len(nodes)))
        tau = self._temperature(gains, rivals)
        weights = [carried + gain / tau for carried, gain in zip(self.carried, gains, strict=True)]
        theta = softmax([weights[i] for i in rivals])
        self.log_z += log_sum(weights) - log_sum(self.carried)

        ancestors = list(range(len(nodes)))
        ess = effective_size(theta)
        trigger = self.options.ess_trigger
        if scored and any(map(self._active, nodes)) and (trigger is None or ess <= trigger * len(rivals)):
            draw = systematic if self.options.resampling == "systematic" else multinomial
            free = [i for i in rivals if not self.reference or i < len(nodes) - 1]
            for i, pick in zip(free, draw(theta, len(free), self._rng), strict=True):
                ancestors[i] = rivals[pick]
            if self._reattach and self.step < len(self.reference):
                self._rival({nodes[i]: weights[i] for i in rivals if self._active(nodes[i])})
            for i in rivals:
                weights[i] = 0.0
        self.carried = weights
        self.population = [nodes[i] for i in ancestors]
        spread = dict(zip(rivals, theta, strict=True))
        self.generations.append(Generation(nodes, [spread.get(i, 0.0) for i in range(len(nodes))], ancestors, ess, tau))

    def _set_potentials(self, born: Sequence[Particle]) -> bool:
        """Set log G of new steps; False if no score is there."""
        missing, known = [], []
        for child in born:
            before = self._tree[child.parent or 0].level
            log_g, child.level = potential(self.options, child.text, child.score, before)
            if log_g is None:
                missing.append(child)
            else:
                child.log_g = log_g
                known.append(log_g)
        if known and self.options.weight_mode != "telescoped":
            for child in missing:
                child.log_g = math.fsum(known) / len(known)
        return bool(known) or not born

    def _gain(self, node_id: int) -> float:
        """What a particle gains at this step, at temperature 1."""
        node = self._tree[node_id]
        if node.depth == self.step:
            return node.log_g
        again = self.options.resample_stopped and self.options.stopped_weight == "last"
        return node.log_g if again and self.options.weight_mode != "telescoped" else 0.0

    def _temperature(self, gains: Sequence[float], rivals: Sequence[int]) -> float:
        tau = self.options.temperature_at(self.step)
        if self.options.entropic is None:
            return tau
        theta = softmax([self.carried[i] + gains[i] / tau for i in rivals])
        return tau * entropic_temperature(theta, self.step / self.options.max_depth, self.options.entropic)

    # -- ancestor sampling

    def _rival(self, rivals: Rivals) -> None:
        """Let these compete for the rest of the reference, if it can be weighed and there is any choice."""
        self._rivals = rivals
        if any(self._tree[node_id].logprob is None for node_id in self.reference[self.step :]):
            self.decline()
        elif not self._to_weigh():
            self._rivals = {}

    def _to_weigh(self) -> list[int]:
        """Of the rivals that do not say what the reference says the first of each wording."""
        if not self._rivals:
            return []
        own = self.reference[self.step - 1]
        first = alike(self._tree, own, self._rivals)
        return [node_id for node_id in dict.fromkeys(first.values()) if node_id != own]

    def _draw_ancestor(self, told: Told) -> None:
        rivals, own = self._rivals, self.reference[self.step - 1]
        self._rivals = {}
        rest = [self._tree[node_id] for node_id in self.reference[self.step :]]
        first = alike(self._tree, own, rivals)
        ways = {
            node_id: behind(self.options, rest, None if first[node_id] == own else told[first[node_id]], node)
            for node_id, node in ((node_id, self._tree[node_id]) for node_id in rivals)
        }
        self._ledger.unweighed += sum(way is None and first[node_id] == node_id for node_id, way in ways.items())
        known = {node_id: way for node_id, way in ways.items() if way is not None}
        theta = softmax([rivals[node_id] + way.log_weight for node_id, way in known.items()])
        chosen = list(known)[multinomial(theta, 1, self._rng)[0]]
        if first[chosen] == own:
            return  # it says the same, so the reference stays as it is
        self.reference = graft(self._tree, self._tree[chosen], rest, known[chosen])
        self.generations[-1].ancestors[-1] = self.generations[-1].nodes.index(chosen)
        self.population[-1] = chosen

    # -- the end

    def sweep(self) -> Sweep:
        """The pass as a record."""
        log_z = self.log_z if self.options.resample_stopped else None
        return Sweep(self.population, softmax(self.carried), log_z, self.generations)

    def to_json(self) -> dict[str, Any]:
        """Its state as plain JSON."""
        return {
            "step": self.step,
            "population": self.population,
            "reference": self.reference,
            "generations": [asdict(generation) for generation in self.generations],
            "carried": self.carried,
            "log_z": self.log_z,
            "rivals": [[node_id, weight] for node_id, weight in self._rivals.items()],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take what `to_json` gave."""
        self.step, self.log_z = state["step"], state["log_z"]
        self.population, self.reference = list(state["population"]), list(state["reference"])
        self.generations = [Generation(**generation) for generation in state["generations"]]
        self.carried = list(state["carried"])
        self._rivals = dict(state["rivals"])
