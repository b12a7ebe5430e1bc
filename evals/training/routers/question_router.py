"""Training `question-router`: the probability that the large model is needed, fitted to a run of each model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ....core.blas_threads import one_blas_thread
from ....core.errors import UserError
from ....routers.features import FeatureSpace, LinearModel, QuestionFeatures
from ....routers.router_files import (
    EvaluatedStrategy,
    QuestionRouterFile,
    probability_of,
    quantiles_of,
    threshold_for_rate,
)
from ...calibration import assign_folds
from ...statistics.outcomes import Array
from .arm_table import ArmTable
from .auto import split_questions, trained_on
from .fitting import FOLDS, QuestionSignals, feature_matrix, fit_right, make_space
from .policies import ScoreDifference, score_difference

RATES: Final = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Rates that are reported next to the chosen one."""


@dataclass(frozen=True)
class RateOutcome:
    """Routing at one rate, on questions that the fit did not use.

    Attributes:
        rate: Share of the questions that was to go to the large model.
        measured_rate: Share that went there.
        right: Mean score.
        by_random: Mean score if as many random questions went there.
        over_random: The first less the second, with its interval.
        tokens_large: Mean tokens that the large model generates a question.
        tokens_small: Likewise the small one.
    """

    rate: float
    measured_rate: float
    right: float
    by_random: float
    over_random: ScoreDifference
    tokens_large: float
    tokens_small: float


@dataclass(frozen=True)
class TrainedQuestionRouter:
    """A trained router and its value.

    Attributes:
        file: The router.
        needed: Share of the training questions that the large model gets right and the small one does not.
        crossed: Routing by cross-validation, at several rates.
        held: The same on the held-out questions; empty if none were.
        held_questions: How many these are.
        right_small: Mean score of the small model on the training questions.
        right_large: Of the large one.
    """

    file: QuestionRouterFile
    needed: float
    crossed: tuple[RateOutcome, ...]
    held: tuple[RateOutcome, ...]
    held_questions: int
    right_small: float
    right_large: float


def needed_of(table: ArmTable) -> Array:
    """The probability that the large model is right and the small one is not, `[questions]`; seeds are independent."""
    result: Array = table.right[:, 1] * (1 - table.right[:, 0])
    return result


def train_question_router(
    table: ArmTable, gathered: QuestionSignals, *, rate: float, holdout: float = 0.0, folds: int = FOLDS, seed: int = 0
) -> TrainedQuestionRouter:
    """Train a router.

    Args:
        rate: Share of the questions that is to go to the large model.
        holdout: Share of the questions that are held out, by the digest of their text.

    Raises:
        UserError: The table is not of a small and a large model, or too few questions are left to train on.
    """
    if [arm.role for arm in table.arms] != ["small", "main"] or any(arm.needs for arm in table.arms):
        raise UserError(
            "a question router is made of a run of the small model and one of the large model",
            hint="reason train question-router SMALL_RUN LARGE_RUN",
        )
    training, held = split_questions(table, holdout, folds)
    own = table.only(training)
    signals = [gathered.signals[i] for i in training]
    space, line, chances = fit_needed(own, signals, gathered, folds, seed)
    quantiles = quantiles_of([float(c) for c in chances])
    threshold = threshold_for_rate(quantiles, rate)
    file = QuestionRouterFile(
        small=_chain(own, 0),
        large=_chain(own, 1),
        space=space,
        needed=line,
        quantiles=quantiles,
        rate=rate,
        threshold=threshold,
        measured_rate=float((chances >= threshold).mean()),
        trained=trained_on(own, holdout),
    )
    rates = sorted({*RATES, rate})
    other = table.only(held)
    values = chances_by(file, [gathered.signals[i] for i in held])
    return TrainedQuestionRouter(
        file=file,
        needed=float(needed_of(own).mean()),
        crossed=tuple(at_rate(chances, own, r, threshold_for_rate(quantiles, r)) for r in rates),
        held=tuple(at_rate(values, other, r, threshold_for_rate(quantiles, r)) for r in rates) if held else (),
        held_questions=len(held),
        right_small=float(own.right[:, 0].mean()),
        right_large=float(own.right[:, 1].mean()),
    )


def fit_needed(
    table: ArmTable, signals: Sequence[QuestionFeatures], gathered: QuestionSignals, folds: int = FOLDS, seed: int = 0
) -> tuple[FeatureSpace, LinearModel, Array]:
    """The probability that the large model is needed.

    Returns:
        Feature space, log-odds, and each question's probability by a fit without its fold, `[questions]`.
    """
    with one_blas_thread():
        crossed = cross_chances(table, signals, gathered, folds, seed)
        space = make_space(signals, embedding=gathered.embedding, embedding_identity=gathered.embedding_identity)
        line = fit_right(space, feature_matrix(space, signals), needed_of(table), table.groups)
    # a constant predicts the same for all questions; the differences between its folds are noise
    chances = np.full(len(crossed), probability_of(line.intercept)) if line.constant else crossed
    return space, line, chances


def chances_by(file: QuestionRouterFile, signals: Sequence[QuestionFeatures]) -> Array:
    """The predicted probabilities that the large model is needed, `[questions]`."""
    return np.array([probability_of(file.needed.value(file.space, row)) for row in feature_matrix(file.space, signals)])


def cross_chances(
    table: ArmTable, signals: Sequence[QuestionFeatures], gathered: QuestionSignals, folds: int, seed: int = 0
) -> Array:
    """Each question's probability by a fit without its fold, `[questions]`."""
    fold = assign_folds(table.groups, folds, seed)
    needed, result = needed_of(table), np.empty(len(table.questions))
    for i in range(folds):
        held, rest = np.flatnonzero(fold == i).tolist(), np.flatnonzero(fold != i).tolist()
        own = [signals[j] for j in rest]
        space = make_space(own, embedding=gathered.embedding, embedding_identity=gathered.embedding_identity)
        line = fit_right(space, feature_matrix(space, own), needed[rest], [table.groups[j] for j in rest])
        rows = feature_matrix(space, [signals[j] for j in held])
        result[held] = [probability_of(line.value(space, row)) for row in rows]
    return result


def at_rate(chances: Array, table: ArmTable, rate: float, threshold: float) -> RateOutcome:
    """Routing next to random routing of as many questions to the large model.

    Args:
        chances: Of each question, `[questions]`.
    """
    large = (chances >= threshold).astype(float)
    share = float(large.mean())
    routed = np.where(large > 0, table.right[:, 1], table.right[:, 0])
    by_random = share * table.right[:, 1] + (1 - share) * table.right[:, 0]
    return RateOutcome(
        rate=rate,
        measured_rate=share,
        right=float(routed.mean()),
        by_random=float(by_random.mean()),
        over_random=score_difference(routed - by_random, table.clusters),
        tokens_large=float((large * table.tokens[:, 1]).mean()),
        tokens_small=float(((1 - large) * table.tokens[:, 0]).mean()),
    )


def _chain(table: ArmTable, column: int) -> EvaluatedStrategy:
    arm = table.arms[column]
    return EvaluatedStrategy(
        strategy=arm.strategy,
        parameters=arm.parameters,
        share_right=float(table.right[:, column].mean()),
        mean_tokens=float(table.tokens[:, column].mean()),
    )
