"""`LocalCrossEncoder`: a cross-encoder by the sentence-transformers library, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder as Library

from ...core.errors import BackendError, DataError
from ...core.scorer_settings import EncoderSettings
from ..cross_encoders import check_pairs
from ..devices import choose_device
from ..files import ModelFiles
from ..loading import SAFE, architecture_of, dtype_argument, first_line, longest_input, no_bars
from ..work_thread import WorkThread, batches_of

Pair = tuple[str, str]


class LocalCrossEncoder:
    """A sequence classifier that reads pairs (see `cross_encoders.CrossEncoder`).

    Args:
        name: The string it was opened by.
        files: Its files, checked.
        settings: How it is asked.

    Raises:
        DataError: It is no sequence classifier, or the library cannot load it.
    """

    def __init__(self, name: str, files: ModelFiles, settings: EncoderSettings) -> None:
        self.name = name
        architecture = architecture_of(files.folder)
        if not architecture.endswith("ForSequenceClassification"):
            raise DataError(
                f"{name} is no cross-encoder: its architecture is {architecture or 'not told'}",
                hint="a cross-encoder is a …ForSequenceClassification",
            )
        try:
            with no_bars():
                self._model: Any = Library(
                    str(files.folder),
                    device=str(choose_device(settings.device)),
                    model_kwargs={"use_safetensors": True, **dtype_argument(settings.dtype)},
                    **SAFE,
                )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, AttributeError) as e:
            raise DataError(f"cannot load the cross-encoder in {files.folder}: {first_line(e)}") from e
        limit = longest_input(settings.max_tokens, self._model.max_length, self._model.tokenizer.model_max_length)
        if limit is not None:
            self._model.max_length = limit
        self.max_tokens = limit
        config = self._model.config
        self.labels = tuple(str(config.id2label.get(i, i)) for i in range(int(config.num_labels)))
        dtype = str(next(self._model.model.parameters()).dtype).removeprefix("torch.")
        self.identity = f"{files.fingerprint}+{dtype}+{limit}"
        self._batch = settings.batch_texts
        self._thread = WorkThread(name)

    async def logits(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        """Outputs before any activation, in batches of like length (see `CrossEncoder.logits`)."""
        check_pairs(pairs)
        result: NDArray[np.float32] = np.zeros((len(pairs), len(self.labels)), dtype=np.float32)
        for batch in batches_of([len(a) + len(b) for a, b in pairs], self._batch):
            result[batch] = await self._thread.run(partial(self._compute, [pairs[i] for i in batch]))
        return result

    async def aclose(self) -> None:
        """Let the batch under way end and free the model; idempotent."""
        await self._thread.aclose()
        self._model = None

    def _compute(self, pairs: list[Pair]) -> NDArray[np.float32]:
        try:
            found = self._model.predict(
                pairs,
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
        numbers: NDArray[np.float32] = found.float().cpu().numpy().reshape(len(pairs), len(self.labels))
        return numbers
