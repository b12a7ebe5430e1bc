"""Weights of jurors' votes from how often each was right before.

The weight of an independent voter who is right with probability p among k options is ln(p (k - 1) / (1 - p)): Nitzan,
Paroush, "Optimal Decision Rules in Uncertain Dichotomous Choice Situations" (International Economic Review 23, 1982),
for two options; Shapley, Grofman, "Optimizing Group Judgmental Accuracy in the Presence of Interdependencies" (Public
Choice 43, 1984) treat correlated errors. Shrinking towards the pool is ours.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from reason.core.errors import UserError

POOL_STRENGTH: Final = 10.0
"""Weight of the pool in `fit_weights`, in answers."""
MIN_WEIGHT, MAX_WEIGHT = 0.1, 3.0
"""Bounds of fitted weights: every juror has a vote, and none outvotes the others."""
_FIT_HINT = "fit the weights to these jurors' answers on development data"


def fit_weights(
    records: Iterable[tuple[str, bool]], *, chance: float, strength: float = POOL_STRENGTH
) -> dict[str, float]:
    """Weights of jurors' votes (`weights`) from how often each was right.

    A juror's probability p of being right is (right + strength * pooled) / (answers + strength), and its weight
    ln(p / (1 - p)) - ln(c / (1 - c)) with the chance c, clipped to [0.1, 3].

    Args:
        records: The model of each answer and whether it was right, in any order.
        chance: Probability of guessing right, 1/k with k options; better, the measured `chance_of_errors`.
        strength: Weight of the pool, in answers.

    Raises:
        UserError: There are no records, chance is not in (0, 1), or strength is negative.
    """
    if not 0 < chance < 1 or not (math.isfinite(strength) and strength >= 0):
        raise UserError(
            f"chance={chance:g} or strength={strength:g} is out of range",
            hint="chance must be in (0, 1), strength 0 or more",
        )
    num_answers: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for model, was_right in records:
        num_answers[model] += 1
        right[model] += was_right
    if not num_answers:
        raise UserError("there are no records to fit", hint=_FIT_HINT)
    pooled = (right.total() + 1) / (num_answers.total() + 2)
    weights = {}
    for model in sorted(num_answers):
        p = (right[model] + strength * pooled) / (num_answers[model] + strength)
        p = min(1 - 1e-6, max(1e-6, p))  # without a pool, p may be 0 or 1
        weights[model] = min(MAX_WEIGHT, max(MIN_WEIGHT, math.log(p / (1 - p)) - math.log(chance / (1 - chance))))
    return weights


def chance_of_errors(wrong_answers: Iterable[Sequence[str]]) -> float:
    """The `chance` of `fit_weights` at which jurors' errors coincide: q / (1 + q).

    q is the probability that two wrong answers to one question are equal. It is 1 / (k - 1), and the chance 1 / k, if
    errors are spread evenly over k options. They seldom are: jurors share misconceptions, so that a wrong answer of
    several jurors is worth less than 1 / k says.

    Args:
        wrong_answers: The wrong answers to each question in normal form, one for each juror that was wrong.

    Raises:
        UserError: No question has two wrong answers.
    """
    equal = pairs = 0
    for answers in wrong_answers:
        pairs += len(answers) * (len(answers) - 1) // 2
        equal += sum(count * (count - 1) // 2 for count in Counter(answers).values())
    if not pairs:
        raise UserError("no question has two wrong answers, so how often errors coincide is unknown", hint=_FIT_HINT)
    q = (equal + 1) / (pairs + 2)
    return q / (1 + q)
