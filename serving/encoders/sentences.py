"""`SentenceSource`: vectors by the sentence-transformers library, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from ...core.errors import BackendError, DataError
from ...core.messages import Usage
from ...core.scorer_settings import EncoderSettings
from ..devices import choose_device
from ..embeddings import Kind
from ..files import ModelFiles
from ..loading import SAFE, dtype_argument, first_line, longest_input, no_bars
from ..work_thread import WorkThread

_QUERY, _DOCUMENT = ("query",), ("document", "passage", "corpus")
"""Names under which models keep their prompts."""


class SentenceSource:
    """A sentence-transformers model (see `Source`).

    Args:
        name: The model's string.
        files: Its files, checked.
        settings: How it is asked.

    Raises:
        DataError: The library cannot load it.
    """

    at_once = 1
    price_known = True

    def __init__(self, name: str, files: ModelFiles, settings: EncoderSettings) -> None:
        self.name = name
        try:
            with no_bars():
                self._model: Any = SentenceTransformer(
                    str(files.folder),
                    device=str(choose_device(settings.device)),
                    model_kwargs={"use_safetensors": True, **dtype_argument(settings.dtype)},
                    **SAFE,
                )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, AttributeError) as e:
            raise DataError(f"cannot load the embedding model in {files.folder}: {first_line(e)}") from e
        self._model.default_prompt_name = None  # the prompt is this object's business
        limit = longest_input(settings.max_tokens, self._model.max_seq_length)
        if limit is not None:
            self._model.max_seq_length = limit
        self.max_tokens = limit
        size = getattr(self._model, "get_embedding_dimension", None) or self._model.get_sentence_embedding_dimension
        self.dimension = int(size() or 0)
        self.identity = f"{files.fingerprint}+{str(self._model.dtype).removeprefix('torch.')}+{limit}"
        own = dict(self._model.prompts or {})
        self._prompts: dict[Kind, str] = {
            "text": "",
            "query": _first(settings.query_prompt, own, _QUERY),
            "document": _first(settings.document_prompt, own, _DOCUMENT),
        }
        self._thread = WorkThread(name)

    def prompt(self, kind: Kind) -> str:
        """What is put before a text."""
        return self._prompts[kind]

    async def compute(self, texts: Sequence[str], prompt: str) -> tuple[NDArray[np.float32], Usage]:
        """Vectors of one batch, computed in the model's own thread."""
        return await self._thread.run(lambda: self._compute(list(texts), prompt))

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text before any cut, without a prompt."""
        return await self._thread.run(lambda: self._count(list(texts)))

    def most_usd(self, texts: Sequence[str]) -> float:
        """0: it runs here."""
        return 0.0

    async def aclose(self) -> None:
        """Let the batch under way end and free the model; idempotent."""
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
        most = self.max_tokens or 1 << 30
        tokens = sum(min(n, most) for n in self._count([prompt + t for t in texts]))
        return vectors.float().cpu().numpy(), Usage(prompt_tokens=tokens)

    def _count(self, texts: list[str]) -> list[int]:
        if not texts:
            return []
        ids = self._model.tokenizer(texts, truncation=False, verbose=False)["input_ids"]
        return [len(row) for row in ids]


def _first(chosen: str | None, own: dict[str, str | None], names: Sequence[str]) -> str:
    if chosen is not None:
        return chosen
    return next((prompt for name in names if (prompt := own.get(name))), "")
