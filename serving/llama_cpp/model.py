"""`LlamaCppModel`: llama.cpp's forward of a GGUF file as a `CausalLM`.

llama.cpp promises no results that do not depend on the batch: its kernels for few and for many rows sum in another
order, keys and values are in half precision, and with low-bit matrices activations are rounded to 8 bits. So the logits
of a sequence move with what is computed in the same step (docs/backends.md has numbers).
"""

from __future__ import annotations

import ctypes
import importlib
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from ...core.errors import BackendUnavailable, CapabilityMissing, DataError, UserError
from ...core.extras import install_command
from ..local.attention import TokenChunk
from ..local.config import ModelConfig
from ..local.hardware import default_kv_bytes
from ..local.kv_cache import KVCache
from ..local.scheduler import MAX_PREFILL_TOKENS
from .memory import LlamaCache, LlamaMemory

MAX_NUM_SEQS = 64
"""Maximum of `max_num_seqs`: llama.cpp has 256 sequences, and stored prefixes need some."""
BATCH_TOKENS = MAX_PREFILL_TOKENS + MAX_NUM_SEQS
"""Tokens of one call of llama.cpp: a step's."""
BATCH_LOGITS = 128
"""Rows of logits of one call: it has memory for so many all the time."""
DEFAULT_CELLS = 16_384
"""Cells of the memory where no size is set, at least: it is allocated when the model is loaded."""
_FLASH_ATTENTION, _F16, _ERROR = 1, 1, 4  # of the enums llama_flash_attn_type, ggml_type and ggml_log_level
_OTHER_KINDS = ("is_recurrent", "is_hybrid", "is_diffusion", "has_encoder")
"""Models whose memory has no cell for each token."""


class LlamaCppModel:
    """A GGUF file in llama.cpp, and its context.

    Args:
        file: The file, or the first part of a split one.
        kv_cache_bytes: Memory for keys and values; None is that of `DEFAULT_CELLS` or of the model's context, whichever
            is more, up to a quarter of the free memory.

    Attributes:
        num_cells: Tokens whose keys and values fit.

    Raises:
        BackendUnavailable: The installed library cannot be loaded, or the memory is not enough.
        CapabilityMissing: The architecture keeps no keys and values of each token.
        DataError: The file is damaged, or of an architecture that this llama.cpp does not know.
        UserError: `max_num_seqs` is out of range, or llama.cpp is not installed.
    """

    def __init__(self, file: Path, name: str, *, threads: int, kv_cache_bytes: int | None, max_num_seqs: int) -> None:
        if not 1 <= max_num_seqs <= MAX_NUM_SEQS:
            raise UserError(f"max_num_seqs must be from 1 to {MAX_NUM_SEQS} for {name}, got {max_num_seqs}")
        self._library = library = load_library()
        parameters = library.llama_model_default_params()
        parameters.n_gpu_layers = 0
        _errors.clear()
        self._model = library.llama_model_load_from_file(bytes(file), parameters)
        if not self._model:
            raise DataError(f"llama.cpp cannot load {file}: {_first_error()}", hint="fetch the file again")
        self._context: Any = None
        try:
            if any(getattr(library, f"llama_model_{kind}")(self._model) for kind in _OTHER_KINDS):
                raise CapabilityMissing("models that are no transformer decoders", name, alternative="")
            self.config = self._read_config()
            self._create_context(name, threads, kv_cache_bytes, max_num_seqs)
        except BaseException:
            self.close()
            raise

    def _create_context(self, name: str, threads: int, kv_cache_bytes: int | None, max_num_seqs: int) -> None:
        library = self._library
        if kv_cache_bytes is None:
            cells = max(self.config.context_length, DEFAULT_CELLS)
            kv_cache_bytes = min(default_kv_bytes(), cells * self.slot_bytes)
        self.num_cells = max(1, kv_cache_bytes // self.slot_bytes)
        num_sequences = min(int(library.llama_max_parallel_sequences()), max(64, 8 * max_num_seqs))
        parameters = library.llama_context_default_params()
        parameters.n_ctx = self.num_cells
        parameters.n_batch = parameters.n_ubatch = BATCH_TOKENS
        parameters.n_seq_max = num_sequences
        parameters.n_outputs_max = max(BATCH_LOGITS, num_sequences)
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.flash_attn_type = _FLASH_ATTENTION
        parameters.type_k = parameters.type_v = _F16
        parameters.kv_unified = parameters.swa_full = parameters.no_perf = True
        _errors.clear()
        self._context = library.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise BackendUnavailable(
                f"llama.cpp cannot start {name} with {self.num_cells} cells of {self.slot_bytes:,} bytes: "
                f"{_first_error()}",
                hint="give it a smaller kv_cache_bytes",
            )
        # a running sample, its prompt and a continuation that is scored; and what a new prompt needs for a moment
        num_running = 3 * max_num_seqs + 8
        self._memory = LlamaMemory(
            library,
            self._context,
            num_sequences,
            num_sequences - num_running,
            int(library.llama_model_n_swa(self._model)),
        )
        self._batch = _Batch(library)

    def _read_config(self) -> ModelConfig:
        library, model = self._library, self._model
        family = self.metadata("general.architecture")
        num_heads = int(library.llama_model_n_head(model))
        hidden_size = int(library.llama_model_n_embd(model))
        return ModelConfig(
            family=family,
            num_layers=int(library.llama_model_n_layer(model)),
            num_heads=num_heads,
            num_kv_heads=int(library.llama_model_n_head_kv(model)),
            head_dim=int(self.metadata(f"{family}.attention.key_length") or hidden_size // max(1, num_heads)),
            hidden_size=hidden_size,
            vocab_size=int(library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))),
            norm_eps=0.0,
            context_length=int(library.llama_model_n_ctx_train(model)),
            tied_embeddings=False,
            qk_norm=False,
        )

    def metadata(self, key: str) -> str:
        """A value of the file's metadata, as text; empty if it has none."""
        buffer = ctypes.create_string_buffer(256)
        length = self._library.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return buffer.value.decode(errors="replace") if length >= 0 else ""

    @property
    def weight_format(self) -> str:
        """The format of most matrices: "q4_0", "q8_0", "f16" and the like."""
        known = {int(f): f.name.removeprefix("MOSTLY_").removeprefix("ALL_").lower() for f in gguf.LlamaFileType}
        number = int(self._library.llama_model_ftype(self._model)) & ~int(gguf.LlamaFileType.GUESSED)
        return known.get(number, f"type-{number}")

    @property
    def max_invariant_rows(self) -> int:
        """None: products and attention are summed as suits the rows of a call."""
        return 0

    @property
    def slot_bytes(self) -> int:
        """Bytes of keys and values of one token in all layers, in half precision."""
        config = self.config
        return 2 * config.num_layers * config.num_kv_heads * config.head_dim * 2

    def new_kv_cache(self, capacity: int) -> KVCache:
        return LlamaCache(self._memory, self.slot_bytes, capacity)

    def close(self) -> None:
        context, self._context = self._context, None
        if context:
            self._library.llama_free(context)
        model, self._model = self._model, None
        if model:
            self._library.llama_model_free(model)

    def forward(self, chunks: Sequence[TokenChunk]) -> Tensor:
        batch, logits = self._batch, []
        for chunk in chunks:
            requested = frozenset(chunk.logit_indices)
            for i, (token, position) in enumerate(zip(chunk.token_ids, chunk.positions, strict=True)):
                if batch.num_tokens == BATCH_TOKENS or (i in requested and batch.num_logits == BATCH_LOGITS):
                    logits.append(self._decode())
                batch.add(token, position, chunk.table.mask_row, i in requested)
        logits.append(self._decode())
        for chunk in chunks:
            if not isinstance(chunk.cache, LlamaCache):
                raise TypeError(f"a chunk is of a {type(chunk.cache).__name__}")
            chunk.cache.record(chunk.table, len(chunk.token_ids))
        return logits[0] if len(logits) == 1 else torch.cat(logits)

    def _decode(self) -> Tensor:
        """Compute the batch and empty it; its logits."""
        library, context, batch = self._library, self._context, self._batch
        rows = batch.logit_rows
        _errors.clear()
        try:
            status = library.llama_decode(context, batch.struct)
        finally:
            batch.clear()
        if status:
            raise RuntimeError(f"llama.cpp returned {status}: {_first_error()}")
        logits = torch.empty(len(rows), self.config.vocab_size)
        for target, row in zip(logits, rows, strict=True):
            source = library.llama_get_logits_ith(context, row)
            ctypes.memmove(target.data_ptr(), source, target.nbytes)
        return logits


class _Batch:
    """The tokens of one call."""

    def __init__(self, library: Any) -> None:
        tokens, positions, sequences, counts = np.zeros((4, BATCH_TOKENS), np.int32)
        flags = np.zeros(BATCH_TOKENS, np.int8)
        counts[:] = 1
        pointer = ctypes.POINTER(ctypes.c_int32)
        lists = (pointer * BATCH_TOKENS)(
            *(ctypes.cast(sequences.ctypes.data + i * sequences.itemsize, pointer) for i in range(BATCH_TOKENS))
        )
        self._rows = tokens, positions, sequences, flags
        self._kept_alive = counts, lists
        self.struct = library.llama_batch(
            token=tokens.ctypes.data_as(pointer),
            pos=positions.ctypes.data_as(pointer),
            n_seq_id=counts.ctypes.data_as(pointer),
            seq_id=ctypes.cast(lists, ctypes.POINTER(pointer)),
            logits=flags.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )
        self.logit_rows: list[int] = []

    @property
    def num_tokens(self) -> int:
        return int(self.struct.n_tokens)

    @property
    def num_logits(self) -> int:
        return len(self.logit_rows)

    def add(self, token: int, position: int, sequence: int, has_logits: bool) -> None:
        row = self.num_tokens
        tokens, positions, sequences, flags = self._rows
        tokens[row], positions[row], sequences[row], flags[row] = token, position, sequence, has_logits
        if has_logits:
            self.logit_rows.append(row)
        self.struct.n_tokens = row + 1

    def clear(self) -> None:
        self.logit_rows = []
        self.struct.n_tokens = 0


def load_library() -> Any:
    """The module `llama_cpp`. What it logs is dropped, except the errors of the last call.

    Raises:
        UserError: It is not installed.
        BackendUnavailable: Its shared library cannot be loaded.
    """
    try:
        library: Any = importlib.import_module("llama_cpp")
    except ModuleNotFoundError as e:
        raise UserError(
            f"GGUF files on llama.cpp need the package {e.name!r}, which is not installed",
            hint=f"{install_command('gguf')} (it compiles llama.cpp: a C++ compiler, some minutes)",
        ) from e
    except (OSError, RuntimeError) as e:
        raise BackendUnavailable(
            f"llama.cpp cannot be loaded: {e}", hint="install llama-cpp-python again: pip compiles it for this machine"
        ) from e

    if not _kept_alive:
        _kept_alive.append(library.llama_log_callback(_on_log))
        library.llama_log_set(_kept_alive[0], None)
    return library


_errors: deque[str] = deque(maxlen=16)
_kept_alive: list[object] = []


def _on_log(level: int, text: bytes, data: object) -> None:
    if level == _ERROR:
        _errors.append(text.decode(errors="replace").strip())


def _first_error() -> str:
    return next(iter(_errors), "it gave no reason")
