"""Monte Carlo tree search over steps, in which a score takes the place of the random rollout.

    select           from the root, the open child of the largest V + w sqrt(ln N(parent) / N), down to a leaf
    expand           up to k different continuations of it, each with its score e
    backpropagate    at the leaf and all above it: S += sum of e, N += number of continuations, V = S / N

Source: Pan, Deng, Huang, "CoAT" (2025, arXiv:2502.02390), whose evaluation replaces simulation; UCT is that of Kocsis
and Szepesvari (2006), PUCT that of Silver et al. (2017), virtual loss that of Chaslot et al. (2008).

Differs: the backpropagation that is usually written for CoAT adds all children at every ancestor, which counts them
again each time; here only new mass is added, so N of a node is the number of scored nodes in its subtree, and V their
mean. The paper's w is not known; with 1, trees of known values rarely reach an end within some hundred expansions, so
the default is 0.5 (`benchmarks/mcts_regret.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from .core import Expand, Heard, Outcome, Scoring, SearchOptions, StepSearch
from .tree import Continuation, Node, filled, survivors

Policy = Literal["uct", "puct"]


@dataclass(slots=True)
class Position(Node):
    """A prefix with its statistics.

    Attributes:
        own: e, what it was itself scored; where the score is missing, what stands for it (`siblings.filled`).
        visits: N, scored nodes of its subtree, itself included; 0 at the root before anything was scored.
        total: S, the sum of their scores.
        prior: Chance that the model continues its parent so rather than as a sibling does; what PUCT explores by.
        expanded: Whether its continuations were told.
        closed: Whether nothing below it can be expanded any more.
    """

    own: float = 0.0
    visits: int = 0
    total: float = 0.0
    prior: float = 1.0
    expanded: bool = False
    closed: bool = False

    @property
    def mean(self) -> float:
        """V, the mean score of its subtree; 0 where nothing was scored."""
        return self.total / self.visits if self.visits else 0.0


class MonteCarloOptions(SearchOptions):
    """Parameters of Monte Carlo tree search."""

    k: Annotated[int, Field(ge=1, description="continuations of an expansion")] = 3
    max_depth: Annotated[int, Field(ge=1, description="most steps of a solution; the last is its final answer")] = 6
    expansions: Annotated[int, Field(ge=1, description="expansions, the depth-limited ones included")] = 12
    w: Annotated[float, Field(ge=0, allow_inf_nan=False, description="weight of exploration; 0 is greedy")] = 0.5
    policy: Annotated[Policy, Field(description="how exploration is measured")] = "uct"
    leaves: Annotated[int, Field(ge=1, description="leaves expanded in one batch; 1 is exact")] = 1
    virtual_loss: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="visits without value that a leaf of the batch counts for")
    ] = 1.0
    resamples: Annotated[int, Field(ge=0, description="times that duplicate continuations are sampled anew")] = 2
    tau: (
        Annotated[
            float, Field(gt=0, le=1, description="reward of a complete solution that ends the search; null: none")
        ]
        | None
    ) = 0.9


def uct(mean: float, visits: float, parent_visits: float, w: float) -> float:
    """V + w sqrt(ln N(parent) / N); `visits` and `parent_visits` are at least 1."""
    return mean + w * math.sqrt(math.log(parent_visits) / visits)


def puct(mean: float, visits: float, parent_visits: float, w: float, prior: float) -> float:
    """V + w P sqrt(N(parent)) / (1 + N)."""
    return mean + w * prior * math.sqrt(parent_visits) / (1 + visits)


class MonteCarlo(StepSearch[Position, MonteCarloOptions]):
    """Monte Carlo tree search as ask and tell.

    An expansion may be told more continuations than were asked for, as duplicates can be sampled anew (see `lacks`): up
    to `k (1 + resamples)`, of which the first `k` that differ become nodes.

    A node one step above `max_depth` is asked for final answers instead of steps. Complete solutions are closed, and so
    is a node whose continuations are all closed, or which got none; a closed node is never entered.

    With `leaves` above 1 several leaves are chosen before any is expanded. Each that was chosen counts as
    `virtual_loss` visits of value 0 on its whole path while the others are being chosen, so that they go elsewhere;
    none is chosen twice.

    Attributes:
        selected: Ids of the leaves in the order in which they were expanded.
    """

    name = "mcts"
    Options = MonteCarloOptions
    Node = Position

    def __init__(self, options: MonteCarloOptions | None = None) -> None:
        super().__init__(options or MonteCarloOptions())
        self.selected: list[int] = []
        self._below: dict[int, list[int]] = {}

    def attraction(self, node: Position, loss: Mapping[int, float] | None = None) -> float:
        """What a child is chosen by: the largest is entered.

        Args:
            node: The child.
            loss: Visits without value that nodes have beside their own.
        """
        assert node.parent is not None, "a root is not chosen among siblings"
        lost = loss or {}
        visits = node.visits + lost.get(node.id, 0.0)
        parent_visits = self.tree[node.parent].visits + lost.get(node.parent, 0.0)
        mean = node.total / visits
        if self.options.policy == "puct":
            return puct(mean, visits, parent_visits, self.options.w, node.prior)
        return uct(mean, visits, parent_visits, self.options.w)

    # -- select

    def _next(self) -> list[Expand]:
        leaves: list[Position] = []
        loss: dict[int, float] = {}
        blocked: set[int] = set()
        while len(leaves) < min(self.options.leaves, self.options.expansions - len(self.selected)):
            leaf = self._select(loss, blocked)
            if leaf is None:
                break
            leaves.append(leaf)
            blocked.add(leaf.id)
            for node in (self.tree[0], *self.tree.path(leaf)):
                loss[node.id] = loss.get(node.id, 0.0) + self.options.virtual_loss
        lacking = "exhausted" if self.tree[0].closed else "expansions"
        while leaves:
            granted = self._granted(leaves)
            if not isinstance(granted, str):
                return granted
            lacking = granted
            leaves.pop()  # fewer may fit in
        return self._wind_up(lacking)

    def _select(self, loss: Mapping[int, float], blocked: set[int]) -> Position | None:
        """The leaf that is reached from the root; None if every way is closed or blocked. Blocks dead ends it meets."""
        while True:
            node = self.tree[0]
            if node.closed or node.id in blocked:
                return None
            while node.expanded:
                ways = [child for child in self._children_of(node) if not child.closed and child.id not in blocked]
                if not ways:
                    blocked.add(node.id)
                    break
                node = max(ways, key=lambda child: (self.attraction(child, loss), -child.id))
            else:
                return node

    def _children_of(self, node: Position) -> list[Position]:
        return [self.tree[child] for child in self._below.get(node.id, ())]

    # -- expand

    def _granted(self, leaves: Sequence[Position]) -> list[Expand] | str:
        """The batch, or the name of the limit that forbids it."""
        options, k = self.options, self.options.k
        last = [leaf for leaf in leaves if leaf.depth + 1 >= options.max_depth]
        samples, most = k * (len(leaves) - len(last)), options.max_step_tokens
        lacking = options.limits.lacking(
            self.ledger,
            samples=samples,
            passes=k * len(leaves),
            expansions=len(leaves) - len(last),
            completions=k * len(last),
            most=most,
        )
        if lacking is not None:
            return lacking
        each = options.limits.step_tokens(self.ledger, samples=samples, completions=k * len(last), most=most)
        return [
            self._expansion(leaf, k, options.limits.finish_tokens if leaf in last else each, finish=leaf in last)
            for leaf in leaves
        ]

    def _expansion(
        self, node: Position, n: int, max_tokens: int, *, finish: bool = False, score: Scoring = "all"
    ) -> Expand:
        expand = super()._expansion(node, n, max_tokens, finish=finish, score=score)
        again = self._most_told(expand) - n
        if again:  # indices of samples that may follow
            self.tree.draw(node, again)
        return expand

    def _most_told(self, expand: Expand) -> int:
        return expand.n if expand.score == "none" else expand.n * (1 + self.options.resamples)

    def _kept(self, expand: Expand, results: Sequence[Continuation]) -> list[int]:
        if expand.finish:  # whatever says something is complete, so the end of the text tells no two apart
            results = [step if step.blank else replace(step, terminal=True) for step in results]
        return survivors(results, at_root=self.tree[expand.node].parent is None)[: expand.n]

    def kept(self, expand: Expand, results: Sequence[Continuation]) -> list[int]:
        """Positions of the continuations that become nodes, in the order in which they do."""
        return self._kept(expand, results)

    def lacks(self, expand: Expand, results: Sequence[Continuation]) -> int:
        """How many continuations of a request are to be sampled anew, since others say the same or nothing.

        No more than may be told, nor than the tokens allow. Tokens that the batch left free are shared out evenly among
        its requests, so that the answer does not depend on what was told of the others.

        Args:
            expand: What was asked for, and not told yet.
            results: All that came back for it so far.
        """
        missing = min(expand.n - len(self._kept(expand, results)), self._most_told(expand) - len(results))
        limits, asked = self.options.limits, self._asked.values()
        if limits.gen_tokens is None or not asked:
            return missing
        here = sum(step.tokens for steps in self._heard.values() for step in steps)
        left = limits.gen_tokens - (self.ledger.gen_tokens - here)
        spare = left - limits.finish_tokens - sum(each.n * each.max_tokens for each in asked)
        own = expand.n * expand.max_tokens + spare // len(asked) - sum(step.tokens for step in results)
        return min(missing, max(0, own) // expand.max_tokens)

    def to_score(self, expand: Expand, results: Sequence[Continuation]) -> list[int]:
        """See `StepSearch.to_score`; of final answers, too, those alone that become nodes."""
        if expand.score == "none":
            return []
        return [i for i in self._kept(expand, results) if not results[i].blank]

    # -- backpropagate

    def _take(self, heard: Heard, missed: list[Expand]) -> None:
        for expand, results in heard:
            leaf = self.tree[expand.node]
            if expand.score == "none":  # the final answer of a search that is over: no part of its statistics
                self._add(leaf, expand, results)
                continue
            self.selected.append(leaf.id)
            leaf.expanded = True
            children = self._add(leaf, expand, results)
            scores = filled(children, leaf.mean if leaf.visits else None)
            for child, score, prior in zip(children, scores, priors(children), strict=True):
                child.own = child.total = score
                child.visits, child.prior, child.closed = 1, prior, child.terminal
            mass = math.fsum(scores)
            for node in (*self.tree.path(leaf), self.tree[0]):
                node.total += mass
                node.visits += len(children)
            self._close(leaf)
            tau = self.options.tau
            if tau is not None and any(c.terminal and c.reward is not None and c.reward >= tau for c in children):
                self.stopped = self.stopped or "done"

    def _add(self, parent: Position, expand: Expand, results: Sequence[Continuation]) -> list[Position]:
        kept = [results[i] for i in self._kept(expand, results)] if expand.score != "none" else list(results)
        dropped = len(results) - len(kept)
        blanks = sum(step.blank and (parent.parent is None or not step.terminal) for step in results) if dropped else 0
        self.ledger.empties += blanks
        self.ledger.duplicates += dropped - blanks
        self._count_unscored(expand, kept)
        children = [self.tree.add(parent, step, forced=expand.finish) for step in kept]
        self._below.setdefault(parent.id, []).extend(child.id for child in children)
        return children

    def _close(self, node: Position) -> None:
        """Close a node below which nothing is open, and with it those above of which the same is true."""
        while all(child.closed for child in self._children_of(node)):
            node.closed = True
            if node.parent is None:
                return
            node = self.tree[node.parent]

    # -- the outcome

    def _unfinished(self) -> Position | None:
        return None if any(node.terminal for node in self.tree) else self._best_leaf()

    def _best_leaf(self) -> Position:
        """The leaf of the largest V, of equals the deepest, then the first one; the root if there is no other."""
        leaves = [node for node in self.tree if node.depth and not self._below.get(node.id)]
        return max(leaves, key=lambda node: (node.mean, node.depth, -node.id), default=self.tree[0])

    def outcome(self) -> Outcome[Position]:
        """See `StepSearch.outcome`: complete solutions by reward where there are rewards, else by V; it weighs them.

        Of equal ones the earlier comes first. If there is none, the leaf of the largest V is chosen.
        """
        complete = [node for node in self.tree if node.terminal]
        judged = any(node.reward is not None for node in complete)

        def worth(node: Position) -> float:
            return (-1.0 if node.reward is None else node.reward) if judged else node.mean

        terminals = sorted(complete, key=lambda node: (-worth(node), node.id))
        leaf = self._best_leaf()
        chosen = terminals[0] if terminals else leaf if leaf.depth else None
        return self._outcome(chosen, terminals, [max(0.0, worth(node)) for node in terminals])

    def _state(self) -> dict[str, Any]:
        return {"selected": self.selected}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.selected = list(state["selected"])
        self._below = {}
        for node in self.tree:
            if node.parent is not None:
                self._below.setdefault(node.parent, []).append(node.id)


def priors(siblings: Sequence[Node]) -> list[float]:
    """How probable each of some siblings is among them: by mean log-probability a token, alike where one is unknown."""
    means = [node.logprob / max(1, node.tokens) for node in siblings if node.logprob is not None]
    if len(means) < len(siblings):
        return [1 / len(siblings)] * len(siblings)
    most = max(means, default=0.0)
    raised = [math.exp(mean - most) for mean in means]
    whole = math.fsum(raised)
    return [weight / whole for weight in raised]
