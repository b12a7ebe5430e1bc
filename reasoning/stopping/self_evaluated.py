"""Self-evaluation: stop when the model itself holds its best sample for as good as any other attempt.

Source: Manvi et al., "Adaptive Inference-Time Compute" (2024, arXiv:2410.02725), section on adaptive sampling.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .rule import StoppingRule
from .tally import Tally


class SelfEvaluated(StoppingRule):
    """Stop when the best sample's quality is at least `threshold`.

    `threshold <= 0` is a single sample, above 1 all of them. There is no default: the prompted signal is
    over-confident, so take the threshold from a calibration curve of the model at hand.
    """

    rule: Literal["self-evaluation"] = "self-evaluation"
    threshold: Annotated[float, Field(allow_inf_nan=False, description="quality at which to stop")]

    def enough(self, tally: Tally) -> bool:
        """See `StoppingRule.enough`. A sample without a signal never stops anything, unless any sample would."""
        if self.threshold <= 0:
            return True
        return max((q for q in tally.quality if q is not None), default=-1.0) >= self.threshold

    def round(self, tally: Tally, left: int) -> int:
        """See `StoppingRule.round`: 1, 1, 2, 4, 8, so that few samples cost few rounds and many not many."""
        return min(left, max(1, tally.finished))

    @property
    def judges(self) -> bool:
        """See `StoppingRule.judges`."""
        return True
