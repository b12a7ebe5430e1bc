"""GGUF files on llama.cpp, by its Python package `llama-cpp-python`: the local engine's scheduler over its forward.

llama.cpp promises no results that do not depend on the batch: its kernels for few and for many rows sum in another
order, keys and values are in half precision, and with low-bit matrices activations are rounded to 8 bits. So the logits
of a sequence move with what is computed in the same step (docs/backends.md has numbers).

llama.cpp has one memory of cells. A cell has the key and value of one token and belongs to any number of sequences,
which are numbered; a token attends to the cells of its sequence. So a slot table is a sequence, a fork adds its cells
to another sequence, and a cell lives as long as a sequence has it. What no table uses any more stays stored in the
sequences that had it, until there are too many of those: then the least recently used one is dropped, and its slots are
lost where no other sequence has them.
"""

from __future__ import annotations

import ctypes
import importlib
import re
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
import torch
from torch import Tensor

from ..core.errors import BackendUnavailable, CapabilityMissing, DataError, UnknownName, UserError
from ..core.extras import install_command
from ..core.files import Progress
from ..core.registry import nearest
from ..core.settings import Settings
from .local.attention import TokenChunk
from .local.config import ModelConfig
from .local.engine import LocalModel
from .local.gguf import Metadata, open_gguf, write_tokenizer
from .local.hardware import default_kv_bytes, max_threads
from .local.kv_cache import KVCache, SlotTable
from .local.scheduler import MAX_PREFILL_TOKENS
from .local.tokenizer import Tokenizer
from .model_files.catalogue import KNOWN_MODELS
from .model_files.catalogue import PREFIX as LOCAL
from .model_files.checkpoint import file_hash
from .model_files.downloads import PullTask, atomic_directory, directory_lock
from .model_files.packages import fetch_files

PREFIX: Final = "gguf/"
_PART = re.compile(r"(.+)-00001-of-(\d{5})\.gguf", re.IGNORECASE)
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


def load_gguf(name: str, settings: Settings, progress: Progress | None, cancel: threading.Event) -> LocalModel:
    """Load a GGUF file on llama.cpp and start the engine on it.

    Args:
        name: `gguf/<file>`, `gguf/<directory>` with one file, the name of one of these below `gguf/` in the cache
            directory, or a short name: `gguf/smollm2-135m`.
        settings: Those of the local engine hold: `threads`, `kv_cache_bytes`, `max_num_seqs`. The number format is
            the file's.
        progress: Called with the progress.
        cancel: Set by another thread to stop.

    Raises:
        UnknownName: There is no such file.
        UserError: llama.cpp is not installed, or a setting is out of range.
        CapabilityMissing: The architecture is not one of decoders.
        DataError: The file is damaged or not supported.
        BackendUnavailable: A file cannot be fetched, or the memory is not enough.
        Cancelled: Cancelled.
    """
    load_library()  # before anything is fetched
    local = settings.local
    pulling = PullTask(progress, cancel)
    parts = split_parts(find_gguf(name, settings.cache_dir, pulling))
    fingerprint = "+".join(file_hash(part, settings.cache_dir, pulling) for part in parts)
    file = parts[0]
    metadata = Metadata(file.name, dict(open_gguf(file).fields))
    with tempfile.TemporaryDirectory() as directory:
        ids = write_tokenizer(metadata, Path(directory), max_tokens=0)
        tokenizer = Tokenizer(Path(directory), name, settings.profiles)
    threads = local.threads or max_threads()
    model = LlamaCppModel(
        file, name, threads=threads, kv_cache_bytes=local.kv_cache_bytes, max_num_seqs=local.max_num_seqs
    )
    try:
        if ids["vocab_size"] != model.config.vocab_size:
            raise DataError(
                f"damaged model file {file.name}: {ids['vocab_size']} tokens for {model.config.vocab_size} logits"
            )
        return LocalModel(
            name,
            f"{fingerprint}.llama.cpp",
            model,
            tokenizer,
            frozenset(ids["eos_token_id"]),
            weight_format=model.weight_format,
            threads=threads,
            kv_cache_bytes=model.num_cells * model.slot_bytes,
            max_num_seqs=local.max_num_seqs,
            speculative_decoding="off",
        )
    except BaseException:
        model.close()
        raise


def find_gguf(name: str, cache_dir: Path, pulling: PullTask) -> Path:
    """The file of a name; that of a short name is fetched if it is not here. Arguments and errors as `load_gguf`."""
    rest = name.removeprefix(PREFIX).strip()
    if not rest:
        raise UserError(f"model {name!r} names no file", hint="for example gguf/smollm2-135m or gguf/./model.gguf")
    path = Path(rest).expanduser()
    own = cache_dir / "gguf"
    if LOCAL + rest in KNOWN_MODELS and not path.exists() and not (own / rest).exists():
        target = own / rest
        with directory_lock(target, pulling):
            if not target.exists():
                with atomic_directory(target) as directory:
                    files = KNOWN_MODELS[LOCAL + rest].files
                    fetch_files(files, directory, pulling)
                    (directory / next(iter(files.sha256))).rename(directory / f"{rest}.gguf")
    for candidate in (path, own / rest, own / f"{rest}.gguf"):
        if candidate.is_file():
            return candidate.absolute()
        if candidate.is_dir():
            return _only_file(candidate, name)
    known = [PREFIX + model.removeprefix(LOCAL) for model in KNOWN_MODELS]
    here = [PREFIX + p.name for p in sorted(own.glob("[!.]*"))]
    raise UnknownName("model", name, nearest(name, [*known, *here]), hint=f"there is no file {path.absolute()}")


def split_parts(file: Path) -> list[Path]:
    """The parts of a file, itself the first."""
    match = _PART.fullmatch(file.name)
    if match is None:
        return [file]
    parts = [file.with_name(f"{match[1]}-{i:05}-of-{match[2]}.gguf") for i in range(1, int(match[2]) + 1)]
    missing = next((part for part in parts if not part.is_file()), None)
    if missing is not None:
        raise DataError(f"the model file {file.name} lacks its part {missing.name}", hint="fetch the model again")
    return parts


def _only_file(directory: Path, name: str) -> Path:
    """The model's file in a directory: its only one, or the first part of the only one."""
    files = sorted(directory.glob("*.gguf"))
    first = [file for file in files if not re.search(r"-(?!00001)\d{5}-of-\d{5}\.gguf$", file.name)]
    if len(first) != 1:
        listed = ", ".join(file.name for file in first) or "none"
        raise UserError(f"{name} must name one file; {directory} has {listed}", hint=f"{name}/<file>.gguf")
    return first[0].absolute()


class LlamaMemory:
    """The numbered sequences in the memory of a llama.cpp context.

    Args:
        library: The module `llama_cpp`.
        context: llama.cpp's context.
        num_sequences: Sequences that it has.
        num_stored: How many of them may be stored ones.
        window: Positions that a token of a sliding layer attends to; 0 if all layers attend to all.
    """

    def __init__(self, library: Any, context: Any, num_sequences: int, num_stored: int, window: int) -> None:
        self.window = window
        self._library, self._memory = library, library.llama_get_memory(context)
        self._free = list(range(num_sequences))
        self._num_stored = num_stored
        self._stored: dict[int, LlamaCache] = {}

    def take(self) -> int:
        """The number of an empty sequence."""
        if not self._free:
            raise RuntimeError("llama.cpp has no free sequence")
        return self._free.pop()

    def release(self, sequence: int) -> None:
        """Empty a sequence: cells that no other one has are free."""
        self._stored.pop(sequence, None)
        self._library.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        self._free.append(sequence)

    def store(self, sequence: int, cache: LlamaCache) -> None:
        """Keep a sequence that no table uses, until it is the least recently used of too many."""
        self._stored[sequence] = cache
        if len(self._stored) > self._num_stored:
            oldest = next(iter(self._stored))
            self._stored[oldest].drop(oldest)

    def copy(self, source: int, target: int, positions: range) -> None:
        """Add the cells of one sequence at these positions to another."""
        self._library.llama_memory_seq_cp(self._memory, source, target, positions.start, positions.stop)
        if source in self._stored:
            self._stored[source] = self._stored.pop(source)

    def first_position(self, sequence: int) -> int:
        """The first position from which on all cells of a sequence are there: those before a window may be reused."""
        return int(self._library.llama_memory_seq_pos_min(self._memory, sequence))


class LlamaCache(KVCache):
    """The slots of one prefix tree. A table's `mask_row` is the number of its sequence.

    Args:
        memory: Shared with other caches, whose capacities are together no more than its cells.
        slot_bytes: Bytes of one slot.
    """

    def __init__(self, memory: LlamaMemory, slot_bytes: int, capacity: int) -> None:
        super().__init__(0, 0, 0, torch.float16, 0)  # keys and values are in the memory
        self.resize(max(capacity, self.capacity))
        self._memory, self._slot_bytes = memory, slot_bytes
        self._sequences: dict[int, tuple[int, list[int]]] = {}
        """By number, running and stored: the first position, and the slots from there on."""
        self._holders: list[int] = []
        """For each slot how many sequences have it; 0 if it is lost."""

    @property
    def nbytes(self) -> int:
        return self.capacity * self._slot_bytes

    def close(self) -> None:
        for sequence in list(self._sequences):
            self.drop(sequence)
        self._tables.clear()

    def resize(self, capacity: int) -> None:
        self._capacity = capacity

    def new_table(self, slots: Iterable[int] = ()) -> SlotTable:
        table = SlotTable(list(slots), self._new_sequence(self, list(slots), 0))
        self._sequences[table.mask_row] = 0, table.slots
        for slot in table.slots:
            self._holders[slot] += 1
        self._tables[table.mask_row] = table
        return table

    def free(self, table: SlotTable) -> None:
        sequence = table.mask_row
        if self._tables.get(sequence) is not table:
            return
        super().free(table)
        # from the end: what it has by itself is last
        if all(self._holders[slot] > 1 for slot in reversed(table.slots)):
            self.drop(sequence)
        else:
            self._memory.store(sequence, self)

    def drop(self, sequence: int) -> None:
        """Remove a sequence from the memory."""
        for slot in self._sequences.pop(sequence)[1]:
            self._holders[slot] -= 1
        self._memory.release(sequence)

    def keeps(self, slot: int) -> bool:
        return self._holders[slot] > 0

    def kept_run(self, slots: list[int]) -> list[int]:
        count = next((i for i, slot in enumerate(slots) if not self.keeps(slot)), len(slots))
        kept = slots[:count]
        if self._memory.window and any(
            self._memory.first_position(sequence) > max(run.start, count - self._memory.window)
            for sequence, run in self._runs(kept, 0)
        ):
            return []
        return kept

    def record(self, table: SlotTable, count: int) -> None:
        """Let a sequence have the cells of the next tokens, which were computed for it."""
        table.slots.extend(self.allocate(count))
        self._holders.extend([1] * count)

    def compact(self) -> dict[int, int]:
        for sequence in [s for s in self._sequences if s not in self._tables]:
            self.drop(sequence)
        moved = {old: new for new, old in enumerate(self.live_slots())}
        self._holders = [self._holders[old] for old in moved]
        self.used = len(moved)
        for table in self._tables.values():
            table.slots[:] = [moved[slot] for slot in table.slots]
        return moved

    def copy_from(self, other: KVCache, slots: Sequence[int]) -> range:
        """Give copies of another cache's slots to a stored sequence. They share the cells."""
        if not isinstance(other, LlamaCache):
            raise TypeError(f"slots are in a {type(other).__name__}")
        position = next(first + has.index(slots[0]) for first, has in other._sequences.values() if slots[0] in has)
        sequence = self._new_sequence(other, list(slots), position)
        copies = self.allocate(len(slots))
        self._holders.extend([1] * len(slots))
        self._sequences[sequence] = position, list(copies)
        self._memory.store(sequence, self)
        return copies

    def _new_sequence(self, source: LlamaCache, slots: list[int], position: int) -> int:
        """A sequence with a cache's slots, whose positions begin at one."""
        runs = source._runs(slots, position)
        new = self._memory.take()
        for sequence, positions in runs:
            self._memory.copy(sequence, new, positions)
        return new

    def _runs(self, slots: list[int], position: int) -> list[tuple[int, range]]:
        """Sequences that have the slots, whose positions begin at one, and which of their positions each is to give."""
        runs = []
        end = len(slots)
        while end:
            holders = (
                (sequence, first, has)
                for sequence, (first, has) in self._sequences.items()
                if 0 <= (i := position + end - 1 - first) < len(has) and has[i] == slots[end - 1]
            )
            holder = next(holders, None)
            if holder is None:
                raise RuntimeError(f"slot {slots[end - 1]} is lost")
            sequence, first, has = holder
            start, offset = end - 1, position - first
            while start and offset + start > 0 and has[offset + start - 1] == slots[start - 1]:
                start -= 1
            runs.append((sequence, range(position + start, position + end)))
            end = start
        return runs


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
        self._batch = _DecodeBatch(library)

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


class _DecodeBatch:
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
