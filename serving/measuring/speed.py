"""`measure_speed`: tokens a second, by three short requests."""

from __future__ import annotations

import time

from ...core.errors import CapabilityMissing
from ...core.messages import Chunk, Prompt, Request, Sampling
from ..model import LanguageModel
from .bench import ASK, Bench
from .features import long_text
from .findings import Speed

DECODED = 33
"""Tokens of a sample; the first one belongs to the prompt."""
BATCH = 8


async def measure_speed(model: LanguageModel) -> Speed:
    """How fast a model reads a prompt, writes one sample, and writes several.

    Raises:
        ReasonError: A request failed.
    """
    bench = Bench(model)
    prompt = Prompt.user(long_text(bench))
    began = time.perf_counter()
    reply = await bench.ask(prompt, temperature=0, max_tokens=1)
    took = time.perf_counter() - began
    read = reply.usage.prompt_tokens - reply.usage.cached_tokens
    return Speed(
        prompt_tokens_per_s=read / took if read > 0 else None,
        decode_tokens_per_s=await _decoded(bench, 1),
        batch_tokens_per_s=await _decoded(bench, BATCH),
        batch=BATCH,
    )


async def _decoded(bench: Bench, samples: int) -> float | None:
    """Tokens a second, counted from each sample's first token on; None if too few came or none can be counted."""
    first: dict[int, float] = {}
    last, counted = 0.0, 0

    def hear(chunk: Chunk) -> None:
        nonlocal last, counted
        tokens = len(chunk.token_ids) or (1 if chunk.text else 0)
        if tokens:
            last = time.perf_counter()
            if chunk.sample_index not in first:
                first[chunk.sample_index] = last
                tokens -= 1
            counted += tokens

    sampling = Sampling(temperature=1.0, seed=0, n=samples, max_tokens=DECODED, ignore_eos=True, logprobs=False)
    try:
        await bench.batch([Request(prompt=ASK, sampling=sampling)], hear)
    except CapabilityMissing:  # it ends where it likes
        first.clear()
        counted = 0
        await bench.batch([Request(prompt=ASK, sampling=sampling.model_copy(update={"ignore_eos": False}))], hear)
    if not first or counted < samples:
        return None
    took = last - min(first.values())
    return counted / took if took > 0 else None
