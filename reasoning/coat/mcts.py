"""Monte Carlo tree search over steps, in which a score takes the place of the random rollout.

    select           from the root, the open child of the largest V + w sqrt(ln N(parent) / N), down to a leaf
    expand           up to k different continuations of it, each with its score e
    backpropagate    at the leaf and all its ancestors: S += sum of e, N += number of continuations, V = S / N

Source: Pan, Deng, Huang, "CoAT" (2025, arXiv:2502.02390), whose evaluation replaces simulation; UCT is that of Kocsis
and Szepesvari (2006), virtual loss that of Chaslot et al. (2008).

Differs: the backpropagation that is usually written for CoAT adds all children at every ancestor, which counts them
again each time; here only new mass is added, so N of a node is the number of scored nodes in its subtree, and V their
mean. The paper's w is not known; with 1, trees of known values rarely reach an end within some hundred expansions, so
the default is 0.5 (`benchmarks/mcts_regret.py`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Final

from pydantic import Field

from ..search.core import (
    BatchResults,
    Continuation,
    ExpandRequest,
    Node,
    Scoring,
    SearchOptions,
    SearchOutcome,
    StepSearch,
    fill_missing_scores,
    kept_indices,
)
from ..strategy import MAX_DEPTH, MAX_ROUNDS, MAX_WEIGHT

RESAMPLES: Final = 2
"""Times that duplicate continuations are sampled again."""


@dataclass(slots=True)
class MCTSNode(Node):
    """A prefix with its statistics.

    Attributes:
        own_score: e, its own score; a missing one is substituted (`tree.fill_missing_scores`).
        visits: N, scored nodes of its subtree, itself included; 0 at the root before anything was scored.
        total: S, the sum of their scores.
        expanded: Whether it has its continuations.
        closed: Whether nothing below it can be expanded any more.
    """

    own_score: float = 0.0
    visits: int = 0
    total: float = 0.0
    expanded: bool = False
    closed: bool = False

    @property
    def mean(self) -> float:
        """V, the mean score of its subtree; 0 before anything was scored."""
        return self.total / self.visits if self.visits else 0.0


class MCTSOptions(SearchOptions):
    """Parameters of Monte Carlo tree search."""

    round_size: ClassVar[Mapping[str, int]] = {"k": 1}

    k: Annotated[int, Field(ge=1, le=256, description="continuations of an expansion")] = 3
    max_depth: Annotated[
        int, Field(ge=1, le=MAX_DEPTH, description="maximum steps of a solution; the last is its final answer")
    ] = 6
    expansions: Annotated[
        int, Field(ge=1, le=MAX_ROUNDS, description="expansions, the depth-limited ones included")
    ] = 12
    w: Annotated[float, Field(ge=0, le=MAX_WEIGHT, description="weight of exploration; 0 is greedy")] = 0.5
    leaves: Annotated[int, Field(ge=1, le=256, description="leaves expanded in one batch; 1 is exact")] = 1
    tau: (
        Annotated[
            float, Field(gt=0, le=1, description="reward of a complete solution that ends the search; null: none")
        ]
        | None
    ) = 0.9


def uct(mean: float, visits: float, parent_visits: float, w: float) -> float:
    """V + w sqrt(ln N(parent) / N); `visits` and `parent_visits` are at least 1."""
    return mean + w * math.sqrt(math.log(parent_visits) / visits)


class MonteCarloTreeSearch(StepSearch[MCTSNode, MCTSOptions]):
    """Monte Carlo tree search as ask and tell.

    An expansion may get more continuations than requested, as duplicates can be sampled again (see `num_missing`): up
    to `k (1 + RESAMPLES)`, of which the first `k` that differ become nodes.

    A node one step above `max_depth` is continued by final answers instead of steps. Complete solutions are closed, and
    so is a node whose continuations are all closed, or which got none; a closed node is never entered.

    With `leaves` above 1 several leaves are selected before any is expanded. Each selected one counts as a visit of
    value 0 on its entire path while the others are being selected, so that they go elsewhere; none is selected twice.

    Attributes:
        selected: Ids of the leaves in the order in which they were expanded.
    """

    name = "mcts"
    Node = MCTSNode

    def __init__(self, options: MCTSOptions | None = None) -> None:
        super().__init__(options or MCTSOptions())
        self.selected: list[int] = []

    def selection_score(self, node: MCTSNode, loss: Mapping[int, int] | None = None) -> float:
        """Score by which a child is selected: the largest is entered.

        Args:
            loss: Visits without value of nodes, in addition to their own visits.
        """
        assert node.parent is not None, "a root is not selected among siblings"
        loss = loss or {}
        visits = node.visits + loss.get(node.id, 0)
        parent_visits = self.tree[node.parent].visits + loss.get(node.parent, 0)
        return uct(node.total / visits, visits, parent_visits, self.options.w)

    def _next(self) -> list[ExpandRequest]:
        leaves: list[MCTSNode] = []
        loss: Counter[int] = Counter()
        blocked: set[int] = set()
        while len(leaves) < min(self.options.leaves, self.options.expansions - len(self.selected)):
            leaf = self._select(loss, blocked)
            if leaf is None:
                break
            leaves.append(leaf)
            blocked.add(leaf.id)
            loss.update([0, *(node.id for node in self.tree.path(leaf))])
        exceeded = "exhausted" if self.tree[0].closed else "expansions"
        while leaves:
            requests = self._requests(leaves)
            if not isinstance(requests, str):
                return requests
            exceeded = requests
            leaves.pop()  # a smaller batch may fit
        return self._wind_up(exceeded)

    def _select(self, loss: Mapping[int, int], blocked: set[int]) -> MCTSNode | None:
        """The leaf that is reached from the root; None if all paths are closed or blocked. Blocks dead ends."""
        while True:
            node = self.tree[0]
            if node.closed or node.id in blocked:
                return None
            while node.expanded:
                children = [c for c in self.tree.children(node) if not c.closed and c.id not in blocked]
                if not children:
                    blocked.add(node.id)
                    break
                node = max(children, key=lambda child: (self.selection_score(child, loss), -child.id))
            else:
                return node

    def _requests(self, leaves: Sequence[MCTSNode]) -> list[ExpandRequest] | str:
        """The batch, or the name of the limit that forbids it."""
        limits, k, max_step_tokens = self.options.limits, self.options.k, self.options.max_step_tokens
        is_last = [leaf.depth + 1 >= self.options.max_depth for leaf in leaves]
        completions, samples = k * sum(is_last), k * (len(leaves) - sum(is_last))
        exceeded = limits.exceeded_by(
            self.cost,
            samples=samples,
            passes=k * len(leaves),
            expansions=len(leaves) - sum(is_last),
            completions=completions,
            max_step_tokens=max_step_tokens,
        )
        if exceeded is not None:
            return exceeded
        each = limits.tokens_per_step(
            self.cost, samples=samples, completions=completions, max_step_tokens=max_step_tokens
        )
        return [
            self._expansion(leaf, k, limits.finish_tokens if finish else each, finish=finish)
            for leaf, finish in zip(leaves, is_last, strict=True)
        ]

    def _expansion(
        self, node: MCTSNode, n: int, max_tokens: int, *, finish: bool = False, score: Scoring = "all"
    ) -> ExpandRequest:
        request = super()._expansion(node, n, max_tokens, finish=finish, score=score)
        further = self._max_results(request) - n
        if further:  # indices of samples that may follow
            self.tree.reserve_samples(node, further)
        return request

    def _max_results(self, request: ExpandRequest) -> int:
        return request.n if request.score == "none" else request.n * (1 + RESAMPLES)

    def _kept(self, request: ExpandRequest, results: Sequence[Continuation]) -> list[int]:
        if request.finish:  # any text is a complete solution, so the end of the text distinguishes none
            results = [step if step.is_blank else replace(step, terminal=True) for step in results]
        return kept_indices(results, at_root=self.tree[request.node].parent is None)[: request.n]

    def kept(self, request: ExpandRequest, results: Sequence[Continuation]) -> list[int]:
        """Positions of the continuations that become nodes, in the order in which they do."""
        return self._kept(request, results)

    def num_missing(self, request: ExpandRequest, results: Sequence[Continuation]) -> int:
        """Number of continuations to sample again, since others are duplicates or empty.

        Limited by the maximum number of results and by the tokens. Tokens that the batch left free are shared evenly
        among its requests, so that the value does not depend on the results of the others.

        Args:
            request: A request without results yet.
            results: All continuations sampled for it so far.
        """
        missing = min(request.n - len(self._kept(request, results)), self._max_results(request) - len(results))
        limits, pending = self.options.limits, self._batch_requests.values()
        if limits.gen_tokens is None or not pending:
            return missing
        of_batch = sum(step.tokens for steps in self._batch_results.values() for step in steps)
        left = limits.gen_tokens - (self.cost.gen_tokens - of_batch)
        spare = left - limits.finish_tokens - sum(each.n * each.max_tokens for each in pending)
        own = request.n * request.max_tokens + spare // len(pending) - sum(step.tokens for step in results)
        return min(missing, max(0, own) // request.max_tokens)

    def indices_to_score(self, request: ExpandRequest, results: Sequence[Continuation]) -> list[int]:
        """Positions of the continuations that need a score; of final answers, too, only those that become nodes."""
        if request.score == "none":
            return []
        return [i for i in self._kept(request, results) if not results[i].is_blank]

    # -- backpropagate

    def _update(self, results: BatchResults, withdrawn: list[ExpandRequest]) -> None:
        for request, continuations in results:
            leaf = self.tree[request.node]
            if request.score == "none":  # the final answer of a search that is over: no part of its statistics
                self._add(leaf, request, continuations)
                continue
            self.selected.append(leaf.id)
            leaf.expanded = True
            children = self._add(leaf, request, continuations)
            scores = fill_missing_scores(children, leaf.mean if leaf.visits else None)
            for child, score in zip(children, scores, strict=True):
                child.own_score = child.total = score
                child.visits, child.closed = 1, child.terminal
            mass = math.fsum(scores)
            for node in (*self.tree.path(leaf), self.tree[0]):
                node.total += mass
                node.visits += len(children)
            self._close(leaf)
            tau = self.options.tau
            if tau is not None and any(c.terminal and c.reward is not None and c.reward >= tau for c in children):
                self.stopped = self.stopped or "done"

    def _add(self, parent: MCTSNode, request: ExpandRequest, results: Sequence[Continuation]) -> list[MCTSNode]:
        kept = [results[i] for i in self._kept(request, results)] if request.score != "none" else list(results)
        dropped = len(results) - len(kept)
        is_root = parent.parent is None
        blanks = sum(step.is_blank and (is_root or not step.terminal) for step in results) if dropped else 0
        self.cost.empties += blanks
        self.cost.duplicates += dropped - blanks
        self._count_unscored(request, kept)
        return [self.tree.add(parent, step, forced=request.finish) for step in kept]

    def _close(self, node: MCTSNode) -> None:
        """Close a node below which nothing is open, and with it its ancestors of which the same is true."""
        while all(child.closed for child in self.tree.children(node)):
            node.closed = True
            if node.parent is None:
                return
            node = self.tree[node.parent]

    # -- the outcome

    def _unfinished(self) -> MCTSNode | None:
        return None if self.tree.terminals else self._best_leaf()

    def _best_leaf(self) -> MCTSNode:
        """The leaf of the largest V, of equals the deepest, then the oldest; the root if there is no other."""
        leaves = (node for node in self.tree if node.depth and not self.tree.children(node))
        return max(leaves, key=lambda node: (node.mean, node.depth, -node.id), default=self.tree[0])

    def outcome(self) -> SearchOutcome[MCTSNode]:
        """The result so far: complete solutions ranked and weighted by reward if there are rewards, else by V.

        Of equal ones the earlier comes first. If there is none, the leaf of the largest V is chosen.
        """
        complete = self.tree.terminals
        has_rewards = any(node.reward is not None for node in complete)

        def value(node: MCTSNode) -> float:
            return (-1.0 if node.reward is None else node.reward) if has_rewards else node.mean

        terminals = sorted(complete, key=lambda node: (-value(node), node.id))
        leaf = terminals[0] if terminals else self._best_leaf()
        chosen = leaf if leaf.depth else None
        return self._outcome(chosen, terminals, [max(0.0, value(node)) for node in terminals])
