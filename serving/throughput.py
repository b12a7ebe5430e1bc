"""Throughput of a model by three short requests, and resident memory of this process."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from ..core.errors import CapabilityMissing
from ..core.messages import Chunk, Prompt, Request
from .capability_checks import ASK, ModelUnderTest, Throughput, long_text
from .model import LanguageModel

DECODED = 33
"""Tokens of a sample; the first one belongs to the prompt."""
BATCH = 8


async def measure_throughput(model: LanguageModel) -> Throughput:
    """Tokens per second of a prompt, of one sample, and of a batch of samples.

    Raises:
        ReasonError: A request failed.
    """
    bench = ModelUnderTest(model)
    prompt = Prompt.user(long_text(bench))
    began = time.perf_counter()
    response = await bench.ask(prompt, max_tokens=1)
    took = time.perf_counter() - began
    read = response.usage.prompt_tokens - response.usage.cached_tokens
    return Throughput(
        prompt_tokens_per_s=read / took if read > 0 else None,
        decode_tokens_per_s=await _decoded(bench, 1),
        batch_tokens_per_s=await _decoded(bench, BATCH),
        batch=BATCH,
    )


async def _decoded(bench: ModelUnderTest, samples: int) -> float | None:
    """Tokens per second after each sample's first token; None if there are too few tokens or they cannot be counted."""
    first: dict[int, float] = {}
    last, counted = 0.0, 0

    def on_chunk(chunk: Chunk) -> None:
        nonlocal last, counted
        tokens = len(chunk.token_ids) or (1 if chunk.text or chunk.thought else 0)
        if tokens:
            last = time.perf_counter()
            if chunk.sample_index not in first:
                first[chunk.sample_index] = last
                tokens -= 1
            counted += tokens

    sampling = bench.sampling(default_temperature=1.0, n=samples, max_tokens=DECODED, ignore_eos=True)
    try:
        await bench.batch([Request(prompt=ASK, sampling=sampling)], on_chunk)
    except CapabilityMissing:  # it ends where it likes
        first.clear()
        counted = 0
        await bench.batch([Request(prompt=ASK, sampling=sampling.model_copy(update={"ignore_eos": False}))], on_chunk)
    if not first or counted < samples:
        return None
    took = last - min(first.values())
    return counted / took if took > 0 else None


def resident_bytes() -> int | None:
    """Resident memory of this process and its descendants, in bytes; shared pages count once for each.

    Where the system does not report other processes, the maximum of this one; None if it reports nothing.
    """
    parents = _parents()
    if parents:
        own = {os.getpid()}
        while more := {pid for pid, parent in parents.items() if parent in own} - own:
            own |= more
        return sum(_resident(pid) for pid in own)
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _parents() -> dict[int, int]:
    """The parent of every process; empty where there is no /proc."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            parents[int(path.parent.name)] = int(fields[1])
        except (OSError, ValueError, IndexError):  # it has ended meanwhile
            continue
    return parents


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
