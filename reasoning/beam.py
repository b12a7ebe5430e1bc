"""Beam search over reasoning steps: continue the best prefixes, keep the best of what comes.

    keep the empty reply
    until all that is kept is complete: sample k next steps of each, score them, keep the best `width`

Source: Snell et al., "Scaling LLM Test-Time Compute Optimally" (2024, arXiv:2408.03314), section 5.2.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ..core.answer import Solution
from ..core.question import Question
from ..core.run import Run
from ..serving.model import Feature
from .search.beam import Beam, BeamOptions
from .searched_steps import SearchedSteps
from .strategy import Models, Stability


class BeamSearch:
    """Beam search over the steps of one model, guided by a score of each prefix (see `search.beam`).

    The answer is the complete solution of the highest score, or with `select="vote"` the answer with the largest sum of
    scores. All complete solutions count, those that lost their place in the beam included.

    Model calls: one for each step of depth, of `width * k` samples. Confidence is the score of the chosen solution, or
    its answer's share of all scores.
    """

    name: ClassVar[str] = "beam"
    summary: ClassVar[str] = "beam search over reasoning steps, guided by a score of each step"
    paper: ClassVar[str] = "Snell et al. 2024, arXiv:2408.03314"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "reward")

    class Config(SearchedSteps, BeamOptions):
        """Parameters of `beam`."""

        select: Annotated[Literal["best", "vote"], Field(description="the best solution, or the answer of a vote")] = (
            "best"
        )

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`."""
        config = self.config
        found = await config.search(Beam(config.options(BeamOptions, run)), question, models, run)
        if found is None:
            return await config.without_search(config.width * config.k, question, models, run)
        if config.select == "vote":
            return await config.vote(found, question, run)
        return config.best(found, run)
