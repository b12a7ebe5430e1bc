"""Stopping rules: whether further samples of a question are worth their cost, and whether a thought is.

A rule is frozen parameters and pure functions of a `Tally` of the finished samples, or of a `TrialTally` of one
thought's trial answers: no model, no clock, no state. It reads the samples in the order in which they were started
(all rules but "first-finished"), so it decides the same in rounds and in a race of any width, live or from the run
store. In order of completion short samples would come first, and short samples are not as often right as others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from ..core.messages import LogitsProcessorSpec
from ..serving.model import Feature
from .limits import MAX_CHAINS, MAX_ITEMS, MAX_TOKENS, MAX_WEIGHT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONFIDENCE_PROCESSOR = "stop_on_confidence"


@dataclass(frozen=True)
class Tally:
    """The finished samples of a question, in the order in which the rule counts them.

    Attributes:
        labels: Class of each sample's answer, numbered from 0 in the order in which classes were first reached; None
            for a sample without an answer.
        weights: Weight of each sample's vote; 1 unless a rule weights votes.
        quality: Probability that each sample is as good as another attempt, by the model's self-evaluation; None if it
            was not evaluated or gave no signal.
        lowest_confidence: Lowest group confidence of each sample, in nats; None if unknown.
        max_samples: Maximum number of samples.
        num_tokens: Length of each sample in tokens, its thought included; empty if no rule reads it.
    """

    labels: tuple[int | None, ...] = ()
    weights: tuple[float, ...] = ()
    quality: tuple[float | None, ...] = ()
    lowest_confidence: tuple[float | None, ...] = ()
    max_samples: int = 1
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

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the total vote weight by class; all 0 if no vote has a weight."""
        sums = [0.0] * len(self.votes)
        weights = self.weights or (1.0,) * self.num_finished
        for label, weight in zip(self.labels, weights, strict=True):
            if label is not None:
                sums[label] += weight
        total = sum(sums)
        return tuple(s / total if total > 0 else 0.0 for s in sums)

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
            weights=(self.weights or (1.0,) * self.num_finished) + (1.0,) * count,
            quality=self.quality + (None,) * count,
            lowest_confidence=self.lowest_confidence + (None,) * count,
            num_tokens=self.num_tokens and self.num_tokens + (max(self.num_tokens),) * count,
            max_samples=self.max_samples,
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

    def race_size(self, tally: Tally, remaining: int) -> int:
        """Number of samples to start at once in a race, from 1 to `remaining`: all, unless the rule has a warm-up."""
        return remaining

    def logits_processors(self, tally: Tally) -> tuple[LogitsProcessorSpec, ...]:
        """Logits processors of the next samples."""
        return ()

    def vote_weights(self, tally: Tally) -> tuple[float, ...]:
        """Weight of each sample in the vote that follows."""
        return tally.weights or (1.0,) * tally.num_finished

    @property
    def counts_by_completion(self) -> bool:
        """Whether a race counts samples in order of completion, rather than in the order in which they were started."""
        return False

    @property
    def required_features(self) -> frozenset[Feature]:
        """Features that the model must have."""
        return frozenset()

    @property
    def needs_quality(self) -> bool:
        """Whether the rule reads the self-evaluation of each finished sample."""
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


class SelfEvaluated(StoppingRule):
    """Stop when the best sample's quality, by the model's self-evaluation, is `threshold` or more.

    `threshold <= 0` takes a single sample, a threshold above 1 takes all. There is no default: the prompted signal is
    over-confident, so read the threshold off a calibration curve of the model.

    Source: Manvi et al., "Adaptive Inference-Time Compute" (2024, arXiv:2410.02725), section on adaptive sampling.
    """

    rule: Literal["self-evaluation"] = "self-evaluation"
    threshold: Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT, description="quality at which to stop")]

    def should_stop(self, tally: Tally) -> bool:
        """A sample without a signal stops nothing, unless any sample would."""
        if self.threshold <= 0:
            return True
        return max((q for q in tally.quality if q is not None), default=-1.0) >= self.threshold

    def round_size(self, tally: Tally, remaining: int) -> int:
        """1, 1, 2, 4, 8, …: the number of rounds grows with the logarithm of the number of samples."""
        return min(remaining, max(1, tally.num_finished))

    @property
    def needs_quality(self) -> bool:
        return True


class OnlineConfidence(StoppingRule):
    """Warm-up samples set a threshold; a later sample ends where its group confidence falls below it.

    A sample's weight in the vote is its lowest group confidence. Sampling stops once the leader has `share` of
    the weight.

    Source: Fu et al., "Deep Think with Confidence" (2025, arXiv:2508.15260), section 3.2 and equations 2 to 5.

    Differs: the window is 2048 tokens in the paper, whose chains are many thousands long; a window longer than a chain
    never fills, so that the chain cannot be ended and has no weight of its own.
    """

    rule: Literal["confidence"] = "confidence"
    warm_up: Annotated[int, Field(ge=1, le=MAX_CHAINS, description="samples that set the threshold")] = 8
    keep: Annotated[
        float, Field(gt=0, le=1, description="share of the warm-up samples that the threshold would have kept")
    ] = 0.9
    window: Annotated[int, Field(ge=1, le=MAX_TOKENS, description="tokens of a group")] = 64
    top: Annotated[int, Field(ge=1, le=MAX_ITEMS, description="most likely tokens that count at each position")] = 20
    share: Annotated[float, Field(gt=0.5, le=1, description="leader's share of the weight at which to stop")] = 0.95
    scope: Annotated[
        Literal["all", "thought"], Field(description="tokens that groups are made of: all, or those of the thought")
    ] = "all"

    def should_stop(self, tally: Tally) -> bool:
        return tally.num_finished >= self.warm_up and max(tally.shares, default=0.0) >= self.share

    def round_size(self, tally: Tally, remaining: int) -> int:
        """The warm-up samples, then one at a time, since a weight can be anything."""
        return min(remaining, max(1, self.warm_up - tally.num_finished))

    def race_size(self, tally: Tally, remaining: int) -> int:
        """The warm-up samples, then all others."""
        return min(remaining, self.warm_up) if tally.num_finished < self.warm_up else remaining

    def logits_processors(self, tally: Tally) -> tuple[LogitsProcessorSpec, ...]:
        """The processor with the threshold; during warm-up, with one that no confidence is below."""
        args: dict[str, JsonValue] = {
            "threshold": self.confidence_threshold(tally),
            "window": self.window,
            "top": self.top,
        }
        if self.scope == "thought":
            args["scope"] = "thought"
        return (LogitsProcessorSpec(name=CONFIDENCE_PROCESSOR, args=args),)

    def confidence_threshold(self, tally: Tally) -> float:
        """Group confidence below which a sample ends, in nats; 0, which no confidence is below, during warm-up.

        The paper's percentile: the share `keep` of the warm-up samples stayed above it.
        """
        known = [v for v in tally.lowest_confidence[: self.warm_up] if v is not None]
        return percentile(known, 1.0 - self.keep) if tally.num_finished >= self.warm_up and known else 0.0

    @property
    def required_features(self) -> frozenset[Feature]:
        return frozenset({"logits_processors"})


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of the values lies, linear between neighbours; `values` is not empty."""
    ranked = sorted(values)
    position = share * (len(ranked) - 1)
    below = int(position)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (position - below) * (ranked[above] - ranked[below])


@dataclass(frozen=True)
class TrialTally:
    """The trial answers of one thought, in order: what the model would answer if the thought ended there.

    Attributes:
        labels: Class of each answer, numbered from 0 in the order in which classes were first reached; None for a trial
            without an answer.
        confidence: Geometric mean of the probabilities of each trial's tokens, in [0, 1]; None if unknown.
    """

    labels: tuple[int | None, ...] = ()
    confidence: tuple[float | None, ...] = ()


class EarlyExit(StoppingRule):
    """End a thought at a trial answer: after `agree` equal ones in a row, or at one of the given confidence.

    After every `probe_tokens` tokens of a thought the model is asked for the answer as if the thought ended there, and
    continues it as if it had not been asked. The trial answer that ends the thought is the chain's answer. `chains` may
    stop the sampling of further chains besides.

    The model has to continue thoughts exactly. A trial costs its answer's tokens, and a pass over them; the thought
    before it is in the prefix cache.

    Sources: Fu et al., "Efficiently Scaling LLM Reasoning with Certaindex" (2024, arXiv:2412.20993), whose Dynasor-CoT
    probes at intervals until the answers agree; Yang et al., "Dynamic Early Exit in Reasoning Models" (2025,
    arXiv:2504.15895), section 3, whose DEER ends a thought at a confident trial answer.

    Differs: DEER tries an answer where the model would write "Wait", here one is tried at intervals; Dynasor discards
    trials that hedge. The answer after the exit is the trial, of which both write a longer form.
    """

    rule: Literal["early-exit"] = "early-exit"
    probe_tokens: Annotated[
        int, Field(ge=1, le=MAX_TOKENS, description="tokens of a thought between two trial answers")
    ] = 256
    agree: Annotated[
        int | None,
        Field(ge=2, le=MAX_ITEMS, description="equal trial answers in a row that end a thought; null ignores them"),
    ] = 3
    confidence: Annotated[
        float | None, Field(gt=0, le=1, description="confidence of a trial answer that ends a thought; null ignores it")
    ] = None
    chains: Annotated[
        NoStop | Agreement | Beta | Dirichlet | Lead,
        Field(discriminator="rule", description="stopping rule over the finished chains"),
        BeforeValidator(rule_of_name),
    ] = NoStop()

    @model_validator(mode="after")
    def _has_a_condition(self) -> Self:
        if self.agree is None and self.confidence is None:
            raise ValueError("early-exit needs agree or confidence, both are null")
        return self

    def should_exit(self, trials: TrialTally) -> bool:
        """Whether the last trial answer is the answer."""
        if not trials.labels or trials.labels[-1] is None:
            return False
        last = trials.labels[-self.agree :] if self.agree is not None else ()
        if self.agree is not None and len(last) == self.agree and len(set(last)) == 1:
            return True
        confidence = trials.confidence[-1]
        return self.confidence is not None and confidence is not None and confidence >= self.confidence

    def should_stop(self, tally: Tally) -> bool:
        return self.chains.should_stop(tally)

    def round_size(self, tally: Tally, remaining: int) -> int:
        return self.chains.round_size(tally, remaining)

    def vote_weights(self, tally: Tally) -> tuple[float, ...]:
        return self.chains.vote_weights(tally)


ThoughtStopping = Annotated[
    NoStop | EarlyExit,
    Field(
        discriminator="rule",
        description="none, or early-exit, which ends a thought at a trial answer",
        exclude_if=lambda value: isinstance(value, NoStop),
    ),
    BeforeValidator(rule_of_name),
]
"""The stopping rules of a strategy that samples no fixed number of chains; in no dump if unset."""

Stopping = Annotated[
    NoStop | Agreement | Beta | Dirichlet | Lead | FirstFinished | SelfEvaluated | OnlineConfidence | EarlyExit,
    Field(discriminator="rule"),
    BeforeValidator(rule_of_name),
]
"""A stopping rule as a strategy's parameter: `"beta"`, or `{"rule": "beta", "confidence": 0.99}`; likewise the
others."""

SamplingMode = Literal["auto", "rounds", "race"]
"""How samples are taken under a stopping rule. "rounds": as few at a time as could be enough, then the rule decides.
"race": several at once, the rule decides after each that finishes, and the rest are cancelled. "auto": a race if tokens
cost no money, else rounds, since a provider may bill cancelled samples."""
