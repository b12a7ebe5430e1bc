"""`Stopping`: any stopping rule as a strategy's parameter takes it: a name, or an object with the rule's parameters."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from .agreement import Agreement
from .beta import Beta
from .confidence import OnlineConfidence
from .dirichlet import Dirichlet
from .rule import StoppingRule
from .self_evaluated import SelfEvaluated


class NoStop(StoppingRule):
    """Draw all samples."""

    rule: Literal["none"] = "none"

    def round(self, tally: Any, left: int) -> int:
        """See `StoppingRule.round`: all at once."""
        return left


def _named(value: Any) -> Any:
    return {"rule": value} if isinstance(value, str) else value


Stopping = Annotated[
    NoStop | Agreement | Beta | Dirichlet | SelfEvaluated | OnlineConfidence,
    Field(discriminator="rule"),
    BeforeValidator(_named),
]
"""`"beta"`, or `{"rule": "beta", "confidence": 0.99}`; likewise the others."""

Mode = Literal["auto", "rounds", "race"]
"""How samples are drawn under a rule. "rounds": as few at a time as could be enough, then the rule is asked. "race":
all at once, the rule is asked at each that finishes, and the rest are cancelled. "auto": a race where tokens cost no
money, else rounds, since a provider may bill what was cancelled."""
