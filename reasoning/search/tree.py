"""The tree that a search grows: `Continuation`, `Node`, `Tree`, and the `Ledger` of what it cost.

A node is a prefix: a solution so far, in whole steps. Its text is that of its last step alone; the texts on the path
from the root, joined, are the prefix.

Continuations of one prefix beside each other: which say the same, and what stands for a missing score.

Prefixes that compete by their score alone, as in beam search and diverse verifier tree search.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

from ...core.errors import UserError
from ..segmentation import normal_step

LEAST_LOGPROB = -1e6
"""Log-probabilities count as at least this, a probability of 0 that plain JSON can hold."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """One step, sampled or given, as a search is told it.

    Attributes:
        text: The step as generated, with the delimiter that ended it, so that texts joined are the prefix.
        tokens: Generated tokens, delimiter and end of text included; 0 for a step that was given.
        terminal: Whether the solution is complete: the end of the text, or a finished final answer.
        score: What the process reward model says of the whole prefix that ends with this step, in [0, 1]. None where it
            was not asked, or failed.
        logprob: Summed log-probability of the step's tokens given all before it, end of the step included, in nats,
            under the distribution that steps are sampled from; -inf if it cannot be sampled. None if it is not known.
        reward: What a model of outcomes says of a complete solution, in [0, 1], for a search that is led by the score
            and chooses by this. None elsewhere.

    Raises:
        UserError: There are fewer than 0 tokens, the score or the reward is outside [0, 1], or the log-probability is
            NaN or +inf.
    """

    text: str
    tokens: int
    terminal: bool = False
    score: float | None = None
    logprob: float | None = None
    reward: float | None = None

    def __post_init__(self) -> None:
        if self.tokens < 0:
            raise UserError(f"a continuation of {self.tokens} tokens", hint="give the number of generated tokens")
        for name in ("score", "reward"):
            said = getattr(self, name)
            if said is not None:
                if not 0 <= said <= 1:
                    raise UserError(f"the {name} {said!r} is outside [0, 1]", hint="give None where there is none")
                object.__setattr__(self, name, float(said))
        if self.logprob is not None:
            if not self.logprob < math.inf:
                raise UserError(f"the log-probability {self.logprob!r}", hint="give None where there is none")
            object.__setattr__(self, "logprob", max(float(self.logprob), LEAST_LOGPROB))

    @property
    def blank(self) -> bool:
        """Whether it adds nothing but white space."""
        return not self.text.strip()


@dataclass(slots=True)
class Node:
    """A prefix. Searches add fields of their own.

    Attributes:
        id: Its place in the order of creation, from 0.
        parent: Id of the prefix without the last step; None for a root.
        depth: Number of steps; 0 for a root.
        text: The last step; empty for a root.
        tokens: Tokens of the last step.
        score: Score of the prefix as told; None where there is none.
        logprob: Log-probability of the last step as told; None where it is not known.
        terminal: Whether the solution is complete.
        forced: Whether the last step was asked for as the final answer, because the steps or the budget had run out.
        asked: Continuations asked for so far.
        copied: Id of the node whose step it repeats, where a search goes on with a step that it had; else None.
        reward: What a model of outcomes says of the complete solution, as told; None where there is none.
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
    asked: int = 0
    copied: int | None = None
    reward: float | None = None


@dataclass(slots=True)
class Ledger:
    """What a search has cost, counted alike by all of them.

    Attributes:
        gen_tokens: All sampled tokens, those of discarded and duplicate continuations included.
        prm_passes: Continuations that came with a score, each a pass of the reward model; given steps are among them.
        expansions: Prefixes that were continued.
        completions: Prefixes whose final answer was asked for.
        samples: Continuations sampled, those of completions included.
        duplicates: Continuations dropped because a sibling says the same.
        empties: Continuations that add nothing; a tree search drops them.
        unscored: Continuations whose score was asked for and is missing.
        weighings: Prefixes behind which given steps were weighed; they cost no generated tokens.
        unweighed: Times that given steps could not be weighed behind a prefix, for want of a log-probability, a score,
            or passes of the reward model.
    """

    gen_tokens: int = 0
    prm_passes: int = 0
    expansions: int = 0
    completions: int = 0
    samples: int = 0
    duplicates: int = 0
    empties: int = 0
    unscored: int = 0
    weighings: int = 0
    unweighed: int = 0


N = TypeVar("N", bound=Node)


class Tree(Generic[N]):
    """Nodes by id, and how many samples each prefix has been asked for.

    Args:
        kind: Class of the nodes.
    """

    def __init__(self, kind: type[N]) -> None:
        self._kind = kind
        self._nodes: list[N] = []
        self._drawn: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[N]:
        return iter(self._nodes)

    def __getitem__(self, node_id: int) -> N:
        return self._nodes[node_id]

    def add_root(self) -> N:
        """A new empty prefix."""
        node = self._kind(id=len(self._nodes), parent=None, depth=0)
        self._nodes.append(node)
        return node

    def add(self, parent: N, step: Continuation, *, forced: bool = False) -> N:
        """A new node: the parent's prefix and one more step. A forced one is always terminal."""
        node = self._kind(
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
        return node

    def path(self, node: N) -> list[N]:
        """The nodes from the first step to this one, the root left away."""
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

    def draw(self, node: N, n: int) -> int:
        """Note that `n` continuations are asked for.

        Returns:
            Index of the first of them among all samples of this very text, so that two nodes of the same text never
            get the same sample.
        """
        key = self._key(node)
        first = self._drawn.get(key, 0)
        self._drawn[key] = first + n
        node.asked += n
        return first

    def _key(self, node: N) -> bytes:
        return hashlib.blake2b(self.text(node.id).encode("utf-8", "surrogatepass"), digest_size=16).digest()

    # -- JSON

    def to_json(self) -> list[dict[str, Any]]:
        """All nodes, as plain JSON."""
        names = [field.name for field in fields(self._kind)]
        return [{name: getattr(node, name) for name in names} for node in self._nodes]

    def load(self, nodes: Iterable[Mapping[str, Any]]) -> None:
        """Take the nodes that `to_json` gave, in place of those that are here."""
        self._nodes = [self._kind(**node) for node in nodes]
        self._drawn = {}
        for node in self._nodes:
            if node.asked:
                key = self._key(node)
                self._drawn[key] = self._drawn.get(key, 0) + node.asked


UNKNOWN = 0.5
"""Score of a step about which nothing is known."""


Said = tuple[str, bool]
"""What siblings are compared by: the normal form of the step, and whether the solution is complete with it."""


def said(step: Continuation | Node) -> Said:
    """What a step is compared by."""
    return normal_step(step.text), step.terminal


def survivors(
    results: Sequence[Continuation], *, at_root: bool = False, distinct: bool = True, before: Iterable[Said] = ()
) -> list[int]:
    """Positions of the continuations that become nodes; the others need no score.

    Dropped are duplicates, of which the first stays, and those that add nothing.

    Differs: the end of the text is part of what is compared, since a complete solution is not the same state as an
    incomplete one of the same words. And an empty continuation that ends the text is kept, except at the root: it says
    that the prefix is a complete solution, which dropping it would lose.

    Args:
        results: All continuations of one prefix.
        at_root: Whether that prefix is empty.
        distinct: Whether duplicates are dropped at all.
        before: What earlier continuations of the prefix say.
    """
    kept: list[int] = []
    seen = set(before)
    for i, step in enumerate(results):
        if step.blank and (at_root or not step.terminal):
            continue
        key = said(step)
        if distinct and key in seen:
            continue
        seen.add(key)
        kept.append(i)
    return kept


def filled(siblings: Sequence[Node], before: float | None) -> list[float]:
    """The scores of siblings, with something in place of the missing ones.

    A step that adds nothing has the score of the prefix, which it does not change; any other the mean of its siblings'
    scores, else the prefix's, else `UNKNOWN`.

    Args:
        siblings: Continuations of one prefix.
        before: What counts as the prefix's score; None for a root.
    """
    known = [node.score for node in siblings if node.score is not None]
    other = math.fsum(known) / len(known) if known else UNKNOWN if before is None else before
    return [
        node.score if node.score is not None else before if before is not None and not node.text.strip() else other
        for node in siblings
    ]


@dataclass(slots=True)
class Scored(Node):
    """A prefix with the score that it competes by.

    Attributes:
        value: Its score, or what stands for a missing one (`siblings.filled`); in [0, 1], `UNKNOWN` at the root.
    """

    value: float = UNKNOWN


def set_values(siblings: Sequence[Scored], parent: Scored) -> None:
    """Give new siblings their values."""
    for child, value in zip(siblings, filled(siblings, parent.value if parent.depth else None), strict=True):
        child.value = value


def by_value(nodes: Iterable[Scored]) -> list[Scored]:
    """The best first; of equals the older one."""
    return sorted(nodes, key=lambda node: (-node.value, node.id))
