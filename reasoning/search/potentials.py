"""What a step is worth to a particle: its potential, by its score and that of the prefix before it."""

from __future__ import annotations

from .population import ParticleOptions
from .resampling import log_potential


def potential(
    options: ParticleOptions, text: str, score: float | None, before: float | None
) -> tuple[float | None, float | None]:
    """What a step is worth.

    Args:
        options: What a score is as a potential.
        text: The step; one that adds nothing has the score of its prefix.
        score: Score of the prefix that ends with it, if there is one.
        before: Level of the prefix before it.

    Returns:
        log G at temperature 1, None without a score; and the level of the prefix with the step.
    """
    r = before if score is None and not text.strip() else score
    if r is None:
        return None, before
    return log_potential(options.weight_mode, r, before, options.level, options.clip), r
