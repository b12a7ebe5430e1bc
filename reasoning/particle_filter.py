"""Particle filtering: sample solutions in the proportions that the model and the scores of steps say, step by step.

    N empty replies
    until all are complete: sample one next step of each, weigh them by their scores, resample N by weight
    answer: a vote by weight

Source: Puri et al., "Rollout Roulette: A Probabilistic Inference Approach to Inference-Time Scaling of LLMs using
Particle-Based Monte Carlo Methods" (2025, arXiv:2502.01618).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue

from ..core.answer import Solution
from ..core.question import Question
from ..core.run import Run
from ..serving.model import Feature
from .search.particles import ParticleFilter
from .search.population import ParticleOptions
from .searched_steps import SearchedSteps
from .strategy import Models, Stability

Pick = Literal["vote", "particle"]


class ParticleFiltering:
    """A particle filter over the steps of one model (see `search.particles`).

    With `pick="vote"` the answer with the largest weight over all particles wins, or the heaviest particle where none
    states an answer. With "particle" one particle wins, and `select` says which: the heaviest, or one drawn by weight.

    Model calls: one for each step of depth, of `n` samples at most; a pass of what scores for each of them. Confidence
    is the winning answer's share of the weight, or the particle's score.

    Differs: aggregation "last" is the default of the whole family of searches; the authors' is "model".
    """

    name: ClassVar[str] = "particle-filter"
    summary: ClassVar[str] = "a particle filter over reasoning steps, weighed by a score of each step"
    paper: ClassVar[str] = "Puri et al. 2025, arXiv:2502.01618"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "reward")

    class Config(SearchedSteps, ParticleOptions):
        """Parameters of `particle-filter`."""

        pick: Annotated[Pick, Field(description="a vote by weight, or one particle")] = "vote"

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`."""
        config = self.config
        search = ParticleFilter(config.options(ParticleOptions, run), run.rng)
        found = await config.search(search, question, models, run)
        if found is None:
            return await config.without_search(config.n, question, models, run)
        notes = sweep_notes(search)
        if config.pick == "particle":
            return config.best(found, run, **notes)
        return await config.vote(found, question, run, found.weights, **notes)


def sweep_notes(search: ParticleFilter) -> dict[str, JsonValue]:
    """Of each pass the effective sample sizes by step, and the logarithm of the estimated normalising constant."""
    return {
        "ess": [[round(g.ess, 3) for g in sweep.generations] for sweep in search.sweeps],
        "log_z": [sweep.log_z for sweep in search.sweeps],
    }
