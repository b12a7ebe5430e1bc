"""Particle Gibbs: particle filters in a row, each beside a solution that was drawn from the one before.

    run the particle filter
    J - 1 times: draw a reference by weight; run the filter again, with the reference as one of the N particles
    answer: a vote by weight among the particles of the last pass

With several temperatures, a chain of this kind runs at each of them, and neighbours swap their references.

Source: Puri et al. 2025, arXiv:2502.01618, algorithm 2, and its section on parallel tempering; Andrieu, Doucet,
Holenstein, "Particle Markov chain Monte Carlo methods" (2010).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from ..core.answer import Solution
from ..core.question import Question
from ..core.run import Run
from ..serving.model import Feature
from .particle_filter import Pick, sweep_notes
from .search.gibbs import GibbsOptions, ParticleGibbs
from .search.limits import Limits
from .search.tempered import TemperedGibbs, TemperedOptions
from .searched_steps import SearchedSteps
from .strategy import Models, Stability


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
