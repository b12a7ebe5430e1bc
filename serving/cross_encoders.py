"""`CrossEncoder`: the protocol of models that read two texts together, and `open_cross_encoder`.

One kind has a single output: how well a text answers a query (reranking). Another has a class for each relation of two
texts, such as entailment, neutral and contradiction (natural language inference).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ..core.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..core.settings import Settings
    from .pulling import Progress


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


async def open_cross_encoder(name: str, settings: Settings, progress: Progress | None = None) -> CrossEncoder:
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
    from .encoders.opening import open_cross_encoder_by_name

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
