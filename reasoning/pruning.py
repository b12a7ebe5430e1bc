"""The arithmetic of mid-generation pruning: which of several samples go on at a checkpoint.

Source: Manvi et al., "Adaptive Inference-Time Compute" (2024, arXiv:2410.02725), section on pruning mid-generation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def survivors(quality: Sequence[float | None], keep: float) -> list[int]:
    """Positions of those that go on, ascending: the best `ceil(keep * live)`, at least one.

    A sample without a signal ranks behind all that have one; of equals the earlier one goes on. Only the order of the
    qualities counts.

    Args:
        quality: Quality of each live sample; None where there is no signal.
        keep: Share that goes on, in (0, 1].
    """
    count = max(1, math.ceil(round(keep * len(quality), 9)))
    ranked = sorted(range(len(quality)), key=lambda i: (quality[i] is None, -(quality[i] or 0.0), i))
    return sorted(ranked[:count])
