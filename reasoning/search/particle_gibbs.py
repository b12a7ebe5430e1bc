"""Particle Gibbs: repeated particle filters, each with one particle of the pass before as its reference.

    run the particle filter
    J - 1 times: sample a reference by the final weights; run the filter with N - 1 free particles and the reference
    answer: a vote by weight among the particles of the last pass

With several temperatures (parallel tempering), a chain of this kind runs at each of them, for all chains in lockstep:

    J times: run a pass of each chain; sample its reference
             for neighbours, from the hottest on: swap their references with probability A (`swap_probability`)
    answer from the last pass of the coldest chain

A hot chain's weights are flatter, so its references move more easily; swaps pass them down to the cold one.

Source: Puri et al. 2025, arXiv:2502.01618, algorithm 2, and equation 4 of the NeurIPS version for tempering, which they
tried only with J = 1, chains without any swap; Andrieu, Doucet, Holenstein, "Particle Markov chain Monte Carlo methods"
(2010).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from ...core.run import Run
from ...core.types import Question, Solution
from ...serving.model import Feature
from ..limits import MAX_CHAINS, MAX_ROUNDS
from ..strategy import Models, Stability, Thinking
from .core import SearchLimits
from .driver import StepSearchConfig
from .particles import Factor, FilterPass, ParticleFilter, ParticleOptions, ParticlePick, pass_notes, vote_of_particles
from .resampling import multinomial, swap_probability
from .tree import Continuation

MAX_TEMPERATURES: Final = 64


class GibbsOptions(ParticleOptions):
    """Parameters of particle Gibbs; N particles in each of J passes, N·J in all."""

    round_size: ClassVar[Mapping[str, int]] = {"n": 2}

    n: Annotated[int, Field(ge=2, le=MAX_CHAINS, description="particles of a pass, the reference included")] = 16
    iterations: Annotated[int, Field(ge=1, le=MAX_ROUNDS, description="passes")] = 4
    resampling: Annotated[
        Literal["multinomial"], Field(description="systematic resampling around a fixed reference would be biased")
    ] = "multinomial"
    ancestor_sampling: Annotated[
        bool,
        Field(description="let the rest of the reference follow other particles; needs log-probabilities"),
    ] = False

    @model_validator(mode="after")
    def _has_one_target(self) -> Self:
        if self.ancestor_sampling and self.entropic is not None:
            raise ValueError("ancestor_sampling needs the temperatures of steps to come, which entropic leaves open")
        return self


class ParticleGibbs(ParticleFilter):
    """Particle Gibbs as ask and tell.

    A pass has a root of its own, so that no two passes request one node, and the reference is copied below it. At step
    t the reference competes with its potential of step t, and free particles may fork from its first t steps; only its
    own slot is never resampled. If the reference is longer than all others, only it continues.

    With `ancestor_sampling` the reference's remaining steps are scored after the other particles' prefixes whenever
    these were resampled, and are attached to one of them. `ExpandRequest.given_steps` requests that, in one batch with
    the next step. If the caller knows no log-probability or no score, or the passes of the reward model do not suffice,
    the reference stays as it is; `SearchCost.skipped_rescorings` counts it. Rescoring costs up to N·T²/2 passes of the
    reward model for T steps, and no generated tokens.

    The target is left unchanged if a solution's weight is the product of its own potentials: `stopped_weight` "one",
    "telescoped", or solutions of one length.

    Differs: the authors' programs let the reference compete with its potential of step t + 1, or with its final one at
    every step; neither leaves the target unchanged.
    """

    name = "particle-gibbs"
    options: GibbsOptions

    @property
    def reads_logprobs(self) -> bool:
        return self.options.ancestor_sampling

    @property
    def _reattaches(self) -> bool:
        return self.options.ancestor_sampling

    def _start_next_passes(self) -> bool:
        if len(self.records) >= self.options.iterations:
            return False
        self.passes = [self._pass_with_reference(chain, node_id) for chain, node_id in enumerate(self._references())]
        return True

    def _references(self) -> list[int]:
        """For each chain the particle that is the reference of its next pass."""
        last = [history[-1] for history in self.histories]
        return [record.nodes[multinomial(record.theta, 1, self.rng)[0]] for record in last]

    def _pass_with_reference(self, chain: int, node_id: int) -> FilterPass:
        """A pass with a copy of a prefix as its reference."""
        path = self.tree.path(self.tree[node_id])
        root = parent = self.tree.add_root()
        reference = []
        for node in path:
            step = Continuation(node.text, node.tokens, node.terminal, node.score, node.logprob)
            parent = self.tree.add(parent, step)
            parent.log_g, parent.level, parent.copied_from = node.log_g, node.level, node.id
            reference.append(parent.id)
        return self._create_pass(chain, root.id, reference)


class TemperedOptions(GibbsOptions):
    """Parameters of parallel tempering; N particles in each of J passes of M chains, N·J·M in all."""

    n: Annotated[
        int, Field(ge=2, le=MAX_CHAINS, description="particles of a pass of each chain, the reference included")
    ] = 16
    iterations: Annotated[int, Field(ge=1, le=MAX_ROUNDS, description="passes of each chain")] = 2
    taus: Annotated[
        tuple[Factor, ...],
        Field(
            min_length=1, max_length=MAX_TEMPERATURES, description="temperature of each chain's weights, hottest first"
        ),
    ] = (2.0, 1.0)
    pool: Annotated[bool, Field(description="answer from the last passes of all chains, not only the coldest")] = False

    @model_validator(mode="after")
    def _chains_are_valid(self) -> Self:
        if any(hot <= cold for hot, cold in pairwise(self.taus)):
            raise ValueError("taus must fall from chain to chain")
        if self.tau != 1:
            raise ValueError("tau has no effect with taus, which are the temperatures; leave it at 1")
        if self.entropic is not None:
            raise ValueError("entropic changes the targets of the chains during a pass, so that no swap would be right")
        return self


@dataclass(frozen=True, slots=True)
class ReferenceSwap:
    """The outcome of a proposed swap between two neighbouring chains after a pass.

    Attributes:
        chain: Position of the hotter chain.
        probability: Probability of the swap.
        accepted: Whether it was made.
    """

    chain: int
    probability: float
    accepted: bool


class TemperedGibbs(ParticleGibbs):
    """Parallel tempering as ask and tell.

    All chains share tree, cost, limits and randomness; each of their passes has a root of its own. The requests of all
    chains at a step are one batch, and a chain whose pass is over waits for the others. With one temperature it is
    particle Gibbs.

    The outcome is that of the coldest chain's last pass. With `pool` it is that of all chains' last passes, with equal
    weight for each chain; then the hot chains vote too, whose particles follow flatter targets.

    Attributes:
        swaps: For each pass but the last the proposed swaps of neighbours, from the hottest on.
    """

    name = "tempered-gibbs"
    options: TemperedOptions

    def __init__(self, options: TemperedOptions, rng: Random) -> None:
        super().__init__(options, rng)
        self.swaps: list[list[ReferenceSwap]] = []

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Temperature of each chain, the hottest first."""
        return self.options.taus

    def _references(self) -> list[int]:
        references = super()._references()
        levels = [self.log_target(node_id) for node_id in references]
        proposed = []
        for k, (hot, cold) in enumerate(pairwise(self.temperatures)):
            probability = swap_probability(hot, cold, levels[k], levels[k + 1])
            accepted = bool(multinomial([1 - probability, probability], 1, self.rng)[0])
            if accepted:
                references[k], references[k + 1] = references[k + 1], references[k]
                levels[k], levels[k + 1] = levels[k + 1], levels[k]
            proposed.append(ReferenceSwap(k, probability, accepted))
        self.swaps.append(proposed)
        return references

    def _final(self) -> tuple[list[int], list[float]]:
        if not self.options.pool:
            return super()._final()
        chains = [self._last(chain) for chain in range(len(self.temperatures))]
        nodes = [node_id for held, _ in chains for node_id in held]
        return nodes, [weight / len(chains) for _, theta in chains for weight in theta]


class ParticleGibbsStrategy:
    """Particle Gibbs over the steps of one model; `n` particles in each of `iterations` passes.

    With `taus`, parallel tempering: one chain for each temperature, `n * iterations` particles each. The answer is
    chosen as in `particle-filter`, from the last pass: that of the coldest chain if there are several, or with `pool`
    those of all.
    """

    name: ClassVar[str] = "particle-gibbs"
    summary: ClassVar[str] = "repeated particle filters, each with a solution of the one before as reference"
    paper: ClassVar[str] = "Puri et al. 2025, arXiv:2502.01618"
    confidence: ClassVar[str] = (
        "The answer's share of the weights of all particles; with pick=particle, that particle's score."
    )
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "reward")
    thinking: ClassVar[Thinking] = "steps"

    class Config(StepSearchConfig, GibbsOptions):
        """Parameters of `particle-gibbs`."""

        pick: Annotated[ParticlePick, Field(description="a vote by weight, or one particle")] = "vote"
        taus: Annotated[
            tuple[Factor, ...],
            Field(
                max_length=MAX_TEMPERATURES,
                description="temperatures of several chains, the hottest first; none is one chain",
            ),
        ] = ()
        pool: Annotated[bool, Field(description="with taus: answer from all chains, not only the coldest")] = False

        @model_validator(mode="after")
        def _taus_are_valid(self) -> Self:
            if self.taus:
                self.tempered_options(self.n, SearchLimits())
            return self

        @classmethod
        def sample_factors(cls, values: Mapping[str, Any]) -> dict[str, int]:
            chains = {"taus (number)": len(values["taus"])} if values["taus"] else {}
            factors = {"n": values["n"], "iterations": values["iterations"], **chains, "max_depth": values["max_depth"]}
            return factors | super().sample_factors(values)

        def tempered_options(self, n: int, limits: SearchLimits) -> TemperedOptions:
            """The options of the tempered chains, with `n` particles each."""
            values = {name: getattr(self, name) for name in TemperedOptions.model_fields}
            return TemperedOptions.model_validate({**values, "n": n, "limits": limits})

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def num_chains(self) -> int:
        """Chains of the self-consistency that replaces it where steps cannot be searched."""
        return self.config.n * self.config.iterations * max(1, len(self.config.taus))

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        config = self.config
        is_exact = config.temperature == 1 and config.top_p in (None, 1) and not config.top_k
        if config.ancestor_sampling and not is_exact:
            run.degrade(
                "ancestor_sampling weights steps by the model's own probabilities, not by those of this sampling; "
                "it is exact at temperature=1, top_p=1, top_k=0"
            )
        options = config.options(GibbsOptions, run, chains=max(1, len(config.taus)))
        search = (
            TemperedGibbs(config.tempered_options(options.n, options.limits), run.rng)
            if config.taus
            else ParticleGibbs(options, run.rng)
        )
        result = await config.search(search, question, models, run)
        if result is None:
            return await config.without_search(self.num_chains, question, models, run)
        if config.pick == "particle":
            return config.chosen(result, run, **pass_notes(search))
        return await vote_of_particles(config, search, result, question, run)
