"""Agreement: stop when a window of samples in a row gives one answer.

Source: Li et al., "Escape Sky-high Cost: Early-stopping Self-Consistency for Multi-step Reasoning" (ICLR 2024,
arXiv:2401.10480), section 3.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .rule import StoppingRule
from .tally import Tally


class Agreement(StoppingRule):
    """Stop when the last `window` samples all give the same answer.

    Differs: the paper cuts the samples into windows that do not overlap; here any run of `window` samples counts, which
    stops no later. A sample without an answer breaks a run.
    """

    rule: Literal["agreement"] = "agreement"
    window: Annotated[int, Field(ge=2, description="samples in a row that must agree")] = 5

    def enough(self, tally: Tally) -> bool:
        """See `StoppingRule.enough`."""
        last = tally.labels[-self.window :]
        return len(last) == self.window and last[0] is not None and len(set(last)) == 1

    def round(self, tally: Tally, left: int) -> int:
        """See `StoppingRule.round`: what the run of equal answers at the end lacks."""
        lead = next((label for label in reversed(tally.labels)), None)
        run = next((i for i, label in enumerate(reversed(tally.labels)) if label != lead), tally.finished)
        return max(1, min(left, self.window - (run if lead is not None else 0)))
