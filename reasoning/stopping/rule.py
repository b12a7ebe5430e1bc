"""`StoppingRule`: what every stopping rule is.

A rule is frozen parameters and pure functions of the `Tally`: no model, no clock, no memory. So it decides the same
about the same samples whether they came in rounds or in a race, live or from the run store.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from ...core.messages import HookCall
from ...serving.model import Feature
from .tally import Tally

LOOK_AHEAD = 64


class StoppingRule(BaseModel):
    """A stopping rule with its parameters. This one never stops before all samples are there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def enough(self, tally: Tally) -> bool:
        """Whether no further sample is worth drawing. Asked with at least one finished sample."""
        return False

    def round(self, tally: Tally, left: int) -> int:
        """How many samples to draw next in rounds: the fewest that could be enough, between 1 and `left`.

        With fewer the rule could not stop, so drawing so many at once wastes nothing against one at a time: the fewest
        that would do it if all agreed with the leader, or if none agreed with anything.
        """
        for count in range(1, left):
            if any(self.enough(tally.with_more(count, agreeing=agreeing)) for agreeing in (True, False)):
                return count
        return left

    def race(self, tally: Tally, left: int) -> int:
        """How many samples to start at once in a race, between 1 and `left`: all, unless a rule has to learn first."""
        return left

    def hooks(self, tally: Tally) -> tuple[HookCall, ...]:
        """Logits hooks of the samples drawn next."""
        return ()

    @property
    def needs(self) -> frozenset[Feature]:
        """What the model must be able to do."""
        return frozenset()

    @property
    def judges(self) -> bool:
        """Whether the model is to judge each finished sample."""
        return False
