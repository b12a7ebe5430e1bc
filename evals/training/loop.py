"""The training loop: the same for every model that is trained step by step.

    restore; save what was there if anything fails
    repeat
        if validation is due: validate
        if all steps are done: stop
        if time is up or the run was cancelled: stop
        if a checkpoint is due: save it
        run one step
    whatever ends the loop: save the state after the last complete step

What a step is belongs to the trainer: one block of every episode in flight for a navigator, one batch for an
entailment judge. Routers are fitted in closed form and need no loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Literal, Protocol

from pydantic import Field

from ...core.errors import BudgetExceeded, Cancelled
from ...core.messages import Frozen

StopReason = Literal["done", "tokens", "time"]
"""All steps are done, the next one could exceed the token limit, or the time is up; the last two can be resumed."""


class TrainerConfig(Frozen):
    """When a training run validates, saves and stops. None of it changes the result.

    Attributes:
        checkpoint_every: Steps (of a navigator: episodes) between two checkpoints.
        validate_every: Steps (episodes) between two validations; 0 disables them.
        max_tokens: Maximum number of generated tokens; None for no limit.
        max_seconds: Maximum time; None for no limit.
    """

    checkpoint_every: Annotated[int, Field(ge=1)] = 200
    validate_every: Annotated[int, Field(ge=0)] = 100
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_seconds: Annotated[float, Field(ge=0)] | None = None


class Trainer(Protocol):
    """What the loop needs of a trainer."""

    @property
    def num_finished(self) -> int:
        """Steps (episodes) that are finished; `checkpoint_every` counts them."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""

    async def restore(self) -> None:
        """Bring everything to the state of the checkpoint."""

    def is_validation_due(self, every: int) -> bool:
        """Whether to validate now."""

    async def validate(self) -> None:
        """Measure on validation data."""

    async def step(self) -> None:
        """Run one step."""

    def snapshot(self) -> Callable[[], None]:
        """The current state, between two steps, as a function that saves it."""

    async def close(self) -> None:
        """Release what unfinished steps hold; idempotent."""


async def run_training(
    trainer: Trainer, config: TrainerConfig, *, is_cancelled: Callable[[], bool] = lambda: False
) -> StopReason:
    """Train until something ends it.

    Raises:
        Cancelled: `is_cancelled` said so; the state is saved.
        ReasonError: A step failed; the state before it is saved.
    """
    began = time.monotonic()
    last_saved = trainer.num_finished
    save = trainer.snapshot()
    try:
        await trainer.restore()
        while True:
            save = trainer.snapshot()
            if config.validate_every and trainer.is_validation_due(config.validate_every):
                await trainer.validate()
                save = trainer.snapshot()
            if trainer.is_done:
                return "done"
            if config.max_seconds is not None and time.monotonic() - began > config.max_seconds:
                return "time"
            if is_cancelled():
                raise Cancelled(f"the training was cancelled after {trainer.num_finished} steps", partial=None)
            if trainer.num_finished >= last_saved + config.checkpoint_every:
                save()
                last_saved = trainer.num_finished
            await trainer.step()
    except BudgetExceeded:
        return "tokens"
    finally:
        try:
            save()
        finally:
            await trainer.close()
