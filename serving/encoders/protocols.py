"""The protocols of embedding models and cross-encoders.

An embedding model turns texts into vectors. A cross-encoder reads two texts together: with one output it scores how
well a text answers a query (reranking); with a class for each relation of two texts, such as entailment, neutral and
contradiction, it does natural language inference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from ...core.messages import Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TextKind = Literal["text", "query", "document"]
"""Purpose of a text: models made for search prepend different prompts to queries and documents, and none to "text"."""

UsageCallback = Callable[[Usage], None]
"""Called with what embedding has cost; cached vectors cost nothing."""


@runtime_checkable
class EmbeddingModel(Protocol):
    """A model that turns texts into vectors.

    All methods may be called concurrently from one event loop. Cancelling the awaiting task stops the work between two
    batches, or closes the connection.

    Attributes:
        name: Model string.
        identity: Changes whenever a text could get another vector.
        dimension: Length of a vector.
        max_tokens: Maximum tokens of a text; a longer one is truncated, as the model was trained, or refused by a
            provider. None if unknown.
        price_known: Whether `max_usd` is known.
    """

    name: str
    identity: str
    dimension: int
    max_tokens: int | None
    price_known: bool

    async def embed(
        self, texts: Sequence[str], *, kind: TextKind = "text", unit: bool = True, charged: UsageCallback | None = None
    ) -> NDArray[np.float32]:
        """The vectors of texts.

        Args:
            texts: The texts.
            kind: Their purpose.
            unit: Whether to normalise vectors to length 1, so that their product is their cosine.
            charged: Called with tokens and dollars.

        Returns:
            fp32 `[texts, dimension]`, in order; a new array.

        Raises:
            UserError: A text is not a string.
            ContextTooLong: A provider refuses a long text.
            BackendError: It could not be computed.
        """

    async def count_tokens(self, texts: Sequence[str]) -> list[int] | None:
        """Tokens of each text before truncation; None if only a provider knows."""

    def max_usd(self, texts: Sequence[str]) -> float:
        """Maximum dollars that embedding costs; 0 for local models, and where the price is unknown."""

    async def aclose(self) -> None:
        """Release everything; idempotent."""


@runtime_checkable
class CrossEncoder(Protocol):
    """A model that reads pairs of texts.

    All methods may be called concurrently from one event loop. Cancelling the awaiting task stops the work between two
    batches.

    Attributes:
        name: Model string.
        identity: Changes whenever a pair could get other numbers.
        labels: Name of each output, as in the model's files; a single one for a reranker.
        max_tokens: Maximum tokens of a pair, of which the longer text is truncated; None if unknown.
    """

    name: str
    identity: str
    labels: tuple[str, ...]
    max_tokens: int | None

    async def logits(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """The model's outputs before any activation.

        Args:
            pairs: Two texts each: query and text, or premise and hypothesis.

        Returns:
            fp32 `[pairs, labels]`, in order.

        Raises:
            UserError: A pair is not two texts.
            BackendError: It could not be computed.
        """

    async def aclose(self) -> None:
        """Release everything; idempotent."""
