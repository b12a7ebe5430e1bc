"""`Part`: what a request of vLLM's says of the group of workers that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from ....core.messages import Frozen
from ....core.settings import explain
from ...workers import MOST_WORKERS, Layout

KEY = "reason_workers"
"""Under this key of a request's `extra_args` it lies."""

Kind = Literal["prompt", "others", "own", "pass"]
"""What a request's new tokens are: the prompt that all workers begin with, one of the headers, or what a worker reads
in a pass."""


Size = Annotated[int, Field(ge=0)]


class Part(Frozen):
    """What one request is for its group.

    Attributes:
        group: Name that no other group of the engine has or had.
        kind: What its new tokens are.
        workers: Workers of the group.
        layout: What they see of one another.
        worker: Whose request it is.
        turn: Number of the pass, from 1.
        reading: Workers that read in it, by number.
        moves: Workers whose text joins the history before it, in this order.
        sizes: Tokens of the group's prompt, of its header before the others' texts, and of the one before one's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: str
    kind: Kind
    workers: Annotated[int, Field(ge=1, le=MOST_WORKERS)]
    layout: Layout
    worker: Annotated[int, Field(ge=0, lt=MOST_WORKERS)] = 0
    turn: Annotated[int, Field(ge=0)] = 0
    reading: tuple[int, ...] = ()
    moves: tuple[int, ...] = ()
    sizes: tuple[Size, Size, Size] = (0, 0, 0)

    def arguments(self) -> dict[str, Any]:
        """As `extra_args`."""
        return {KEY: self.model_dump(mode="json")}

    @classmethod
    def of(cls, extra_args: Mapping[str, Any] | None) -> Part | None:
        """The part of a request; None if it belongs to no group.

        Raises:
            ValueError: It makes no sense.
        """
        given = (extra_args or {}).get(KEY)
        if given is None:
            return None
        try:
            return cls.model_validate(given)
        except ValidationError as e:
            raise ValueError(f"{KEY}: {explain(e, 'field', cls.model_fields)}") from e
