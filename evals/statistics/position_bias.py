"""`position_bias`: whether those who chose among options liked the first place, and how much that changed.

Measured on what jurors chose of the options as each saw them, it is the bias of the models. Measured on the jury's
answers in the order of the questions, it is what ordering the options again for every juror has left of it.

Source: Zheng et al., "Large Language Models Are Not Robust Multiple Choice Selectors" (2023, arXiv:2309.03882), for
what is looked at; they measure the spread of recalls, which needs the right answers. Here the places that were chosen
are held against chance, which is what they would be if right answers stand in random places.
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
    """Chosen places against chance.

    Attributes:
        counts: How often each place was chosen, the first place first.
        expected: How often it would be by chance: the sum of 1/k over the questions with k options that have it.
        first: Share of the answers that chose the first place.
        first_by_chance: The share expected.
        z: How many standard deviations the first place was chosen more often than expected; negative if less.
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
    """Count chosen places.

    Args:
        chosen: For each answer the place that was chosen, from 0, and the number of options.

    Raises:
        UserError: There are no answers, a question has fewer than two options, or a place is none of its options'.
    """
    for path, options in chosen:
        if options < 2 or not 0 <= path < options:
            raise UserError(f"place {path} of {options} options is no choice", hint="places are counted from 0")
    if not chosen:
        raise UserError("no answers, so no bias", hint="give the place and the number of options of each answer")
    n, most = len(chosen), max(options for _, options in chosen)
    counts = tuple(sum(path == at for path, _ in chosen) for at in range(most))
    expected = tuple(math.fsum(1 / options for _, options in chosen if at < options) for at in range(most))
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
