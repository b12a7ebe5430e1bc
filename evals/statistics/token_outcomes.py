"""Probabilities instead of sampled verdicts: where an outcome is a token, average what the model computed anyway.

Source: Solo et al. 2026 (SCOPE and REACH), arXiv:2602.03730. `h` is the probability of the outcome's token at each
step, given all before it, from the very distribution that is sampled: where top-p, top-k or a temperature other than 1
is used, raw probabilities are those of another model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...core.errors import UserError
from .outcomes import Array


@dataclass(frozen=True)
class Verdict:
    """A yes-or-no judgement as a probability.

    Attributes:
        mean: Mean over draws of v = P(yes) / (P(yes) + P(no)).
        se: Its standard error over draws of the reasoning before it; None with one draw.
        coverage: Mean of P(yes) + P(no): how much of the distribution the two words hold.
    """

    mean: float
    se: float | None
    coverage: float


def verdict(p_yes: Array, p_no: Array) -> Verdict:
    """Average one-token verdicts over draws, `[draws]` each; surface forms of a word are summed before.

    By the law of total variance the mean of v never varies more than the mean of sampled yes-or-no words.

    Raises:
        UserError: There is no draw, or one gives neither word any probability.
    """
    if not len(p_yes) or p_yes.shape != p_no.shape or ((p_yes + p_no) <= 0).any():
        raise UserError("a verdict needs draws that give yes or no some probability")
    v = p_yes / (p_yes + p_no)
    se = float(v.std(ddof=1) / np.sqrt(len(v))) if len(v) > 1 else None
    return Verdict(float(v.mean()), se, float((p_yes + p_no).mean()))


def scope_score(h: Sequence[float]) -> float:
    """SCOPE: the sum of h over a trajectory that was sampled normally, the stopping step included.

    Unbiased for the chance of the outcome. It may exceed 1, and must not be cut there: only the mean over trajectories.
    """
    return float(np.sum(np.asarray(h, dtype=float)))


def reach_score(h: Sequence[float]) -> float:
    """REACH: 1 - Π (1 - h) over a trajectory that was sampled with the outcome's token suppressed.

    Unbiased, in [0, 1].
    """
    return float(1 - np.prod(1 - np.asarray(h, dtype=float)))
