"""e, the score of a node: that of its step and, with small weight, that of what was associated with it."""

from __future__ import annotations

from typing import Literal

from ...core.errors import UserError

ScoreForm = Literal["normalised", "additive"]


def node_score(step: float, notes: float | None, beta: float, form: ScoreForm = "normalised") -> float:
    """The score e of a node, in [0, 1].

    "normalised" is (Fg + beta Fa) / (1 + beta), and Fg where nothing was associated: so an empty association costs
    nothing and nobody is led to invent one. "additive" is Fg + beta Fa with Fa = 0 where nothing was associated, as
    summaries of the paper have it (Pan, Deng, Huang 2025, arXiv:2502.02390); divided by 1 + beta here, so that it stays
    in [0, 1].

    Args:
        step: Fg, in [0, 1].
        notes: Fa, in [0, 1]; None where nothing was associated.
        beta: Weight of Fa, at least 0.
        form: Which of the two.

    Raises:
        UserError: A number is out of its range.
    """
    if not (0 <= step <= 1 and (notes is None or 0 <= notes <= 1) and beta >= 0):
        raise UserError(
            f"scores {step}, {notes} with weight {beta}", hint="scores are in [0, 1], the weight at least 0"
        )
    if notes is None:
        return step if form == "normalised" else step / (1 + beta)
    return min(1.0, (step + beta * notes) / (1 + beta))
