"""What a search asks for, `Expand`, and what it has found, `Outcome`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal

from .tree import Continuation, Ledger, N

Scoring = Literal["all", "ended", "none"]
"""Which continuations a search wants scored: all, complete solutions alone, or none."""

Key = tuple[int, int]
"""What names a request: a node, and which of the node's requests it is."""


@dataclass(frozen=True, slots=True)
class Expand:
    """A prefix to continue, or one behind which given steps are to be weighed.

    Where `given` is empty, steps are sampled. Else nothing is: told are `n == len(given)` continuations, the given
    steps in their order, each with its log-probability and the score of the prefix that ends with it, if they can be
    had, and with 0 tokens.

    Attributes:
        node: Its id.
        n: Continuations wanted.
        first: Index of the first of them among all samples of this prefix's text. Nodes of the same text are given
            different indices, so whoever names a sample by text and index never gets one twice.
        max_tokens: Most tokens of each continuation.
        finish: Whether the final answer is wanted instead of a step; the continuation counts as terminal.
        score: Which of the continuations that survive (`siblings.survivors`) are to be scored.
        temperature: What the sampler's temperature is to be multiplied by.
        given: Steps, as they stand in the tree, delimiters included; they follow the prefix one behind the other.
        turn: Which request of this node it is, from 0.
    """

    node: int
    n: int
    first: int
    max_tokens: int
    finish: bool = False
    score: Scoring = "all"
    temperature: float = 1.0
    given: tuple[str, ...] = ()
    turn: int = 0

    @property
    def key(self) -> Key:
        """What names it among all requests of its search."""
        return self.node, self.turn


Heard = list[tuple[Expand, tuple[Continuation, ...]]]
"""A batch with what came back."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[N]):
    """What a search has found so far.

    Attributes:
        chosen: The solution it would return. Not terminal only if it found no complete one and could not complete any;
            None if there is no step at all.
        terminals: All complete solutions worth a vote, the best first.
        weights: Weight of each in a vote.
        stopped: Why it ended: "done"; "exhausted", nothing was left to expand; "tokens", "prm_passes" or "expansions",
            a limit; or what its owner said. Empty while it goes on.
        ledger: What it cost.
    """

    chosen: N | None
    terminals: tuple[N, ...]
    weights: tuple[float, ...]
    stopped: str
    ledger: Ledger
