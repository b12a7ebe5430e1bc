"""Diverse verifier tree search: several subtrees that never compete, each of which goes on with its best step.

    until all subtrees are complete: sample k next steps in each, score them, go on with the best of each subtree

Source: Beeching, Tunstall, Rush, "Scaling test-time compute with open models" (2024).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ..core.answer import Solution
from ..core.question import Question
from ..core.run import Run
from ..serving.model import Feature
from .search.dvts import DVTS, DVTSOptions
from .searched_steps import SearchedSteps
from .strategy import Models, Stability


class DiverseVerifierTreeSearch:
    """DVTS over the steps of one model, guided by a score of each prefix (see `search.dvts`).

    Of the solutions that the subtrees end with, the answer is the one of the highest score; with `select="vote"` it is
    the answer with the largest sum of scores over all complete solutions.

    Model calls: one for each step of depth, of `subtrees * k` samples. Confidence is the score of the chosen solution,
    or its answer's share of all scores.
    """

    name: ClassVar[str] = "dvts"
    summary: ClassVar[str] = "several greedy searches over reasoning steps that never compete"
    paper: ClassVar[str] = "Beeching, Tunstall, Rush 2024"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "reward")

    class Config(SearchedSteps, DVTSOptions):
        """Parameters of `dvts`."""

        select: Annotated[Literal["best", "vote"], Field(description="the best solution, or the answer of a vote")] = (
            "best"
        )

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`."""
        config = self.config
        found = await config.search(DVTS(config.options(DVTSOptions, run)), question, models, run)
        if found is None:
            return await config.without_search(config.subtrees * config.k, question, models, run)
        if config.select == "vote":
            return await config.vote(found, question, run)
        return config.best(found, run)
