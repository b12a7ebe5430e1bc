"""A*-decoding: best-first search over reasoning steps, ordered by f = g + h.

    open the empty reply
    pop the open reply of smallest f; a complete one is the answer
    else sample k next steps, score them, open them with  h = 1 - score,  g = sum of edge costs

Source: Chatziveroglou, "A*-Decoding: Token-Efficient Inference Scaling" (2025, arXiv:2505.13672).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ..core.answer import Solution
from ..core.question import Question
from ..core.run import Run
from ..serving.model import Feature
from .search.best_first import BestFirst, BestFirstOptions
from .searched_steps import SearchedSteps
from .strategy import Models, Stability


class AStar:
    """A*-decoding over the steps of one model, guided by a score of each prefix (see `search.best_first`).

    With `stop="first"` the first complete solution that is popped is the answer. With "best_of_m" the search goes on to
    `m` of them, and `select` says which is taken: the one of smallest f, the one of the highest score ("score"), or the
    answer with the largest sum of scores ("vote").

    Model calls: one for each expansion (more where a step contains delimiters that end nothing), of `k` samples; a pass
    of what scores for each different step. Confidence is the score of the chosen solution, or its answer's share.

    Differs: the edge cost of the paper could not be verified; the default is the one that a survey describes, and every
    report names it.
    """

    name: ClassVar[str] = "astar"
    summary: ClassVar[str] = "A* search over reasoning steps, guided by a score of each step"
    paper: ClassVar[str] = "Chatziveroglou 2025, arXiv:2505.13672"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "reward")

    class Config(SearchedSteps, BestFirstOptions):
        """Parameters of `astar`."""

        select: Annotated[
            Literal["f", "score", "vote"], Field(description="among several solutions: smallest f, best score, or vote")
        ] = "f"

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`."""
        config = self.config
        found = await config.search(BestFirst(config.options(BestFirstOptions, run)), question, models, run)
        if found is None:
            return await config.without_search(config.k, question, models, run)
        if config.select == "vote":
            return await config.vote(found, question, run, edge_cost=config.edge_cost)
        if config.select == "score":
            return config.highest(found, run, edge_cost=config.edge_cost)
        return config.best(found, run, edge_cost=config.edge_cost)
