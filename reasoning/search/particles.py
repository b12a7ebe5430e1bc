"""A particle filter over steps: continue all particles by one step, weigh them by the reward, resample.

    while some particle is active:
        propagate   one step for every active particle
        weigh       by log G of the step; a finished particle keeps its last
        resample    N of them in proportion to their weights, unless all have finished

Source: Puri et al., "Rollout Roulette: A Probabilistic Inference Approach to Inference-Time Scaling of LLMs using
Particle-Based Monte Carlo Methods" (2025, arXiv:2502.01618), algorithm 1. Estimates of the normalising constant and of
unnormalised integrals are unbiased; the estimate of an expectation is consistent, and biased at finite N.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from random import Random
from typing import Any

from ...core.errors import UserError
from .asking import StepSearch
from .expand import Expand, Heard, Outcome
from .particle_pass import Pass
from .population import Generation, Particle, ParticleOptions, Sweep
from .resampling import multinomial, softmax
from .tree import Continuation


class ParticleFilter(StepSearch[Particle, ParticleOptions]):
    """The particle filter as ask and tell.

    Particles that hold one prefix are asked for together, in one `Expand` of as many continuations. Duplicates and
    continuations that add nothing are kept, as the weights are about samples. With one particle it is plain sampling
    step by step.

    A missing score: the particle gets the mean log-potential of its step; under "telescoped" none, for its next score
    makes up for it. Where all are missing, the step is not resampled. A continuation that adds nothing has the score of
    its prefix.

    Differs: only complete solutions are chosen, where there are any; where there are none, the final answer of the
    heaviest particle is asked for.

    Args:
        options: Its parameters.
        rng: Draws ancestors, and the chosen particle where it is sampled.

    Attributes:
        passes: What runs now: one pass, and where there are several chains one of each, in lock-step.
        histories: Of each chain the passes that came to their end.
    """

    name = "particle-filter"
    Options = ParticleOptions
    Node = Particle
    rng: Random

    def __init__(self, options: ParticleOptions, rng: Random) -> None:
        if rng is None:
            raise UserError("a particle filter needs randomness", hint="give a seeded random.Random")
        super().__init__(options, rng)
        chains = range(len(self.temperatures))
        self.passes = [self._pass(k, self.tree.add_root().id if k else 0) for k in chains]
        self.histories: list[list[Sweep]] = [[] for _ in chains]
        self._chosen: int | None = None

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Temperature of each chain, the last one's the lowest."""
        return (self.options.tau,)

    @property
    def sweeps(self) -> list[Sweep]:
        """Passes of the last chain that came to their end."""
        return self.histories[-1]

    @property
    def population(self) -> list[int]:
        """Ids of what the particles of the last chain hold, `[particles]`."""
        return self.passes[-1].population

    @property
    def generations(self) -> list[Generation]:
        """Steps of the last chain's current pass."""
        return self.passes[-1].generations

    def log_target(self, node_id: int) -> float:
        """L: the sum of the log-potentials of a prefix at temperature 1, annealing included."""
        path = self.tree.path(self.tree[node_id])
        return math.fsum(node.log_g / self.options.annealing(node.depth) for node in path)

    def _pass(self, chain: int, root: int, reference: Sequence[int] = ()) -> Pass:
        tau = self.temperatures[chain]
        options = self.options if tau == self.options.tau else self.options.model_copy(update={"tau": tau})
        return Pass(options, self.rng, self.tree, self.ledger, root, reference, reattach=self._reattaches)

    @property
    def _reattaches(self) -> bool:
        """Whether references are given new beginnings."""
        return False

    def _next(self) -> list[Expand]:
        while True:
            wanted = [entry for one in self.passes for entry in one.wanted()]
            trials = self._affordable(sum(n for _, n in wanted))
            if wanted or trials:
                batch = self._batch(wanted)
                return self._wind_up(batch) if isinstance(batch, str) else batch + trials
            if all(one.over for one in self.passes):
                self._close()
                if not self._again():
                    return self._wind_up("done")

    def _affordable(self, samples: int) -> list[Expand]:
        """What is to be weighed, as far as the passes of the reward model cover it beside those of the samples."""
        left, trials = self.options.limits.passes_left(self.ledger), []
        for one in self.passes:
            own = one.trials()
            passes = sum(len(given) for _, given in own)
            if left is not None and passes > left - samples:
                one.decline()
                continue
            left = None if left is None else left - passes
            trials += [Expand(node.id, len(given), 0, 0, given=given) for node, given in own]
        return trials

    def _kept(self, expand: Expand, results: Sequence[Continuation]) -> list[int]:
        return list(range(len(results)))

    def _take(self, heard: Heard, missed: list[Expand]) -> None:
        fresh: dict[int, list[Particle]] = {}
        told: dict[int, Sequence[Continuation]] = {}
        for expand, results in heard:
            if expand.given:
                told[expand.node] = results
                continue
            children = [self.tree.add(self.tree[expand.node], step, forced=expand.finish) for step in results]
            fresh[expand.node] = children
            if expand.finish:
                self._chosen = children[0].id
                return
            self.ledger.empties += sum(step.blank and not step.terminal for step in results)
            self._count_unscored(expand, results)
        for one in self.passes:
            if missed:
                one.halt(fresh)
            elif not one.over:
                one.take(fresh, told)

    # -- the end

    def _close(self) -> None:
        for one, history in zip(self.passes, self.histories, strict=True):
            history.append(one.sweep())
        nodes, theta = self._final()
        complete = [i for i, node_id in enumerate(nodes) if self.tree[node_id].terminal]
        if complete and self.options.select == "sample":
            self._chosen = nodes[complete[multinomial([theta[i] for i in complete], 1, self.rng)[0]]]
        elif complete:
            self._chosen = nodes[self._largest(nodes, theta, complete)]

    def _again(self) -> bool:
        """Begin another pass, if there is one."""
        return False

    def _final(self) -> tuple[list[int], list[float]]:
        """The particles to answer from, with their weights."""
        return self._last(-1)

    def _last(self, chain: int) -> tuple[list[int], list[float]]:
        """The particles of a chain's last pass that came to its end, else as they are; with their weights."""
        if self.histories[chain]:
            sweep = self.histories[chain][-1]
            return sweep.nodes, sweep.theta
        return self.passes[chain].population, softmax(self.passes[chain].carried)

    def _heaviest(self) -> Particle:
        nodes, theta = self._final()
        return self.tree[nodes[self._largest(nodes, theta, range(len(nodes)))]]

    def _largest(self, nodes: Sequence[int], theta: Sequence[float], among: Iterable[int]) -> int:
        """Position of the largest weight; after resampling all are equal, and the last potential decides."""
        return max(among, key=lambda i: (theta[i], self.tree[nodes[i]].log_g, -i))

    def _unfinished(self) -> Particle | None:
        return None if any(self.tree[node_id].terminal for node_id in self._final()[0]) else self._heaviest()

    def outcome(self) -> Outcome[Particle]:
        """See `StepSearch.outcome`; a solution weighs the sum of theta over the particles that hold it.

        It is that of the last pass that came to its end, else of the particles as they are. The weights sum to 1 less
        what the incomplete ones have.
        """
        nodes, theta = self._final()
        weights: dict[int, float] = {}
        for node_id, weight in zip(nodes, theta, strict=True):
            if self.tree[node_id].terminal:
                weights[node_id] = weights.get(node_id, 0.0) + weight
        chosen = self._chosen
        if chosen is not None and chosen not in weights:  # a forced answer
            weights[chosen] = 1.0
        order = sorted(weights, key=lambda node_id: (-weights[node_id], node_id))
        best = self.tree[chosen] if chosen is not None else self.tree[order[0]] if order else self._heaviest()
        return self._outcome(best if best.depth else None, [self.tree[i] for i in order], [weights[i] for i in order])

    def _state(self) -> dict[str, Any]:
        return {
            "passes": [one.to_json() for one in self.passes],
            "histories": [[asdict(sweep) for sweep in history] for history in self.histories],
            "chosen": self._chosen,
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._chosen = state["chosen"]
        self.passes = [self._pass(k, 0) for k in range(len(self.temperatures))]
        for one, held in zip(self.passes, state["passes"], strict=True):
            one.load(held)
        self.histories = [
            [Sweep(**{**sweep, "generations": [Generation(**g) for g in sweep["generations"]]}) for sweep in history]
            for history in state["histories"]
        ]
