"""Training `auto`: a model of each arm's accuracy and cost fitted to runs, and the value of choosing by it.

The arms are the actions of the runs, and escalations between them. All fits, the choice of escalations and of their
thresholds among them, are repeated without the questions that a value is measured on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np

from ....core.blas_threads import one_blas_thread
from ....core.errors import UserError
from ....core.version import __version__
from ....routers.auto import estimate_arm
from ....routers.features import FeatureSpace, QuestionFeatures
from ....routers.router_files import Arm, AutoRouterFile, Escalation, TrainedOn
from ...calibration import assign_folds
from ...datasets.items import is_held_out
from ...statistics.outcomes import Array
from .arm_table import ArmTable
from .escalations import FittedEscalation, Outcome, fit_escalations
from .fitting import FOLDS, QuestionSignals, feature_matrix, fit_right, fit_tokens, make_space
from .policies import MeasuredArms, PolicyValue, PredictedArms, value_of

EXCLUDED: Final = 1e9
"""Predicted loss of an arm that a fit does not have."""


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
        arms: The actions, then the escalations.
        escalations: The latter.
    """

    space: FeatureSpace
    arms: tuple[Arm, ...]
    escalations: tuple[FittedEscalation, ...]

    def measure(self, table: ArmTable, signals: Sequence[QuestionFeatures]) -> MeasuredArms:
        """Predictions and outcomes for other questions."""
        outcomes = [escalation.apply(table, signals) for escalation in self.escalations]
        return MeasuredArms(
            labels=tuple(arm.label for arm in self.arms),
            actions=len(table.arms),
            predicted=predict_arms(self.arms, self.space, signals),
            right=np.column_stack([table.right, *(outcome.right for outcome in outcomes)]),
            cost=np.column_stack([table.cost, *(outcome.cost for outcome in outcomes)]),
            clusters=table.clusters,
        )


def fit_auto(table: ArmTable, signals: Sequence[QuestionFeatures], gathered: QuestionSignals) -> FittedAuto:
    """Fit the arms of a table, and the escalations that are worth having.

    Args:
        signals: The features of its questions.
        gathered: Has the embedding model.
    """
    space = make_space(signals, embedding=gathered.embedding, embedding_identity=gathered.embedding_identity)
    x = feature_matrix(space, signals)
    arms, escalations = list(fit_arms(table, space, x)), fit_escalations(table, signals)
    for one in escalations:
        first, then = table.arms[one.first], table.arms[one.then]
        fields = {
            **vars(first),
            "label": f"{first.label}; {then.label} at {100 * one.share:.0f}%",
            "calls": first.calls + one.share * then.calls,
            "reward_calls": first.reward_calls + one.share * then.reward_calls,
            "escalation": Escalation(
                then=arms[one.then].action, space=one.space, gain=one.gain, threshold=one.threshold
            ),
        }
        arms.append(_fit_arm(space, x, table.groups, one.outcome, fields))
    return FittedAuto(space, tuple(arms), tuple(escalations))


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
    return tuple(
        _fit_arm(
            space,
            x,
            table.groups,
            Outcome(table.right[:, a], table.tokens[:, a], table.cost[:, a]),
            {**vars(arm), "label": arm.label},
        )
        for a, arm in enumerate(table.arms)
    )


def _fit_arm(
    space: FeatureSpace,
    x: Array,
    groups: Sequence[str],
    outcome: Outcome,
    fields: Mapping[str, object],
) -> Arm:
    known = np.flatnonzero(~np.isnan(outcome.right))
    right, tokens, own = outcome.right[known], outcome.tokens[known], [groups[i] for i in known.tolist()]
    total = float(tokens.sum())
    return Arm.model_validate(
        {
            **fields,
            "right": fit_right(space, x[known], right, own),
            "tokens": fit_tokens(space, x[known], tokens, own),
            "cost": float(outcome.cost[known].sum()) / total if total else 1.0,
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
    """Predictions and outcomes for each question by a fit without its fold, the choice of complexity included.

    A fit has its own escalations; those that it lacks are columns that no choice takes.
    """
    fold = assign_folds(table.groups, folds)
    parts: list[tuple[list[int], FittedAuto, MeasuredArms]] = []
    for i in range(folds):
        held, rest = np.flatnonzero(fold == i).tolist(), np.flatnonzero(fold != i).tolist()
        fit = fit_auto(table.only(rest), [signals[j] for j in rest], gathered)
        parts.append((held, fit, fit.measure(table.only(held), [signals[j] for j in held])))
    names = list(dict.fromkeys(escalation.name for _, fit, _ in parts for escalation in fit.escalations))
    actions = len(table.arms)
    shape = (len(table.questions), actions + len(names))
    predicted = PredictedArms(np.full(shape, -EXCLUDED), np.full(shape, EXCLUDED))
    right, cost = np.full(shape, np.nan), np.full(shape, np.nan)
    labels = [arm.label for arm in table.arms] + [""] * len(names)
    for held, fit, measured in parts:
        columns = [*range(actions), *(actions + names.index(escalation.name) for escalation in fit.escalations)]
        at = np.ix_(held, columns)
        predicted.right[at], predicted.cost[at] = measured.predicted.right, measured.predicted.cost
        right[at], cost[at] = measured.right, measured.cost
        for column, label in zip(columns, measured.labels, strict=True):
            labels[column] = label
    return MeasuredArms(tuple(labels), actions, predicted, right, cost, table.clusters)
