"""`position_bias`: chosen positions of multiple-choice options, compared with chance.

On what jurors chose among the options as they saw them, it measures the bias of the models. On the jury's answers in
the order of the questions, it measures the bias that is left after each juror's options are shuffled.

Adapted from Zheng et al. 2023, arXiv:2309.03882, who measure the spread of recalls and so need the right answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from ...core.errors import UserError
from ...core.messages import Frozen
from ...core.types import Probability


class PositionBias(Frozen):
    """Chosen positions compared with chance.

    Attributes:
        counts: How often each position was chosen, the first position first.
        expected: How often it would be by chance: the sum of 1/k over the questions with k options that have it.
        first: Share of the answers that chose the first position.
        first_by_chance: The share expected.
        z: How many standard deviations the first position was chosen more often than expected; negative if less.
        p: Two-sided p-value of that, by the normal approximation.
        distance: Total variation distance between chosen and expected shares, in [0, 1]; above 0 by chance, too.
        answers: How many answers were counted.
    """

    counts: tuple[int, ...]
    expected: tuple[float, ...]
    first: Probability
    first_by_chance: Probability
    z: float
    p: Probability
    distance: Probability
    answers: Annotated[int, Field(ge=1)]


def position_bias(chosen: Sequence[tuple[int, int]]) -> PositionBias:
    """Count chosen positions.

    Args:
        chosen: For each answer the chosen position, from 0, and the number of options.

    Raises:
        UserError: There are no answers, a question has fewer than two options, or a position is outside its options.
    """
    for position, options in chosen:
        if options < 2 or not 0 <= position < options:
            raise UserError(
                f"there is no position {position} among {options} options", hint="positions are counted from 0"
            )
    if not chosen:
        raise UserError(
            "position bias needs at least one answer", hint="give the position and the number of options of each answer"
        )
    n, width = len(chosen), max(options for _, options in chosen)
    counts = tuple(sum(position == i for position, _ in chosen) for i in range(width))
    expected = tuple(math.fsum(1 / options for _, options in chosen if i < options) for i in range(width))
    spread = math.sqrt(math.fsum((1 - 1 / options) / options for _, options in chosen))
    z = (counts[0] - expected[0]) / spread
    return PositionBias(
        counts=counts,
        expected=expected,
        first=counts[0] / n,
        first_by_chance=min(1.0, expected[0] / n),
        z=z,
        p=math.erfc(abs(z) / math.sqrt(2)),
        distance=min(1.0, math.fsum(abs(c - e) for c, e in zip(counts, expected, strict=True)) / (2 * n)),
        answers=n,
    )
