"""Online confidence: samples that the model is less sure of than of the first ones end early, and votes are weighed.

Source: Fu et al., "Deep Think with Confidence" (2025, arXiv:2508.15260), section 3.2 and equations 2 to 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from ...core.messages import HookCall
from ...serving.model import Feature
from .rule import StoppingRule
from .tally import Tally

HOOK = "stop_on_confidence"


class OnlineConfidence(StoppingRule):
    """A first few samples run to their end and set a bound; a later one ends where its group confidence falls below it.

    A sample's weight in the vote is its lowest group confidence. Nothing more is drawn once the leader has `share` of
    the weight.

    Differs: the window is 2048 tokens in the paper, whose chains are many thousands long; a window longer than a chain
    never fills, so that the chain cannot be ended and has no weight of its own.
    """

    rule: Literal["confidence"] = "confidence"
    warm_up: Annotated[int, Field(ge=1, description="samples that set the bound")] = 8
    keep: Annotated[
        float, Field(gt=0, le=1, description="share of the first samples that the bound would have kept")
    ] = 0.9
    window: Annotated[int, Field(ge=1, description="tokens of a group")] = 64
    top: Annotated[int, Field(ge=1, description="most likely tokens that count at each place")] = 20
    share: Annotated[float, Field(gt=0.5, le=1, description="leader's share of the weight at which to stop")] = 0.95

    def enough(self, tally: Tally) -> bool:
        """See `StoppingRule.enough`."""
        return tally.finished >= self.warm_up and max(tally.shares, default=0.0) >= self.share

    def round(self, tally: Tally, left: int) -> int:
        """See `StoppingRule.round`: the first samples, then one at a time, for a weight can be anything."""
        return min(left, max(1, self.warm_up - tally.finished))

    def race(self, tally: Tally, left: int) -> int:
        """See `StoppingRule.race`: the first samples, then all the others."""
        return min(left, self.warm_up) if tally.finished < self.warm_up else left

    def hooks(self, tally: Tally) -> tuple[HookCall, ...]:
        """See `StoppingRule.hooks`: the bound, or for the first samples one that nothing falls below."""
        return (HookCall(name=HOOK, args={"threshold": self.bound(tally), "window": self.window, "top": self.top}),)

    def bound(self, tally: Tally) -> float:
        """Group confidence below which a sample ends, in nats; 0, which no confidence is below, while it is not known.

        The paper's percentile: such that the share `keep` of the first samples stayed above it.
        """
        known = [v for v in tally.lowest[: self.warm_up] if v is not None]
        return percentile(known, 1.0 - self.keep) if tally.finished >= self.warm_up and known else 0.0

    @property
    def needs(self) -> frozenset[Feature]:
        """See `StoppingRule.needs`."""
        return frozenset({"hooks"})


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of the values lies, linear between neighbours; `values` is not empty."""
    ranked = sorted(values)
    place = share * (len(ranked) - 1)
    below = int(place)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (place - below) * (ranked[above] - ranked[below])
