"""`load_cross_encoder`: classifiers of pairs of texts through the sentence-transformers library, in this process."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import BackendError, DataError, UnknownName, UserError
from ...core.files import Progress
from ...core.settings import EncoderSettings, Settings
from ..devices import choose_device
from ..model_files.catalogue import PREFIX
from ..model_files.conversion import missing_extra
from ..model_files.downloads import run_pull
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
from .files import find_encoder
from .protocols import CrossEncoder

Pair = tuple[str, str]


async def load_cross_encoder(name: str, settings: Settings, progress: Progress | None = None) -> CrossEncoder:
    """Load a cross-encoder by its model string, off the event loop: a classifier that sentence-transformers computes.

    Args:
        name: `local/<directory>` or `local/<hub id>`.
        settings: Location of the files; the section `encoders` of this name.
        progress: Called with the progress of a download, from another thread.

    Raises:
        UnknownName: No cross-encoder has that name.
        UserError: A setting is invalid or an extra is missing.
        DataError: The model's files are damaged, or are another kind of model.
        BackendUnavailable: It is not available here.
    """
    encoder_settings = settings.encoders.get(name, EncoderSettings())
    if not name.startswith(PREFIX):
        raise UnknownName("cross-encoder", name, (PREFIX + name.rpartition("/")[2],), hint=f"it begins with {PREFIX}")
    return await run_pull(
        lambda cancel: _load_classifier(name, settings, encoder_settings, progress, cancel),
        lambda m: m.aclose(),
    )


def _load_classifier(
    name: str, settings: Settings, encoder_settings: EncoderSettings, progress: Progress | None, cancel: threading.Event
) -> CrossEncoder:
    try:
        import sentence_transformers  # noqa: F401 (before anything is fetched)
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    files = find_encoder(name, sentence=False, cache_dir=settings.cache_dir, progress=progress, cancel=cancel)
    return LocalCrossEncoder(name, files, encoder_settings)


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
        from sentence_transformers import CrossEncoder as Library

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
        import torch

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


def check_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Raises `UserError` if an element is not a pair of texts."""
    for i, pair in enumerate(pairs):
        if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(t, str) for t in pair):
            raise UserError(f"pair {i} is not two texts")
