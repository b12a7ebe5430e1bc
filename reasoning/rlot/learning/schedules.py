"""`Learning`: the numbers that govern training, and the two that change while it goes on."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from ....core.messages import Frozen


class Learning(Frozen):
    """How a navigator learns; the defaults are those of Hao, Li, Yuan, Li 2025, arXiv:2505.14140, as in their program.

    Attributes:
        gamma: Discount of the next state's value.
        lr: Learning rate of Adam at the start.
        lr_halved_every: Episodes after which the learning rate is halved, again and again.
        batch: Transitions an update is made of.
        capacity: Transitions that are kept, the newest.
        begins_at: Transitions that are there before the first update.
        gradient_steps: Updates behind each step, each with a batch of its own; 1 in the paper. More are worth having
            where an episode costs a minute and an update a millisecond.
        sync_every: Updates after which the target network becomes the online one.
        eps_start: Share of random actions at the start.
        eps_min: What it does not fall below.
        eps_decay: What it is multiplied by at each step.
    """

    gamma: Annotated[float, Field(ge=0, le=1)] = 0.9
    lr: Annotated[float, Field(gt=0, le=1)] = 0.01
    lr_halved_every: Annotated[int, Field(ge=1)] = 1000
    batch: Annotated[int, Field(ge=1)] = 64
    capacity: Annotated[int, Field(ge=1, le=10_000_000)] = 500
    begins_at: Annotated[int, Field(ge=1)] = 500
    gradient_steps: Annotated[int, Field(ge=1, le=1000)] = 1
    sync_every: Annotated[int, Field(ge=1)] = 50
    eps_start: Annotated[float, Field(ge=0, le=1)] = 1.0
    eps_min: Annotated[float, Field(ge=0, le=1)] = 0.0
    eps_decay: Annotated[float, Field(gt=0, le=1)] = 0.9995

    @model_validator(mode="after")
    def _can_begin(self) -> Self:
        if not self.batch <= self.begins_at <= self.capacity:
            raise ValueError("batch is at most begins_at, which is at most capacity")
        if self.eps_min > self.eps_start:
            raise ValueError("eps_min is at most eps_start")
        return self

    def epsilon(self, steps: int) -> float:
        """The chance that an action is random after so many steps: max(eps_min, eps_start * eps_decay^steps)."""
        return max(self.eps_min, self.eps_start * self.eps_decay**steps)

    def learning_rate(self, episodes: int) -> float:
        """Adam's learning rate after so many episodes: lr * 0.5^floor(episodes / lr_halved_every)."""
        return self.lr * 0.5 ** (episodes // self.lr_halved_every)
