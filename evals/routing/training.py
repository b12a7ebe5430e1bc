"""Training `auto`: the arms' lines fitted to evaluation runs, and what choosing by them is worth on other questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np

from ...core.errors import UserError
from ...core.version import __version__
from ...reasoning.consistency.one_thread import one_blas_thread
from ...routers.arms import Arm, estimate
from ...routers.auto_file import AutoFile, TrainedOn
from ...routers.feature_space import Space
from ...routers.question_features import Signals
from ..calibrating import folds_of
from ..navigator.problems import is_held_out
from ..statistics.outcomes import Array
from .arm_table import ArmTable
from .fitting import FOLDS, fit_right, fit_tokens, make_space, rows_of
from .gathering import Gathered
from .policy_value import AtPrice, Beside, Difference, Told, at_price, beside_ways, worth_beside

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

    file: AutoFile
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
) -> AutoFile:
    """The router of all these questions.

    Args:
        table: The training questions by ways.
        signals: Their signals.
        gathered: Says what embedded them.
        price: Of 1000 tokens.
        holdout: Share of all questions that were kept back.
    """
    space = make_space(signals, embedding=gathered.embedding, embedding_identity=gathered.embedding_identity)
    return AutoFile(
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
