"""`Rhythm`: what a training of the embedded judge does besides learning."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rhythm:
    """When a training notes and saves; it changes no weight.

    Attributes:
        note_every: Steps between two points of the learning curve.
        save_every: Steps between two checkpoints.
        most_seconds: It pauses, resumable, when it has worked so long; None is no limit.
    """

    note_every: int = 100
    save_every: int = 200
    most_seconds: float | None = None
