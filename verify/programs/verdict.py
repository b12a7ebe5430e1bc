"""`ProgramVerdict`: what a program found of a claim, and which part of the claim it looked at."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from ...core.messages import Frozen


class ProgramVerdict(Frozen):
    """What a program found. A wrong part makes the claim wrong; a right part makes it right only if it is the whole.

    Attributes:
        holds: Whether the part that was looked at is right.
        detail: What was worked out, in one line.
        start: First character of that part in the claim's text.
        end: One past the last.
        whole: Whether the claim says nothing else. "She was born in 1900 and died in 1950 at 50" agrees with itself,
            which tells nothing of when she was born.
    """

    holds: bool
    detail: str
    start: Annotated[int, Field(ge=0)]
    end: int
    whole: bool = False

    @model_validator(mode="after")
    def _has_a_part(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"the part ends ({self.end}) before it begins ({self.start})")
        return self
