"""`Tally`: what the samples of a question say so far, as a stopping rule sees it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tally:
    """The finished samples, in the order in which they finished.

    Attributes:
        labels: Class of each sample's answer, numbered from 0 in the order in which classes were first reached; None
            for a sample without an answer.
        weights: Weight of each sample's vote; 1 where a rule weighs nothing.
        quality: Chance of each sample to be as good as another attempt, as the model itself judges; None where it was
            not asked, or gave no signal.
        lowest: Lowest group confidence of each sample, in nats; None where it is not known.
        most: Most samples that may be drawn.
    """

    labels: tuple[int | None, ...] = ()
    weights: tuple[float, ...] = ()
    quality: tuple[float | None, ...] = ()
    lowest: tuple[float | None, ...] = ()
    most: int = 1

    @property
    def finished(self) -> int:
        """Samples so far, those without an answer included."""
        return len(self.labels)

    @property
    def votes(self) -> tuple[int, ...]:
        """Votes by class."""
        counts = [0] * (1 + max((label for label in self.labels if label is not None), default=-1))
        for label in self.labels:
            if label is not None:
                counts[label] += 1
        return tuple(counts)

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the weight of all votes by class; all 0 where no vote has a weight."""
        sums = [0.0] * len(self.votes)
        weights = self.weights or (1.0,) * self.finished
        for label, weight in zip(self.labels, weights, strict=True):
            if label is not None:
                sums[label] += weight
        total = sum(sums)
        return tuple(s / total if total > 0 else 0.0 for s in sums)

    def leaders(self) -> tuple[int, int]:
        """The two largest numbers of votes; 0 where there are fewer classes."""
        first, second, *_ = (*sorted(self.votes, reverse=True), 0, 0)
        return first, second

    def with_more(self, count: int, *, agreeing: bool) -> Tally:
        """The same after `count` more samples that agree with the leader, or that agree with nobody."""
        votes = self.votes
        lead = votes.index(max(votes)) if votes else 0
        fresh = range(len(votes), len(votes) + count)
        more: tuple[int, ...] = (lead,) * count if agreeing else tuple(fresh)
        return Tally(
            labels=self.labels + more,
            weights=(self.weights or (1.0,) * self.finished) + (1.0,) * count,
            quality=self.quality + (None,) * count,
            lowest=self.lowest + (None,) * count,
            most=self.most,
        )
