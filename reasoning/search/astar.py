"""A*-decoding: best-first search over steps, ordered by f = g + h, where h is what the process reward misses.

    h(s) = 1 - r(s)            r: the reward model's score of the prefix
    g(s) = sum of edge costs   on the path from the first step
    pop the open prefix of smallest f; return it if it is complete, else add k continuations

Source: Chatziveroglou, "A*-Decoding: Token-Efficient Inference Scaling" (2025, arXiv:2505.13672); the guarantees are
those of Hart, Nilsson, Raphael (1968). The paper's edge cost is not certain, so all candidates are here. Optimality is
relative to the prefixes that were sampled.

A*-decoding: best-first search over reasoning steps, ordered by f = g + h.

    open the empty reply
    pop the open reply of smallest f; a complete one is the answer
    else sample k next steps, score them, open them with  h = 1 - score,  g = sum of edge costs

Source: Chatziveroglou, "A*-Decoding: Token-Efficient Inference Scaling" (2025, arXiv:2505.13672).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ...core.answer import Solution
from ...core.question import Question
from ...core.run import Run
from ...serving.model import Feature
from ..strategy import Models, Stability
from .core import Expand, Heard, Outcome, SearchOptions, StepSearch
from .driver import SearchedSteps
from .tree import Continuation, Node, filled, said, survivors

EdgeCost = Literal["rise", "fall", "abs", "none"]

Key = tuple[float, int, float, int]
"""(priority, -depth, -r, number of insertion); smaller is popped sooner."""


@dataclass(slots=True)
class State(Node):
    """A prefix with its costs.

    Attributes:
        g: Sum of the edge costs on the path; 0 up to the first step.
        h: 1 - r, in [0, 1]; 0 at the root, which has no step to score. Where the score is missing, what stands for it
            (`siblings.filled`).
        f: g + h.
        expanded: How often it was expanded.
        rung: Expansions in a row, up to its own last one, of which at least half were duplicates.
    """

    g: float = 0.0
    h: float = 0.0
    f: float = 0.0
    expanded: int = 0
    rung: int = 0


class BestFirstOptions(SearchOptions):
    """Parameters of A*-decoding."""

    k: Annotated[int, Field(ge=1, description="continuations of an expansion")] = 4
    edge_cost: Annotated[EdgeCost, Field(description="what a step costs, by the change of h")] = "rise"
    weight: Annotated[float, Field(ge=1, description="w of the order g + w·h; above 1 is greedier")] = 1.0
    beam_pop: Annotated[int, Field(ge=1, description="prefixes expanded in one batch; 1 is exact A*")] = 1
    open_limit: Annotated[int, Field(ge=1, description="open prefixes kept; null keeps all")] | None = 4096
    stop: Annotated[Literal["first", "best_of_m"], Field(description="end at the first complete solution, or at m")] = (
        "first"
    )
    m: Annotated[int, Field(ge=1, description="complete solutions wanted by best_of_m")] = 3
    frontier: Annotated[
        Literal["global", "local"], Field(description="choose among all open prefixes, or the newest siblings alone")
    ] = "global"
    reexpand: Annotated[float, Field(gt=0, description="what an expansion adds to the key; null: only one")] | None = (
        None
    )
    temperature_ladder: Annotated[
        tuple[Annotated[float, Field(gt=0)], ...],
        Field(description="factors of the temperature after 1, 2, … expansions in a row of which half were duplicates"),
    ] = ()


def costs(kind: EdgeCost, parent: State, h: float) -> tuple[float, float]:
    """(g, f) of a continuation with heuristic `h`.

    With dh = h - h(parent), the edge costs max(0, dh) for "rise", max(0, -dh) for "fall", |dh| for "abs" and 0 for
    "none"; the edge from the root costs nothing. With U the sum of the rises of h on the path and h0 the h of its first
    step, f is h + U for "rise", h0 + U for "fall", h0 + 2U for "abs", h for "none". "fall" and "abs" make h consistent,
    so f never decreases and the first solution popped has the smallest f of all; "rise" and "none" do not.

    f is carried along by that form rather than added up from g and h, so that equal f are equal in floating point too,
    and the tie-break by depth works.
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


class BestFirst(StepSearch[State, BestFirstOptions]):
    """A*-decoding as ask and tell.

    With `k=1` it is plain sampling step by step; with constant scores it is depth-first.

    With `reexpand` an expanded prefix competes again, its priority the larger by `reexpand` for each time that it was
    expanded, and gets further continuations if it wins; what earlier ones said is a duplicate then. So a bad draw near
    the root does not decide all. A prefix is put back if its last expansion brought something new or the next one will
    be warmer. The first solution popped has the smallest f of what was generated as before, but popped f may fall.

    With `temperature_ladder` a prefix is continued at a higher temperature after expansions on its path of which at
    least half were duplicates: at the first rung after one, the second after two in a row, and so on.

    Differs: a batch of `beam_pop` prefixes ends before a complete solution, which is popped only once everything of
    smaller key was expanded; so the guarantee of "fall" and "abs" holds for any `beam_pop`. Where nothing is left to
    expand and nothing ended, the prefix of smallest f that could not be continued is chosen, as it is.

    Attributes:
        popped: Ids in the order in which they were popped.
        done: Ids of the complete solutions popped.
        evicted: Prefixes dropped by `open_limit`.
    """

    name = "best-first"
    Options = BestFirstOptions
    Node = State

    def __init__(self, options: BestFirstOptions | None = None) -> None:
        super().__init__(options or BestFirstOptions())
        self.popped: list[int] = []
        self.done: list[int] = []
        self.evicted = 0
        self._open: list[Key] = [self._key(self.tree[0])]

    def _next(self) -> list[Expand]:
        batch: list[State] = []
        while self._open and len(batch) < self.options.beam_pop:
            state = self.tree[self._open[0][-1]]
            if state.terminal and batch:
                break
            self._open.pop(0)
            if not state.terminal:
                batch.append(state)
                continue
            self.popped.append(state.id)
            self.done.append(state.id)
            if len(self.done) >= (1 if self.options.stop == "first" else self.options.m):
                self.stopped = "done"
                return []
        lacking = "exhausted"
        while batch:
            granted = self._batch([(state, self.options.k) for state in batch])
            if not isinstance(granted, str):
                self.popped += [state.id for state in batch]
                return granted
            lacking = granted
            self._push(batch.pop())  # fewer may fit in
        return self._wind_up(lacking)

    def _take(self, heard: Heard, missed: list[Expand]) -> None:
        if self.options.frontier == "local":
            self._open.clear()
        for expand in missed:
            self._push(self.tree[expand.node])
        for expand, results in heard:
            parent = self.tree[expand.node]
            duplicates = self.ledger.duplicates
            children = self._children(parent, expand, results)
            duplicates = self.ledger.duplicates - duplicates
            for child, r in zip(children, filled(children, 1 - parent.h if parent.depth else None), strict=True):
                child.h = 1 - r
                child.g, child.f = costs(self.options.edge_cost, parent, child.h)
                self._push(child)
            if not expand.finish:
                parent.expanded += 1
                parent.rung = parent.rung + 1 if 2 * duplicates >= expand.n else 0
                for child in children:
                    child.rung = parent.rung
                if self.options.reexpand is not None and (children or self._warmer(parent) > expand.temperature):
                    self._push(parent)

    def _warmer(self, node: State) -> float:
        ladder = self.options.temperature_ladder
        return ladder[min(node.rung, len(ladder)) - 1] if node.rung and ladder else 1.0

    def _kept(self, expand: Expand, results: Sequence[Continuation]) -> list[int]:
        node = self.tree[expand.node]
        before = [said(child) for child in self.tree if child.parent == node.id] if node.expanded else ()
        return survivors(results, at_root=not node.depth, before=before)

    def _key(self, state: State) -> Key:
        # the smaller of two h is the larger of two r
        penalty = (self.options.reexpand or 0.0) * state.expanded
        return (state.f + (self.options.weight - 1) * state.h + penalty, -state.depth, state.h, state.id)

    def _push(self, state: State) -> None:
        insort(self._open, self._key(state))
        if self.options.open_limit is not None and len(self._open) > self.options.open_limit:
            self._open.pop()
            self.evicted += 1

    def _terminals(self) -> list[State]:
        return sorted((state for state in self.tree if state.terminal), key=lambda state: (state.f, self._key(state)))

    def _unfinished(self) -> State | None:
        if not self._open or self._terminals():
            return None
        opened = [self.tree[key[-1]] for key in self._open]
        return next((state for state in opened if not state.expanded), opened[0])

    def outcome(self) -> Outcome[State]:
        """See `StepSearch.outcome`; each solution weighs 1.

        After "done" the chosen one has the smallest f of those popped, else of all there are. If there is none, the
        prefix that would be popped next is chosen.
        """
        terminals = self._terminals()
        pool = [state for state in terminals if self.stopped != "done" or state.id in self.done]
        if not pool:
            continued = {state.parent for state in self.tree}
            leaves = (state for state in self.tree if state.depth and state.id not in continued)
            pool = sorted(leaves, key=self._key)[:1]
        return self._outcome(pool[0] if pool else None, terminals)

    def _state(self) -> dict[str, Any]:
        return {
            "popped": self.popped,
            "done": self.done,
            "evicted": self.evicted,
            "open": [key[-1] for key in self._open],
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.popped, self.done, self.evicted = list(state["popped"]), list(state["done"]), state["evicted"]
        self._open = [self._key(self.tree[node_id]) for node_id in state["open"]]


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
