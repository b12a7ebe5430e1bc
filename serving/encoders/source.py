"""`Source`: what computes vectors, without memory and batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ...core.messages import Usage
from ..embeddings import Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Source(Protocol):
    """Computes vectors of a batch of texts.

    Attributes:
        name: The model's string.
        identity: Changes whenever a text could get another vector.
        dimension: Numbers of a vector.
        max_tokens: As `EmbeddingModel.max_tokens`.
        price_known: As `EmbeddingModel.price_known`.
        at_once: Batches that are worth computing at the same time.
    """

    name: str
    identity: str
    dimension: int
    max_tokens: int | None
    price_known: bool
    at_once: int

    def prompt(self, kind: Kind) -> str:
        """What is put before a text; empty for nothing."""

    async def compute(self, texts: Sequence[str], prompt: str) -> tuple[NDArray[np.float32], Usage]:
        """Vectors `[texts, dimension]` of any length, and what they cost."""

    async def count_tokens(self, texts: Sequence[str]) -> list[int] | None:
        """Tokens of each text; None if unknown."""

    def most_usd(self, texts: Sequence[str]) -> float:
        """The most dollars that computing could cost."""

    async def aclose(self) -> None:
        """Release everything; idempotent."""
