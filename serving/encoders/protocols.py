"""`EmbeddingModel`: the protocol of models that turn texts into vectors, and `load_embedding_model`.

`CrossEncoder`: the protocol of models that read two texts together, and `load_cross_encoder`.

One kind has a single output: how well a text answers a query (reranking). Another has a class for each relation of two
texts, such as entailment, neutral and contradiction (natural language inference).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from ...core.errors import UserError
from ...core.messages import Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ...core.settings import Settings
    from ..model_files.downloads import Progress


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


async def load_embedding_model(
    name: str | None, settings: Settings, progress: Progress | None = None
) -> EmbeddingModel:
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
    from .factory import open_embedding_by_name

    return await open_embedding_by_name(name or settings.embedding_model, settings, progress)


@runtime_checkable
class CrossEncoder(Protocol):
    """A model that reads pairs of texts.

    All methods may be called concurrently from one event loop. Cancelling the awaiting task stops the work between two
    batches.

    Attributes:
        name: The string it was opened by.
        identity: Changes whenever a pair could get other numbers.
        labels: Name of each output, as the model's files have it; a single one for a reranker.
        max_tokens: Tokens of a pair that are looked at, the longer text being cut; None if unknown.
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
            UserError: A pair is no pair of texts.
            BackendError: It could not be computed.
        """

    async def aclose(self) -> None:
        """Release everything; idempotent."""


async def load_cross_encoder(name: str, settings: Settings, progress: Progress | None = None) -> CrossEncoder:
    """Open a cross-encoder by its string, off the event loop.

    | string | model |
    | --- | --- |
    | `local/<folder>`, `local/<hub id>` | a sequence classifier, by sentence-transformers, in this process |
    | `hosted_vllm_pooling/<served name>` | a reranker on a vLLM server started with `--runner pooling` |

    Args:
        name: One of these strings.
        settings: Where files are kept; the section `encoders` for this name; providers.
        progress: Told of a fetch, from another thread.

    Raises:
        UnknownName: No cross-encoder has that name.
        UserError: A setting is wrong or an extra is missing.
        DataError: The model's files are damaged, or are another kind of model.
        BackendUnavailable: It cannot be had here, or its server cannot be reached.
    """
    from .factory import open_cross_encoder_by_name

    return await open_cross_encoder_by_name(name, settings, progress)


def check_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Raises `UserError` if something is no pair of texts."""
    for i, pair in enumerate(pairs):
        if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(t, str) for t in pair):
            raise UserError(f"pair {i} is not two texts")


async def probabilities(model: CrossEncoder, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
    """Probability of each label: a softmax over the classes, or the sigmoid of a single output.

    Returns:
        fp32 `[pairs, labels]`.
    """
    import numpy as np

    logits = (await model.logits(pairs)).astype(np.float64)
    if logits.shape[1] == 1:
        logits = np.concatenate([logits, np.zeros_like(logits)], 1)
    raised = np.exp(logits - logits.max(1, keepdims=True, initial=-np.inf))
    chances: NDArray[np.float32] = (raised / raised.sum(1, keepdims=True)).astype(np.float32)
    return chances[:, : len(model.labels)]


async def rank(model: CrossEncoder, query: str, texts: Sequence[str]) -> list[tuple[int, float]]:
    """Texts by how well they answer a query.

    Returns:
        (position in `texts`, raw score), the best first; equal ones in their order.

    Raises:
        UserError: The model tells classes, not a score.
    """
    if len(model.labels) != 1:
        raise UserError(f"{model.name} tells {', '.join(model.labels)}, and does not rank", hint="use probabilities")
    scores = (await model.logits([(query, text) for text in texts]))[:, 0]
    return sorted(((i, float(s)) for i, s in enumerate(scores)), key=lambda pair: (-pair[1], pair[0]))
