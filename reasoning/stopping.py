"""`Tally`: what the samples of a question say so far, as a stopping rule sees it.

`StoppingRule`: what every stopping rule is.

A rule is frozen parameters and pure functions of the `Tally`: no model, no clock, no memory. So it decides the same
about the same samples whether they came in rounds or in a race, live or from the run store.

Agreement: stop when a window of samples in a row gives one answer.

Source: Li et al., "Escape Sky-high Cost: Early-stopping Self-Consistency for Multi-step Reasoning" (ICLR 2024,
arXiv:2401.10480), section 3.

The Beta posterior: stop when the leading answer is the majority with enough certainty.

Source: Aggarwal et al., "Let's Sample Step by Step: Adaptive-Consistency for Efficient Reasoning with LLMs" (EMNLP
2023, arXiv:2305.11860), the Beta stopping criterion.

The Dirichlet posterior: stop when what all further samples together could gain is less than one of them costs.

The answers' chances have a Dirichlet posterior over the answers seen and one not seen yet, with prior weight 1 each.
The gain is counted in the chance of the answer that is returned: sampling reveals which answer has the largest chance,
and perfect knowledge would gain `E[max_j p_j] - max_j E[p_j]` over returning the leader now. No number of samples can
gain more, so below the price of a single one it never pays to go on.

Source: the posterior is the Dirichlet criterion's of Aggarwal et al. 2023, arXiv:2305.11860. Differs: the paper stops
at a posterior probability of the leader, which on scattered answers is never reached. The expected gain is small there
too, so it stops.

Self-evaluation: stop when the model itself holds its best sample for as good as any other attempt.

Source: Manvi et al., "Adaptive Inference-Time Compute" (2024, arXiv:2410.02725), section on adaptive sampling.

Online confidence: samples that the model is less sure of than of the first ones end early, and votes are weighed.

Source: Fu et al., "Deep Think with Confidence" (2025, arXiv:2508.15260), section 3.2 and equations 2 to 5.

`Stopping`: any stopping rule as a strategy's parameter takes it: a name, or an object with the rule's parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ..core.messages import LogitsProcessorSpec
from ..serving.model import Feature

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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


LOOK_AHEAD = 64


class StoppingRule(BaseModel):
    """A stopping rule with its parameters. This one never stops before all samples are there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def enough(self, tally: Tally) -> bool:
        """Whether no further sample is worth drawing. Asked with at least one finished sample."""
        return False

    def round(self, tally: Tally, left: int) -> int:
        """How many samples to draw next in rounds: the fewest that could be enough, between 1 and `left`.

        With fewer the rule could not stop, so drawing so many at once wastes nothing against one at a time: the fewest
        that would do it if all agreed with the leader, or if none agreed with anything.
        """
        for count in range(1, left):
            if any(self.enough(tally.with_more(count, agreeing=agreeing)) for agreeing in (True, False)):
                return count
        return left

    def race(self, tally: Tally, left: int) -> int:
        """How many samples to start at once in a race, between 1 and `left`: all, unless a rule has to learn first."""
        return left

    def hooks(self, tally: Tally) -> tuple[LogitsProcessorSpec, ...]:
        """Logits hooks of the samples drawn next."""
        return ()

    @property
    def needs(self) -> frozenset[Feature]:
        """What the model must be able to do."""
        return frozenset()

    @property
    def judges(self) -> bool:
        """Whether the model is to judge each finished sample."""
        return False


class Agreement(StoppingRule):
    """Stop when the last `window` samples all give the same answer.

    Differs: the paper cuts the samples into windows that do not overlap; here any run of `window` samples counts, which
    stops no later. A sample without an answer breaks a run.
    """

    rule: Literal["agreement"] = "agreement"
    window: Annotated[int, Field(ge=2, description="samples in a row that must agree")] = 5

    def enough(self, tally: Tally) -> bool:
        """See `StoppingRule.enough`."""
        last = tally.labels[-self.window :]
        return len(last) == self.window and last[0] is not None and len(set(last)) == 1

    def round(self, tally: Tally, left: int) -> int:
        """See `StoppingRule.round`: what the run of equal answers at the end lacks."""
        lead = next((label for label in reversed(tally.labels)), None)
        run = next((i for i, label in enumerate(reversed(tally.labels)) if label != lead), tally.finished)
        return max(1, min(left, self.window - (run if lead is not None else 0)))


class Beta(StoppingRule):
    """Stop when the leader beats the runner-up with probability `confidence` or more.

    Of the two answers with most votes, the share of the first has a Beta posterior under a uniform prior.
    """

    rule: Literal["beta"] = "beta"
    confidence: Annotated[float, Field(gt=0.5, lt=1, description="posterior probability at which to stop")] = 0.95

    def enough(self, tally: Tally) -> bool:
        """See `StoppingRule.enough`."""
        return leads(*tally.leaders()) >= self.confidence


def leads(first: int, second: int) -> float:
    """P(p > 1/2) where p has the posterior Beta(first + 1, second + 1): `1 - I_(1/2)(first + 1, second + 1)`.

    For whole numbers of votes this is the chance of at most `first` heads in `first + second + 1` tosses of a fair
    coin, which is exact in integers.
    """
    tosses = first + second + 1
    ways = total = 1
    for k in range(1, first + 1):
        ways = ways * (tosses - k + 1) // k
        total += ways
    return total / (1 << tosses)


class Dirichlet(StoppingRule):
    """Stop when the expected gain of perfect knowledge is at most `cost`."""

    rule: Literal["dirichlet"] = "dirichlet"
    cost: Annotated[
        float, Field(gt=0, lt=1, description="price of one sample, as a share of what a right answer is worth")
    ] = 0.05
    least: Annotated[int, Field(ge=1, description="samples before which nothing is decided")] = 3

    def enough(self, tally: Tally) -> bool:
        """See `StoppingRule.enough`."""
        return tally.finished >= self.least and expected_gain(tuple(sorted(tally.votes, reverse=True))) <= self.cost


@lru_cache(maxsize=4096)
def expected_gain(votes: tuple[int, ...]) -> float:
    """`E[max_j p_j] - max_j E[p_j]` under Dirichlet(votes + 1, 1), the last place for an answer not seen yet.

    With independent G_j ~ Gamma(a_j), p = G / sum(G) is independent of the sum, so `E[max p] = E[max G] / sum(a)`, and
    `E[max G]` is the integral of `1 - prod_j P(G_j <= x)`: one integral whatever the number of answers.

    Args:
        votes: Votes by answer, most first.
    """
    import numpy as np
    from scipy.special import gammainc

    weights = np.array([*(v + 1.0 for v in votes), 1.0])
    total = float(weights.sum())
    top = float(weights[0])
    # beyond the end less than 1e-12 is left, and so smooth a curve is exact to rounding with these panels
    end = top + 8.0 * np.sqrt(top) + 40.0
    nodes, shares = _panels(end)
    below = np.prod(gammainc(weights[:, None], nodes[None, :]), axis=0)
    largest = float(np.sum(shares * (1.0 - below)))
    return max(0.0, largest / total - top / total)


def _panels(end: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights of Gauss-Legendre on equal panels of [0, end]."""
    import numpy as np

    nodes, shares = np.polynomial.legendre.leggauss(24)
    edges = np.linspace(0.0, end, 17)
    half = np.diff(edges)[:, None] / 2
    middle = (edges[:-1] + edges[1:])[:, None] / 2
    return (middle + half * nodes).ravel(), (half * shares).ravel()


class SelfEvaluated(StoppingRule):
    """Stop when the best sample's quality is at least `threshold`.

    `threshold <= 0` is a single sample, above 1 all of them. There is no default: the prompted signal is
    over-confident, so take the threshold from a calibration curve of the model at hand.
    """

    rule: Literal["self-evaluation"] = "self-evaluation"
    threshold: Annotated[float, Field(allow_inf_nan=False, description="quality at which to stop")]

    def enough(self, tally: Tally) -> bool:
        """See `StoppingRule.enough`. A sample without a signal never stops anything, unless any sample would."""
        if self.threshold <= 0:
            return True
        return max((q for q in tally.quality if q is not None), default=-1.0) >= self.threshold

    def round(self, tally: Tally, left: int) -> int:
        """See `StoppingRule.round`: 1, 1, 2, 4, 8, so that few samples cost few rounds and many not many."""
        return min(left, max(1, tally.finished))

    @property
    def judges(self) -> bool:
        """See `StoppingRule.judges`."""
        return True


HOOK = "stop_on_confidence"


class OnlineConfidence(StoppingRule):
    """A first few samples run to their end and set a bound; a later one ends where its group confidence falls below it.

    A sample's weight in the vote is its lowest group confidence. Nothing more is drawn once the leader has `share` of
    the weight.

    Differs: the window is 2048 tokens in the paper, whose chains are many thousands long; a window longer than a chain
    never fills, so that the chain cannot be ended and has no weight of its own.
    """

    rule: Literal["confidence"] = "confidence"
    warm_up: Annotated[int, Field(ge=1, description="samples that set the bound")] = 8
    keep: Annotated[
        float, Field(gt=0, le=1, description="share of the first samples that the bound would have kept")
    ] = 0.9
    window: Annotated[int, Field(ge=1, description="tokens of a group")] = 64
    top: Annotated[int, Field(ge=1, description="most likely tokens that count at each place")] = 20
    share: Annotated[float, Field(gt=0.5, le=1, description="leader's share of the weight at which to stop")] = 0.95

    def enough(self, tally: Tally) -> bool:
        """See `StoppingRule.enough`."""
        return tally.finished >= self.warm_up and max(tally.shares, default=0.0) >= self.share

    def round(self, tally: Tally, left: int) -> int:
        """See `StoppingRule.round`: the first samples, then one at a time, for a weight can be anything."""
        return min(left, max(1, self.warm_up - tally.finished))

    def race(self, tally: Tally, left: int) -> int:
        """See `StoppingRule.race`: the first samples, then all the others."""
        return min(left, self.warm_up) if tally.finished < self.warm_up else left

    def hooks(self, tally: Tally) -> tuple[LogitsProcessorSpec, ...]:
        """See `StoppingRule.hooks`: the bound, or for the first samples one that nothing falls below."""
        return (
            LogitsProcessorSpec(
                name=HOOK, args={"threshold": self.bound(tally), "window": self.window, "top": self.top}
            ),
        )

    def bound(self, tally: Tally) -> float:
        """Group confidence below which a sample ends, in nats; 0, which no confidence is below, while it is not known.

        The paper's percentile: such that the share `keep` of the first samples stayed above it.
        """
        known = [v for v in tally.lowest[: self.warm_up] if v is not None]
        return percentile(known, 1.0 - self.keep) if tally.finished >= self.warm_up and known else 0.0

    @property
    def needs(self) -> frozenset[Feature]:
        """See `StoppingRule.needs`."""
        return frozenset({"hooks"})


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of the values lies, linear between neighbours; `values` is not empty."""
    ranked = sorted(values)
    place = share * (len(ranked) - 1)
    below = int(place)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (place - below) * (ranked[above] - ranked[below])


class NoStop(StoppingRule):
    """Draw all samples."""

    rule: Literal["none"] = "none"

    def round(self, tally: Any, left: int) -> int:
        """See `StoppingRule.round`: all at once."""
        return left


def _named(value: Any) -> Any:
    return {"rule": value} if isinstance(value, str) else value


Stopping = Annotated[
    NoStop | Agreement | Beta | Dirichlet | SelfEvaluated | OnlineConfidence,
    Field(discriminator="rule"),
    BeforeValidator(_named),
]
"""`"beta"`, or `{"rule": "beta", "confidence": 0.99}`; likewise the others."""

Mode = Literal["auto", "rounds", "race"]
"""How samples are drawn under a rule. "rounds": as few at a time as could be enough, then the rule is asked. "race":
all at once, the rule is asked at each that finishes, and the rest are cancelled. "auto": a race where tokens cost no
money, else rounds, since a provider may bill what was cancelled."""
