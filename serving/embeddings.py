"""`EmbeddingModel`: the protocol of models that turn texts into vectors, and `open_embedding`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from ..core.messages import Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..core.settings import Settings
    from .pulling import Progress

Kind = Literal["text", "query", "document"]
"""What a text is for: models made for search put another prompt before a query than before a document; "text" has
none."""

Charged = Callable[[Usage], None]
"""Hears what embedding has cost; what was remembered costs nothing."""


@runtime_checkable
class EmbeddingModel(Protocol):
    """A model that turns texts into vectors.

    All methods may be called concurrently from one event loop. Cancelling the awaiting task stops the work between two
    batches, or closes the connection.

    Attributes:
        name: The string it was opened by.
        identity: Changes whenever a text could get another vector.
        dimension: Numbers of a vector.
        max_tokens: Tokens of a text that are looked at; a longer text is cut there, as the model was trained, or
            refused by a provider. None if unknown.
        price_known: Whether `most_usd` can tell.
    """

    name: str
    identity: str
    dimension: int
    max_tokens: int | None
    price_known: bool

    async def embed(
        self, texts: Sequence[str], *, kind: Kind = "text", unit: bool = True, charged: Charged | None = None
    ) -> NDArray[np.float32]:
        """The vectors of texts.

        Args:
            texts: The texts.
            kind: What they are for.
            unit: Whether vectors have length 1, so that their product is their cosine.
            charged: Told of tokens and dollars.

        Returns:
            fp32 `[texts, dimension]`, in order; a fresh array.

        Raises:
            UserError: A text is no text.
            ContextTooLong: A provider refuses a long text.
            BackendError: It could not be computed.
        """

    async def count_tokens(self, texts: Sequence[str]) -> list[int] | None:
        """Tokens of each text before any cut; None if only a provider could tell."""

    def most_usd(self, texts: Sequence[str]) -> float:
        """The most dollars that embedding could cost; 0 for models that run here, and where the price is unknown."""

    async def aclose(self) -> None:
        """Release everything; idempotent."""


async def open_embedding(name: str | None, settings: Settings, progress: Progress | None = None) -> EmbeddingModel:
    """Open an embedding model by its string, off the event loop.

    | string | model |
    | --- | --- |
    | `local/all-minilm-l6-v2` | the default: 384 numbers, its weights from the Python package index |
    | `local/<folder>`, `local/<hub id>` | any sentence-transformers model, in this process |
    | `hosted_vllm/<served name>` | a vLLM server that embeds, through LiteLLM's provider settings |
    | `openai/text-embedding-3-small`, … | the provider that LiteLLM knows under this string |

    Args:
        name: One of these strings; None is the setting `embedding_model`.
        settings: Where files are kept; the section `encoders` for this name; providers.
        progress: Told of a fetch, from another thread.

    Raises:
        UnknownName: No embedding model has that name.
        UserError: A setting is wrong, an extra or a key is missing.
        DataError: The model's files are damaged, or are another kind of model.
        BackendUnavailable: It cannot be had here, or its provider cannot be reached.
    """
    from .encoders.opening import open_embedding_by_name

    return await open_embedding_by_name(name or settings.embedding_model, settings, progress)
