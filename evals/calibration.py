"""Calibration of a run's confidences, and of a model's self-evaluation.

`fit_calibration_map` fits a `CalibrationMap` to all answers of a run. The scores of the calibrated confidences are out
of sample: the groups of items are split into folds, and each fold is calibrated by a curve fitted to the others.

`measure_self_evaluation` measures how well a model judges its own samples. The target of a sample is the share of its
siblings that it is at least as good as: 1 for a right sample, and for a wrong one the share of wrong siblings. On a
question that the model never gets right every target is 1: sampling again is pointless there.

Source: Manvi et al. 2024, arXiv:2410.02725, for the target, their win-or-tie rate, estimated here from a run's samples.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from scipy import optimize, stats
from scipy.special import expit

from ..core.calibration import CalibrationCurve, CalibrationMap, CalibrationMethod, CalibrationScores
from ..core.errors import UserError
from ..core.files import write_file
from ..core.settings import is_used_role
from ..core.version import __version__
from ..reasoning.answers.equivalence import Equivalence
from ..reasoning.strategy import STRATEGIES
from ..serving.rewards.model import sigmoid
from .datasets.items import ChoiceGold, Gold, MathGold
from .results import ResultRow
from .run_directory import EvalRun, SolutionNotes
from .scoring import compare_with_gold, is_same
from .statistics.calibration import ece, nll
from .statistics.intervals import Interval, percentiles, resample_groups
from .statistics.outcomes import Array

MIN_ITEMS = 20
"""Minimum number of items with a confidence: with fewer, two parameters would follow the noise."""
FOLDS = 5
RIDGE = 1e-3
"""Weight of the squared distance from the identity in the summed log-loss of "temperature" and "platt"."""
MIN_CLIP, MAX_CLIP = 1e-6, 0.25

Fit = Callable[[Array, Array], CalibrationCurve]
"""Fits a curve to confidences and correctness, `[answers]` each."""


@dataclass(frozen=True)
class CalibrationData:
    """The answers of a run that a map can be fitted to.

    Attributes:
        confidence: Stated confidence, `[answers]`.
        correct: 0 or 1, `[answers]`; an answer that could not be parsed counts as wrong.
        groups: Group of the item, or its id; a group is never split between folds.
        items: Number of items.
        unstated: Rows without a confidence, which are left out.
        undecided: Rows whose answer is neither right nor wrong, which are left out.
    """

    confidence: Array
    correct: Array
    groups: tuple[str, ...]
    items: int
    unstated: int
    undecided: int


def calibration_data(rows: Sequence[ResultRow]) -> CalibrationData:
    """The answers that a map can be fitted to.

    Raises:
        UserError: There are too few, or all are right or all wrong.
    """
    stated = [r for r in rows if r.confidence is not None]
    if not stated:
        strategy = f" of {rows[0].strategy}" if rows else ""
        raise UserError(
            f"no row{strategy} has a confidence, so there is nothing to calibrate",
            hint="calibrate a strategy that states confidences, such as self-consistency",
        )
    kept = [r for r in stated if r.correct is not None or r.error is not None or not r.parsed]
    items = len({r.id for r in kept})
    if items < MIN_ITEMS:
        raise UserError(
            f"a calibration map needs at least {MIN_ITEMS} items with a confidence and a right or wrong answer; "
            f"there are {items}",
            hint="run the evaluation on more items",
        )
    correct = np.array([r.error is None and r.parsed and bool(r.correct) for r in kept], dtype=np.float64)
    if correct.min() == correct.max():
        every = "right" if correct[0] else "wrong"
        raise UserError(
            f"every answer is {every}, so no curve can be fitted",
            hint="run on more items, or on a dataset that is neither as easy nor as hard",
        )
    return CalibrationData(
        confidence=np.array([r.confidence for r in kept], dtype=np.float64),
        correct=correct,
        groups=tuple(r.group or r.id for r in kept),
        items=items,
        unstated=len(rows) - len(stated),
        undecided=len(stated) - len(kept),
    )


def fit_curve(method: CalibrationMethod, confidence: Array, correct: Array) -> CalibrationCurve:
    """The curve of a method with the minimum log-loss (isotonic: the minimum squared error, which is the same curve).

    "temperature" fits the slope of the log-odds, "platt" the intercept too. Two things keep the minimum finite.
    Confidences are clipped to [clip, 1 - clip], the clip being half the distance to 0 or 1 of the closest one that is
    not itself 0 or 1, within [1e-6, 0.25]: of shares of n votes that is 1/(2n), so that a unanimous vote counts as half
    a vote short of all. And RIDGE/2 * (intercept² + (slope - 1)²) is added to the summed loss, so that answers which a
    threshold separates do not drive the slope to infinity; otherwise it moves the minimum by less than the noise. A
    negative slope is not allowed: at 0 every confidence becomes the same.

    "isotonic" pools adjacent violators. Answers of one confidence are one point; knots within a level stretch are
    dropped.

    Source: Platt 1999, "Probabilistic Outputs for Support Vector Machines", equation 1, on the log-odds; Guo et al.
    2017, "On Calibration of Modern Neural Networks", section 4.2; Zadrozny and Elkan 2002, "Transforming Classifier
    Scores into Accurate Multiclass Probability Estimates", section 3.
    """
    return _isotonic(confidence, correct) if method == "isotonic" else _on_log_odds(method, confidence, correct)


def _isotonic(confidence: Array, correct: Array) -> CalibrationCurve:
    points, group = np.unique(confidence, return_inverse=True)
    counts = np.bincount(group)
    means = np.bincount(group, weights=correct) / counts
    fitted = np.clip(optimize.isotonic_regression(means, weights=counts).x, 0.0, 1.0).tolist()
    knots = [
        (float(x), y)
        for i, (x, y) in enumerate(zip(points, fitted, strict=True))
        if not 0 < i < len(points) - 1 or not fitted[i - 1] == y == fitted[i + 1]
    ]
    return CalibrationCurve(method="isotonic", knots=tuple(knots))


def _on_log_odds(method: CalibrationMethod, confidence: Array, correct: Array) -> CalibrationCurve:
    distance = np.minimum(confidence, 1 - confidence)
    inside = distance[distance > 0]
    clip = float(np.clip(inside.min() / 2, MIN_CLIP, MAX_CLIP)) if len(inside) else MAX_CLIP
    c = np.clip(confidence, clip, 1 - clip)
    design = np.column_stack([np.ones(len(c)), np.log(c) - np.log1p(-c)])
    identity = np.array([0.0, 1.0])

    def loss(weights: Array) -> tuple[float, Array]:
        """Mean log-loss and its gradient by intercept and slope."""
        odds = design @ weights
        total = np.sum(np.logaddexp(0, odds) - correct * odds) + RIDGE / 2 * np.sum((weights - identity) ** 2)
        gradient = design.T @ (expit(odds) - correct) + RIDGE * (weights - identity)
        return float(total) / len(c), gradient / len(c)

    fitted = optimize.minimize(
        loss,
        identity,
        jac=True,
        method="L-BFGS-B",
        bounds=[(None, None) if method == "platt" else (0, 0), (0, None)],
        options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 1000},
    )
    intercept, slope = fitted.x.tolist()
    return CalibrationCurve(method=method, intercept=intercept, slope=slope, clip=clip)


def fit_calibration_map(
    run: EvalRun, method: CalibrationMethod, *, folds: int = FOLDS, seed: int = 0
) -> tuple[CalibrationMap, CalibrationData]:
    """Fit a map to a run.

    Args:
        run: A run on development data: the map is for other items.

    Returns:
        The map, and the answers that it was fitted to.

    Raises:
        UserError: The rows allow no map (see `calibration_data`), come from several models, or have fewer groups
            than folds.
    """
    plan = run.manifest.plan
    engines = engine_identities(run.rows)
    answers = calibration_data(run.rows)

    def fit(confidence: Array, correct: Array) -> CalibrationCurve:
        return fit_curve(method, confidence, correct)

    outside = cross_validated(answers, fit, folds, seed)
    roles = ("main", *STRATEGIES.load(plan.strategy).roles)
    data = plan.dataset
    result = CalibrationMap(
        curve=fit(answers.confidence, answers.correct),
        strategy=plan.strategy,
        parameters=plan.parameters,
        verify=plan.verify,
        effort=plan.effort,
        thinking_tokens=plan.thinking_tokens,
        models={role: name for role, name in plan.models.items() if is_used_role(role, roles)},
        engines={role: name for role, name in engines.items() if is_used_role(role, roles)},
        dataset=data.full_name,
        fingerprint=data.fingerprint,
        items=answers.items,
        answers=len(answers.groups),
        seeds=plan.seeds,
        version=__version__,
        made=datetime.now(UTC).date(),
        folds=folds,
        before=calibration_scores(answers.confidence, answers.correct),
        after=calibration_scores(outside, answers.correct),
    )
    return result, answers


def assign_folds(groups: Sequence[str], folds: int, seed: int = 0) -> NDArray[np.int64]:
    """The fold of each answer, `[answers]`; a group is never split.

    The folds depend only on the names of the groups and the seed; their sizes differ by at most one group.

    Raises:
        UserError: There are fewer groups than folds, or fewer than two folds.
    """
    names = sorted(set(groups))
    if not 2 <= folds <= len(names):
        raise UserError(
            f"{len(names)} groups of items cannot be split into {folds} folds", hint=f"use 2 to {len(names)} folds"
        )
    random.Random(seed).shuffle(names)  # noqa: S311 (reproducible folds, not secrets)
    fold = {name: i % folds for i, name in enumerate(names)}
    return np.array([fold[group] for group in groups], dtype=np.int64)


def cross_validated(answers: CalibrationData, fit: Fit, folds: int, seed: int = 0) -> Array:
    """Each answer's confidence by a curve that was fitted without its fold, `[answers]`.

    Raises:
        UserError: As `assign_folds`.
    """
    fold = assign_folds(answers.groups, folds, seed)
    calibrated = np.empty(len(fold))
    for i in range(folds):
        held = fold == i
        curve = fit(answers.confidence[~held], answers.correct[~held])
        calibrated[held] = [curve.apply(float(c)) for c in answers.confidence[held]]
    return calibrated


def calibration_scores(confidence: Array, correct: Array) -> CalibrationScores:
    """ECE, Brier score and NLL of confidences."""
    brier = float(np.mean((confidence - correct) ** 2))
    return CalibrationScores(ece=ece(confidence, correct), brier=brier, nll=nll(confidence, correct))


def save_calibration_map(result: CalibrationMap, path: Path) -> None:
    """Write a map as a JSON file, which names it.

    Raises:
        StoreError: It cannot be written; what was there stays.
    """
    write_file(path, (result.model_dump_json(indent=2, exclude={"name"}) + "\n").encode("utf-8", "surrogatepass"))


def engine_identities(rows: Sequence[ResultRow]) -> dict[str, str]:
    """The identity of each model by role, which must be the same in all rows.

    Raises:
        UserError: The rows name no model, or several for one role.
    """
    results: dict[str, set[str]] = {}
    for row in rows:
        for role, identity in row.engines.items():
            results.setdefault(role, set()).add(identity)
    if "main" not in results:
        raise UserError("no row names the model that answered", hint="run the evaluation again")
    for role, identities in results.items():
        if len(identities) > 1:
            raise UserError(
                f"the rows come from several {role} models: {', '.join(sorted(identities))}",
                hint="run the evaluation again with one",
            )
    return {role: next(iter(identities)) for role, identities in results.items()}


GOLD: TypeAdapter[Gold] = TypeAdapter(Gold)
MIN_JUDGED_ITEMS = 20
RESAMPLES = 2000


class JudgedSamples(NamedTuple):
    """The judged samples of one question, `[samples]` each.

    Attributes:
        v: Signal before calibration, in nats.
        right: 0 or 1.
        tokens: Lengths.
    """

    v: Array
    right: Array
    tokens: Array


@dataclass(frozen=True)
class SignalRanking:
    """How well a signal separates right from wrong samples of one question.

    Attributes:
        auroc: Probability that of a right and a wrong sample of one question the right one has the higher signal, ties
            half; None if no question has both.
        interval: Percentile interval over questions.
        pairs: Number of pairs of a right and a wrong sample of one question.
    """

    auroc: float | None
    interval: Interval | None
    pairs: int

    @classmethod
    def of(cls, judged: Sequence[JudgedSamples]) -> Self:
        """The ranking over questions."""
        won, pairs = (np.array(x) for x in zip(*map(_concordant, judged), strict=True))
        total = float(pairs.sum())
        return cls(float(won.sum() / total) if total else None, _interval(won, pairs), int(total))


@dataclass(frozen=True)
class SignalQuality:
    """The quality of a self-evaluation signal.

    Attributes:
        items: Questions with two or more judged samples.
        samples: Their judged samples.
        silent: Samples of the run without a signal.
        alpha: Offset of `q = sigmoid(alpha + beta v)`, fitted to the targets by log-loss.
        beta: Its slope, not negative.
        within: Ranking within questions: what selection and pruning depend on.
        across: AUROC over pairs of samples of different questions.
        length: Rank correlation of v and length in tokens; None if one of them never varies.
        brier: Mean squared distance of q and target, uncalibrated and calibrated (both in sample).
        checkpoints: Ranking of partial samples by their number of tokens, of a run of adaptive that judged them and
            ended none.
    """

    items: int
    samples: int
    silent: int
    alpha: float
    beta: float
    within: SignalRanking
    across: float | None
    length: float | None
    brier: tuple[float, float]
    checkpoints: dict[int, SignalRanking] = field(default_factory=dict)

    @property
    def pruning_auroc(self) -> float | None:
        """What pruning at these checkpoints can rely on: the lowest AUROC; None if one is unknown."""
        known = [ranking.auroc for ranking in self.checkpoints.values() if ranking.auroc is not None]
        return min(known) if known and len(known) == len(self.checkpoints) else None


def win_or_tie_rates(right: Array, eps: float = 0.0) -> Array:
    """Win-or-tie rate of each sample against its siblings: `g_i = #{j != i : r_i >= r_j - eps} / (n - 1)`.

    Args:
        right: Scores of the samples of one question, `[samples]`, at least two.

    Raises:
        UserError: There are fewer than two.
    """
    if len(right) < 2:
        raise UserError("a win-or-tie rate needs at least two samples of a question")
    wins = (right[:, None] >= right[None, :] - eps).sum(axis=1) - 1
    rate: Array = wins / (len(right) - 1)
    return rate


async def measure_self_evaluation(run: EvalRun, notes: Sequence[SolutionNotes | None] | None = None) -> SignalQuality:
    """Measure the signal of a run whose samples the model judged.

    Args:
        notes: The notes of each row's solution, which have the judgements of partial samples; None measures none.

    Raises:
        UserError: No sample was judged, there are too few questions, or a question has no single right answer.
    """
    parameters = run.manifest.plan.parameters
    alpha, beta = float(str(parameters.get("alpha", 0.0))), float(str(parameters.get("beta", 1.0)))
    judged, silent = [], 0
    partial: dict[int, list[JudgedSamples]] = {}
    async with Equivalence() as equivalence:
        for i, row in enumerate(run.rows):
            gold: Gold = GOLD.validate_python(row.gold)
            right = [float(await _is_right(c.answer, gold, row.id, equivalence)) for c in row.candidates]
            samples = [
                ((math.log(c.score) - math.log1p(-c.score) - alpha) / beta, is_right, float(c.tokens))
                for c, is_right in zip(row.candidates, right, strict=True)
                if c.score is not None and 0 < c.score < 1
            ]
            silent += len(row.candidates) - len(samples)
            if len(samples) >= 2:
                judged.append(JudgedSamples(*np.array(samples).T))
            if notes is not None and parameters.get("keep") == 1:
                for at, ranked in judged_partial_samples(row, notes[i] or {}, right).items():
                    partial.setdefault(at, []).append(ranked)
    if not judged:
        raise UserError(
            "no question of the run has two samples that the model judged",
            hint="run best-of-n with --set score=self-evaluation, or adaptive",
        )
    if len(judged) < MIN_JUDGED_ITEMS:
        raise UserError(
            f"a signal is measured on at least {MIN_JUDGED_ITEMS} questions, got {len(judged)}",
            hint="run the evaluation on more items",
        )
    return replace(
        signal_quality(judged, silent),
        checkpoints={at: SignalRanking.of(ranked) for at, ranked in sorted(partial.items())},
    )


def judged_partial_samples(row: ResultRow, notes: SolutionNotes, right: Sequence[float]) -> dict[int, JudgedSamples]:
    """The judgements of a row's partial samples by the tokens at which they were made; `v` is the quality itself.

    Samples that ended before that point were not judged there, and those without an answer in the row are left out.

    Args:
        right: Whether each candidate of the row is right.
    """
    indices, checkpoints = notes.get("indices"), notes.get("pruned")
    if not isinstance(indices, list) or not isinstance(checkpoints, list) or len(indices) != len(right):
        return {}
    lengths = [float(candidate.tokens) for candidate in row.candidates]
    by_index = dict(zip(map(str, indices), zip(right, lengths, strict=True), strict=True))
    results: dict[int, JudgedSamples] = {}
    for checkpoint in checkpoints:
        quality = checkpoint.get("quality") if isinstance(checkpoint, dict) else None
        if not isinstance(checkpoint, dict) or not isinstance(quality, dict):
            continue
        known = [(float(q), *by_index[k]) for k, q in quality.items() if isinstance(q, float | int) and k in by_index]
        results[int(str(checkpoint["at"]))] = JudgedSamples(*np.array(known).reshape(-1, 3).T)
    return results


def signal_quality(judged: Sequence[JudgedSamples], silent: int = 0) -> SignalQuality:
    """The quality over questions, each with two or more judged samples."""
    together = JudgedSamples(*map(np.concatenate, zip(*judged, strict=True)))
    g = np.concatenate([win_or_tie_rates(j.right) for j in judged])
    plain = np.array([sigmoid(float(x)) for x in together.v])
    line = fit_curve("platt", plain, g)
    fitted = np.array([line.apply(float(q)) for q in plain])
    won, pairs = map(sum, zip(*map(_concordant, judged), strict=True))
    won_in_all, all_pairs = _concordant(together)
    varied = len(np.unique(together.v)) > 1 and len(np.unique(together.tokens)) > 1
    return SignalQuality(
        items=len(judged),
        samples=len(together.v),
        silent=silent,
        alpha=line.intercept,
        beta=line.slope,
        within=SignalRanking.of(judged),
        across=(won_in_all - won) / (all_pairs - pairs) if all_pairs > pairs else None,
        length=float(stats.spearmanr(together.v, together.tokens).statistic) if varied else None,
        brier=(float(np.mean((plain - g) ** 2)), float(np.mean((fitted - g) ** 2))),
    )


def _concordant(judged: JudgedSamples) -> tuple[float, float]:
    """Pairs of a right and a wrong sample in which the right one has the higher v (ties half), and all such pairs."""
    gap = judged.v[judged.right == 1][:, None] - judged.v[judged.right == 0][None, :]
    return float((gap > 0).sum() + (gap == 0).sum() / 2), float(gap.size)


def _interval(won: Array, pairs: Array) -> Interval | None:
    """Percentile interval of the concordance, over resampled questions."""
    if (pairs > 0).sum() < 2:
        return None
    shares = []
    for picked in resample_groups(len(won), RESAMPLES, 0):
        at = np.atleast_2d(picked)
        total = pairs[at].sum(axis=1)
        shares.append((won[at].sum(axis=1) / np.where(total > 0, total, 1))[total > 0])
    low, high = percentiles(np.concatenate(shares))
    return Interval(float(low), float(high), "bootstrap")


async def _is_right(answer: str | None, gold: Gold, name: str, equivalence: Equivalence) -> bool:
    if isinstance(gold, MathGold):
        return is_same(await compare_with_gold(answer, gold, equivalence))
    if isinstance(gold, ChoiceGold) and gold.rule == "one":
        return answer is not None and len(answer) == 1 and ord(answer.upper()) - ord("A") in gold.correct
    raise UserError(f"{name} has no single right answer", hint="measure the signal on questions with one right answer")
