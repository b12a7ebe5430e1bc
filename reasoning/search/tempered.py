"""Parallel tempering: particle-Gibbs chains at several temperatures, whose neighbours swap their references.

    J times, for all chains at once:
        run a pass of each chain; draw its reference
        for neighbours, from the hottest on: swap their references with probability A (`tempering.swap_probability`)
    answer from the last pass of the coldest chain

A hot chain's weights are flatter, so its references move more easily; swaps hand what it finds down to the cold one.

Source: Puri et al. 2025, arXiv:2502.01618 (NeurIPS version, equation 4), who tried J = 1 alone, which is chains without
any swap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from random import Random
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from .gibbs import GibbsOptions, ParticleGibbs
from .resampling import multinomial
from .tempering import swap_probability


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
