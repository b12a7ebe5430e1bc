"""`Item`: what one piece of evidence says of a claim, with how far it counts and what tells it from others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...core.errors import DataError
from ..evidence import Passage
from ..support import Label, Support

EPS = 1e-6
"""Least probability of a label: what is less is noise, and would decide alone."""
HARD = 0.8
"""Probability of a label that was given without one."""


@dataclass(frozen=True, slots=True)
class Item:
    """One piece of evidence, or one opinion.

    Attributes:
        draws: What it says of the claim, at least once: by several votes, prompts, orders of labels or verifiers.
        credibility: How far its source is to be believed, in [0, 1]; 0 leaves it out.
        relevance: How far it is about the claim, in [0, 1].
        text: What it is, to find copies by; empty if unknown.
        id: Items of one id are one; empty if unknown.
        document: Where it is from; items of one document count less each; empty if unknown.
        hard: Whether the draws are bare labels that were made into probabilities.
        rank: Its place among what was found for the claim, from 1; 1 where the order says nothing.

    Raises:
        DataError: There is no draw, one is no distribution, or a number is out of its range.
    """

    draws: tuple[Support, ...]
    credibility: float = 1.0
    relevance: float = 1.0
    text: str = ""
    id: str = ""
    document: str = ""
    hard: bool = False
    rank: int = 1

    def __post_init__(self) -> None:
        called = f"the evidence {self.id!r}" if self.id else "a piece of evidence"
        if not self.draws:
            raise DataError(f"{called} says nothing of the claim", hint="leave it out")
        for draw in self.draws:
            if len(draw) != 3 or not all(math.isfinite(p) and p >= 0 for p in draw) or sum(draw) <= 0:
                raise DataError(f"{called} has the probabilities {tuple(draw)}, which are none of three labels")
        if self.rank < 1:
            raise DataError(f"{called} has the rank {self.rank}; ranks count from 1")
        for name in ("credibility", "relevance"):
            if not 0 <= getattr(self, name) <= 1:  # NaN fails too
                raise DataError(f"the {name} {getattr(self, name)} of {called} lies outside [0, 1]")


def item_of(
    passage: Passage, draws: Sequence[Support], *, relevance: float = 1.0, hard: bool = False, rank: int = 1
) -> Item:
    """What a passage says of a claim.

    Args:
        passage: The passage.
        draws: Its verdicts.
        relevance: How far it is about the claim, in [0, 1]: a retriever's score on that scale.
        hard: Whether the draws are bare labels.
        rank: Its place among what was found.

    Raises:
        DataError: As `Item`.
    """
    return Item(tuple(draws), passage.credibility, relevance, passage.text, passage.id, passage.source, hard, rank)


def clean(draw: Support) -> Support:
    """The distribution with every probability at least 1e-6 before it is normalised."""
    total = math.fsum(draw)
    cut = [max(p / total, EPS) for p in draw]
    total = math.fsum(cut)
    return Support(*(p / total for p in cut))


def hard_label(label: Label) -> Support:
    """A bare label as probabilities: 0.8 for it, 0.1 for each other."""
    return _spread(dict.fromkeys(("supports", "refutes", "neutral"), (1 - HARD) / 2) | {label: HARD})


def smoothed_votes(labels: Sequence[Label]) -> Support:
    """Shares of votes, each label given half a vote more: (count + 0.5) / (n + 1.5).

    Args:
        labels: The votes; none at all are uniform.
    """
    counts: dict[str, float] = {label: labels.count(label) + 0.5 for label in ("supports", "refutes", "neutral")}
    return _spread({label: count / (len(labels) + 1.5) for label, count in counts.items()})


def _spread(by_label: dict[str, float]) -> Support:
    return Support(by_label["supports"], by_label["refutes"], by_label["neutral"])
