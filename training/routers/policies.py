"""The value of choosing among arms: policies at every price, and at the cost of each arm.

At every price the choice is another policy, from the most likely answer at any cost to the cheapest. Between the two
policies whose mean costs enclose that of an arm, each question is assigned at random, with the probability at which the
mean costs are equal: so `auto` is compared with the arm at the same mean cost, question by question, as a policy that
can be run. The baseline without signals is the best random mix of two actions at that cost, chosen with hindsight: the
convex hull of the actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
from reason.evals.statistics.intervals import Interval, bootstrap
from reason.evals.statistics.outcomes import Array, Index

MAX_PRICES: Final = 200
Reach = Literal["equal", "auto costs less", "auto costs more"]


@dataclass(frozen=True)
class PredictedArms:
    """Predictions for questions that a fit did not use.

    Attributes:
        right: Predicted probability of being right, `[questions, arms]`.
        cost: Predicted cost in tokens, `[questions, arms]`.
    """

    right: Array
    cost: Array


@dataclass(frozen=True)
class PolicyOutcomes:
    """Scores and costs of one way to choose, `[questions]` each."""

    right: Array
    cost: Array


@dataclass(frozen=True)
class MeasuredArms:
    """Predictions and outcomes of arms for questions that the fits did not use.

    Attributes:
        labels: Name of each arm.
        predicted: Predictions.
        right: Scores, `[questions, arms]`; NaN where unknown.
        cost: Costs, likewise.
        clusters: Group of each question, numbered from 0, `[questions]`.
    """

    labels: tuple[str, ...]
    predicted: PredictedArms
    right: Array
    cost: Array
    clusters: Index

    @property
    def singles(self) -> list[PolicyOutcomes]:
        """Every action for all questions."""
        return single_policies(self.right, self.cost)

    @cached_property
    def policies(self) -> list[PolicyOutcomes]:
        """`auto` at every price at which choices change."""
        return policies_of(self.predicted, self.right, self.cost)


@dataclass(frozen=True)
class ScoreDifference:
    """A mean difference with its interval over questions; None where nothing differs."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class ArmComparison:
    """`auto` next to one arm.

    Attributes:
        arm: Position of the arm.
        right: Its mean score.
        cost: Its mean cost, in tokens.
        reach: Whether `auto` can be had at that cost; else its cheapest or dearest policy represents it.
        auto_right: Mean score of `auto` there.
        auto_cost: Its mean cost there.
        difference: Score of `auto` less that of the arm.
        over_random: Score of `auto` less that of the best random mix of two arms at its cost.
    """

    arm: int
    right: float
    cost: float
    reach: Reach
    auto_right: float
    auto_cost: float
    difference: ScoreDifference
    over_random: ScoreDifference


@dataclass(frozen=True)
class PriceOutcome:
    """`auto` at one price.

    Attributes:
        price: Of 1000 tokens.
        right: Its mean score.
        cost: Its mean cost, in tokens.
        shares: The share of the questions that each arm gets, `[arms]`.
        over_random: Its score less that of the best random mix of two arms at its cost.
    """

    price: float
    right: float
    cost: float
    shares: tuple[float, ...]
    over_random: ScoreDifference


def choose_arms(predicted: PredictedArms, price: float) -> Index:
    """The arm of the highest value for each question; of equal ones the cheaper, then the first, `[questions]`."""
    worth = predicted.right - price * predicted.cost / 1000
    order = np.lexsort((predicted.cost, -worth), axis=1)
    result: Index = order[:, 0]
    return result


def at_price(measured: MeasuredArms, price: float) -> PriceOutcome:
    """`auto` at one price of 1000 tokens."""
    picks = choose_arms(measured.predicted, price)
    policy = policy_of(picks, measured.right, measured.cost)
    mixes = best_random_mix(measured.singles, float(policy.cost.mean()))
    return PriceOutcome(
        price=price,
        right=float(policy.right.mean()),
        cost=float(policy.cost.mean()),
        shares=tuple(map(float, np.bincount(picks, minlength=len(measured.labels)) / len(picks))),
        over_random=score_difference(policy.right - mixes, measured.clusters),
    )


def prices_of(predicted: PredictedArms, max_prices: int = MAX_PRICES) -> list[float]:
    """Prices between which the choices change: 0, one above all, and quantiles of those at which a question's do."""
    turning: list[Array] = []
    arms = predicted.right.shape[1]
    for a in range(arms):
        for b in range(arms):
            dearer = predicted.cost[:, a] - predicted.cost[:, b]
            gain = predicted.right[:, a] - predicted.right[:, b]
            counts = (dearer > 0) & (gain > 0)
            turning.append(1000 * gain[counts] / dearer[counts])
    every = np.unique(np.concatenate(turning)) if turning else np.zeros(0)
    if not len(every):
        return [0.0]
    inner = np.unique(np.quantile(every, np.linspace(0, 1, min(max_prices, len(every)))))
    # just above a turning point the choice is the cheaper one
    return [0.0, *(float(p) * (1 + 1e-9) for p in inner)]


def compare_with_arms(measured: MeasuredArms) -> list[ArmComparison]:
    """`auto` next to every action, at the action's mean cost."""
    singles = measured.singles
    results = []
    for arm, single in enumerate(singles):
        target = float(single.cost.mean())
        auto, reach = at_cost(measured.policies, target)
        mixes = best_random_mix(singles, float(auto.cost.mean()))
        results.append(
            ArmComparison(
                arm=arm,
                right=float(single.right.mean()),
                cost=target,
                reach=reach,
                auto_right=float(auto.right.mean()),
                auto_cost=float(auto.cost.mean()),
                difference=score_difference(auto.right - single.right, measured.clusters),
                over_random=score_difference(auto.right - mixes, measured.clusters),
            )
        )
    return results


def best_random_mix(singles: Sequence[PolicyOutcomes], cost: float) -> Array:
    """Scores of the best random mix of two arms at a mean cost, `[questions]`; where all cost more, the cheapest.

    An arm that costs less may be taken as it is: tokens need not be spent.
    """
    costs = np.array([s.cost.mean() for s in singles])
    means = np.array([s.right.mean() for s in singles])
    best, scores = -np.inf, singles[int(np.lexsort((-means, costs))[0])].right
    for a, left in enumerate(singles):
        if costs[a] <= cost and means[a] > best:
            best, scores = float(means[a]), left.right
        for b, other in enumerate(singles):
            if costs[a] <= cost < costs[b]:
                part = (cost - costs[a]) / (costs[b] - costs[a])
                value = (1 - part) * means[a] + part * means[b]
                if value > best:
                    best, scores = float(value), (1 - part) * left.right + part * other.right
    return scores


def value_over_arms(measured: MeasuredArms, price: float) -> list[ScoreDifference]:
    """Worth of `auto` at a price less that of every action: score less price * cost / 1000, question by question."""
    chosen = policy_of(choose_arms(measured.predicted, price), measured.right, measured.cost)
    auto, *others = (policy.right - price * policy.cost / 1000 for policy in (chosen, *measured.singles))
    return [score_difference(auto - other, measured.clusters) for other in others]


def policies_of(predicted: PredictedArms, right: Array, cost: Array) -> list[PolicyOutcomes]:
    """The policy at every price at which choices change.

    Args:
        right: Scores, `[questions, arms]`.
        cost: Costs, likewise.
    """
    return [policy_of(choose_arms(predicted, price), right, cost) for price in prices_of(predicted)]


def single_policies(right: Array, cost: Array) -> list[PolicyOutcomes]:
    """Every arm for all questions.

    Args:
        right: Scores, `[questions, arms]`.
        cost: Costs, likewise.
    """
    return [PolicyOutcomes(right[:, a], cost[:, a]) for a in range(right.shape[1])]


def policy_of(picks: Index, right: Array, cost: Array) -> PolicyOutcomes:
    """The policy of an arm for each question.

    Args:
        picks: The arms, `[questions]`.
        right: Scores, `[questions, arms]`.
        cost: Costs, likewise.
    """
    rows = np.arange(len(picks))
    return PolicyOutcomes(right[rows, picks], cost[rows, picks])


def at_cost(policies: Sequence[PolicyOutcomes], target: float) -> tuple[PolicyOutcomes, Reach]:
    """The random mix of two policies, neighbours in mean cost, that costs the target; or the nearest policy."""
    ordered = sorted(policies, key=lambda p: float(p.cost.mean()))
    means = [float(p.cost.mean()) for p in ordered]
    if target <= means[0]:
        return ordered[0], "equal" if np.isclose(target, means[0]) else "auto costs more"
    if target >= means[-1]:
        return ordered[-1], "equal" if np.isclose(target, means[-1]) else "auto costs less"
    above = int(np.searchsorted(means, target, side="right"))
    low, high = ordered[above - 1], ordered[above]
    part = (target - means[above - 1]) / (means[above] - means[above - 1])
    return (
        PolicyOutcomes((1 - part) * low.right + part * high.right, (1 - part) * low.cost + part * high.cost),
        "equal",
    )


def score_difference(d: Array, clusters: Index) -> ScoreDifference:
    """The mean of paired differences, `[questions]`, with its interval by clusters."""
    return ScoreDifference(float(d.mean()), bootstrap(d, clusters) if np.ptp(d) > 1e-12 else None)


PRICES: Final = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Prices of 1000 tokens that are reported next to the chosen one."""


@dataclass(frozen=True)
class PolicyValue:
    """The value of choosing on questions that the fit did not use.

    Attributes:
        labels: Name of each arm that some price chooses among.
        questions: How many there are.
        comparisons: `auto` next to each action at that action's cost.
        worth: Worth of `auto` at the file's price less that of each action.
        prices: `auto` at several prices, the file's among them.
    """

    labels: tuple[str, ...]
    questions: int
    comparisons: tuple[ArmComparison, ...]
    worth: tuple[ScoreDifference, ...]
    prices: tuple[PriceOutcome, ...]


def value_of(measured: MeasuredArms, price: float) -> PolicyValue:
    """The value of choosing on questions that the fits did not use."""
    return PolicyValue(
        labels=measured.labels,
        questions=len(measured.right),
        comparisons=tuple(compare_with_arms(measured)),
        worth=tuple(value_over_arms(measured, price)),
        prices=tuple(at_price(measured, p) for p in sorted({*PRICES, price})),
    )
