"""Diverse verifier tree search: several subtrees that never compete, each a greedy beam of one prefix.

With `k=1` it is best-of-N with N subtrees; with one subtree it is beam search of width 1.

Source: Beeching, Tunstall, Rush, "Scaling test-time compute with open models" (2024).

Diverse verifier tree search: several subtrees that never compete, each of which goes on with its best step.

    until all subtrees are complete: sample k next steps in each, score them, go on with the best of each subtree

Source: Beeching, Tunstall, Rush, "Scaling test-time compute with open models" (2024).
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


class DVTSOptions(SearchOptions):
    """Parameters of diverse verifier tree search; `subtrees * k` steps are drawn in a round."""

    subtrees: Annotated[int, Field(ge=1, description="independent subtrees")] = 4
    k: Annotated[int, Field(ge=1, description="continuations among which each subtree chooses")] = 4
    distinct: Annotated[bool, Field(description="drop continuations that say what a sibling says")] = True


class DVTS(StepSearch[Scored, DVTSOptions]):
    """Diverse verifier tree search as ask and tell.

    The root is continued by `subtrees * k` steps, of which each subtree gets the next `k`; siblings are compared within
    a subtree alone. Each subtree goes on with its best continuation until that is complete.

    Attributes:
        leaves: For each subtree the id of the prefix it has reached.
    """

    name = "dvts"
    Options = DVTSOptions
    Node = Scored

    def __init__(self, options: DVTSOptions | None = None) -> None:
        super().__init__(options or DVTSOptions())
        self.leaves: list[int] = [0] * self.options.subtrees

    def _next(self) -> list[Expand]:
        k = self.options.k
        going = [(node, k if node.depth else k * self.options.subtrees) for node in self._going()]
        if not going:
            self.stopped = "done" if any(self.tree[leaf].terminal for leaf in self.leaves) else "exhausted"
            return []
        batch = self._batch(going, score="ended" if k == 1 else "all")
        return self._wind_up(batch) if isinstance(batch, str) else batch

    def _take(self, heard: Heard, missed: list[Expand]) -> None:
        for expand, results in heard:
            parent = self.tree[expand.node]
            kept = [0] if expand.finish else self._kept(expand, results)
            children = self._children(parent, expand, results)
            reached = self._reached(expand)
            each = len(results) // len(reached)
            for place, i in enumerate(reached):
                own = [child for at, child in zip(kept, children, strict=True) if at // each == place]
                set_values(own, parent)
                if own:  # else nothing follows the leaf, and the subtree ends there
                    self.leaves[i] = by_value(own)[0].id

    def _reached(self, expand: Expand) -> list[int]:
        """The subtrees among which the continuations of a prefix are shared out."""
        reached = [i for i, leaf in enumerate(self.leaves) if leaf == expand.node]
        return reached[:1] if expand.finish else reached

    def _kept(self, expand: Expand, results: Sequence[Continuation]) -> list[int]:
        each = len(results) // len(self._reached(expand))
        at_root, kept = not self.tree[expand.node].depth, []
        for start in range(0, len(results), each):
            own = survivors(results[start : start + each], at_root=at_root, distinct=self.options.distinct)
            kept += [start + i for i in own]
        return kept

    def _going(self) -> list[Scored]:
        leaves = [self.tree[leaf] for leaf in dict.fromkeys(self.leaves)]
        return [node for node in leaves if not node.terminal and not self._expanded(node)]

    def _unfinished(self) -> Scored | None:
        return None if any(node.terminal for node in self.tree) else next(iter(by_value(self._going())), None)

    def outcome(self) -> Outcome[Scored]:
        """See `StepSearch.outcome`; each solution weighs 1.

        All complete solutions count, those that a subtree passed over included; of those that a subtree chose, the one
        of the best score is chosen.
        """
        terminals = by_value(node for node in self.tree if node.terminal)
        reached = by_value({leaf: self.tree[leaf] for leaf in self.leaves if leaf}.values())
        ended = [node for node in reached if node.terminal]
        return self._outcome(next(iter([*ended, *terminals, *reached]), None), terminals)

    def _state(self) -> dict[str, Any]:
        return {"leaves": self.leaves}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.leaves = list(state["leaves"])


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
