"""`Forward`: what the scheduler needs of a model, whoever computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from .families import ModelShape
from .kvlog import KVLog
from .plans import Span


class Forward(Protocol):
    """A decoder that runs spans over logs.

    Attributes:
        shape: Sizes of the model.
    """

    shape: ModelShape

    def open_log(self, capacity: int) -> KVLog:
        """An empty log with room for `capacity` columns."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def steady(self) -> bool:
        """Whether a token's logits have the same bits whatever else a step computes and a log has room for."""

    @property
    def column_bytes(self) -> int:
        """Bytes of one column of a log."""

    def run(self, spans: Sequence[Span]) -> Tensor:
        """Write the spans into their logs and return logits.

        Args:
            spans: New tokens, those of one log side by side; the logs have room for them.

        Returns:
            Logits `[wanted, vocab]`, fp32, on its device: the wanted positions of the spans, in order.
        """

    def close(self) -> None:
        """Free the weights, whoever still holds this: nothing can be computed afterwards. Idempotent."""
