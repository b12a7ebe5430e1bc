"""MiniCheck models: whether a text supports a claim, by transformers, in this process.

Source: Tang, Laban and Durrett, "MiniCheck: Efficient Fact-Checking of LLMs on Grounding Documents" (2024,
arXiv:2404.10774), and the authors' published inference code: text and claim are one input with the end-of-text token
between them. A T5 model reads it after "predict: ", and its outputs are the logits of "0" and "1" as the first token of
its answer; a RoBERTa or DeBERTa model is a sequence classifier with two outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from ...core.errors import BackendError, DataError
from ...core.settings import EncoderSettings
from ..model_files.find import ModelFiles
from ..model_thread import ModelThread, length_batches
from ..transformers_loading import (
    architecture_of,
    first_line,
    load_tokenizer,
    load_weights,
    min_limit,
    special_token_splitter,
)
from .protocols import check_pairs

LABELS: Final[tuple[str, ...]] = ("unsupported", "supported")
"""Outputs, in the order of models whose files do not name them."""

_T5_PREFIX = "predict: "
_T5_MAX_TOKENS = 2048
_CLASSIFIER, _T5 = "ForSequenceClassification", "T5ForConditionalGeneration"


class LocalMiniCheck:
    """A MiniCheck model, as a `CrossEncoder` over (text, claim) with the outputs unsupported and supported.

    A text that does not fit is cut at its end; the claim never is. Special tokens in text and claim are split, so that
    neither can look like the other.

    Args:
        name: Model string.
        files: Its files, checked.
        settings: Its settings.

    Raises:
        DataError: It is another kind of model, or transformers cannot load it.
        BackendUnavailable: The device does not exist.
    """

    def __init__(self, name: str, files: ModelFiles, settings: EncoderSettings) -> None:
        self.name = name
        architecture = architecture_of(files.directory)
        self._is_t5 = architecture == _T5
        if not (self._is_t5 or architecture.endswith(_CLASSIFIER)):
            raise DataError(
                f"{name} is no MiniCheck model: its architecture is {architecture or 'unknown'}",
                hint=f"a MiniCheck model is a {_T5}, or a …{_CLASSIFIER} with two outputs",
            )
        kind = AutoModelForSeq2SeqLM if self._is_t5 else AutoModelForSequenceClassification
        self._model: Any = load_weights(kind, files.directory, settings.dtype, settings.device)
        self._tokenizer = load_tokenizer(files.directory)
        self._separator = self._tokenizer.eos_token or self._tokenizer.sep_token
        if not self._separator:
            raise DataError(f"the tokenizer of {name} has no end-of-text token to separate text and claim")
        config = self._model.config
        self.labels = LABELS
        self._outputs: list[int] = []
        if self._is_t5:
            self._outputs = [self._tokenizer(digit, add_special_tokens=False)["input_ids"][0] for digit in "01"]
            if self._outputs[0] == self._outputs[1]:
                raise DataError(f"the tokenizer of {name} does not tell 0 from 1", hint="fetch the model again")
            self.max_tokens: int | None = settings.max_tokens or _T5_MAX_TOKENS
        else:
            names = tuple(str(config.id2label.get(i, i)) for i in range(int(config.num_labels)))
            if len(names) != len(LABELS):
                raise DataError(
                    f"{name} is no MiniCheck model: it has {len(names)} outputs, {', '.join(names)}",
                    hint="a classifier of natural language inference is nli/…, one with a single output cross/…",
                )
            self.labels = LABELS if names == ("LABEL_0", "LABEL_1") else names
            self.max_tokens = min_limit(
                settings.max_tokens,
                self._tokenizer.model_max_length,
                getattr(config, "max_position_embeddings", None),
            )
        self._split_special = special_token_splitter(self._tokenizer)
        dtype = str(next(self._model.parameters()).dtype).removeprefix("torch.")
        self.identity = f"{files.fingerprint}+minicheck-1+{dtype}+{self.max_tokens}"
        self._batch = settings.batch_texts
        self._thread = ModelThread(name)

    async def logits(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Outputs before any activation, in batches of similar length."""
        check_pairs(pairs)
        result: NDArray[np.float32] = np.zeros((len(pairs), len(LABELS)), dtype=np.float32)
        for batch in length_batches([len(a) + len(b) for a, b in pairs], self._batch):
            result[batch] = await self._thread.run(partial(self._compute, [pairs[i] for i in batch]))
        return result

    async def aclose(self) -> None:
        """Wait for the current batch and free the model; idempotent."""
        await self._thread.aclose()
        self._model = None

    def _compute(self, pairs: list[tuple[str, str]]) -> NDArray[np.float32]:
        rows = [self._ids(text, claim) for text, claim in pairs]
        inputs = self._tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(self._model.device)
        arguments = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
        if self._is_t5:
            start = int(self._model.config.decoder_start_token_id or 0)
            arguments["decoder_input_ids"] = torch.full((len(rows), 1), start, device=self._model.device)
        try:
            with torch.inference_mode():
                outputs = self._model(**arguments).logits
        except RuntimeError as e:  # torch's class for a full memory too
            raise BackendError(
                f"{self.name} failed on {len(pairs)} pairs: {first_line(e)}",
                hint="lower batch_texts of this model in the section [encoders]",
            ) from e
        chosen = outputs[:, 0, self._outputs] if self._is_t5 else outputs
        numbers: NDArray[np.float32] = chosen.float().cpu().numpy()
        return numbers

    def _ids(self, text: str, claim: str) -> list[int]:
        """Token ids of a pair; as many words of the text as fit."""
        text, claim = self._split_special(text), self._split_special(claim)
        ids = self._tokenize(text, claim)
        words = text.split()
        while self.max_tokens is not None and len(ids) > self.max_tokens and words:
            words = words[: min(len(words) - 1, len(words) * self.max_tokens // len(ids))]
            ids = self._tokenize(" ".join(words), claim)
        return ids[-self.max_tokens :] if self.max_tokens is not None else ids

    def _tokenize(self, text: str, claim: str) -> list[int]:
        joined = f"{_T5_PREFIX if self._is_t5 else ''}{text}{self._separator}{claim}"
        ids: list[int] = self._tokenizer(joined, truncation=False, verbose=False)["input_ids"]
        return ids
