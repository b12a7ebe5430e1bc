"""`EventFields`: what every event of a run has."""

from __future__ import annotations

from .messages import Frozen


class EventFields(Frozen):
    """What every event has.

    Attributes:
        number: Position in the run, from 1; 0 before it is emitted.
        parent: Number of the event this one belongs under; None at the root.
        run_id: The run.
        at_s: Seconds since the run began.
    """

    number: int = 0
    parent: int | None = None
    run_id: str = ""
    at_s: float = 0.0
