"""What a model's judgement of its own samples is worth, and the line that calibrates it.

A sample's target is the share of its siblings that it is at least as good as: 1 for a right sample, and for a wrong one
the share of the others that are wrong too. So on a question that the model never gets right every target is 1: drawing
again is pointless there, which is what an adaptive sampler has to know.

Source: the target is the win-or-tie rate of Manvi et al. 2024, arXiv:2410.02725, estimated from the samples of a run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import TypeAdapter
from scipy import stats

from ..core.errors import UserError
from ..reasoning.equivalence import Equivalence
from ..serving.rewards import sigmoid
from .calibrating import on_log_odds
from .comparison import StoredRun
from .items import ChoiceGold, Gold, MathGold
from .rows import Row
from .scoring.mathematics import compare_with_gold, is_same
from .statistics.intervals import Interval, percentiles, resample_groups
from .statistics.outcomes import Array

GOLD: TypeAdapter[Gold] = TypeAdapter(Gold)
FEWEST_ITEMS = 20
RESAMPLES = 2000


@dataclass(frozen=True)
class Judged:
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
class Signal:
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


def targets(right: Array, eps: float = 0.0) -> Array:
    """Win-or-tie rate of each sample against its siblings: `g_i = #{j != i : r_i >= r_j - eps} / (n - 1)`.

    Args:
        right: Scores of the samples of one question, `[samples]`, at least two.
        eps: Within what two scores are a tie.

    Raises:
        UserError: There are fewer than two.
    """
    if len(right) < 2:
        raise UserError("a win-or-tie rate needs at least two samples of a question")
    wins = (right[:, None] >= right[None, :] - eps).sum(axis=1) - 1
    rate: Array = wins / (len(right) - 1)
    return rate


async def measure_signal(run: StoredRun) -> Signal:
    """Measure the signal of a run whose samples the model judged.

    Raises:
        UserError: No sample was judged, there are too few questions, or a question has no single right answer.
    """
    parameters = run.manifest.plan.parameters
    alpha, beta = float(str(parameters.get("alpha", 0.0))), float(str(parameters.get("beta", 1.0)))
    judged, silent = [], 0
    async with Equivalence() as equivalence:
        for row in run.rows:
            found, without = await judged_of(row, alpha, beta, equivalence)
            silent += without
            if len(found.v) >= 2:
                judged.append(found)
    if not judged:
        raise UserError(
            "no question of the run has two samples that the model judged",
            hint="run best-of-n with --set score=self-evaluation, or adaptive",
        )
    if len(judged) < FEWEST_ITEMS:
        raise UserError(
            f"a signal is measured on at least {FEWEST_ITEMS} questions; the run has {len(judged)}",
            hint="run the evaluation on more items",
        )
    return signal_of(judged, silent)


async def judged_of(row: Row, alpha: float, beta: float, equivalence: Equivalence) -> tuple[Judged, int]:
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
    return Judged(np.array(v), np.array(right), np.array(tokens)), silent


def signal_of(judged: Sequence[Judged], silent: int = 0) -> Signal:
    """The signal over questions, each with at least two judged samples."""
    v = np.concatenate([j.v for j in judged])
    g = np.concatenate([targets(j.right) for j in judged])
    plain = np.array([sigmoid(float(x)) for x in v])
    line = on_log_odds("platt", plain, g)
    fitted = np.array([line.apply(float(q)) for q in plain])
    won, pairs = (np.array(x) for x in zip(*(_concordant(j) for j in judged), strict=True))
    tokens = np.concatenate([j.tokens for j in judged])
    varied = len(np.unique(v)) > 1 and len(np.unique(tokens)) > 1
    return Signal(
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


def _concordant(judged: Judged) -> tuple[float, float]:
    """Pairs of a right and a wrong sample in which the right one has the higher v (ties half), and all such pairs."""
    right, wrong = judged.v[judged.right == 1], judged.v[judged.right == 0]
    return _won(right, wrong), float(len(right) * len(wrong))


def _won(right: Array, wrong: Array) -> float:
    gap = right[:, None] - wrong[None, :]
    return float((gap > 0).sum() + (gap == 0).sum() / 2)


def _across(judged: Sequence[Judged], won_within: float, pairs_within: float) -> float | None:
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
    found = np.concatenate(shares)
    if not len(found) or (pairs > 0).sum() < 2:
        return None
    low, high = percentiles(found)
    return Interval(float(low), float(high), "bootstrap")


async def _is_right(answer: str | None, gold: Gold, name: str, equivalence: Equivalence) -> bool:
    if isinstance(gold, MathGold):
        return is_same(await compare_with_gold(answer, gold, equivalence))
    if isinstance(gold, ChoiceGold) and gold.rule == "one":
        return answer is not None and len(answer) == 1 and ord(answer.upper()) - ord("A") in gold.correct
    raise UserError(f"{name} has no single right answer", hint="measure the signal on questions with one right answer")
