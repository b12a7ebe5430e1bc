"""Diverse verifier tree search: several subtrees that never compete, each a greedy beam of one prefix.

    until all subtrees are complete: sample k next steps in each, score them, continue with the best of each subtree

With `k=1` it is best-of-N with N subtrees; with one subtree it is beam search of width 1.

Source: Beeching, Tunstall, Rush, "Scaling test-time compute with open models" (2024).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ...core.run import Run
from ...core.types import Question, Solution
from ...serving.model import Feature
from ..limits import MAX_CHAINS
from ..strategy import Models, Stability, Thinking
from .core import BatchResults, ExpandRequest, SearchOptions, SearchOutcome, StepSearch
from .driver import StepSearchConfig
from .tree import Continuation, ScoredNode, kept_indices, set_values, sorted_by_value


class DVTSOptions(SearchOptions):
    """Parameters of diverse verifier tree search; a round samples `subtrees * k` steps."""

    round_size: ClassVar[Mapping[str, int]] = {"subtrees": 1, "k": 1}

    subtrees: Annotated[int, Field(ge=1, le=MAX_CHAINS, description="independent subtrees")] = 4
    k: Annotated[int, Field(ge=1, le=MAX_CHAINS, description="continuations among which each subtree chooses")] = 4
    distinct: Annotated[bool, Field(description="drop continuations that equal a sibling")] = True


class DVTS(StepSearch[ScoredNode, DVTSOptions]):
    """Diverse verifier tree search as ask and tell.

    The root is continued by `subtrees * k` steps, of which each subtree gets the next `k`; siblings are compared only
    within a subtree. Each subtree continues with its best continuation until that is complete.

    Attributes:
        leaves: For each subtree the id of its current prefix.
    """

    name = "dvts"
    Node = ScoredNode

    def __init__(self, options: DVTSOptions | None = None) -> None:
        super().__init__(options or DVTSOptions())
        self.leaves: list[int] = [0] * self.options.subtrees
        self._subtrees: dict[int, list[int]] = {0: list(range(self.options.subtrees))}
        """The subtrees whose prefix a node is or was, by the node's id."""

    def _next(self) -> list[ExpandRequest]:
        k = self.options.k
        active = [(node, k if node.depth else k * self.options.subtrees) for node in self._active()]
        if not active:
            self.stopped = "done" if any(self.tree[leaf].terminal for leaf in self.leaves) else "exhausted"
            return []
        batch = self._batch(active, score="ended" if k == 1 else "all")
        return self._wind_up(batch) if isinstance(batch, str) else batch

    def _update(self, results: BatchResults, withdrawn: list[ExpandRequest]) -> None:
        for request, continuations in results:
            parent = self.tree[request.node]
            kept = [0] if request.finish else self._kept(request, continuations)
            children = self._add_children(parent, request, continuations)
            subtrees = self._subtrees_at(request)
            each = len(continuations) // len(subtrees)
            own: list[list[ScoredNode]] = [[] for _ in subtrees]
            for at, child in zip(kept, children, strict=True):
                own[at // each].append(child)
            for i, steps in zip(subtrees, own, strict=True):
                set_values(steps, parent)
                if steps:  # else nothing follows the leaf, and the subtree ends there
                    self.leaves[i] = sorted_by_value(steps)[0].id
                    self._subtrees[self.leaves[i]] = [i]

    def _subtrees_at(self, request: ExpandRequest) -> list[int]:
        """The subtrees that share the continuations of a prefix: all at the root, else one."""
        subtrees = self._subtrees[request.node]
        return subtrees[:1] if request.finish else subtrees

    def _kept(self, request: ExpandRequest, results: Sequence[Continuation]) -> list[int]:
        each = len(results) // len(self._subtrees_at(request))
        at_root, kept = not self.tree[request.node].depth, []
        for start in range(0, len(results), each):
            own = kept_indices(results[start : start + each], at_root=at_root, distinct=self.options.distinct)
            kept += [start + i for i in own]
        return kept

    def _active(self) -> list[ScoredNode]:
        leaves = [self.tree[leaf] for leaf in dict.fromkeys(self.leaves)]
        return [node for node in leaves if not node.terminal and not self._is_expanded(node)]

    def _unfinished(self) -> ScoredNode | None:
        return None if self.tree.terminals else next(iter(sorted_by_value(self._active())), None)

    def outcome(self) -> SearchOutcome[ScoredNode]:
        """The result so far; each solution weighs 1.

        All complete solutions count, those that no subtree chose included; of those that a subtree chose, the one of
        the best score is chosen.
        """
        terminals = sorted_by_value(self.tree.terminals)
        leaves = sorted_by_value({leaf: self.tree[leaf] for leaf in self.leaves if leaf}.values())
        complete = [node for node in leaves if node.terminal]
        return self._outcome(next(iter([*complete, *terminals, *leaves]), None), terminals)


class DVTSStrategy:
    """DVTS over the steps of one model, guided by a score of each prefix.

    Of the final solutions of the subtrees, the answer is the one of the highest score; with `select="vote"` it is the
    answer with the largest sum of scores over all complete solutions.

    Model calls: one for each step of depth, of `subtrees * k` samples. Confidence is the score of the chosen solution,
    or its answer's share of all scores.
    """

    name: ClassVar[str] = "dvts"
    summary: ClassVar[str] = "several greedy searches over reasoning steps that never compete"
    paper: ClassVar[str] = "Beeching, Tunstall, Rush 2024"
    confidence: ClassVar[str] = (
        "The score of the chosen solution, as a probability; with select=vote, its answer's share of all scores."
    )
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "reward")
    thinking: ClassVar[Thinking] = "steps"

    class Config(StepSearchConfig, DVTSOptions):
        """Parameters of `dvts`."""

        select: Annotated[Literal["best", "vote"], Field(description="the best solution, or the answer of a vote")] = (
            "best"
        )

        @classmethod
        def sample_factors(cls, values: Mapping[str, Any]) -> dict[str, int]:
            return {
                "subtrees": values["subtrees"],
                "k": values["k"],
                "max_depth": values["max_depth"],
            } | super().sample_factors(values)

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def num_chains(self) -> int:
        """Chains of the self-consistency that replaces it where steps cannot be searched."""
        return self.config.subtrees * self.config.k

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        config = self.config
        result = await config.search(DVTS(config.options(DVTSOptions, run)), question, models, run)
        if result is None:
            return await config.without_search(self.num_chains, question, models, run)
        if config.select == "vote":
            return await config.vote(result, question, run)
        return config.chosen(result, run)
