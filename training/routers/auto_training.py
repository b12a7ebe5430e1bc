"""Training `auto`: a model of each arm's accuracy and cost fitted to runs, and the value of choosing by it.

The arms are the actions of the runs. All fits are repeated without the questions that a value is measured on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from arm_table import ArmTable
from fitting import FOLDS, QuestionSignals, feature_matrix, fit_right, fit_tokens, make_space
from policies import MeasuredArms, PolicyValue, PredictedArms, value_of
from reason.core.blas_threads import one_blas_thread
from reason.core.errors import UserError
from reason.core.version import __version__
from reason.evals.calibration import assign_folds
from reason.evals.datasets.items import is_held_out
from reason.evals.statistics.outcomes import Array
from reason.routers.auto import estimate_arm
from reason.routers.features import FeatureSpace, QuestionFeatures
from reason.routers.router_files import Arm, AutoRouterFile, TrainedOn


@dataclass(frozen=True)
class TrainedAuto:
    """A trained router and its value.

    Attributes:
        file: The router, fitted to all training questions.
        crossed: Its value by cross-validation.
        held: Its value on the held-out questions; None if none were.
    """

    file: AutoRouterFile
    crossed: PolicyValue
    held: PolicyValue | None


def train_auto(
    table: ArmTable, gathered: QuestionSignals, *, price: float, holdout: float = 0.0, folds: int = FOLDS
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
        fit = fit_auto(own, signals, gathered)
        measured = cross_validated_arms(own, signals, gathered, folds)
    return TrainedAuto(
        file=AutoRouterFile(price=price, space=fit.space, arms=fit.arms, trained=trained_on(own, holdout)),
        crossed=value_of(measured, price),
        held=value_of(fit.measure(table.only(held), [gathered.signals[i] for i in held]), price) if held else None,
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
            hint="lower --holdout, or evaluate on more questions",
        )
    return training, held


@dataclass(frozen=True)
class FittedAuto:
    """The arms of a table.

    Attributes:
        space: The features that their lines are over.
        arms: The actions.
    """

    space: FeatureSpace
    arms: tuple[Arm, ...]

    def measure(self, table: ArmTable, signals: Sequence[QuestionFeatures]) -> MeasuredArms:
        """Predictions and outcomes for other questions."""
        return MeasuredArms(
            labels=tuple(arm.label for arm in self.arms),
            predicted=predict_arms(self.arms, self.space, signals),
            right=table.right,
            cost=table.cost,
            clusters=table.clusters,
        )


def fit_auto(table: ArmTable, signals: Sequence[QuestionFeatures], gathered: QuestionSignals) -> FittedAuto:
    """Fit the arms of a table.

    Args:
        signals: The features of its questions.
        gathered: Has the embedding model.
    """
    space = make_space(signals, embedding=gathered.embedding, embedding_identity=gathered.embedding_identity)
    return FittedAuto(space, fit_arms(table, space, feature_matrix(space, signals)))


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
    return tuple(_fit_arm(table, a, space, x) for a in range(len(table.arms)))


def _fit_arm(table: ArmTable, a: int, space: FeatureSpace, x: Array) -> Arm:
    known = np.flatnonzero(~np.isnan(table.right[:, a]))
    right, tokens, cost = (values[known, a] for values in (table.right, table.tokens, table.cost))
    groups, total = [table.groups[i] for i in known.tolist()], float(tokens.sum())
    return Arm.model_validate(
        {
            **vars(table.arms[a]),
            "label": table.arms[a].label,
            "right": fit_right(space, x[known], right, groups),
            "tokens": fit_tokens(space, x[known], tokens, groups),
            "cost": float(cost.sum()) / total if total else 1.0,
            "share_right": float(right.mean()),
            "mean_tokens": float(tokens.mean()),
        }
    )


def predict_arms(arms: Sequence[Arm], space: FeatureSpace, signals: Sequence[QuestionFeatures]) -> PredictedArms:
    """The predictions of arms for questions."""
    results = [[estimate_arm(arm, space, row, 0.0) for arm in arms] for row in feature_matrix(space, signals)]
    return PredictedArms(
        right=np.array([[one.right for one in row] for row in results]),
        cost=np.array([[one.arm.cost * one.tokens for one in row] for row in results]),
    )


def cross_validated_arms(
    table: ArmTable, signals: Sequence[QuestionFeatures], gathered: QuestionSignals, folds: int
) -> MeasuredArms:
    """Predictions and outcomes for each question by a fit without its fold, the choice of complexity included."""
    fold = assign_folds(table.groups, folds)
    predicted = PredictedArms(np.empty(table.right.shape), np.empty(table.right.shape))
    for i in range(folds):
        held, rest = np.flatnonzero(fold == i).tolist(), np.flatnonzero(fold != i).tolist()
        fit = fit_auto(table.only(rest), [signals[j] for j in rest], gathered)
        own = predict_arms(fit.arms, fit.space, [signals[j] for j in held])
        predicted.right[held], predicted.cost[held] = own.right, own.cost
    labels = tuple(arm.label for arm in table.arms)
    return MeasuredArms(labels, predicted, table.right, table.cost, table.clusters)
