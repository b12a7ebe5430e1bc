"""The search tree: `Continuation`, `Node`, `Tree`, the cost counters `SearchCost`, and rules for siblings.

A node is a prefix: a partial solution made of complete steps. Its text is only that of its last step; the texts on the
path from the root, joined, are the prefix.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ...core.errors import UserError
from ...core.events import SearchNode
from ..segmentation import normalize_step

MIN_LOGPROB = -1e6
"""Log-probabilities count as at least this, a probability of 0 that plain JSON can represent."""

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
        logprob: Summed log-probability of the step's tokens given everything before it, end of the step included, in
            nats, under the distribution that steps are sampled from; -inf if it cannot be sampled. None if unknown.
        reward: An outcome reward model's score of a complete solution, in [0, 1], for a search that is guided by
            `score` and selects by `reward`. None elsewhere.

    Raises:
        UserError: The number of tokens is negative, the score or the reward is outside [0, 1], or the log-probability
            is NaN or +inf.
    """

    text: str
    tokens: int
    terminal: bool = False
    score: float | None = None
    logprob: float | None = None
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
        if self.logprob is not None:
            if not self.logprob < math.inf:
                raise UserError(
                    f"the log-probability {self.logprob!r} is not below infinity", hint="use None for a missing one"
                )
            object.__setattr__(self, "logprob", max(float(self.logprob), MIN_LOGPROB))

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
        score: Score of the prefix; None if missing.
        logprob: Log-probability of the last step; None if unknown.
        terminal: Whether the solution is complete.
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
    logprob: float | None = None
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
        expansions: Expanded prefixes.
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
    """Nodes by id, and how many samples of each prefix have been requested.

    Args:
        node_type: Class of the nodes.
    """

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
            logprob=step.logprob,
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
        """Count `n` requested continuations.

        Returns:
            Index of the first of them among all samples of this exact text, so that two nodes of equal text never get
            the same sample.
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

    Args:
        results: All continuations of one prefix.
        at_root: Whether that prefix is empty.
        distinct: Whether duplicates are dropped at all.
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
    scores, else the prefix's, else `UNKNOWN_SCORE`.

    Args:
        siblings: Continuations of one prefix.
        prefix_score: Score of the prefix; None for a root.
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
    """A node of a search as its events contain it.

    Args:
        values: The values by which the search orders its nodes, by name.
        text: Its step as emitted; None is the node's own text.
    """
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
