"""A*-decoding: best-first search over reasoning steps, ordered by f = g + h, where h is what the process reward misses.

    h(s) = 1 - r(s)            r: the reward model's score of the prefix
    g(s) = sum of edge costs   on the path from the first step
    pop the open prefix of smallest f; return it if it is complete, else add k continuations

Source: Chatziveroglou, "A*-Decoding: Token-Efficient Inference Scaling" (2025, arXiv:2505.13672); the guarantees are
those of Hart, Nilsson, Raphael (1968). The paper's edge cost is not certain, so all candidates are available.
Optimality is relative to the sampled prefixes.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from ...core.run import Run
from ...core.types import Question, Solution
from ...serving.model import Feature
from ..strategy import MAX_CHAINS, MAX_WEIGHT, Models, Stability, Thinking
from .core import BatchResults, ExpandRequest, Node, SearchOptions, SearchOutcome, StepSearch, fill_missing_scores
from .driver import StepSearchConfig

EdgeCost = Literal["rise", "fall", "abs", "none"]

OPEN_LIMIT: Final = 4096
"""Maximum open prefixes."""

PriorityKey = tuple[float, int, float, int]
"""(priority, -depth, -r, number of insertion); smaller is popped sooner."""


@dataclass(slots=True)
class AStarNode(Node):
    """A prefix with its costs.

    Attributes:
        g: Sum of the edge costs on the path; 0 up to the first step.
        h: 1 - r, in [0, 1]; 0 at the root, which has no step to score. A missing score is substituted
            (`tree.fill_missing_scores`).
        f: g + h.
    """

    g: float = 0.0
    h: float = 0.0
    f: float = 0.0


class AStarOptions(SearchOptions):
    """Parameters of A*-decoding."""

    round_size: ClassVar[Mapping[str, int]] = {"k": 1}

    k: Annotated[int, Field(ge=1, le=MAX_CHAINS, description="continuations of an expansion")] = 4
    edge_cost: Annotated[EdgeCost, Field(description="cost of a step, by the change of h")] = "rise"
    weight: Annotated[float, Field(ge=1, le=MAX_WEIGHT, description="w of the order g + w·h; above 1 is greedier")] = (
        1.0
    )
    beam_pop: Annotated[
        int, Field(ge=1, le=MAX_CHAINS, description="prefixes expanded in one batch; 1 is exact A*")
    ] = 1
    m: Annotated[
        int, Field(ge=1, le=MAX_CHAINS, description="complete solutions popped before the search ends; 1 is exact A*")
    ] = 1
    frontier: Annotated[
        Literal["global", "local"], Field(description="choose among all open prefixes, or only the newest siblings")
    ] = "global"


def path_costs(kind: EdgeCost, parent: AStarNode, h: float) -> tuple[float, float]:
    """(g, f) of a continuation with heuristic `h`.

    With dh = h - h(parent), the edge costs max(0, dh) for "rise", max(0, -dh) for "fall", |dh| for "abs" and 0 for
    "none"; the edge from the root costs nothing. With U the sum of the rises of h on the path and h0 the h of its first
    step, f is h + U for "rise", h0 + U for "fall", h0 + 2U for "abs", h for "none". "fall" and "abs" make h consistent,
    so f never decreases and the first solution popped has the smallest f of all; "rise" and "none" do not.

    f is computed by that form rather than added up from g and h, so that equal f are equal in floating point too, and
    the tie-break by depth works.
    """
    if parent.depth == 0:
        return 0.0, h
    rise, fall = max(0.0, h - parent.h), max(0.0, parent.h - h)
    if kind == "rise":
        return parent.g + rise, parent.g + rise + h
    if kind == "fall":
        return parent.g + fall, parent.f + rise
    if kind == "abs":
        return parent.g + rise + fall, parent.f + 2 * rise
    return 0.0, h


class AStarSearch(StepSearch[AStarNode, AStarOptions]):
    """A*-decoding as ask and tell.

    With `k=1` it is plain sampling step by step; with constant scores it is depth-first.

    Differs: a batch of `beam_pop` prefixes ends before a complete solution, which is popped only once everything of
    smaller key was expanded; so the guarantee of "fall" and "abs" holds for any `beam_pop`. If nothing is left to
    expand and nothing ended, the prefix of smallest f that could not be continued is chosen, as it is.

    Attributes:
        popped: Ids in the order in which they were popped.
        done: Ids of the complete solutions popped.
        num_evicted: Prefixes dropped by `OPEN_LIMIT`.
    """

    name = "astar"
    Node = AStarNode

    def __init__(self, options: AStarOptions | None = None) -> None:
        super().__init__(options or AStarOptions())
        self.popped: list[int] = []
        self.done: list[int] = []
        self.num_evicted = 0
        self._open: list[PriorityKey] = [self._key(self.tree[0])]

    def _next(self) -> list[ExpandRequest]:
        batch: list[AStarNode] = []
        while self._open and len(batch) < self.options.beam_pop:
            node = self.tree[self._open[0][-1]]
            if node.terminal and batch:
                break
            self._open.pop(0)
            if not node.terminal:
                batch.append(node)
                continue
            self.popped.append(node.id)
            self.done.append(node.id)
            if len(self.done) >= self.options.m:
                self.stopped = "done"
                return []
        exceeded = "exhausted"
        while batch:
            requests = self._batch([(node, self.options.k) for node in batch])
            if not isinstance(requests, str):
                self.popped += [node.id for node in batch]
                return requests
            exceeded = requests
            self._push(batch.pop())  # a smaller batch may fit
        return self._wind_up(exceeded)

    def _update(self, results: BatchResults, withdrawn: list[ExpandRequest]) -> None:
        if self.options.frontier == "local":
            self._open.clear()
        for request in withdrawn:
            self._push(self.tree[request.node])
        for request, continuations in results:
            parent = self.tree[request.node]
            children = self._add_children(parent, request, continuations)
            scores = fill_missing_scores(children, 1 - parent.h if parent.depth else None)
            for child, r in zip(children, scores, strict=True):
                child.h = 1 - r
                child.g, child.f = path_costs(self.options.edge_cost, parent, child.h)
                self._push(child)

    def _key(self, node: AStarNode) -> PriorityKey:
        # the smaller of two h is the larger of two r
        return (node.f + (self.options.weight - 1) * node.h, -node.depth, node.h, node.id)

    def _push(self, node: AStarNode) -> None:
        insort(self._open, self._key(node))
        if len(self._open) > OPEN_LIMIT:
            self._open.pop()
            self.num_evicted += 1

    def _terminals(self) -> list[AStarNode]:
        return sorted(self.tree.terminals, key=lambda node: (node.f, self._key(node)))

    def _unfinished(self) -> AStarNode | None:
        if not self._open or self.tree.terminals:
            return None
        return self.tree[self._open[0][-1]]

    def outcome(self) -> SearchOutcome[AStarNode]:
        """The result so far; each solution weighs 1.

        After "done" the chosen one has the smallest f of those popped, else of all there are. If there is none, the
        prefix that would be popped next is chosen.
        """
        terminals = self._terminals()
        done = set(self.done)
        best = next((node for node in terminals if self.stopped != "done" or node.id in done), None)
        if best is None:
            leaves = (node for node in self.tree if node.depth and not self.tree.children(node))
            best = min(leaves, key=self._key, default=None)
        return self._outcome(best, terminals)


class AStarStrategy:
    """A*-decoding over the steps of one model, guided by a score of each prefix.

    With `m=1` the first complete solution that is popped is the answer. Else the search continues to `m` of them, and
    `select` decides: the one of smallest f, the one of the highest score ("score"), or the answer
    with the largest sum of scores ("vote").

    Model calls: one for each expansion (more if a step contains delimiters that end nothing), of `k` samples; a pass of
    the step reward for each distinct step. Confidence is the score of the chosen solution, or its answer's share.

    Differs: the edge cost of the paper could not be verified; the default is the one that a survey describes, and every
    report names it.
    """

    name: ClassVar[str] = "astar"
    summary: ClassVar[str] = "search over reasoning steps with A*, guided by a score of each step"
    paper: ClassVar[str] = "Chatziveroglou 2025, arXiv:2505.13672"
    confidence: ClassVar[str] = (
        "The score of the chosen solution, as a probability; with select=vote, its answer's share of all scores."
    )
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "reward")
    thinking: ClassVar[Thinking] = "steps"

    class Config(StepSearchConfig, AStarOptions):
        """Parameters of `astar`."""

        select: Annotated[
            Literal["f", "score", "vote"], Field(description="among several solutions: smallest f, best score, or vote")
        ] = "f"

        @classmethod
        def sample_factors(cls, values: Mapping[str, Any]) -> dict[str, int]:
            names = ("k", "beam_pop", "m", "max_depth")
            return {name: values[name] for name in names} | super().sample_factors(values)

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def num_chains(self) -> int:
        """Chains of the self-consistency that replaces it where steps cannot be searched."""
        return self.config.k

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        config = self.config
        result = await config.search(AStarSearch(config.options(AStarOptions, run)), question, models, run)
        if result is None:
            return await config.without_search(self.num_chains, question, models, run)
        if config.select == "vote":
            return await config.vote(result, question, run, edge_cost=config.edge_cost)
        if config.select == "score":
            return config.highest_scored(result, run, edge_cost=config.edge_cost)
        return config.chosen(result, run, edge_cost=config.edge_cost)
