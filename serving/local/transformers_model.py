"""Families outside our table: transformers' own modules compute, over the same logs.

The modules get one row of tokens for each log, with explicit positions and a mask that says which column each token
sees, and a cache object that writes into the log. So forks, reuse and batching work as they do with `Decoder`; what
is lost is speed. Not every family can be driven so (one that derives positions or sees the past by other means
cannot): at load, two interleaved sequences are compared with plain forward passes, and a family that differs is
refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from ...core.errors import CapabilityMissing, DataError
from .attention import Span, by_log
from .config import ModelShape
from .kv_cache import KVLog
from .weights import PROCESSOR, WeightFormat, dtype_of

TOLERANCE = 0.02
"""Largest difference of the check at load, relative to the largest logit; fp32 stays below 1e-4, bf16 below 1e-2."""


class LogCache(DynamicCache):
    """transformers' view of a log during one forward pass.

    Args:
        log: Where keys and values go.
        columns: The columns of the pass, already reserved.
    """

    def __init__(self, log: KVLog, columns: range) -> None:
        super().__init__()
        self._log, self._columns = log, columns

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write `[1, kv_heads, rows, head_dim]` and return all columns up to the pass's last."""
        kv = self._log.kv[layer_idx]
        first, width = self._columns.start, self._columns.stop
        kv[0, :, first:width] = key_states[0]
        kv[1, :, first:width] = value_states[0]
        return kv[None, 0, :, :width], kv[None, 1, :, :width]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns before the pass."""
        return self._columns.start


class TransformersForward:
    """A transformers causal language model as a `Forward`.

    Args:
        model: The module, in the engine's number format.
        shape: Sizes.
    """

    def __init__(self, model: Any, shape: ModelShape, dtype: torch.dtype) -> None:
        self.shape = shape
        self._model, self._dtype = model, dtype
        # Newer releases of transformers call the argument `cache`.
        names = inspect.signature(model.forward).parameters
        self._cache_name = "cache" if "cache" in names else "past_key_values"

    @classmethod
    def load(
        cls, folder: Path, weight_format: WeightFormat, name: str, device: torch.device = PROCESSOR
    ) -> TransformersForward:
        """Read a Hugging Face folder, onto a device.

        Raises:
            CapabilityMissing: The format or the family cannot be computed in this way.
            DataError: transformers cannot read the folder.
        """
        if weight_format == "int4":
            raise CapabilityMissing("int4 outside the llama, qwen2 and qwen3 families", name, alternative="")
        dtype = dtype_of(weight_format)
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"transformers does not know {folder}: {error}") from error
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, config=config, dtype=dtype, attn_implementation="sdpa", local_files_only=True
            )
            model.eval()
            shape = _shape(config)
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            if "attention implementation" in str(error):
                raise _refused(str(config.model_type), name) from error
            raise DataError(f"transformers cannot load {folder}: {error}") from error
        forward = cls(model.to(device), shape, dtype)
        forward._check(name)
        return forward

    def close(self) -> None:
        """See `Forward.close`."""
        self.__dict__.pop("_model", None)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self._model.device
        return device

    @property
    def steady(self) -> bool:
        """Never: the modules' products and attention sum as suits the rows of a step."""
        return False

    @property
    def column_bytes(self) -> int:
        """Bytes of keys and values of one token in all layers."""
        return 2 * self.shape.layers * self.shape.kv_heads * self.shape.head_dim * self._dtype.itemsize

    def open_log(self, capacity: int) -> KVLog:
        """An empty log."""
        shape = self.shape
        return KVLog(shape.layers, shape.kv_heads, shape.head_dim, self._dtype, capacity, self.device)

    def run(self, spans: Sequence[Span]) -> Tensor:
        """One forward pass for each log; fp32 logits `[wanted, vocab]` in the order of the spans."""
        parts: list[Tensor] = []
        start = 0
        while start < len(spans):
            stop = start + 1
            while stop < len(spans) and spans[stop].log is spans[start].log:
                stop += 1
            parts.append(self._run_log(spans[start].log, spans[start:stop]))
            start = stop
        return torch.cat(parts)

    def _run_log(self, log: KVLog, spans: Sequence[Span]) -> Tensor:
        rows = sum(len(s.ids) for s in spans)
        columns = log.reserve(rows)
        mask = torch.full((rows, columns.stop), float("-inf"), dtype=self._dtype)
        ids: list[int] = []
        positions = [at for span in spans for at in span.positions]
        wanted: list[int] = []
        for span in spans:
            row, count = len(ids), len(span.ids)
            at = columns.start + row
            known = columns.start if span.parents is None else at
            mask[row : row + count, :known] = log.bias([span.branch], known)
            mask[row : row + count, at : at + count] = span.hidden(self._dtype)
            wanted.extend(row + w for w in span.wanted)
            ids.extend(span.ids)
            if span.parents is None:
                log.show(span.branch, columns[row : row + count])
        device = self.device
        wanted_rows = torch.tensor(wanted or [rows - 1], device=device)
        logits = self._model(
            input_ids=torch.tensor([ids], device=device),
            attention_mask=mask.to(device)[None, None],
            position_ids=torch.tensor([positions], device=device),
            use_cache=True,
            logits_to_keep=wanted_rows,
            **{self._cache_name: LogCache(log, columns)},
        ).logits[0]
        result: Tensor = logits.float()
        return result if wanted else result[:0]

    @torch.inference_mode()
    def _check(self, name: str) -> None:
        """Compare two interleaved sequences of one log with plain forward passes.

        Raises:
            CapabilityMissing: They differ, or the module cannot be driven in this way at all.
        """
        size = self.shape.vocab
        first = [(7 * i + 3) % size for i in range(9)]
        second = [*first[:5], *((11 * i + 5) % size for i in range(4))]
        try:
            plain = torch.stack(
                [
                    self._model(input_ids=torch.tensor([x], device=self.device)).logits[0, -1].float()
                    for x in (first, second)
                ]
            )
            log = self.open_log(64)
            one = log.open()
            self.run([Span(log, one, first[:5], [])])
            two = log.fork(one)
            for a, b in zip(first[5:8], second[5:8], strict=True):
                self.run(by_log([Span(log, one, [a], []), Span(log, two, [b], [])]))
            ours = self.run([Span(log, one, first[8:], [0]), Span(log, two, second[8:], [0])])
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
            raise _refused(self.shape.family, name) from error
        if float((ours - plain).abs().max()) > TOLERANCE * float(plain.abs().max()):
            raise _refused(self.shape.family, name)


def _refused(family: str, name: str) -> CapabilityMissing:
    return CapabilityMissing(f"model family {family}", name, alternative="the same model served by vllm/…")


def _shape(config: Any) -> ModelShape:
    """Sizes by transformers' own names."""
    text = config.get_text_config()
    heads = int(text.num_attention_heads)
    context = int(getattr(text, "max_position_embeddings", 2048))
    window = getattr(text, "sliding_window", None)
    return ModelShape(
        family=str(text.model_type),
        layers=int(text.num_hidden_layers),
        heads=heads,
        kv_heads=int(getattr(text, "num_key_value_heads", None) or heads),
        head_dim=int(getattr(text, "head_dim", None) or text.hidden_size // heads),
        hidden=int(text.hidden_size),
        vocab=int(text.vocab_size),
        norm_eps=float(getattr(text, "rms_norm_eps", 0.0)),
        context=min(context, window) if isinstance(window, int) and window > 0 else context,
        tied=bool(getattr(text, "tie_word_embeddings", True)),
        qk_norm=False,
        frequencies=None,
    )
