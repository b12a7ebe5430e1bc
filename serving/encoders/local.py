"""Embedding models and cross-encoders through the sentence-transformers library, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder as Library
from sentence_transformers import SentenceTransformer

from ...core.errors import BackendError, DataError
from ...core.messages import Usage
from ...core.settings import EncoderSettings
from ..devices import choose_device
from ..model_files.find import ModelFiles
from ..model_thread import ModelThread, length_batches
from ..transformers_loading import (
    LOCAL_FILES_ONLY,
    architecture_of,
    dtype_argument,
    first_line,
    min_limit,
    special_token_splitter,
    without_progress_bars,
)
from .protocols import TextKind, check_pairs

_QUERY, _DOCUMENT = ("query",), ("document", "passage", "corpus")
"""Names under which models keep their prompts."""


class LocalEmbedding:
    """A sentence-transformers model, as an `EmbeddingBackend`.

    Args:
        name: Model string.
        files: Its files, checked.
        settings: Its settings.

    Raises:
        DataError: The library cannot load it.
    """

    at_once = 1
    price_known = True

    def __init__(self, name: str, files: ModelFiles, settings: EncoderSettings) -> None:
        self.name = name
        try:
            with without_progress_bars():
                self._model: Any = SentenceTransformer(
                    str(files.directory),
                    device=str(choose_device(settings.device)),
                    model_kwargs={"use_safetensors": True, **dtype_argument(settings.dtype)},
                    **LOCAL_FILES_ONLY,
                )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, AttributeError) as e:
            raise DataError(f"cannot load the embedding model in {files.directory}: {first_line(e)}") from e
        self._model.default_prompt_name = None  # the prompt is this object's business
        limit = min_limit(settings.max_tokens, self._model.max_seq_length)
        if limit is not None:
            self._model.max_seq_length = limit
        self.max_tokens = limit
        size = getattr(self._model, "get_embedding_dimension", None) or self._model.get_sentence_embedding_dimension
        self.dimension = int(size() or 0)
        self.identity = f"{files.fingerprint}+{str(self._model.dtype).removeprefix('torch.')}+{limit}"
        own = dict(self._model.prompts or {})
        self._prompts: dict[TextKind, str] = {
            "text": "",
            "query": _first(settings.query_prompt, own, _QUERY),
            "document": _first(settings.document_prompt, own, _DOCUMENT),
        }
        self._thread = ModelThread(name)

    def prompt(self, kind: TextKind) -> str:
        return self._prompts[kind]

    async def compute(self, texts: Sequence[str], prompt: str) -> tuple[NDArray[np.float32], Usage]:
        """Vectors of one batch, computed in the model's own thread."""
        return await self._thread.run(lambda: self._compute(list(texts), prompt))

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text before truncation, without a prompt."""
        return await self._thread.run(lambda: self._count(list(texts)))

    def max_usd(self, texts: Sequence[str]) -> float:
        return 0.0

    async def aclose(self) -> None:
        """Wait for the current batch and free the model; idempotent."""
        await self._thread.aclose()
        self._model = None

    def _compute(self, texts: list[str], prompt: str) -> tuple[NDArray[np.float32], Usage]:
        try:
            with torch.inference_mode():
                vectors = self._model.encode(
                    texts,
                    prompt=prompt or None,
                    batch_size=len(texts),
                    convert_to_numpy=False,
                    convert_to_tensor=True,
                    show_progress_bar=False,
                )
        except RuntimeError as e:  # torch's class for a full memory too
            raise BackendError(
                f"{self.name} failed on {len(texts)} texts: {first_line(e)}",
                hint="lower batch_texts of this model in the section [encoders]",
            ) from e
        limit = self.max_tokens or 1 << 30
        tokens = sum(min(n, limit) for n in self._count([prompt + t for t in texts]))
        return vectors.float().cpu().numpy(), Usage(prompt_tokens=tokens)

    def _count(self, texts: list[str]) -> list[int]:
        if not texts:
            return []
        ids = self._model.tokenizer(texts, truncation=False, verbose=False)["input_ids"]
        return [len(row) for row in ids]


def _first(configured: str | None, own: dict[str, str | None], names: Sequence[str]) -> str:
    if configured is not None:
        return configured
    return next((prompt for name in names if (prompt := own.get(name))), "")


Pair = tuple[str, str]


class LocalCrossEncoder:
    """A sequence classifier that reads pairs. Special tokens in a text are split, so that it cannot end before its end.

    Args:
        name: Model string.
        files: Its files, checked.
        settings: Its settings.

    Raises:
        DataError: It is no sequence classifier, or the library cannot load it.
    """

    def __init__(self, name: str, files: ModelFiles, settings: EncoderSettings) -> None:
        self.name = name
        architecture = architecture_of(files.directory)
        if not architecture.endswith("ForSequenceClassification"):
            raise DataError(
                f"{name} is no cross-encoder: its architecture is {architecture or 'unknown'}",
                hint="a cross-encoder is a …ForSequenceClassification",
            )
        try:
            with without_progress_bars():
                self._model: Any = Library(
                    str(files.directory),
                    device=str(choose_device(settings.device)),
                    model_kwargs={"use_safetensors": True, **dtype_argument(settings.dtype)},
                    **LOCAL_FILES_ONLY,
                )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, AttributeError) as e:
            raise DataError(f"cannot load the cross-encoder in {files.directory}: {first_line(e)}") from e
        # newer versions of the library have renamed it
        name_of_limit = "max_seq_length" if hasattr(self._model, "max_seq_length") else "max_length"
        own_limit = getattr(self._model, name_of_limit)
        limit = min_limit(settings.max_tokens, own_limit, self._model.tokenizer.model_max_length)
        if limit is not None:
            setattr(self._model, name_of_limit, limit)
        self.max_tokens = limit
        config = self._model.config
        self.labels = tuple(str(config.id2label.get(i, i)) for i in range(int(config.num_labels)))
        dtype = str(next(self._model.model.parameters()).dtype).removeprefix("torch.")
        self.identity = f"{files.fingerprint}+{dtype}+{limit}"
        self._split_special = special_token_splitter(self._model.tokenizer)
        self._batch = settings.batch_texts
        self._thread = ModelThread(name)

    async def logits(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        """Outputs before any activation, in batches of similar length."""
        check_pairs(pairs)
        result: NDArray[np.float32] = np.zeros((len(pairs), len(self.labels)), dtype=np.float32)
        for batch in length_batches([len(a) + len(b) for a, b in pairs], self._batch):
            result[batch] = await self._thread.run(partial(self._compute, [pairs[i] for i in batch]))
        return result

    async def aclose(self) -> None:
        """Wait for the current batch and free the model; idempotent."""
        await self._thread.aclose()
        self._model = None

    def _compute(self, pairs: list[Pair]) -> NDArray[np.float32]:
        try:
            outputs = self._model.predict(
                [(self._split_special(a), self._split_special(b)) for a, b in pairs],
                batch_size=len(pairs),
                activation_fn=torch.nn.Identity(),
                convert_to_numpy=False,
                convert_to_tensor=True,
                show_progress_bar=False,
            )
        except RuntimeError as e:  # torch's class for a full memory too
            raise BackendError(
                f"{self.name} failed on {len(pairs)} pairs: {first_line(e)}",
                hint="lower batch_texts of this model in the section [encoders]",
            ) from e
        numbers: NDArray[np.float32] = outputs.float().cpu().numpy().reshape(len(pairs), len(self.labels))
        return numbers
