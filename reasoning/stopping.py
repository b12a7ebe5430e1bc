"""Stopping rules: whether further samples of a question are worth their cost.

A rule is frozen parameters and pure functions of a `Tally` of the finished samples: no model, no clock, no state. All
rules but "first-finished" read the samples in the order in which they were started, so they decide the same in rounds
and in a race of any width, live or from the run store. In order of completion short samples would come first, and short
samples are right less often.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from .strategy import MAX_CHAINS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Tally:
    """The finished samples of a question, in the order in which the rule counts them.

    Attributes:
        labels: Class of each sample's answer, numbered from 0 in the order in which classes were first reached; None
            for a sample without an answer.
        num_tokens: Length of each sample in tokens, its thought included; empty if no rule reads it.
    """

    labels: tuple[int | None, ...] = ()
    num_tokens: tuple[int, ...] = ()

    @property
    def num_finished(self) -> int:
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

    def top_two(self) -> tuple[int, int]:
        """The two largest vote counts; 0 for a missing class."""
        first, second, *_ = (*sorted(self.votes, reverse=True), 0, 0)
        return first, second

    def extended(self, count: int, *, agreeing: bool) -> Tally:
        """The tally after `count` more samples that all agree with the leader, or that all differ from everything."""
        votes = self.votes
        leader = votes.index(max(votes)) if votes else 0
        new_classes = range(len(votes), len(votes) + count)
        more: tuple[int, ...] = (leader,) * count if agreeing else tuple(new_classes)
        return Tally(
            labels=self.labels + more,
            num_tokens=self.num_tokens and self.num_tokens + (max(self.num_tokens),) * count,
        )


def rule_of_name(value: Any) -> Any:
    """A rule's name as an object, for a parameter that takes either."""
    return {"rule": value} if isinstance(value, str) else value


class StoppingRule(BaseModel):
    """A stopping rule with its parameters. The base class never stops early."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def should_stop(self, tally: Tally) -> bool:
        """Whether no further sample is worth its cost. Called with one finished sample or more."""
        return False

    def round_size(self, tally: Tally, remaining: int) -> int:
        """Number of samples of the next round: the fewest that could stop the rule, from 1 to `remaining`.

        With fewer the rule could not stop, so one round of this size wastes nothing compared with single samples: the
        fewest that would do if all agreed with the leader, or if none agreed with anything.
        """
        for count in range(1, remaining):
            if any(self.should_stop(tally.extended(count, agreeing=agreeing)) for agreeing in (True, False)):
                return count
        return remaining

    def vote_weights(self, tally: Tally) -> tuple[float, ...]:
        """Weight of each sample in the vote that follows."""
        return (1.0,) * tally.num_finished

    @property
    def counts_by_completion(self) -> bool:
        """Whether a race counts samples in order of completion, rather than in the order in which they were started."""
        return False


class NoStop(StoppingRule):
    """Take all samples."""

    rule: Literal["none"] = "none"

    def round_size(self, tally: Any, remaining: int) -> int:
        """All at once."""
        return remaining


class Agreement(StoppingRule):
    """Stop when the last `window` samples all give the same answer.

    Source: Li et al., "Escape Sky-high Cost: Early-stopping Self-Consistency for Multi-step Reasoning" (ICLR 2024,
    arXiv:2401.10480), section 3.

    Differs: the paper cuts the samples into disjoint windows; here any run of `window` samples counts, which stops no
    later. A sample without an answer breaks a run.
    """

    rule: Literal["agreement"] = "agreement"
    window: Annotated[int, Field(ge=2, le=MAX_CHAINS, description="consecutive samples that must agree")] = 5

    def should_stop(self, tally: Tally) -> bool:
        last = tally.labels[-self.window :]
        return len(last) == self.window and last[0] is not None and len(set(last)) == 1

    def round_size(self, tally: Tally, remaining: int) -> int:
        """The number of samples that the current run of equal answers lacks."""
        leader = next((label for label in reversed(tally.labels)), None)
        run = next((i for i, label in enumerate(reversed(tally.labels)) if label != leader), tally.num_finished)
        return max(1, min(remaining, self.window - (run if leader is not None else 0)))


class Beta(StoppingRule):
    """Stop when the leader beats the runner-up with probability `confidence` or more.

    Of the two answers with most votes, the share of the first has a Beta posterior under a uniform prior.

    Source: Aggarwal et al., "Let's Sample Step by Step: Adaptive-Consistency for Efficient Reasoning with LLMs" (EMNLP
    2023, arXiv:2305.11860), the Beta stopping criterion.
    """

    rule: Literal["beta"] = "beta"
    confidence: Annotated[float, Field(gt=0.5, lt=1, description="posterior probability at which to stop")] = 0.95

    def should_stop(self, tally: Tally) -> bool:
        return leader_probability(*tally.top_two()) >= self.confidence


def leader_probability(first: int, second: int) -> float:
    """P(p > 1/2) where p has the posterior Beta(first + 1, second + 1): `1 - I_(1/2)(first + 1, second + 1)`.

    For integer votes this is the probability of at most `first` heads in `first + second + 1` tosses of a fair coin,
    which is exact in integers.
    """
    tosses = first + second + 1
    ways = total = 1
    for k in range(1, first + 1):
        ways = ways * (tosses - k + 1) // k
        total += ways
    return total / (1 << tosses)


class Dirichlet(StoppingRule):
    """Stop when the expected gain of perfect knowledge is at most `cost`.

    The answers' probabilities have a Dirichlet posterior over the observed answers and one unseen answer, with prior
    weight 1 each. The gain is measured in the probability of the returned answer: perfect knowledge would gain
    `E[max_j p_j] - max_j E[p_j]` over returning the leader now. No number of samples can gain more, so below the price
    of a single sample it never pays to continue.

    Source: the posterior is that of the Dirichlet criterion of Aggarwal et al. 2023, arXiv:2305.11860.

    Differs: the paper stops at a posterior probability of the leader, which scattered answers never reach. The expected
    gain is small for them too, so this rule stops.
    """

    rule: Literal["dirichlet"] = "dirichlet"
    cost: Annotated[
        float, Field(gt=0, lt=1, description="price of one sample, as a share of a right answer's value")
    ] = 0.05
    min_samples: Annotated[int, Field(ge=1, le=MAX_CHAINS, description="minimum number of samples")] = 3

    def should_stop(self, tally: Tally) -> bool:
        if tally.num_finished < self.min_samples:
            return False
        return expected_gain(tuple(sorted(tally.votes, reverse=True))) <= self.cost


@lru_cache(maxsize=4096)
def expected_gain(votes: tuple[int, ...]) -> float:
    """`E[max_j p_j] - max_j E[p_j]` under Dirichlet(votes + 1, 1), the last component for an unseen answer.

    With independent G_j ~ Gamma(a_j), p = G / sum(G) is independent of the sum, so `E[max p] = E[max G] / sum(a)`, and
    `E[max G]` is the integral of `1 - prod_j P(G_j <= x)`: one integral for any number of answers.

    Args:
        votes: Votes by answer, in decreasing order.
    """
    import numpy as np
    from scipy.special import gammainc

    weights, counts = np.unique([*(v + 1.0 for v in votes), 1.0], return_counts=True)
    total = float((weights * counts).sum())
    top = float(weights[-1])
    # beyond the end less than 1e-12 is left, and so smooth a curve is exact to rounding with these panels
    end = top + 8.0 * np.sqrt(top) + 40.0
    nodes, shares = _gauss_legendre_panels(end)
    below = np.prod(gammainc(weights[:, None], nodes[None, :]) ** counts[:, None], axis=0)
    largest = float(np.sum(shares * (1.0 - below)))
    return max(0.0, largest / total - top / total)


def _gauss_legendre_panels(end: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights of Gauss-Legendre quadrature on equal panels of [0, end]."""
    import numpy as np

    nodes, shares = np.polynomial.legendre.leggauss(24)
    edges = np.linspace(0.0, end, 17)
    half = np.diff(edges)[:, None] / 2
    middle = (edges[:-1] + edges[1:])[:, None] / 2
    return (middle + half * nodes).ravel(), (half * shares).ravel()


class Lead(StoppingRule):
    """Stop when the leader is `lead` votes ahead, or when the first `unanimous` samples all agree.

    A fixed lead is the sequential probability ratio test of two equally likely answers (Wald 1945, "Sequential Tests of
    Statistical Hypotheses"). Questions differ in difficulty, though: where the first samples agree, the question is
    probably an easy one, and a small number settles it; a first disagreement shows a hard one, on which further samples
    are worth most. So one threshold is too high for the former, or too low for the latter.

    With `short_weight` below 1, a sample shorter than the mean of the question's samples so far counts less, here and
    in the vote: of models that do not show long thoughts, short chains skip steps and are wrong more often. Models
    trained to think at length are the opposite; leave it at 1 for them.
    """

    rule: Literal["lead"] = "lead"
    lead: Annotated[float, Field(ge=1, le=MAX_CHAINS, description="votes between the two first answers")] = 3
    unanimous: Annotated[
        int, Field(ge=1, le=MAX_CHAINS, description="number of first samples that suffice if all agree")
    ] = 2
    short_weight: Annotated[
        float, Field(gt=0, le=1, description="weight of a sample shorter than the mean; 1 counts all alike")
    ] = 1.0

    def should_stop(self, tally: Tally) -> bool:
        votes = tally.votes
        if len(votes) == 1 and self.unanimous <= votes[0] == tally.num_finished:
            return True
        sums = [0.0] * len(votes)
        for label, weight in zip(tally.labels, self.vote_weights(tally), strict=True):
            if label is not None:
                sums[label] += weight
        first, second, *_ = (*sorted(sums, reverse=True), 0.0, 0.0)
        return first - second >= self.lead

    def round_size(self, tally: Tally, remaining: int) -> int:
        """The fewest that could stop the rule; one at a time once lengths matter, as a mean can change any weight."""
        if self.short_weight < 1 and tally.num_finished >= self.unanimous:
            return 1
        return super().round_size(tally, remaining)

    def vote_weights(self, tally: Tally) -> tuple[float, ...]:
        """`short_weight` for a sample shorter than the mean of all, 1 for every other."""
        total, n = sum(tally.num_tokens), tally.num_finished
        if self.short_weight == 1 or not tally.num_tokens:
            return (1.0,) * n
        return tuple(self.short_weight if tokens * n < total else 1.0 for tokens in tally.num_tokens)


class FirstFinished(StoppingRule):
    """Stop when `finished` samples have finished with an answer: the shortest ones, in a race that starts all at once.

    It saves waiting, not tokens: the samples that are cancelled have run for as long as the slowest that counts. In
    rounds, or in a race narrower than `finished`, it is a smaller number of samples.

    Source: Hassid et al., "Don't Overthink it. Preferring Shorter Thinking Chains for Improved LLM Reasoning" (2025,
    arXiv:2505.17813), the method short-m@k.

    Differs: a sample without an answer does not count, as a chain cut at its limit may be the first to end.
    """

    rule: Literal["first-finished"] = "first-finished"
    finished: Annotated[int, Field(ge=1, le=MAX_CHAINS, description="samples with an answer that suffice")] = 4

    def should_stop(self, tally: Tally) -> bool:
        return sum(label is not None for label in tally.labels) >= self.finished

    @property
    def counts_by_completion(self) -> bool:
        return True


Stopping = Annotated[
    NoStop | Agreement | Beta | Dirichlet | Lead | FirstFinished,
    Field(discriminator="rule"),
    BeforeValidator(rule_of_name),
]
"""A stopping rule as a strategy's parameter: `"beta"`, or `{"rule": "beta", "confidence": 0.99}`; likewise the
others."""

SamplingMode = Literal["auto", "rounds", "race"]
"""How samples are taken under a stopping rule. "rounds": as few at a time as could be enough, then the rule decides.
"race": several at once, the rule decides after each that finishes, and the rest are cancelled. "auto": a race if tokens
cost no money, else rounds, since a provider may bill cancelled samples."""
