"""Training `auto`: a model of each arm's accuracy and cost fitted to evaluation runs, and the value of choosing by it.

At every price the choice is another policy, from the most likely answer at any cost to the cheapest. Between the two
policies whose mean costs enclose that of an arm, each question is assigned at random, with the probability at which the
mean costs are equal: so `auto` is compared with the arm at the same mean cost, question by question, as a policy that
can be run. The baseline without signals is the best random mix of two arms at that cost, chosen with hindsight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

import numpy as np

from ....core.blas_threads import one_blas_thread
from ....core.errors import UserError
from ....core.version import __version__
from ....routers.auto import estimate_arm
from ....routers.features import FeatureSpace, QuestionFeatures
from ....routers.router_files import Arm, AutoRouterFile, TrainedOn
from ...calibration import assign_folds
from ...datasets.items import is_held_out
from ...statistics.intervals import RESAMPLES, Interval, bootstrap
from ...statistics.outcomes import Array, Index
from .arm_table import ArmTable
from .fitting import FOLDS, QuestionSignals, feature_matrix, fit_right, fit_tokens, make_space

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


@dataclass(frozen=True)
class Policy:
    """Scores and costs of one way to choose, `[questions]` each."""

    right: Array
    cost: Array


def choose_arms(predicted: PredictedArms, price: float) -> Index:
    """The arm of the highest value for each question; of equal ones the cheaper, then the first, `[questions]`."""
    worth = predicted.right - price * predicted.cost / 1000
    order = np.lexsort((predicted.cost, -worth), axis=1)
    result: Index = order[:, 0]
    return result


def at_price(
    predicted: PredictedArms,
    right: Array,
    cost: Array,
    clusters: Index,
    price: float,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PriceOutcome:
    """`auto` at one price.

    Args:
        right: Score of each arm, `[questions, arms]`.
        cost: Cost of each arm, `[questions, arms]`.
        clusters: Group of each question, `[questions]`.
        price: Of 1000 tokens.
    """
    picks = choose_arms(predicted, price)
    policy = _policy(picks, right, cost)
    mixes = best_random_mix(_singles(right, cost), float(policy.cost.mean()))
    return PriceOutcome(
        price=price,
        right=float(policy.right.mean()),
        cost=float(policy.cost.mean()),
        shares=tuple(map(float, np.bincount(picks, minlength=right.shape[1]) / len(picks))),
        over_random=_difference(policy.right - mixes, clusters, resamples, seed),
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


def compare_with_arms(
    predicted: PredictedArms, right: Array, cost: Array, clusters: Index, *, resamples: int = RESAMPLES, seed: int = 0
) -> list[ArmComparison]:
    """`auto` next to every arm, at the arm's mean cost.

    Args:
        right: Score of each arm, `[questions, arms]`.
        cost: Cost of each arm, `[questions, arms]`.
        clusters: Group of each question, `[questions]`.
    """
    policies = [_policy(choose_arms(predicted, price), right, cost) for price in prices_of(predicted)]
    singles = _singles(right, cost)
    results = []
    for arm, single in enumerate(singles):
        target = float(single.cost.mean())
        auto, reach = at_cost(policies, target)
        mixes = best_random_mix(singles, float(auto.cost.mean()))
        results.append(
            ArmComparison(
                arm=arm,
                right=float(single.right.mean()),
                cost=target,
                reach=reach,
                auto_right=float(auto.right.mean()),
                auto_cost=float(auto.cost.mean()),
                difference=_difference(auto.right - single.right, clusters, resamples, seed),
                over_random=_difference(auto.right - mixes, clusters, resamples, seed),
            )
        )
    return results


def best_random_mix(singles: Sequence[Policy], cost: float) -> Array:
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


def value_over_arms(
    predicted: PredictedArms,
    right: Array,
    cost: Array,
    clusters: Index,
    price: float,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[ScoreDifference]:
    """Worth of `auto` at a price less that of every arm: score less price * cost / 1000, question by question."""
    auto = _policy(choose_arms(predicted, price), right, cost)
    own = auto.right - price * auto.cost / 1000
    return [
        _difference(own - (right[:, a] - price * cost[:, a] / 1000), clusters, resamples, seed)
        for a in range(right.shape[1])
    ]


def _singles(right: Array, cost: Array) -> list[Policy]:
    """Every arm for all questions."""
    return [Policy(right[:, a], cost[:, a]) for a in range(right.shape[1])]


def _policy(picks: Index, right: Array, cost: Array) -> Policy:
    rows = np.arange(len(picks))
    return Policy(right[rows, picks], cost[rows, picks])


def at_cost(policies: Sequence[Policy], target: float) -> tuple[Policy, Reach]:
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
        Policy((1 - part) * low.right + part * high.right, (1 - part) * low.cost + part * high.cost),
        "equal",
    )


def _difference(d: Array, clusters: Index, resamples: int, seed: int) -> ScoreDifference:
    spread = bool(np.ptp(d) > 1e-12)
    return ScoreDifference(float(d.mean()), bootstrap(d, clusters, resamples=resamples, seed=seed) if spread else None)


PRICES: Final = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Prices of 1000 tokens that are reported next to the chosen one."""


@dataclass(frozen=True)
class PolicyValue:
    """The value of choosing on questions that the fit did not use.

    Attributes:
        questions: How many there are.
        comparisons: `auto` next to each arm at that arm's cost.
        worth: Worth of `auto` at the file's price less that of each arm.
        prices: `auto` at several prices, the file's among them.
    """

    questions: int
    comparisons: tuple[ArmComparison, ...]
    worth: tuple[ScoreDifference, ...]
    prices: tuple[PriceOutcome, ...]


@dataclass(frozen=True)
class TrainedAuto:
    """A trained router and its value.

    Attributes:
        file: The router, fitted to all training questions.
        crossed: Its value by cross-validation.
        held: Its value on the held-out questions; None if none were.
        entropy: Training questions whose first-token entropy is known.
        embedded: Those whose embedding is.
    """

    file: AutoRouterFile
    crossed: PolicyValue
    held: PolicyValue | None
    entropy: int
    embedded: int


def train_auto(
    table: ArmTable, gathered: QuestionSignals, *, price: float, holdout: float = 0.0, folds: int = FOLDS, seed: int = 0
) -> TrainedAuto:
    """Train a router.

    Args:
        price: Of 1000 tokens, in chance of being right.
        holdout: Share of the questions that are held out, by the digest of their text.

    Raises:
        UserError: Too few questions are left to train on, or none is held out.
    """
    training, held = split_questions(table, holdout, folds)
    own = table.only(training)
    signals = [gathered.signals[i] for i in training]
    with one_blas_thread():
        file = fit_file(own, signals, gathered, price=price, holdout=holdout)
        values = cross_validated_arms(own, signals, gathered, folds, seed)
    crossed = value_of(values, own, price, seed)
    kept = None
    if held:
        other = table.only(held)
        kept = value_of(predict_arms(file.arms, file.space, [gathered.signals[i] for i in held]), other, price, seed)
    return TrainedAuto(
        file=file,
        crossed=crossed,
        held=kept,
        entropy=sum(s.support is not None for s in signals),
        embedded=sum(bool(s.vector) for s in signals),
    )


def split_questions(table: ArmTable, holdout: float, folds: int) -> tuple[list[int], list[int]]:
    """Positions of the questions to train on, and of those held out.

    Raises:
        UserError: Some are to be held out, and none is; none is left; or too few are for that many folds.
    """
    held = [i for i, digest in enumerate(table.digests) if is_held_out(digest, holdout)]
    training = [i for i, digest in enumerate(table.digests) if not is_held_out(digest, holdout)]
    if not training or (holdout and not held):
        which = "held out" if training else "left to train on"
        raise UserError(f"none of the {len(table.digests)} questions is {which}", hint="choose another --holdout")
    groups = len({table.groups[i] for i in training})
    if groups < 2 * folds:
        raise UserError(
            f"{groups} groups of questions are left to train on, too few for {folds} folds",
            hint="lower --holdout or --folds, or evaluate on more questions",
        )
    return training, held


def fit_file(
    table: ArmTable, signals: Sequence[QuestionFeatures], gathered: QuestionSignals, *, price: float, holdout: float
) -> AutoRouterFile:
    """The router of all these questions.

    Args:
        price: Of 1000 tokens.
        holdout: Share of all questions that were held out.
    """
    space = make_space(signals, embedding=gathered.embedding, embedding_identity=gathered.embedding_identity)
    return AutoRouterFile(
        price=price,
        space=space,
        arms=fit_arms(table, space, feature_matrix(space, signals)),
        trained=trained_on(table, holdout),
    )


def trained_on(table: ArmTable, holdout: float) -> TrainedOn:
    """Where a router of these questions comes from."""
    return TrainedOn(
        models=table.models,
        engines=table.engines,
        runs=table.runs,
        datasets=table.datasets,
        questions=len(table.questions),
        seeds=table.seeds,
        held_out=holdout,
        digests=tuple(sorted(set(table.digests))),
        version=__version__,
        made=datetime.now(UTC).date(),
    )


def fit_arms(table: ArmTable, space: FeatureSpace, x: Array) -> tuple[Arm, ...]:
    """The fitted arm of each column.

    Args:
        x: Their numbers, `[questions, size]`.
    """
    arms = []
    for a, arm in enumerate(table.arms):
        right, tokens = table.right[:, a], table.tokens[:, a]
        total = float(tokens.sum())
        arms.append(
            Arm(
                label=arm.label,
                strategy=arm.strategy,
                parameters=arm.parameters,
                role=arm.role,
                needs=arm.needs,
                effort=arm.effort,
                right=fit_right(space, x, right, table.groups),
                tokens=fit_tokens(space, x, tokens, table.groups),
                cost=float(table.cost[:, a].sum()) / total if total else 1.0,
                calls=arm.calls,
                reward_calls=arm.reward_calls,
                share_right=float(right.mean()),
                mean_tokens=float(tokens.mean()),
            )
        )
    return tuple(arms)


def predict_arms(arms: Sequence[Arm], space: FeatureSpace, signals: Sequence[QuestionFeatures]) -> PredictedArms:
    """The predictions of arms for questions."""
    results = [[estimate_arm(arm, space, row, 0.0) for arm in arms] for row in feature_matrix(space, signals)]
    return PredictedArms(
        right=np.array([[one.right for one in row] for row in results]),
        cost=np.array([[one.arm.cost * one.tokens for one in row] for row in results]),
    )


def cross_validated_arms(
    table: ArmTable, signals: Sequence[QuestionFeatures], gathered: QuestionSignals, folds: int, seed: int = 0
) -> PredictedArms:
    """Predictions for each question by a fit without its fold, the choice of complexity included."""
    fold = assign_folds(table.groups, folds, seed)
    right, cost = np.empty(table.right.shape), np.empty(table.right.shape)
    for i in range(folds):
        held, rest = np.flatnonzero(fold == i).tolist(), np.flatnonzero(fold != i).tolist()
        own = [signals[j] for j in rest]
        space = make_space(own, embedding=gathered.embedding, embedding_identity=gathered.embedding_identity)
        arms = fit_arms(table.only(rest), space, feature_matrix(space, own))
        values = predict_arms(arms, space, [signals[j] for j in held])
        right[held], cost[held] = values.right, values.cost
    return PredictedArms(right, cost)


def value_of(predicted: PredictedArms, table: ArmTable, price: float, seed: int = 0) -> PolicyValue:
    """The value of choosing on questions that the fits did not use."""
    clusters = table.clusters
    return PolicyValue(
        questions=len(table.questions),
        comparisons=tuple(compare_with_arms(predicted, table.right, table.cost, clusters, seed=seed)),
        worth=tuple(value_over_arms(predicted, table.right, table.cost, clusters, price, seed=seed)),
        prices=tuple(
            at_price(predicted, table.right, table.cost, clusters, p, seed=seed) for p in sorted({*PRICES, price})
        ),
    )
