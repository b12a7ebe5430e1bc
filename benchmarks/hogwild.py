"""Hogwild: the cost of a step of workers on one shared cache, next to implementations that copy it. Steps/s and memory.

    python benchmarks/hogwild.py DIRECTORY --format bf16 --cached 512 2048 4096 8192 --workers 1 2 4 > table.md

Four implementations, each in a process of its own with the same weights and cached tokens; runs are interleaved, and
each value is a median:

- *shared*: ours; each block is read where it is stored, and queries are rotated for each block;
- *reference*: as the authors' first program, on the modules of transformers (`HogwildCache`): every layer builds each
  worker's view again and rotates its keys to their positions; not for int4;
- *put together*: the same with our linear layers, so that it differs from *shared* in the attention only;
- *apart*: independent sequences, each with all those tokens in a cache of its own.

An eighth of the cached tokens are the workers' steps, the rest is history; keys and values are random. Memory is the
peak of the process during the steps above that before, and the size of the caches.

Source of the reference: Rodionov et al. 2025, arXiv:2504.06261; the code is ours.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from reason.serving.local.attention import CacheAttention, TokenChunk
from reason.serving.local.config import ModelConfig
from reason.serving.local.kv_cache import KVCache
from reason.serving.local.model import Decoder
from reason.serving.local.rope import RotaryEmbedding
from reason.serving.local.shared_cache import CacheBlock, SharedCacheAttention, WorkerChunk
from reason.serving.local.weights import WeightReader
from reporting import processor
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM
from transformers.cache_utils import Cache


class ReferenceWorkers:
    """A model of transformers and workers that see everything of one another."""

    def __init__(self, directory: Path, dtype: torch.dtype) -> None:
        self._model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).eval()
        self._dtype = dtype

    def open(self, cached: int, workers: int) -> ReferenceCache:
        """A history and steps, with `cached` tokens in all, whose keys and values are sampled at random."""
        config = self._model.config
        heads, dim = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
        step = cached // 8 // workers
        sizes = [cached - step * workers, *[step] * workers]
        kv = [
            [torch.empty(2, 1, heads, size, dim, dtype=self._dtype).normal_() for size in sizes]
            for _ in range(config.num_hidden_layers)
        ]
        return ReferenceCache(kv, self._model.model.rotary_emb)

    def step(self, cache: ReferenceCache) -> Tensor:
        """One token of every worker; its logits, `[workers, vocab]`."""
        workers = cache.workers
        at = torch.full((workers, 1), cache.get_seq_length() + workers - 1)
        cache.begin()
        result = self._model(
            input_ids=torch.full((workers, 1), 5), position_ids=at, past_key_values=cache, use_cache=True
        )
        logits: Tensor = result.logits[:, -1]
        return logits


class ReferenceCache(Cache):
    """What a model of transformers takes for its cache.

    Attributes:
        blocks: For each layer the history, then the workers' steps: keys and values `[2, 1, kv_heads, tokens, dim]`.
    """

    def __init__(self, kv: list[list[Tensor]], rotary: Any) -> None:
        super().__init__(layers=[])
        self.blocks, self._rotary = kv, rotary
        self.workers = len(kv[0]) - 1
        self._turns: list[list[tuple[Tensor, Tensor]]] = []
        self._back: list[tuple[Tensor, Tensor]] = []

    @property
    def nbytes(self) -> int:
        """Bytes of all blocks."""
        return sum(block.nbytes for blocks in self.blocks for block in blocks)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens of a view: everybody sees everything."""
        return sum(block.shape[3] for block in self.blocks[layer_idx])

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Length of a view with the step to be computed: called before the first layer writes it."""
        return self.get_seq_length() + self.workers * query_length, 0

    def begin(self) -> None:
        """Compute each block's position in each view; rotations are the same in all layers."""
        sizes = [block.shape[3] for block in self.blocks[0]]
        self._turns = []
        for own in range(1, self.workers + 1):
            at, turns = 0, []
            for number in self._order(own):
                turns.append(self._turn(at))
                at += sizes[number] + (number > 0)
            self._turns.append(turns)
        # New keys are rotated to the end of a view, where the query is; they are stored at their position in the block.
        end = sum(sizes) + self.workers - 1
        self._back = [self._turn(sizes[own] - end) for own in range(1, self.workers + 1)]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Append each worker's token to its block; all views, `[workers, kv_heads, tokens, dim]`."""
        blocks = self.blocks[layer_idx]
        for row in range(self.workers):
            new = torch.stack([rotated(key_states[row : row + 1], self._back[row]), value_states[row : row + 1]])
            blocks[row + 1] = torch.cat([blocks[row + 1], new], 3)
        keys, values = [], []
        for row, turns in enumerate(self._turns):
            seen = [blocks[number] for number in self._order(row + 1)]
            keys.append(torch.cat([rotated(kv[0], turn) for kv, turn in zip(seen, turns, strict=True)], 2))
            values.append(torch.cat([kv[1] for kv in seen], 2))
        return torch.cat(keys), torch.cat(values)

    def _order(self, own: int) -> list[int]:
        return [0, *(other for other in range(1, self.workers + 1) if other != own), own]

    def _turn(self, by: int) -> tuple[Tensor, Tensor]:
        like = self.blocks[0][0]
        cos, sin = self._rotary(like, torch.tensor([[by]]))
        return cos[:, None], sin[:, None]


def rotated(keys: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Keys rotated by the positions of cosine and sine."""
    half = keys.shape[-1] // 2
    swapped = torch.cat([-keys[..., half:], keys[..., :half]], -1)
    return keys * turn[0] + swapped * turn[1]


IMPLEMENTATIONS = ("shared", "reference", "put together", "apart")
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class PutTogether:
    """A pass in which every worker's view is copied together in every layer.

    Source: Rodionov et al. 2025, arXiv:2504.06261, and what is notified of their main table's cache; the code is ours.
    """

    def __init__(self, config: ModelConfig, rotary: RotaryEmbedding, feeds: Sequence[WorkerChunk]) -> None:
        self._config, self._rotary, self._feeds = config, rotary, feeds
        self._columns = [feed.view[-1].allocate(feed.token_ids).start for feed in feeds]
        self._written = self._tables(self._columns)
        self._ends = [sum(map(len, feed.view)) - 1 for feed in feeds]
        self._asked = self._tables(self._ends)
        self._offsets: list[list[tuple[Tensor, Tensor]]] = []
        for feed in feeds:
            at, turns = 0, []
            for block in feed.view:
                cos, sin = rotary.cos_sin(torch.tensor([at]))
                turns.append((cos.to(block.kv[0].dtype), sin.to(block.kv[0].dtype)))
                at += len(block)
            self._offsets.append(turns)

    def _tables(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        cos, sin = self._rotary.cos_sin(torch.tensor(positions))
        return cos[:, None], sin[:, None]

    def attend(self, layer: int, qkv: Tensor) -> Tensor:
        """Write keys and values of the pass, then put every worker's view together and attend to it."""
        heads, kv_heads, dim = self._config.num_heads, self._config.num_kv_heads, self._config.head_dim
        rotate, dtype = self._rotary.rotate, qkv.dtype
        keys = rotate(qkv[:, heads : heads + kv_heads].float(), self._written).to(dtype)
        query = rotate(qkv[:, :heads].float(), self._asked).to(dtype)
        for i, (feed, column) in enumerate(zip(self._feeds, self._columns, strict=True)):
            feed.view[-1].kv[layer][0, :, column] = keys[i]
            feed.view[-1].kv[layer][1, :, column] = qkv[i, heads + kv_heads :]
        outs: list[Tensor] = []
        for i, (feed, turns) in enumerate(zip(self._feeds, self._offsets, strict=True)):
            parts = [(block.kv[layer][:, :, : len(block)], turn) for block, turn in zip(feed.view, turns, strict=True)]
            full = torch.cat([rotate(kv[0], turn) for kv, turn in parts], 1)
            values = torch.cat([kv[1] for kv, _ in parts], 1)
            out = functional.scaled_dot_product_attention(
                query[i].view(1, kv_heads, -1, dim), full[None], values[None], scale=dim**-0.5
            )
            outs.append(out.reshape(1, heads * dim))
        return torch.cat(outs)


def blocks_of(decoder: Decoder, cached: int, workers: int, steps: int) -> list[tuple[CacheBlock, ...]]:
    """Views of workers over a history and their steps, with `cached` tokens in all."""
    step = cached // 8 // workers
    history = decoder.new_block(cached - step * workers)
    mine = [decoder.new_block(step + steps) for _ in range(workers)]
    for block, count in ((history, cached - step * workers), *((m, step) for m in mine)):
        block.allocate([5] * count)
        for kv in block.kv:
            kv[:, :, :count].normal_()
    return [(history, *(m for m in mine if m is not own), own) for own in mine]


def steps_of(
    implementation: str, decoder: Decoder, cached: int, workers: int, steps: int
) -> tuple[Callable[[], object], int]:
    """One step of an implementation, to be called up to `steps` times, and the bytes that its caches hold."""
    ids = [5] * workers
    expected = range(workers)
    if implementation == "apart":
        caches: list[KVCache] = []
        sequences: list[tuple[KVCache, object]] = []
        for _ in range(workers):
            cache = decoder.new_kv_cache(cached + steps)
            table = cache.new_table()
            cache.append(table, cache.allocate(cached))
            for kv in cache.kv:
                kv[:, :, :cached].normal_()
            caches.append(cache)
            sequences.append((cache, table))

        def apart() -> object:
            plan = CacheAttention(
                decoder.config, decoder.rotary, [TokenChunk(cache, table, [5], [0]) for cache, table in sequences]
            )  # type: ignore[arg-type]
            return decoder.forward_rows(ids, plan, expected)

        return apart, sum(cache.nbytes for cache in caches)
    views = blocks_of(decoder, cached, workers, steps)
    held = sum({id(block): block.nbytes for view in views for block in view}.values())
    feeds = [WorkerChunk(view, [5]) for view in views]

    def shared() -> object:
        return decoder.forward_rows(ids, SharedCacheAttention(decoder.config, decoder.rotary, feeds), expected)

    def together() -> object:
        return decoder.forward_rows(ids, PutTogether(decoder.config, decoder.rotary, feeds), expected)

    return (shared if implementation == "shared" else together), held


def reference_steps(
    reference: ReferenceWorkers, cached: int, workers: int, steps: int
) -> tuple[Callable[[], object], int]:
    """The same on the modules of transformers, whose blocks grow by themselves."""
    cache = reference.open(cached, workers)
    return (lambda: reference.step(cache)), cache.nbytes


def serve(directory: Path, weight_format: str, implementation: str) -> None:
    """In a process of its own: measure what is requested, line by line."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    begin: Callable[[int, int, int], tuple[Callable[[], object], int]]
    if implementation == "reference":
        begin = partial(reference_steps, ReferenceWorkers(directory, DTYPES[weight_format]))
    else:
        begin = partial(
            steps_of,
            implementation,
            Decoder(ModelConfig.from_directory(directory), WeightReader(directory), weight_format),
        )  # type: ignore[arg-type]
    with torch.inference_mode():
        begin(64, 1, 1)[0]()  # what is set up once is none of a step's memory
    print("ready", flush=True)
    for line in sys.stdin:
        cached, workers, steps = json.loads(line)
        with torch.inference_mode():
            step, held = begin(cached, workers, steps + 1)
            reset_peak()
            before = memory("VmRSS")
            step()
            peak = memory("VmHWM") - before
            began = time.perf_counter()
            for _ in range(steps):
                step()
            seconds = (time.perf_counter() - began) / steps
        del step
        print(json.dumps({"seconds": seconds, "peak": max(0, peak), "held": held}), flush=True)


def memory(name: str) -> int:
    """A value of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def reset_peak() -> None:
    """Begin the highest memory again."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="model in Hugging Face layout")
    parser.add_argument("--format", default="bf16", choices=("fp32", "bf16", "int4"))
    parser.add_argument("--cached", type=int, nargs="+", default=[512, 2048, 4096, 8192])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=12, help="steps of a measurement")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each, in turn")
    parser.add_argument("--serve", choices=IMPLEMENTATIONS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.directory, args.format, args.serve)
        return 0
    arguments = [sys.executable, __file__, str(args.directory), "--format", args.format, "--serve"]
    implementations = [
        implementation for implementation in IMPLEMENTATIONS if implementation != "reference" or args.format in DTYPES
    ]
    running = {
        implementation: subprocess.Popen(
            [*arguments, implementation], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for implementation in implementations
    }
    for process in running.values():
        answer(process)
    threads = os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads()
    print(
        f"{processor()}, {threads} threads, {args.directory.name} in {args.format}, torch {version('torch')}, "
        f"reason {version('reason-orchestrator')}, {datetime.now(UTC):%Y-%m-%d}. Medians of {args.rounds} rounds of "
        f"{args.steps} steps.\n"
    )
    print(
        "| cached tokens | workers | "
        + " | ".join(f"{implementation}: steps/s" for implementation in implementations)
        + " | "
        + " | ".join(f"shared / {implementation}" for implementation in implementations[1:])
        + " | "
        + " | ".join(f"{implementation}: extra MiB in a step" for implementation in implementations)
        + " | "
        + " | ".join(f"{implementation}: cache MiB" for implementation in ("shared", "apart"))
        + " |"
    )
    print("| ---: " * (2 + len(implementations) + len(implementations) - 1 + len(implementations) + 2) + "|")
    for cached in args.cached:
        for workers in args.workers:
            reported: dict[str, list[dict[str, float]]] = {implementation: [] for implementation in implementations}
            for _ in range(args.rounds):
                for implementation in implementations:
                    reported[implementation].append(ask(running[implementation], [cached, workers, args.steps]))
            print(row(cached, workers, reported), flush=True)
    for process in running.values():
        if process.stdin is not None:
            process.stdin.close()
        process.wait()
    return 0


def row(cached: int, workers: int, reported: dict[str, list[dict[str, float]]]) -> str:
    """A row of the table."""
    rates = {
        implementation: statistics.median(1 / m["seconds"] for m in several)
        for implementation, several in reported.items()
    }
    paired = {
        implementation: statistics.median(
            other["seconds"] / mine["seconds"]
            for mine, other in zip(reported["shared"], reported[implementation], strict=True)
        )
        for implementation in list(reported)[1:]
    }
    extra = {
        implementation: statistics.median(m["peak"] for m in several) / 2**20
        for implementation, several in reported.items()
    }
    held = {implementation: reported[implementation][0]["held"] / 2**20 for implementation in ("shared", "apart")}
    cells = [
        str(cached),
        str(workers),
        *(f"{rate:.1f}" for rate in rates.values()),
        *(f"{ratio:.2f}x" for ratio in paired.values()),
        *(f"{mib:.0f}" for mib in extra.values()),
        *(f"{held[implementation]:.0f}" for implementation in ("shared", "apart")),
    ]
    return f"| {' | '.join(cells)} |"


def ask(process: subprocess.Popen[str], what: list[int]) -> dict[str, float]:
    """Have a process measure."""
    if process.stdin is None:
        raise RuntimeError("a process without standard input")
    process.stdin.write(json.dumps(what) + "\n")
    process.stdin.flush()
    reported: dict[str, float] = json.loads(answer(process))
    return reported


def answer(process: subprocess.Popen[str]) -> str:
    """A line of a process's."""
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        raise SystemExit("a measuring process ended early; its message is above")
    return line


if __name__ == "__main__":
    sys.exit(main())
