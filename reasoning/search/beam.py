"""Beam search over steps: continue the best b prefixes by k steps each, and keep the best b of what came.

Best-of-N is its degenerate case: `width=N, k=1, distinct=False` starts N chains at the root, continues each by one
step at a time and never prunes, so the scores of finished chains alone are asked for, N in all.

Source: the step-level beam search of Snell et al., "Scaling LLM Test-Time Compute Optimally" (2024, arXiv:2408.03314).

Beam search over reasoning steps: continue the best prefixes, keep the best of what comes.

    keep the empty reply
    until all that is kept is complete: sample k next steps of each, score them, keep the best `width`

Source: Snell et al., "Scaling LLM Test-Time Compute Optimally" (2024, arXiv:2408.03314), section 5.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ...core.answer import Solution
from ...core.question import Question
from ...core.run import Run
from ...serving.model import Feature
from ..strategy import Models, Stability
from .core import Expand, Heard, Outcome, SearchOptions, StepSearch
from .driver import SearchedSteps
from .tree import Continuation, Scored, by_value, set_values, survivors


class BeamOptions(SearchOptions):
    """Parameters of beam search."""

    width: Annotated[int, Field(ge=1, description="prefixes kept")] = 4
    k: Annotated[int, Field(ge=1, description="continuations of each")] = 4
    distinct: Annotated[bool, Field(description="drop continuations that say what a sibling says")] = True


class Beam(StepSearch[Scored, BeamOptions]):
    """Beam search as ask and tell.

    The root is continued by `width * k` steps, as many as every later round draws. A complete solution keeps its place
    in the beam while its score is among the best; the search ends when all places hold complete ones.

    Attributes:
        beam: Ids of the prefixes kept, the best first.
    """

    name = "beam"
    Options = BeamOptions
    Node = Scored

    def __init__(self, options: BeamOptions | None = None) -> None:
        super().__init__(options or BeamOptions())
        self.beam: list[int] = [0]

    def _next(self) -> list[Expand]:
        k, width = self.options.k, self.options.width
        going = [(node, k if node.depth else k * width) for node in self._going()]
        if not going:
            self.stopped = "done" if self._ended() else "exhausted"
            return []
        # with one continuation each there is nothing to choose among before the end
        batch = self._batch(going, score="ended" if k == 1 else "all")
        return self._wind_up(batch) if isinstance(batch, str) else batch

    def _take(self, heard: Heard, missed: list[Expand]) -> None:
        pool = self._ended() + [self.tree[expand.node] for expand in missed]
        for expand, results in heard:
            parent = self.tree[expand.node]
            children = self._children(parent, expand, results)
            set_values(children, parent)
            pool += children or [parent]  # nothing follows it
        pool.sort(key=lambda node: (self._dead(node), -node.value, node.id))
        self.beam = [node.id for node in pool[: self.options.width]]

    def _kept(self, expand: Expand, results: Sequence[Continuation]) -> list[int]:
        at_root = not self.tree[expand.node].depth
        return survivors(results, at_root=at_root, distinct=self.options.distinct)

    def _dead(self, node: Scored) -> bool:
        return self._expanded(node)

    def _ended(self) -> list[Scored]:
        return [node for node in map(self.tree.__getitem__, self.beam) if node.terminal]

    def _going(self) -> list[Scored]:
        return [node for node in map(self.tree.__getitem__, self.beam) if not node.terminal and not self._dead(node)]

    def _unfinished(self) -> Scored | None:
        return None if any(node.terminal for node in self.tree) else next(iter(self._going()), None)

    def outcome(self) -> Outcome[Scored]:
        """See `StepSearch.outcome`; each solution weighs 1.

        All complete solutions count, those that lost their place included; the one of the best score is chosen.
        """
        terminals = by_value(node for node in self.tree if node.terminal)
        rest = by_value(node for node in map(self.tree.__getitem__, self.beam) if node.depth)
        return self._outcome(next(iter([*terminals, *rest]), None), terminals)

    def _state(self) -> dict[str, Any]:
        return {"beam": self.beam}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.beam = list(state["beam"])


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
