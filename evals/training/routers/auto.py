"""Training `auto`: the arms' lines fitted to evaluation runs, and what choosing by them is worth on other questions.

What choosing is worth: `auto` beside every single way to answer where both cost the same.

At every price the choice is another policy, from the likeliest answer whatever it costs to the cheapest. Between the
two policies whose mean costs lie next to a way's, each question is decided by lot, with the chance at which the mean
costs are equal; so what is compared is a policy that can be run, at the same average tokens, question by question.

Beside it stands what needs no signal: the best lot between two single ways at that cost. Which two is chosen with the
answers at hand, in that baseline's favour.
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
from ....routers.features import Signals, Space
from ....routers.router_files import Arm, AutoRouterFile, TrainedOn, estimate
from ...calibration import folds_of
from ...statistics.intervals import RESAMPLES, Interval, bootstrap
from ...statistics.outcomes import Array, Index
from ..navigator.plan import is_held_out
from .arm_table import ArmTable
from .fitting import FOLDS, Gathered, fit_right, fit_tokens, make_space, rows_of

MOST_PRICES: Final = 200
Reach = Literal["equal", "auto costs less", "auto costs more"]


@dataclass(frozen=True)
class Told:
    """What is known of questions that took no part in a fit.

    Attributes:
        right: P(right) as told, `[questions, ways]`.
        cost: Expected cost as told, in tokens, `[questions, ways]`.
    """

    right: Array
    cost: Array


@dataclass(frozen=True)
class Difference:
    """A mean difference with its interval over questions; None where nothing differs."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Beside:
    """`auto` beside one way to answer.

    Attributes:
        way: Position of the way.
        right: Its mean score.
        cost: Its mean cost, in tokens.
        reach: Whether `auto` can be had at that cost; else its cheapest or dearest policy stands for it.
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
    difference: Difference
    over_lots: Difference


@dataclass(frozen=True)
class AtPrice:
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
    over_lots: Difference


@dataclass(frozen=True)
class _Policy:
    """Scores and costs of one policy, `[questions]` each."""

    right: Array
    cost: Array


def chosen(told: Told, price: float) -> Index:
    """The way of most worth for each question; of equal ones the cheaper, then the first, `[questions]`."""
    worth = told.right - price * told.cost / 1000
    order = np.lexsort((told.cost, -worth), axis=1)
    found: Index = order[:, 0]
    return found


def at_price(
    told: Told,
    right: Array,
    cost: Array,
    clusters: Index,
    price: float,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> AtPrice:
    """`auto` at one price.

    Args:
        told: What is told of each question.
        right: What was true of each way, `[questions, ways]`.
        cost: What it cost, `[questions, ways]`.
        clusters: Group of each question, `[questions]`.
        price: Of 1000 tokens.
        resamples: Resamples of the interval.
        seed: Its seed.
    """
    picks = chosen(told, price)
    policy = _policy(picks, right, cost)
    lots = best_lot(_singles(right, cost), float(policy.cost.mean()))
    return AtPrice(
        price=price,
        right=float(policy.right.mean()),
        cost=float(policy.cost.mean()),
        shares=tuple(map(float, np.bincount(picks, minlength=right.shape[1]) / len(picks))),
        over_lots=_difference(policy.right - lots, clusters, resamples, seed),
    )


def prices_of(told: Told, most: int = MOST_PRICES) -> list[float]:
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


def beside_ways(
    told: Told, right: Array, cost: Array, clusters: Index, *, resamples: int = RESAMPLES, seed: int = 0
) -> list[Beside]:
    """`auto` beside every way, at the way's mean cost.

    Args:
        told: What is told of each question, by fits that it took no part in.
        right: What was true, `[questions, ways]`.
        cost: What it cost, `[questions, ways]`.
        clusters: Group of each question, `[questions]`.
        resamples: Resamples of the intervals.
        seed: Their seed.
    """
    policies = [_policy(chosen(told, price), right, cost) for price in prices_of(told)]
    singles = _singles(right, cost)
    found = []
    for way, single in enumerate(singles):
        target = float(single.cost.mean())
        auto, reach = _at_cost(policies, target)
        lots = best_lot(singles, float(auto.cost.mean()))
        found.append(
            Beside(
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
    return found


def best_lot(singles: Sequence[_Policy], cost: float) -> Array:
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


def worth_beside(
    told: Told, right: Array, cost: Array, clusters: Index, price: float, *, resamples: int = RESAMPLES, seed: int = 0
) -> list[Difference]:
    """Worth of `auto` at a price less that of every way: score less price * cost / 1000, question by question."""
    auto = _policy(chosen(told, price), right, cost)
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


def _difference(d: Array, clusters: Index, resamples: int, seed: int) -> Difference:
    spread = bool(np.ptp(d) > 1e-12)
    return Difference(float(d.mean()), bootstrap(d, clusters, resamples=resamples, seed=seed) if spread else None)


PRICES: Final = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Prices of 1000 tokens that are told of besides the chosen one."""


@dataclass(frozen=True)
class Value:
    """What choosing is worth on questions that took no part in the fit.

    Attributes:
        questions: How many there are.
        beside: `auto` beside each way at that way's cost.
        worth: Worth of `auto` at the file's price less that of each way.
        prices: `auto` at several prices, the file's among them.
    """

    questions: int
    beside: tuple[Beside, ...]
    worth: tuple[Difference, ...]
    prices: tuple[AtPrice, ...]


@dataclass(frozen=True)
class TrainedAuto:
    """A trained router and what it is worth.

    Attributes:
        file: What `auto` chooses by, fitted to all training questions.
        crossed: Its value by cross-validation: each question told by a fit without its fold.
        held: Its value on the questions kept back; None if none were.
        entropy: Training questions whose first-token entropy is known.
        embedded: Those whose embedding is.
    """

    file: AutoRouterFile
    crossed: Value
    held: Value | None
    entropy: int
    embedded: int


def train_auto(
    table: ArmTable, gathered: Gathered, *, price: float, holdout: float = 0.0, folds: int = FOLDS, seed: int = 0
) -> TrainedAuto:
    """Train a router.

    Args:
        table: Questions by ways.
        gathered: The questions' signals.
        price: Of 1000 tokens, in chance of being right.
        holdout: Share of the questions that are kept back, by the digest of their text.
        folds: Folds of the cross-validation.
        seed: Seed of folds and intervals.

    Raises:
        UserError: Too few questions are left to train on, or none is kept back.
    """
    training, held = halves(table, holdout, folds)
    own = table.only(training)
    signals = [gathered.signals[i] for i in training]
    with one_blas_thread():
        file = fit_file(own, signals, gathered, price=price, holdout=holdout)
        told = cross_told(own, signals, gathered, folds, seed)
    crossed = value_of(told, own, price, seed)
    kept = None
    if held:
        other = table.only(held)
        kept = value_of(told_by(file.arms, file.space, [gathered.signals[i] for i in held]), other, price, seed)
    return TrainedAuto(
        file=file,
        crossed=crossed,
        held=kept,
        entropy=sum(s.support is not None for s in signals),
        embedded=sum(bool(s.vector) for s in signals),
    )


def halves(table: ArmTable, holdout: float, folds: int) -> tuple[list[int], list[int]]:
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
    table: ArmTable, signals: Sequence[Signals], gathered: Gathered, *, price: float, holdout: float
) -> AutoRouterFile:
    """The router of all these questions.

    Args:
        table: The training questions by ways.
        signals: Their signals.
        gathered: Says what embedded them.
        price: Of 1000 tokens.
        holdout: Share of all questions that were kept back.
    """
    space = make_space(signals, embedding=gathered.embedding, embedding_identity=gathered.embedding_identity)
    return AutoRouterFile(
        price=price,
        space=space,
        arms=fit_arms(table, space, rows_of(space, signals)),
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


def fit_arms(table: ArmTable, space: Space, x: Array) -> tuple[Arm, ...]:
    """An arm for each way.

    Args:
        table: The questions by ways.
        space: What the rows are of.
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


def told_by(arms: Sequence[Arm], space: Space, signals: Sequence[Signals]) -> Told:
    """What arms tell of questions."""
    found = [[estimate(arm, space, row, 0.0) for arm in arms] for row in rows_of(space, signals)]
    return Told(
        right=np.array([[one.right for one in row] for row in found]),
        cost=np.array([[one.arm.cost * one.tokens for one in row] for row in found]),
    )


def cross_told(table: ArmTable, signals: Sequence[Signals], gathered: Gathered, folds: int, seed: int = 0) -> Told:
    """What is told of each question by a fit that its fold took no part in, the choice of complexity included."""
    fold = folds_of(table.groups, folds, seed)
    right, cost = np.empty(table.right.shape), np.empty(table.right.shape)
    for i in range(folds):
        held, rest = np.flatnonzero(fold == i).tolist(), np.flatnonzero(fold != i).tolist()
        own = [signals[j] for j in rest]
        space = make_space(own, embedding=gathered.embedding, embedding_identity=gathered.embedding_identity)
        arms = fit_arms(table.only(rest), space, rows_of(space, own))
        told = told_by(arms, space, [signals[j] for j in held])
        right[held], cost[held] = told.right, told.cost
    return Told(right, cost)


def value_of(told: Told, table: ArmTable, price: float, seed: int = 0) -> Value:
    """What choosing is worth, where the fits knew none of the questions."""
    clusters = table.clusters
    return Value(
        questions=len(table.questions),
        beside=tuple(beside_ways(told, table.right, table.cost, clusters, seed=seed)),
        worth=tuple(worth_beside(told, table.right, table.cost, clusters, price, seed=seed)),
        prices=tuple(at_price(told, table.right, table.cost, clusters, p, seed=seed) for p in sorted({*PRICES, price})),
    )
