"""Beam search over reasoning steps: continue the best prefixes by k steps each, and keep the best of the results.

    keep the empty prefix
    until all kept prefixes are complete: sample k next steps of each, score them, keep the best `width`

With `diverse` it is diverse verifier tree search (DVTS): the beam is `width` subtrees that never compete, each of which
keeps the best of its own k steps.

Best-of-N is the degenerate case `k=1`: N chains start at the root, each is continued by one step at a time and none is
pruned, so that only finished chains need a score, N in all.

Source: the step-level beam search of Snell et al., "Scaling LLM Test-Time Compute Optimally" (2024, arXiv:2408.03314),
section 5.2; DVTS of Beeching, Tunstall, Rush, "Scaling test-time compute with open models" (2024).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ...core.run import Run
from ...core.types import Question, Solution
from ...serving.model import Feature
from ..strategy import MAX_CHAINS, Models, Stability, Thinking
from .core import (
    BatchResults,
    Continuation,
    ExpandRequest,
    ScoredNode,
    SearchOptions,
    SearchOutcome,
    StepSearch,
    kept_indices,
    set_values,
    sorted_by_value,
)
from .driver import StepSearchConfig


class BeamOptions(SearchOptions):
    """Parameters of beam search."""

    round_size: ClassVar[Mapping[str, int]] = {"width": 1, "k": 1}

    width: Annotated[int, Field(ge=1, le=MAX_CHAINS, description="prefixes kept")] = 4
    k: Annotated[int, Field(ge=1, le=MAX_CHAINS, description="continuations of each")] = 4
    diverse: Annotated[bool, Field(description="let the prefixes compete only with continuations of their own")] = False


class BeamSearch(StepSearch[ScoredNode, BeamOptions]):
    """Beam search as ask and tell.

    The root is continued by `width * k` steps, as many as every later round samples; with `diverse` each subtree gets
    the next `k` of them. A complete solution stays in the beam while its score is among the best, or, with `diverse`,
    to the end; the search ends when the beam holds only complete ones. With `k=1` duplicates are kept.

    Attributes:
        beam: Ids of the prefixes kept, the best first; with `diverse` one for each subtree.
    """

    name = "beam"
    Node = ScoredNode

    def __init__(self, options: BeamOptions | None = None) -> None:
        super().__init__(options or BeamOptions())
        self.beam: list[int] = [0] * (self.options.width if self.options.diverse else 1)

    def _next(self) -> list[ExpandRequest]:
        k, width = self.options.k, self.options.width
        active = [(node, k if node.depth else k * width) for node in self._active()]
        if not active:
            self.stopped = "done" if self._complete() else "exhausted"
            return []
        # with one continuation each there is nothing to choose among before the end
        batch = self._batch(active, score="ended" if k == 1 else "all")
        return self._wind_up(batch) if isinstance(batch, str) else batch

    def _update(self, results: BatchResults, withdrawn: list[ExpandRequest]) -> None:
        pool = self._complete() + [self.tree[request.node] for request in withdrawn]
        for request, continuations in results:
            parent = self.tree[request.node]
            kept = [0] if request.finish else self._kept(request, continuations)
            children = self._add_children(parent, request, continuations)
            if self.options.diverse:
                self._choose_in_subtrees(parent, kept, children)
            else:
                set_values(children, parent)
                pool += children or [parent]  # nothing follows it
        if not self.options.diverse:
            pool.sort(key=lambda node: (self._is_expanded(node), -node.value, node.id))
            self.beam = [node.id for node in pool[: self.options.width]]

    def _choose_in_subtrees(self, parent: ScoredNode, kept: list[int], children: list[ScoredNode]) -> None:
        """Continue each subtree of a prefix with the best of its continuations; without one it ends there."""
        subtrees = [i for i, node_id in enumerate(self.beam) if node_id == parent.id]
        for number, i in enumerate(subtrees):
            own = [child for at, child in zip(kept, children, strict=True) if at // self.options.k == number]
            set_values(own, parent)
            if own:
                self.beam[i] = sorted_by_value(own)[0].id

    def _kept(self, request: ExpandRequest, results: Sequence[Continuation]) -> list[int]:
        """Positions of the continuations that become nodes; duplicates are dropped among those that compete."""
        at_root, k = not self.tree[request.node].depth, self.options.k
        size = k if self.options.diverse else len(results)
        return [
            start + i
            for start in range(0, len(results), size)
            for i in kept_indices(results[start : start + size], at_root=at_root, distinct=k > 1)
        ]

    def _nodes(self) -> list[ScoredNode]:
        return [self.tree[node_id] for node_id in dict.fromkeys(self.beam)]

    def _complete(self) -> list[ScoredNode]:
        return [node for node in self._nodes() if node.terminal]

    def _active(self) -> list[ScoredNode]:
        return [node for node in self._nodes() if not node.terminal and not self._is_expanded(node)]

    def _unfinished(self) -> ScoredNode | None:
        active = sorted_by_value(self._active()) if self.options.diverse else self._active()
        return None if self.tree.terminals else next(iter(active), None)

    def outcome(self) -> SearchOutcome[ScoredNode]:
        """The result so far; each solution weighs 1.

        All complete solutions count, those that dropped out of the beam included; the one of the best score is chosen,
        with `diverse` of those that a subtree chose.
        """
        terminals = sorted_by_value(self.tree.terminals)
        rest = sorted_by_value(node for node in self._nodes() if node.depth)
        chosen = [node for node in rest if node.terminal and self.options.diverse]
        return self._outcome(next(iter([*chosen, *terminals, *rest]), None), terminals)


class BeamStrategy:
    """Beam search over the steps of one model, guided by a score of each prefix.

    The answer is the complete solution of the highest score, or with `select="vote"` the answer with the largest sum of
    scores. All complete solutions count, those that dropped out of the beam included.

    Model calls: one for each step of depth, of `width * k` samples. Confidence is the score of the chosen solution, or
    its answer's share of all scores.
    """

    name: ClassVar[str] = "beam"
    summary: ClassVar[str] = "search over reasoning steps with a beam, guided by a score of each step"
    paper: ClassVar[str] = "Snell et al. 2024, arXiv:2408.03314; Beeching, Tunstall, Rush 2024"
    confidence: ClassVar[str] = (
        "The score of the chosen solution, as a probability; with select=vote, its answer's share of all scores."
    )
    family: ClassVar[str] = "search"
    when_to_use: ClassVar[str] = "A puzzle whose steps can be proposed and scored."
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "reward")
    thinking: ClassVar[Thinking] = "steps"

    class Config(StepSearchConfig, BeamOptions):
        """Parameters of `beam`."""

        select: Annotated[Literal["best", "vote"], Field(description="the best solution, or the answer of a vote")] = (
            "best"
        )

        @classmethod
        def sample_factors(cls, values: Mapping[str, Any]) -> dict[str, int]:
            names = ("width", "k", "max_depth")
            return {name: values[name] for name in names} | super().sample_factors(values)

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def num_chains(self) -> int:
        """Chains of the self-consistency that replaces it where steps cannot be searched."""
        return self.config.width * self.config.k

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        config = self.config
        result = await config.search(BeamSearch(config.options(BeamOptions, run)), question, models, run)
        if result is None:
            return await config.without_search(self.num_chains, question, models, run)
        if config.select == "vote":
            return await config.vote(result, question, run)
        return config.chosen(result, run)
