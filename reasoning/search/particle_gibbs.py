"""Particle Gibbs: filter again and again, each time beside one particle of the pass before, the reference.

    run the filter
    J - 1 times: draw a reference by the final weights; run the filter with N - 1 free particles and the reference
    answer from the last pass

Source: Puri et al. 2025, arXiv:2502.01618, algorithm 2; Andrieu, Doucet, Holenstein, "Particle Markov chain Monte Carlo
methods" (2010).

Parallel tempering: particle-Gibbs chains at several temperatures, whose neighbours swap their references.

    J times, for all chains at once:
        run a pass of each chain; draw its reference
        for neighbours, from the hottest on: swap their references with probability A (`tempering.swap_probability`)
    answer from the last pass of the coldest chain

A hot chain's weights are flatter, so its references move more easily; swaps hand what it finds down to the cold one.

Source: Puri et al. 2025, arXiv:2502.01618 (NeurIPS version, equation 4), who tried J = 1 alone, which is chains without
any swap.

Particle Gibbs: particle filters in a row, each beside a solution that was drawn from the one before.

    run the particle filter
    J - 1 times: draw a reference by weight; run the filter again, with the reference as one of the N particles
    answer: a vote by weight among the particles of the last pass

With several temperatures, a chain of this kind runs at each of them, and neighbours swap their references.

Source: Puri et al. 2025, arXiv:2502.01618, algorithm 2, and its section on parallel tempering; Andrieu, Doucet,
Holenstein, "Particle Markov chain Monte Carlo methods" (2010).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from random import Random
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ...core.answer import Solution
from ...core.question import Question
from ...core.run import Run
from ...serving.model import Feature
from ..strategy import Models, Stability
from .core import Limits
from .driver import SearchedSteps
from .particles import ParticleFilter, ParticleOptions, Pass, Pick, sweep_notes
from .resampling import multinomial, swap_probability
from .tree import Continuation


class GibbsOptions(ParticleOptions):
    """Parameters of particle Gibbs; N particles in each of J passes, N·J in all."""

    n: Annotated[int, Field(ge=2, description="particles of a pass, the reference included")] = 16
    iterations: Annotated[int, Field(ge=1, description="passes")] = 4
    resampling: Annotated[
        Literal["multinomial"], Field(description="systematic resampling around a fixed reference would be biased")
    ] = "multinomial"
    ancestor_sampling: Annotated[
        bool,
        Field(description="let the rest of the reference go on behind other particles; needs log-probabilities"),
    ] = False

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if self.ancestor_sampling and self.entropic is not None:
            raise ValueError("ancestor_sampling needs the temperatures of steps to come, which entropic leaves open")
        return self


class ParticleGibbs(ParticleFilter):
    """Particle Gibbs as ask and tell.

    A pass has a root of its own, so that no two passes ask for one node, and the reference is copied beneath it. At
    step t the reference competes with its potential of step t, and free particles may fork from its first t steps; only
    its own place is never drawn anew. Where the reference is longer than all others, it goes on alone.

    With `ancestor_sampling` the reference's steps to come are weighed behind the other particles' prefixes whenever
    these were resampled, and go on behind one of them (`ancestors`). `Expand.given` asks for that, in one batch with
    the next step. Where the owner knows no log-probability or no score, and where the passes of the reward model do not
    suffice, the reference stays as it is; `Ledger.unweighed` counts it. Weighing costs up to N·T²/2 passes of the
    reward model for T steps, and no generated tokens.

    The target is left unchanged where a solution's weight is the product of its own potentials: `stopped_weight` "one",
    "telescoped", or solutions of one length.

    Differs: the authors' programs let the reference compete with its potential of step t + 1, or with its final one at
    every step; neither leaves the target unchanged.
    """

    name = "particle-gibbs"
    Options = GibbsOptions
    options: GibbsOptions

    @property
    def _reattaches(self) -> bool:
        return self.options.ancestor_sampling

    def _again(self) -> bool:
        if len(self.sweeps) >= self.options.iterations:
            return False
        self.passes = [self._beside(chain, node_id) for chain, node_id in enumerate(self._references())]
        return True

    def _references(self) -> list[int]:
        """For each chain the particle that its next pass is run beside."""
        last = [history[-1] for history in self.histories]
        return [sweep.nodes[multinomial(sweep.theta, 1, self.rng)[0]] for sweep in last]

    def _beside(self, chain: int, node_id: int) -> Pass:
        """A pass with a copy of a prefix as its reference."""
        path = self.tree.path(self.tree[node_id])
        root = parent = self.tree.add_root()
        reference = []
        for node in path:
            step = Continuation(node.text, node.tokens, node.terminal, node.score, node.logprob)
            parent = self.tree.add(parent, step)
            parent.log_g, parent.level, parent.copied = node.log_g, node.level, node.id
            reference.append(parent.id)
        return self._pass(chain, root.id, reference)


class TemperedOptions(GibbsOptions):
    """Parameters of parallel tempering; N particles in each of J passes of M chains, N·J·M in all."""

    n: Annotated[int, Field(ge=2, description="particles of a pass of each chain, the reference included")] = 16
    iterations: Annotated[int, Field(ge=1, description="passes of each chain")] = 2
    taus: Annotated[
        tuple[Annotated[float, Field(gt=0)], ...],
        Field(min_length=1, description="temperature of each chain's weights, the hottest first"),
    ] = (2.0, 1.0)
    pool: Annotated[bool, Field(description="answer from the last passes of all chains, not of the coldest alone")] = (
        False
    )

    @model_validator(mode="after")
    def _chains(self) -> Self:
        if any(hot <= cold for hot, cold in pairwise(self.taus)):
            raise ValueError("taus must fall from chain to chain")
        if self.tau != 1:
            raise ValueError("the temperatures are taus; tau has no meaning here")
        if self.entropic is not None:
            raise ValueError("entropic changes the targets of the chains as they go, so that no swap would be right")
        return self


@dataclass(frozen=True, slots=True)
class Swap:
    """What became of a pair of neighbouring chains after one pass.

    Attributes:
        chain: The hotter one's place.
        chance: How likely the swap was.
        done: Whether it was made.
    """

    chain: int
    chance: float
    done: bool


class TemperedGibbs(ParticleGibbs):
    """Parallel tempering as ask and tell.

    All chains share tree, ledger, limits and randomness; each of their passes has a root of its own. What the chains
    want at a step is asked for as one batch, and a chain whose pass is over waits for the others. With one temperature
    it is particle Gibbs.

    The outcome is that of the coldest chain's last pass. With `pool` it is that of all chains' last passes, each chain
    weighing the same; then the hot chains vote too, whose particles follow flatter targets.

    Attributes:
        swaps: For each pass but the last what became of the neighbours, from the hottest on.
    """

    name = "tempered-gibbs"
    Options = TemperedOptions
    options: TemperedOptions

    def __init__(self, options: TemperedOptions, rng: Random) -> None:
        super().__init__(options, rng)
        self.swaps: list[list[Swap]] = []

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Temperature of each chain, the hottest first."""
        return self.options.taus

    def _references(self) -> list[int]:
        references = super()._references()
        levels = [self.log_target(node_id) for node_id in references]
        tried = []
        for k, (hot, cold) in enumerate(pairwise(self.temperatures)):
            chance = swap_probability(hot, cold, levels[k], levels[k + 1])
            done = bool(multinomial([1 - chance, chance], 1, self.rng)[0])
            if done:
                references[k], references[k + 1] = references[k + 1], references[k]
                levels[k], levels[k + 1] = levels[k + 1], levels[k]
            tried.append(Swap(k, chance, done))
        self.swaps.append(tried)
        return references

    def _final(self) -> tuple[list[int], list[float]]:
        if not self.options.pool:
            return super()._final()
        chains = [self._last(chain) for chain in range(len(self.temperatures))]
        nodes = [node_id for held, _ in chains for node_id in held]
        return nodes, [weight / len(chains) for _, theta in chains for weight in theta]

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "swaps": [[asdict(swap) for swap in tried] for tried in self.swaps]}

    def _restore(self, state: Mapping[str, Any]) -> None:
        super()._restore(state)
        self.swaps = [[Swap(**swap) for swap in tried] for tried in state["swaps"]]


class ParticleGibbsSampling:
    """Particle Gibbs over the steps of one model (see `search.gibbs`); `n` particles in each of `iterations` passes.

    With `taus`, parallel tempering (see `search.tempered`): so many chains, `n * iterations` particles each. The answer
    is found as in `particle-filter`, in the last pass: that of the coldest chain if there are several, or with `pool`
    those of all.
    """

    name: ClassVar[str] = "particle-gibbs"
    summary: ClassVar[str] = "particle filters in a row, each beside a solution of the one before"
    paper: ClassVar[str] = "Puri et al. 2025, arXiv:2502.01618"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "reward")

    class Config(SearchedSteps, GibbsOptions):
        """Parameters of `particle-gibbs`."""

        pick: Annotated[Pick, Field(description="a vote by weight, or one particle")] = "vote"
        taus: Annotated[
            tuple[float, ...], Field(description="temperatures of several chains, the hottest first; none is one chain")
        ] = ()
        pool: Annotated[bool, Field(description="with taus: answer from all chains, not the coldest alone")] = False

        @model_validator(mode="after")
        def _tempered(self) -> Self:
            if self.taus:
                self.chains(Limits())
            return self

        def chains(self, limits: Limits) -> TemperedOptions:
            """The options of the tempered chains."""
            given = {name: getattr(self, name) for name in TemperedOptions.model_fields}
            return TemperedOptions.model_validate({**given, "limits": limits})

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`."""
        config = self.config
        if config.ancestor_sampling and (config.temperature, config.top_p, config.top_k) != (1.0, 1.0, 0):
            run.degrade(
                "ancestor_sampling weighs steps by the model's own probabilities, not by those of this sampling; "
                "it is exact at temperature=1, top_p=1, top_k=0"
            )
        options = config.options(GibbsOptions, run)
        search = (
            TemperedGibbs(config.chains(options.limits), run.rng) if config.taus else ParticleGibbs(options, run.rng)
        )
        found = await config.search(search, question, models, run)
        if found is None:
            return await config.without_search(
                config.n * config.iterations * max(1, len(config.taus)), question, models, run
            )
        if config.pick == "particle":
            return config.best(found, run, **sweep_notes(search))
        return await config.vote(found, question, run, found.weights, **sweep_notes(search))
