"""Fitting a `CalibrationMap` to the rows of a run, and saying honestly what it is worth.

The curve that is kept is fitted to all answers. The scores that are told of it are out of sample: the items' groups are
cut into folds, and each fold is calibrated by a curve that was fitted to the others only.

What a model's judgement of its own samples is worth, and the line that calibrates it.

A sample's target is the share of its siblings that it is at least as good as: 1 for a right sample, and for a wrong one
the share of the others that are wrong too. So on a question that the model never gets right every target is 1: drawing
again is pointless there, which is what an adaptive sampler has to know.

Source: the target is the win-or-tie rate of Manvi et al. 2024, arXiv:2410.02725, estimated from the samples of a run.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from scipy import stats
from scipy.optimize import isotonic_regression, minimize

from ..core.calibration import CalibrationCurve, CalibrationMap, CalibrationMethod, CalibrationScores
from ..core.errors import UserError
from ..core.settings import is_used_role
from ..core.version import __version__
from ..reasoning.answers.equivalence import Equivalence
from ..reasoning.strategy import STRATEGIES
from ..serving.rewards.model import sigmoid
from .datasets.items import ChoiceGold, Gold, MathGold
from .results import ResultRow
from .run_directory import StoredRun, write_whole
from .scoring import compare_with_gold, is_same
from .statistics.calibration import ece, nll
from .statistics.intervals import Interval, percentiles, resample_groups
from .statistics.outcomes import Array

FEWEST_ITEMS = 20
"""Items with a confidence below which no map is made: two parameters would follow the noise."""
FOLDS = 5
RIDGE = 1e-3
"""Weight of the squared distance from the identity in the summed log-loss of "temperature" and "platt"."""
LEAST_CLIP, MOST_CLIP = 1e-6, 0.25

Fit = Callable[[Array, Array], CalibrationCurve]
"""Fits a curve to confidences and correctness, `[answers]` each."""


@dataclass(frozen=True)
class CalibrationData:
    """The answers of a run that a map can be fitted to.

    Attributes:
        confidence: Stated confidence, `[answers]`.
        correct: 0 or 1, `[answers]`; an answer that could not be read counts as wrong.
        groups: Name of the item's group, or of the item; answers of one name are never in two folds.
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
        UserError: There are none, too few, or all of them are right or all wrong; states what to do.
    """
    stated = [r for r in rows if r.confidence is not None]
    if not stated:
        strategy = f" of {rows[0].strategy}" if rows else ""
        raise UserError(
            f"no row{strategy} has a confidence, so there is nothing to calibrate",
            hint="calibrate a strategy that states one, such as self-consistency",
        )
    kept = [r for r in stated if r.correct is not None or r.error is not None or not r.parsed]
    items = len({r.id for r in kept})
    if items < FEWEST_ITEMS:
        raise UserError(
            f"a calibration map needs at least {FEWEST_ITEMS} items with a confidence and a right or wrong answer; "
            f"there are {items}",
            hint="run the evaluation on more items",
        )
    correct = np.array([r.error is None and r.parsed and bool(r.correct) for r in kept], dtype=np.float64)
    if correct.min() == correct.max():
        every = "right" if correct[0] else "wrong"
        raise UserError(
            f"every answer is {every}, so nothing can be learned about when it is not",
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


def fit_calibration_map(
    run: StoredRun, method: CalibrationMethod, *, folds: int = FOLDS, seed: int = 0
) -> tuple[CalibrationMap, CalibrationData]:
    """Fit a map to a run.

    Args:
        run: The run, on development data: what it is posed afterwards must be other items.

    Returns:
        The map, and the answers that it was fitted to.

    Raises:
        UserError: The rows allow no map (see `calibration_data`), come from several models, or have fewer groups than folds.
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


def fit_curve(method: CalibrationMethod, confidence: Array, correct: Array) -> CalibrationCurve:
    """The curve of a method with the least log-loss (isotonic: the least squares, which is the same curve).

    Args:
        confidence: `[answers]`, in [0, 1].
        correct: `[answers]`, 0 or 1.
    """
    return isotonic(confidence, correct) if method == "isotonic" else on_log_odds(method, confidence, correct)


def on_log_odds(method: CalibrationMethod, confidence: Array, correct: Array) -> CalibrationCurve:
    """The slope, and for "platt" the intercept, that minimise the log-loss.

    Two things keep the minimum finite. Confidences are cut to [clip, 1 - clip], with a clip of half the distance to 0
    or 1 of the closest one that is not itself 0 or 1, within [1e-6, 0.25]: of shares of n votes, if one vote or all but
    one occurs, that is 1/(2n), so that a unanimous vote counts as half a vote short of all. And RIDGE/2 * (intercept² +
    (slope - 1)²) is added to the sum, so that answers which a threshold separates do not drive the slope to infinity;
    on other data it moves the minimum by less than their noise. A negative slope is not allowed: at 0 every confidence
    becomes the same.
    """
    distance = np.minimum(confidence, 1 - confidence)
    inside = distance[distance > 0]
    clip = float(np.clip(inside.min() / 2, LEAST_CLIP, MOST_CLIP)) if len(inside) else MOST_CLIP
    c = np.clip(confidence, clip, 1 - clip)
    logit = np.log(c) - np.log1p(-c)
    free = method == "platt"

    def loss(w: Array) -> tuple[float, Array]:
        """The loss per answer, and its gradient by intercept and slope."""
        odds = w[0] + w[1] * logit
        wrong = np.exp(-np.logaddexp(0, -odds)) - correct
        value = np.sum(np.logaddexp(0, odds) - correct * odds) + RIDGE / 2 * (w[0] ** 2 + (w[1] - 1) ** 2)
        slopes = np.array([wrong.sum() + RIDGE * w[0], np.sum(wrong * logit) + RIDGE * (w[1] - 1)])
        return float(value / len(c)), slopes / len(c)

    result = minimize(
        loss,
        np.array([0.0, 1.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(None, None) if free else (0, 0), (0, None)],
        options={"ftol": 1e-14, "gtol": 1e-8, "maxiter": 1000},
    )
    return CalibrationCurve(method=method, intercept=float(result.x[0]), slope=max(float(result.x[1]), 0.0), clip=clip)


def isotonic(confidence: Array, correct: Array) -> CalibrationCurve:
    """The never falling function of least squared error at the confidences, by pooling adjacent violators.

    Answers of one confidence are one point with their number as its weight. Points within a level stretch are left out
    where their neighbours are on it too: the line through them is the same.
    """
    at, group = np.unique(confidence, return_inverse=True)
    counts = np.bincount(group)
    fitted = isotonic_regression(np.bincount(group, weights=correct) / counts, weights=counts).x.clip(0, 1)
    knots = [
        (float(x), float(y))
        for i, (x, y) in enumerate(zip(at, fitted, strict=True))
        if not 0 < i < len(at) - 1 or not fitted[i - 1] == y == fitted[i + 1]
    ]
    return CalibrationCurve(method="isotonic", knots=tuple(knots))


def assign_folds(groups: Sequence[str], folds: int, seed: int = 0) -> NDArray[np.int64]:
    """Which fold each answer is in, `[answers]`; answers of one group are in one.

    It depends on the groups' names and the seed only, not on the order of the answers. The folds differ by one group
    up to.

    Raises:
        UserError: There are fewer groups than folds, or fewer than two folds.
    """
    names = sorted(set(groups))
    if not 2 <= folds <= len(names):
        raise UserError(
            f"{len(names)} groups of items cannot be cut into {folds} folds", hint=f"between 2 and {len(names)} folds"
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
    """How far confidences are from what they say."""
    brier = float(np.mean((confidence - correct) ** 2))
    return CalibrationScores(ece=ece(confidence, correct), brier=brier, nll=nll(confidence, correct))


def save_calibration_map(result: CalibrationMap, path: Path) -> None:
    """Write a map as a JSON file, completely or not at all; its name is the file's.

    Raises:
        StoreError: It cannot be written; what was there stays.
    """
    write_whole(path, result.model_dump_json(indent=2, exclude={"name"}) + "\n")


def engine_identities(rows: Sequence[ResultRow]) -> dict[str, str]:
    """The identity of each model by role, the same in all rows: what is fitted is for one model.

    Raises:
        UserError: No row states which model answered, or they come from several.
    """
    results: dict[str, set[str]] = {}
    for row in rows:
        for role, identity in row.engines.items():
            results.setdefault(role, set()).add(identity)
    if "main" not in results:
        raise UserError("no row says which model answered", hint="run the evaluation again")
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


@dataclass(frozen=True)
class JudgedSamples:
    """The samples of one question that the model judged.

    Attributes:
        v: The signal of each before calibration, in nats, `[samples]`.
        right: 0 or 1, `[samples]`.
        tokens: Lengths, `[samples]`.
    """

    v: Array
    right: Array
    tokens: Array


@dataclass(frozen=True)
class SignalQuality:
    """What the signal is worth.

    Attributes:
        items: Questions with at least two judged samples.
        samples: Judged samples of these.
        silent: Samples of the run without a signal.
        alpha: Offset of `q = sigmoid(alpha + beta v)` with the least log-loss against the targets.
        beta: Its slope, at least 0.
        within: Chance that of a right and a wrong sample of one question the right one has the higher v, ties half;
            None where no question has both.
        within_interval: Percentile interval over questions.
        within_pairs: Pairs that it rests on.
        across: The same for samples of different questions.
        length: Rank correlation of v and length in tokens; None where one of them never varies.
        brier: Mean squared distance of q and target, uncalibrated and calibrated (both in sample).
    """

    items: int
    samples: int
    silent: int
    alpha: float
    beta: float
    within: float | None
    within_interval: Interval | None
    within_pairs: int
    across: float | None
    length: float | None
    brier: tuple[float, float]


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


async def measure_signal(run: StoredRun) -> SignalQuality:
    """Measure the signal of a run whose samples the model judged.

    Raises:
        UserError: No sample was judged, there are too few questions, or a question has no single right answer.
    """
    parameters = run.manifest.plan.parameters
    alpha, beta = float(str(parameters.get("alpha", 0.0))), float(str(parameters.get("beta", 1.0)))
    judged, silent = [], 0
    async with Equivalence() as equivalence:
        for row in run.rows:
            result, without = await judged_samples(row, alpha, beta, equivalence)
            silent += without
            if len(result.v) >= 2:
                judged.append(result)
    if not judged:
        raise UserError(
            "no question of the run has two samples that the model judged",
            hint="run best-of-n with --set score=self-evaluation, or adaptive",
        )
    if len(judged) < MIN_JUDGED_ITEMS:
        raise UserError(
            f"a signal is measured on at least {MIN_JUDGED_ITEMS} questions; the run has {len(judged)}",
            hint="run the evaluation on more items",
        )
    return signal_quality(judged, silent)


async def judged_samples(
    row: ResultRow, alpha: float, beta: float, equivalence: Equivalence
) -> tuple[JudgedSamples, int]:
    """The judged samples of a row, and how many have no signal."""
    gold: Gold = GOLD.validate_python(row.gold)
    v, right, tokens, silent = [], [], [], 0
    for candidate in row.candidates:
        if candidate.score is None or not 0 < candidate.score < 1:
            silent += 1
            continue
        v.append((math.log(candidate.score) - math.log1p(-candidate.score) - alpha) / beta)
        right.append(float(await _is_right(candidate.answer, gold, row.id, equivalence)))
        tokens.append(float(candidate.tokens))
    return JudgedSamples(np.array(v), np.array(right), np.array(tokens)), silent


def signal_quality(judged: Sequence[JudgedSamples], silent: int = 0) -> SignalQuality:
    """The signal over questions, each with at least two judged samples."""
    v = np.concatenate([j.v for j in judged])
    g = np.concatenate([win_or_tie_rates(j.right) for j in judged])
    plain = np.array([sigmoid(float(x)) for x in v])
    line = on_log_odds("platt", plain, g)
    fitted = np.array([line.apply(float(q)) for q in plain])
    won, pairs = (np.array(x) for x in zip(*(_concordant(j) for j in judged), strict=True))
    tokens = np.concatenate([j.tokens for j in judged])
    varied = len(np.unique(v)) > 1 and len(np.unique(tokens)) > 1
    return SignalQuality(
        items=len(judged),
        samples=len(v),
        silent=silent,
        alpha=line.intercept,
        beta=line.slope,
        within=float(won.sum() / pairs.sum()) if pairs.sum() else None,
        within_interval=_interval(won, pairs),
        within_pairs=int(pairs.sum()),
        across=_across(judged, float(won.sum()), float(pairs.sum())),
        length=float(stats.spearmanr(v, tokens).statistic) if varied else None,
        brier=(float(np.mean((plain - g) ** 2)), float(np.mean((fitted - g) ** 2))),
    )


def _concordant(judged: JudgedSamples) -> tuple[float, float]:
    """Pairs of a right and a wrong sample in which the right one has the higher v (ties half), and all such pairs."""
    right, wrong = judged.v[judged.right == 1], judged.v[judged.right == 0]
    return _won(right, wrong), float(len(right) * len(wrong))


def _won(right: Array, wrong: Array) -> float:
    gap = right[:, None] - wrong[None, :]
    return float((gap > 0).sum() + (gap == 0).sum() / 2)


def _across(judged: Sequence[JudgedSamples], won_within: float, pairs_within: float) -> float | None:
    """Of all pairs of a right and a wrong sample, those of different questions."""
    v, right = np.concatenate([j.v for j in judged]), np.concatenate([j.right for j in judged])
    good, bad = v[right == 1], v[right == 0]
    pairs = len(good) * len(bad) - pairs_within
    return (_won(good, bad) - won_within) / pairs if pairs else None


def _interval(won: Array, pairs: Array) -> Interval | None:
    """Percentile interval of the concordance, over resampled questions."""
    shares = []
    for picked in resample_groups(len(won), RESAMPLES, 0):
        at = np.atleast_2d(picked)
        total = pairs[at].sum(axis=1)
        shares.append((won[at].sum(axis=1) / np.where(total > 0, total, 1))[total > 0])
    result = np.concatenate(shares)
    if not len(result) or (pairs > 0).sum() < 2:
        return None
    low, high = percentiles(result)
    return Interval(float(low), float(high), "bootstrap")


async def _is_right(answer: str | None, gold: Gold, name: str, equivalence: Equivalence) -> bool:
    if isinstance(gold, MathGold):
        return is_same(await compare_with_gold(answer, gold, equivalence))
    if isinstance(gold, ChoiceGold) and gold.rule == "one":
        return answer is not None and len(answer) == 1 and ord(answer.upper()) - ord("A") in gold.correct
    raise UserError(f"{name} has no single right answer", hint="measure the signal on questions with one right answer")
