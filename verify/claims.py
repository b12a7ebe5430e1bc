"""`Claim`: one checkable statement of an answer, and where in the answer it stands."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from ..core.messages import Frozen


class Claim(Frozen):
    """One statement that can be checked by itself.

    Attributes:
        text: The statement, self-contained: names in place of pronouns, hedges kept, nothing added.
        start: First character of the part of the answer that it says again.
        end: One past the last character.
    """

    text: Annotated[str, StringConstraints(min_length=1)]
    start: Annotated[int, Field(ge=0)]
    end: int

    @model_validator(mode="after")
    def _has_a_place(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"a claim's place ends ({self.end}) before it begins ({self.start})")
        return self
