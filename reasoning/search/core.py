"""`StepSearch`: an ask-and-tell interface and the bookkeeping that all searches over steps share.

    while batch := search.ask():
        for request in batch:
            search.tell(request, …)         # sampled and scored by the caller
    search.outcome()

Searches are pure: no model, no clock, and no randomness but the given generator. Results take effect once all of a
batch have arrived, in the order of the requests, so the order of arrival has no influence.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...core.errors import UserError
from ...core.events import SearchNode
from ..segmentation import normalize_step
from ..strategy import MAX_DEPTH, MAX_RUN_SAMPLES, MAX_TOKENS

UNKNOWN_SCORE = 0.5
"""Score of a step about which nothing is known."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """One step as the result of a search's request.

    Attributes:
        text: The step as generated, with the delimiter that ended it, so that joined texts are the prefix.
        tokens: Generated tokens, delimiter and end of text included.
        terminal: Whether the solution is complete: the end of the text, or a finished final answer.
        score: The process reward model's score of the prefix that ends with this step, in [0, 1]. None if it was not
            requested, or failed.
        reward: An outcome reward model's score of a complete solution, in [0, 1], for a search that is guided by
            `score` and selects by `reward`. None elsewhere.

    Raises:
        UserError: The number of tokens is negative, or the score or the reward is outside [0, 1].
    """

    text: str
    tokens: int
    terminal: bool = False
    score: float | None = None
    reward: float | None = None

    def __post_init__(self) -> None:
        if self.tokens < 0:
            raise UserError(f"a continuation has {self.tokens} tokens", hint="give the number of generated tokens")
        for name in ("score", "reward"):
            value = getattr(self, name)
            if value is not None:
                if not 0 <= value <= 1:
                    raise UserError(f"the {name} {value!r} is outside [0, 1]", hint="use None for a missing one")
                object.__setattr__(self, name, float(value))

    @property
    def is_blank(self) -> bool:
        """Whether it adds nothing but white space."""
        return not self.text.strip()


@dataclass(slots=True)
class Node:
    """A prefix. Searches add fields of their own.

    Attributes:
        id: Position in the order of creation, from 0.
        parent: Id of the prefix without the last step; None for a root.
        depth: Number of steps; 0 for a root.
        text: The last step; empty for a root.
        tokens: Tokens of the last step.
        forced: Whether the last step was requested as the final answer, because the steps or the budget had run out.
        copied_from: Id of the node whose step this one repeats, if a search continues with an existing step; else None.
        reward: Outcome reward of the complete solution; None if missing.
    """

    id: int
    parent: int | None
    depth: int
    text: str = ""
    tokens: int = 0
    score: float | None = None
    terminal: bool = False
    forced: bool = False
    copied_from: int | None = None
    reward: float | None = None


@dataclass(slots=True)
class SearchCost:
    """The cost of a search, counted alike by all searches.

    Attributes:
        gen_tokens: All sampled tokens, those of discarded and duplicate continuations included.
        prm_passes: Scored continuations, each one pass of the reward model.
        completions: Prefixes completed with a final answer.
        samples: Sampled continuations, those of completions included.
        duplicates: Continuations dropped because a sibling is equal.
        empties: Continuations that add nothing; a tree search drops them.
        unscored: Continuations whose requested score is missing.
    """

    gen_tokens: int = 0
    prm_passes: int = 0
    expansions: int = 0
    completions: int = 0
    samples: int = 0
    duplicates: int = 0
    empties: int = 0
    unscored: int = 0


N = TypeVar("N", bound=Node)


class Tree(Generic[N]):
    """Nodes by id, and how many samples of each prefix have been requested."""

    def __init__(self, node_type: type[N]) -> None:
        self._node_type = node_type
        self._nodes: list[N] = []
        self._num_samples: dict[bytes, int] = {}
        self._children: dict[int, list[int]] = {}
        self.terminals: list[N] = []
        """All complete solutions, in order of creation."""

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[N]:
        return iter(self._nodes)

    def __getitem__(self, node_id: int) -> N:
        return self._nodes[node_id]

    def add_root(self) -> N:
        """Add an empty prefix."""
        node = self._node_type(id=len(self._nodes), parent=None, depth=0)
        self._nodes.append(node)
        return node

    def add(self, parent: N, step: Continuation, *, forced: bool = False) -> N:
        """Add the parent's prefix with one more step. A forced step is always terminal."""
        node = self._node_type(
            id=len(self._nodes),
            parent=parent.id,
            depth=parent.depth + 1,
            text=step.text,
            tokens=step.tokens,
            score=step.score,
            terminal=step.terminal or forced,
            forced=forced,
            reward=step.reward,
        )
        self._nodes.append(node)
        self._children.setdefault(parent.id, []).append(node.id)
        if node.terminal:
            self.terminals.append(node)
        return node

    def children(self, node: N) -> list[N]:
        """The continuations of a prefix, in order of creation."""
        return [self._nodes[child] for child in self._children.get(node.id, ())]

    def path(self, node: N) -> list[N]:
        """The nodes from the first step to this one, without the root."""
        backwards = []
        while node.parent is not None:
            backwards.append(node)
            node = self._nodes[node.parent]
        return backwards[::-1]

    def steps(self, node_id: int) -> list[str]:
        """The steps of a prefix."""
        return [node.text for node in self.path(self._nodes[node_id])]

    def text(self, node_id: int) -> str:
        """A prefix as one text."""
        return "".join(self.steps(node_id))

    def reserve_samples(self, node: N, n: int) -> int:
        """Count `n` requested continuations; returns the index of the first among all samples of this exact text.

        So two nodes of equal text never get the same sample.
        """
        key = hashlib.blake2b(self.text(node.id).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        first = self._num_samples.get(key, 0)
        self._num_samples[key] = first + n
        return first


def step_key(step: Continuation | Node) -> tuple[str, bool]:
    """What siblings are compared by: the normal form of a step, and whether the solution is complete with it."""
    return normalize_step(step.text), step.terminal


def kept_indices(results: Sequence[Continuation], *, at_root: bool = False, distinct: bool = True) -> list[int]:
    """Positions of the continuations that become nodes; the others need no score.

    Dropped are duplicates, except the first of each, and continuations that add nothing.

    Differs: the end of the text is part of the comparison, since a complete solution is a different state from an
    incomplete one with the same text. And an empty continuation that ends the text is kept, except at the root: it
    means that the prefix is a complete solution, which dropping it would lose.
    """
    kept: list[int] = []
    seen: set[tuple[str, bool]] = set()
    for i, step in enumerate(results):
        if step.is_blank and (at_root or not step.terminal):
            continue
        key = step_key(step)
        if distinct and key in seen:
            continue
        seen.add(key)
        kept.append(i)
    return kept


def fill_missing_scores(siblings: Sequence[Node], prefix_score: float | None) -> list[float]:
    """The scores of siblings, with substitutes for missing ones.

    A step that adds nothing gets the score of the prefix, which it does not change; any other the mean of its siblings'
    scores, else the prefix's (None for a root), else `UNKNOWN_SCORE`.
    """
    known = [node.score for node in siblings if node.score is not None]
    default = math.fsum(known) / len(known) if known else UNKNOWN_SCORE if prefix_score is None else prefix_score

    def score(node: Node) -> float:
        if node.score is not None:
            return node.score
        return prefix_score if prefix_score is not None and not node.text.strip() else default

    return [score(node) for node in siblings]


@dataclass(slots=True)
class ScoredNode(Node):
    """A prefix of a search whose prefixes compete only by score, as in beam search and DVTS.

    Attributes:
        value: Its score, or the substitute for a missing one; in [0, 1], `UNKNOWN_SCORE` at the root.
    """

    value: float = UNKNOWN_SCORE


def set_values(siblings: Sequence[ScoredNode], parent: ScoredNode) -> None:
    """Set the values of new siblings."""
    values = fill_missing_scores(siblings, parent.value if parent.depth else None)
    for child, value in zip(siblings, values, strict=True):
        child.value = value


def sorted_by_value(nodes: Iterable[ScoredNode]) -> list[ScoredNode]:
    """The best first; of equals the older one."""
    return sorted(nodes, key=lambda node: (-node.value, node.id))


def search_node_event(node: Node, values: Mapping[str, float], text: str | None = None) -> SearchNode:
    """A node as events contain it: with the values that order nodes, and its step as emitted (None is the text)."""
    return SearchNode(
        id=node.id,
        parent=node.parent,
        depth=node.depth,
        text=node.text if text is None else text,
        tokens=node.tokens,
        score=node.score,
        terminal=node.terminal,
        forced=node.forced,
        values=dict(values),
    )


Scoring = Literal["all", "ended", "none"]
"""Which continuations need a score: all, only complete solutions, or none."""


@dataclass(frozen=True, slots=True)
class ExpandRequest:
    """A prefix to continue. A search requests no node twice but for a last final answer.

    Attributes:
        first: Index of the first continuation among all samples of this prefix's text. Nodes of equal text get
            different indices, so a caller that identifies samples by text and index never gets one twice.
        max_tokens: Maximum tokens of each continuation.
        finish: Whether the final answer is requested instead of a step; the continuation counts as terminal.
        score: Which of the kept continuations (`tree.kept_indices`) need a score.
    """

    node: int
    n: int
    first: int
    max_tokens: int
    finish: bool = False
    score: Scoring = "all"


BatchResults = list[tuple[ExpandRequest, tuple[Continuation, ...]]]
"""The requests of a batch with their results."""


@dataclass(frozen=True, slots=True)
class SearchOutcome(Generic[N]):
    """The state of a search as a result.

    Attributes:
        chosen: The solution that the search would return. Not terminal only if no complete solution exists and none
            could be completed; None before the first step.
        terminals: All complete solutions that may vote, the best first.
        stopped: Why the search ended: "done"; "exhausted", nothing was left to expand; "tokens", "prm_passes",
            "expansions" or "samples", a limit; or the caller's reason. Empty while the search is running.
    """

    chosen: N | None
    terminals: tuple[N, ...]
    weights: tuple[float, ...]
    stopped: str
    cost: SearchCost


class SearchLimits(BaseModel):
    """Limits of one search; None is no limit.

    A batch is requested only if its maximum cost fits, with `finish_tokens` left over. So no limit is exceeded by a
    sampler that respects `max_tokens`, and a final answer can always be requested. Every search ends before it has more
    than `MAX_RUN_SAMPLES` samples.

    Differs: there is no limit of wall-clock time, since a search has no clock; the caller calls `end`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gen_tokens: Annotated[int, Field(gt=0, le=MAX_RUN_SAMPLES * MAX_TOKENS)] | None = None
    """Generated tokens, those of discarded continuations included."""
    prm_passes: Annotated[int, Field(ge=0, le=MAX_RUN_SAMPLES)] | None = None
    """Passes of the reward model."""
    expansions: Annotated[int, Field(ge=0, le=MAX_RUN_SAMPLES)] | None = None
    """Expanded prefixes."""
    finish_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] = 256
    """Tokens reserved for a forced final answer."""
    min_step_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] = 32
    """Steps get shorter as the tokens run out, down to this; below it nothing is expanded any more."""

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        if self.gen_tokens is not None and self.gen_tokens < self.finish_tokens:
            raise ValueError("gen_tokens leaves no room for finish_tokens")
        return self

    def tokens_left(self, cost: SearchCost) -> int | None:
        """Remaining tokens, at least 0; None without a limit."""
        return None if self.gen_tokens is None else max(0, self.gen_tokens - cost.gen_tokens)

    def tokens_per_step(self, cost: SearchCost, *, samples: int, completions: int, max_step_tokens: int) -> int:
        """Tokens that each of `samples` continuations may take in addition to `completions` final answers.

        At most `max_step_tokens`; less than `min_step_tokens`, even below 0, if no more are left.
        """
        left = self.tokens_left(cost)
        if left is None:
            return max_step_tokens
        free = left - self.finish_tokens * (completions + 1)
        if samples == 0:
            return max_step_tokens if free >= 0 else free
        return min(max_step_tokens, free // samples)

    def exceeded_by(
        self, cost: SearchCost, *, samples: int, passes: int, expansions: int, completions: int, max_step_tokens: int
    ) -> str | None:
        """The limit that forbids a batch of so many continuations, scores, expanded prefixes and final answers.

        "samples", "tokens", "prm_passes" or "expansions"; None if the batch fits.
        """
        if cost.samples + samples + completions > MAX_RUN_SAMPLES:
            return "samples"
        each = self.tokens_per_step(cost, samples=samples, completions=completions, max_step_tokens=max_step_tokens)
        if each < (min(self.min_step_tokens, max_step_tokens) if samples else 0):
            return "tokens"
        if self.prm_passes is not None and cost.prm_passes + passes > self.prm_passes:
            return "prm_passes"
        if self.expansions is not None and cost.expansions + expansions > self.expansions:
            return "expansions"
        return None


class SearchOptions(BaseModel):
    """Options of every search.

    Attributes:
        round_size: Options whose product is the number of samples in a round, each with its minimum: those that are
            smaller where a budget does not cover several rounds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    round_size: ClassVar[Mapping[str, int]] = {}

    max_depth: Annotated[int, Field(ge=1, le=MAX_DEPTH, description="maximum steps of a solution")] = 40
    max_step_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS, description="maximum tokens of a step")] = 512
    limits: SearchLimits = SearchLimits()


O = TypeVar("O", bound=SearchOptions)  # noqa: E741


class StepSearch(ABC, Generic[N, O]):
    """A search over steps; `rng` is its randomness, if it has some, from which nothing else may sample."""

    name: ClassVar[str]
    Node: ClassVar[type[Any]]

    def __init__(self, options: O, rng: Random | None = None) -> None:
        self.options = options
        self.rng = rng
        self.tree: Tree[N] = Tree(self.Node)
        self.cost = SearchCost()
        self.stopped = ""
        self._batch_requests: dict[int, ExpandRequest] = {}
        self._batch_results: dict[int, tuple[Continuation, ...]] = {}
        self._result_digests: dict[tuple[int, bool], str] = {}
        """Digest of the results by node and by whether they are the final answer of a search that is over."""
        self.tree.add_root()

    # -- for the caller

    def ask(self) -> list[ExpandRequest]:
        """The requests of the current batch that have no results yet. Empty when the search is over."""
        if not self._batch_requests and not self.stopped:
            self._set_batch(self._next())
        return [request for node, request in self._batch_requests.items() if node not in self._batch_results]

    def tell(self, request: ExpandRequest | int, results: Sequence[Continuation]) -> None:
        """Report the results of a request. Reporting the same results again has no effect.

        Args:
            request: The request, or the id of its node.
            results: As many continuations as requested, in the order of their sample indices. Duplicates and
                continuations that add nothing are included, preferably without a score.

        Raises:
            UserError: There is no such request, it has other results already, or the number of results is wrong.
        """
        node_id, received = request if isinstance(request, int) else request.node, tuple(results)
        expected = self._batch_requests.get(node_id)
        named = expected if isinstance(request, int) else request
        key = (node_id, named is not None and named.score == "none")
        digest = hashlib.blake2b(repr(received).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        if key in self._result_digests:
            if self._result_digests[key] != digest:
                raise UserError(f"node {node_id} already has other results", hint="each request has one result")
            return
        if expected is None or named is None or expected.score != named.score:
            raise UserError(f"there is no request for node {node_id}", hint="report results of requests from ask()")
        if not expected.n <= len(received) <= self._max_results(expected):
            raise UserError(
                f"node {node_id} got {len(received)} continuations, expected {expected.n}",
                hint="an empty continuation stands for a missing one",
            )
        self._result_digests[key] = digest
        self._batch_results[node_id] = received
        self._add_cost(expected, received)
        if len(self._batch_results) == len(self._batch_requests):
            self._finish_batch([])

    def indices_to_score(self, request: ExpandRequest, results: Sequence[Continuation]) -> list[int]:
        """Positions of a request's continuations that need a score."""
        if request.score == "none":
            return []
        kept = range(len(results)) if request.finish else self._kept(request, results)
        return [i for i in kept if not results[i].is_blank and (request.score == "all" or results[i].terminal)]

    def end(self, reason: str, *, complete: bool = True) -> None:
        """End the search for a reason of the caller's, such as the time.

        Requests without results are withdrawn. No effect on a search that is over.

        Args:
            reason: Value of `SearchOutcome.stopped`.
            complete: Whether a final answer may still be requested if there is no complete solution.
        """
        if self.stopped and not self._batch_requests:
            return
        was_stopped, self.stopped = self.stopped, self.stopped or reason
        self._finish_batch([r for node, r in self._batch_requests.items() if node not in self._batch_results])
        if not was_stopped:
            self._set_batch(self._wind_up(reason, complete=complete))

    @property
    def is_over(self) -> bool:
        """Whether there will be no further requests. Only `ask` updates it."""
        return bool(self.stopped) and not self._batch_requests

    @abstractmethod
    def outcome(self) -> SearchOutcome[N]:
        """The result so far; may be called at any time."""

    # -- for a search

    @abstractmethod
    def _next(self) -> list[ExpandRequest]:
        """The next batch, made by `_expansion`; empty after setting `stopped`, or what `_wind_up` returns."""

    @abstractmethod
    def _update(self, results: BatchResults, withdrawn: list[ExpandRequest]) -> None:
        """Process the results of a batch. `withdrawn` is empty unless the search was ended."""

    @abstractmethod
    def _unfinished(self) -> N | None:
        """The prefix to complete if the search ended now; None if there is a complete solution, or no prefix."""

    def _kept(self, request: ExpandRequest, results: Sequence[Continuation]) -> list[int]:
        """Positions of the continuations that become nodes."""
        return kept_indices(results, at_root=self.tree[request.node].parent is None)

    def _max_results(self, request: ExpandRequest) -> int:
        """Maximum number of results; more than requested only if duplicates are sampled again."""
        return request.n

    def _is_expanded(self, node: N) -> bool:
        return (node.id, False) in self._result_digests or (node.id, True) in self._result_digests

    def _expansion(
        self, node: N, n: int, max_tokens: int, *, finish: bool = False, score: Scoring = "all"
    ) -> ExpandRequest:
        return ExpandRequest(node.id, n, self.tree.reserve_samples(node, n), max_tokens, finish, score)

    def _batch(self, nodes: Sequence[tuple[N, int]], *, score: Scoring = "all") -> list[ExpandRequest] | str:
        """Expand nodes, each by a number of continuations; those at the depth limit are completed instead.

        Returns the batch, or the name of the limit that forbids it.
        """
        deep = [node for node, _ in nodes if node.depth >= self.options.max_depth]
        samples = sum(n for node, n in nodes if node.depth < self.options.max_depth)
        limits, max_step_tokens = self.options.limits, self.options.max_step_tokens
        exceeded = limits.exceeded_by(
            self.cost,
            samples=samples,
            passes=samples + len(deep),
            expansions=len(nodes) - len(deep),
            completions=len(deep),
            max_step_tokens=max_step_tokens,
        )
        if exceeded is not None:
            return exceeded
        each = limits.tokens_per_step(
            self.cost, samples=samples, completions=len(deep), max_step_tokens=max_step_tokens
        )
        return [
            self._expansion(node, 1, limits.finish_tokens, finish=True)
            if node.depth >= self.options.max_depth
            else self._expansion(node, n, each, score=score)
            for node, n in nodes
        ]

    def _wind_up(self, reason: str, *, complete: bool = True) -> list[ExpandRequest]:
        """End the search; request one final answer if there is none and the limits allow it."""
        self.stopped = reason
        node = self._unfinished() if complete else None
        left = self.options.limits.tokens_left(self.cost)
        finish_tokens = self.options.limits.finish_tokens
        # where the tokens ran out, nothing else can use those that are left
        max_tokens = finish_tokens if left is None else left if reason == "tokens" else min(left, finish_tokens)
        if node is None or max_tokens <= 0:
            return []
        return [self._expansion(node, 1, max_tokens, finish=True, score="none")]

    def _add_children(self, parent: N, request: ExpandRequest, results: Sequence[Continuation]) -> list[N]:
        """Add the kept continuations to the tree; count the others."""
        if request.finish:
            self._count_unscored(request, results)
            return [self.tree.add(parent, results[0], forced=True)]
        kept = [results[i] for i in self._kept(request, results)]
        blanks = sum(step.is_blank and (parent.parent is None or not step.terminal) for step in results)
        self.cost.empties += blanks
        self.cost.duplicates += len(results) - len(kept) - blanks
        self._count_unscored(request, kept)
        return [self.tree.add(parent, step) for step in kept]

    def _count_unscored(self, request: ExpandRequest, kept: Sequence[Continuation]) -> None:
        for step in kept:
            needs_score = request.score == "all" or (request.score == "ended" and step.terminal)
            self.cost.unscored += needs_score and step.score is None and not step.is_blank

    def _outcome(
        self, chosen: N | None, terminals: Sequence[N], weights: Sequence[float] | None = None
    ) -> SearchOutcome[N]:
        each = tuple(weights) if weights is not None else (1.0,) * len(terminals)
        return SearchOutcome(chosen, tuple(terminals), each, self.stopped, replace(self.cost))

    def _set_batch(self, batch: list[ExpandRequest]) -> None:
        self._batch_requests = {request.node: request for request in batch}

    def _finish_batch(self, withdrawn: list[ExpandRequest]) -> None:
        results = [
            (r, self._batch_results[node]) for node, r in self._batch_requests.items() if node in self._batch_results
        ]
        self._batch_requests, self._batch_results = {}, {}
        if results or withdrawn:
            self._update(results, withdrawn)

    def _add_cost(self, request: ExpandRequest, results: tuple[Continuation, ...]) -> None:
        self.cost.prm_passes += sum(step.score is not None for step in results)
        self.cost.completions += request.finish
        self.cost.expansions += not request.finish
        self.cost.samples += len(results)
        self.cost.gen_tokens += sum(step.tokens for step in results)
