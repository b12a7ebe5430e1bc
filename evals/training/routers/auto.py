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
    """What is known of questions that took no part in a fit.

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
    """`auto` next to one way to answer.

    Attributes:
        way: Position of the way.
        right: Its mean score.
        cost: Its mean cost, in tokens.
        reach: Whether `auto` can be had at that cost; else its cheapest or dearest policy represents it.
        auto_right: Mean score of `auto` there.
        auto_cost: Its mean cost there.
        difference: Score of `auto` less that of the way.
        over_lots: Score of `auto` less that of the best lot between two single ways at its cost.
    """

    way: int
    right: float
    cost: float
    reach: Reach
    auto_right: float
    auto_cost: float
    difference: ScoreDifference
    over_lots: ScoreDifference


@dataclass(frozen=True)
class PriceOutcome:
    """`auto` at one price.

    Attributes:
        price: Of 1000 tokens.
        right: Its mean score.
        cost: Its mean cost, in tokens.
        shares: The share of the questions that each way gets, `[ways]`.
        over_lots: Its score less that of the best lot between two single ways at its cost.
    """

    price: float
    right: float
    cost: float
    shares: tuple[float, ...]
    over_lots: ScoreDifference


@dataclass(frozen=True)
class _Policy:
    """Scores and costs of one policy, `[questions]` each."""

    right: Array
    cost: Array


def choose_arms(told: PredictedArms, price: float) -> Index:
    """The arm of the highest value for each question; of equal ones the cheaper, then the first, `[questions]`."""
    worth = told.right - price * told.cost / 1000
    order = np.lexsort((told.cost, -worth), axis=1)
    result: Index = order[:, 0]
    return result


def at_price(
    told: PredictedArms,
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
        right: What was true of each way, `[questions, ways]`.
        cost: What it cost, `[questions, ways]`.
        clusters: Group of each question, `[questions]`.
        price: Of 1000 tokens.
    """
    picks = choose_arms(told, price)
    policy = _policy(picks, right, cost)
    lots = best_random_mix(_singles(right, cost), float(policy.cost.mean()))
    return PriceOutcome(
        price=price,
        right=float(policy.right.mean()),
        cost=float(policy.cost.mean()),
        shares=tuple(map(float, np.bincount(picks, minlength=right.shape[1]) / len(picks))),
        over_lots=_difference(policy.right - lots, clusters, resamples, seed),
    )


def prices_of(told: PredictedArms, most: int = MAX_PRICES) -> list[float]:
    """Prices between which the choices change: 0, one above all, and quantiles of those at which a question's do."""
    turning: list[Array] = []
    ways = told.right.shape[1]
    for a in range(ways):
        for b in range(ways):
            dearer = told.cost[:, a] - told.cost[:, b]
            gain = told.right[:, a] - told.right[:, b]
            counts = (dearer > 0) & (gain > 0)
            turning.append(1000 * gain[counts] / dearer[counts])
    every = np.unique(np.concatenate(turning)) if turning else np.zeros(0)
    if not len(every):
        return [0.0]
    inner = np.unique(np.quantile(every, np.linspace(0, 1, min(most, len(every)))))
    # just above a turning point the choice is the cheaper one
    return [0.0, *(float(p) * (1 + 1e-9) for p in inner)]


def compare_with_arms(
    told: PredictedArms, right: Array, cost: Array, clusters: Index, *, resamples: int = RESAMPLES, seed: int = 0
) -> list[ArmComparison]:
    """`auto` next to every way, at the way's mean cost.

    Args:
        right: What was true, `[questions, ways]`.
        cost: What it cost, `[questions, ways]`.
        clusters: Group of each question, `[questions]`.
    """
    policies = [_policy(choose_arms(told, price), right, cost) for price in prices_of(told)]
    singles = _singles(right, cost)
    results = []
    for way, single in enumerate(singles):
        target = float(single.cost.mean())
        auto, reach = _at_cost(policies, target)
        lots = best_random_mix(singles, float(auto.cost.mean()))
        results.append(
            ArmComparison(
                way=way,
                right=float(single.right.mean()),
                cost=target,
                reach=reach,
                auto_right=float(auto.right.mean()),
                auto_cost=float(auto.cost.mean()),
                difference=_difference(auto.right - single.right, clusters, resamples, seed),
                over_lots=_difference(auto.right - lots, clusters, resamples, seed),
            )
        )
    return results


def best_random_mix(singles: Sequence[_Policy], cost: float) -> Array:
    """Scores of the best lot between two single ways at a mean cost, `[questions]`; where all cost more, the cheapest.

    A way that costs less may be taken as it is: tokens need not be spent.
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
    told: PredictedArms,
    right: Array,
    cost: Array,
    clusters: Index,
    price: float,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[ScoreDifference]:
    """Worth of `auto` at a price less that of every way: score less price * cost / 1000, question by question."""
    auto = _policy(choose_arms(told, price), right, cost)
    own = auto.right - price * auto.cost / 1000
    return [
        _difference(own - (right[:, a] - price * cost[:, a] / 1000), clusters, resamples, seed)
        for a in range(right.shape[1])
    ]


def _singles(right: Array, cost: Array) -> list[_Policy]:
    """Every way for all questions."""
    return [_Policy(right[:, a], cost[:, a]) for a in range(right.shape[1])]


def _policy(picks: Index, right: Array, cost: Array) -> _Policy:
    rows = np.arange(len(picks))
    return _Policy(right[rows, picks], cost[rows, picks])


def _at_cost(policies: Sequence[_Policy], target: float) -> tuple[_Policy, Reach]:
    """The lot between two neighbouring policies whose mean cost is the target, or the end that is nearest to it."""
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
        _Policy((1 - part) * low.right + part * high.right, (1 - part) * low.cost + part * high.cost),
        "equal",
    )


def _difference(d: Array, clusters: Index, resamples: int, seed: int) -> ScoreDifference:
    spread = bool(np.ptp(d) > 1e-12)
    return ScoreDifference(float(d.mean()), bootstrap(d, clusters, resamples=resamples, seed=seed) if spread else None)


PRICES: Final = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Prices of 1000 tokens that are reported besides the chosen one."""


@dataclass(frozen=True)
class PolicyValue:
    """What choosing is worth on questions that took no part in the fit.

    Attributes:
        questions: How many there are.
        next to: `auto` next to each way at that way's cost.
        worth: Worth of `auto` at the file's price less that of each way.
        prices: `auto` at several prices, the file's among them.
    """

    questions: int
    beside: tuple[ArmComparison, ...]
    worth: tuple[ScoreDifference, ...]
    prices: tuple[PriceOutcome, ...]


@dataclass(frozen=True)
class TrainedAuto:
    """A trained router and what it is worth.

    Attributes:
        file: What `auto` chooses by, fitted to all training questions.
        crossed: Its value by cross-validation.
        held: Its value on the questions kept back; None if none were.
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
        holdout: Share of the questions that are kept back, by the digest of their text.

    Raises:
        UserError: Too few questions are left to train on, or none is kept back.
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
    """Positions of the questions to train on, and of those kept back.

    Raises:
        UserError: Some are to be kept back, and none is; none is left; or too few are for that many folds.
    """
    held = [i for i, digest in enumerate(table.digests) if is_held_out(digest, holdout)]
    training = [i for i, digest in enumerate(table.digests) if not is_held_out(digest, holdout)]
    if not training or (holdout and not held):
        which = "kept back" if training else "left to train on"
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
        holdout: Share of all questions that were kept back.
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
    """An arm for each way.

    Args:
        x: Their numbers, `[questions, size]`.
    """
    arms = []
    for a, way in enumerate(table.ways):
        right, tokens = table.right[:, a], table.tokens[:, a]
        total = float(tokens.sum())
        arms.append(
            Arm(
                label=way.label,
                strategy=way.strategy,
                parameters=way.parameters,
                role=way.role,
                needs=way.needs,
                right=fit_right(space, x, right, table.groups),
                tokens=fit_tokens(space, x, tokens, table.groups),
                cost=float(table.cost[:, a].sum()) / total if total else 1.0,
                calls=way.calls,
                reward_calls=way.reward_calls,
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
    """What is notified of each question by a fit that its fold took no part in, the choice of complexity included."""
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


def value_of(told: PredictedArms, table: ArmTable, price: float, seed: int = 0) -> PolicyValue:
    """What choosing is worth, where the fits knew none of the questions."""
    clusters = table.clusters
    return PolicyValue(
        questions=len(table.questions),
        beside=tuple(compare_with_arms(told, table.right, table.cost, clusters, seed=seed)),
        worth=tuple(value_over_arms(told, table.right, table.cost, clusters, price, seed=seed)),
        prices=tuple(at_price(told, table.right, table.cost, clusters, p, seed=seed) for p in sorted({*PRICES, price})),
    )
