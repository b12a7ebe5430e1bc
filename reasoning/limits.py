"""Maximums of the parameters of strategies: of each by itself, and of the samples that several lead to together.

A parameter's maximum is part of its schema. Parameters that multiply are bounded by their product too: the number of
samples that a run may request, whose time, memory and events grow with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from ..core.errors import UserError

MAX_CHAINS: Final = 4096
"""Maximum samples of one prompt at once, beams, particles and the like; that of `SamplingParams.n`."""
MAX_DEPTH: Final = 1000
"""Maximum steps of a solution."""
MAX_ROUNDS: Final = 10_000
"""Maximum expansions, passes and the like that follow one another."""
MAX_ITEMS: Final = 1000
"""Maximum length of a list, and number of notes, snippets and the like."""
MAX_TOKENS: Final = 1 << 20
"""Maximum tokens of one text; longer than the context of any model."""
MAX_WEIGHT: Final = 1e9
"""Maximum of factors, weights and temperatures that the method does not bound itself."""
MAX_RUN_SAMPLES: Final = 65_536
"""Maximum samples that the parameters of one run may lead to."""


def require_samples_within(strategy: str, factors: Mapping[str, int], maximum: int, remedy: str = "") -> None:
    """Refuse parameters whose product is too large.

    Args:
        strategy: Name of the strategy, for the message.
        factors: What the number of samples is the product of, by parameter (see `Parameters.sample_factors`).
        maximum: Maximum of the product.
        remedy: What else helps than to lower a parameter; empty is nothing.

    Raises:
        UserError: The product exceeds the maximum; names values, product and maximum.
    """
    product = math.prod(factors.values())
    if product <= maximum:
        return
    values = " * ".join(f"{name} {value:,}" for name, value in factors.items())
    total = f" = {product:,}" if len(factors) > 1 else ""
    names = list(factors)
    lower = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
    raise UserError(
        f"the parameters of {strategy} lead to up to {values}{total} samples, more than {maximum:,}",
        hint=f"lower {lower}{f', or {remedy}' if remedy else ''}",
        param=max(factors, key=factors.__getitem__).partition(" ")[0],
    )
