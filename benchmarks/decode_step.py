"""Where a decode step of the embedded engine spends its time: shares of the torch operations, and time of sampling.

The steps are those of 1 and 8 prompts, and of 32 samples of one prompt with 256 tokens each.

    python benchmarks/decode_step.py [--model NAME] [--threads N] [--format bf16]

NAME is a model as `reason` finds it; the default is the embedded engine's.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import time

import torch
from reason.core.messages import SamplingParams
from reason.core.settings import load_settings
from reason.serving.local.attention import TokenChunk
from reason.serving.local.model import Decoder
from reason.serving.local.sampler import Sampler, sample_tokens
from reason.serving.model_files.find import find_model
from torch.profiler import ProfilerActivity, profile

PROMPT_TOKENS = 150
STEPS = 10
SAMPLES = 32
SAMPLE_TOKENS = 256
SAMPLED_ROWS = 64


def rows_of(decoder: Decoder, count: int) -> list[TokenChunk]:
    """Sequences of unrelated prompts, each about to take a token."""
    chunks = []
    for seed in range(count):
        ids = torch.randint(100, 20_000, (PROMPT_TOKENS,), generator=torch.Generator().manual_seed(seed)).tolist()
        cache = decoder.new_kv_cache(PROMPT_TOKENS + 10 * STEPS)
        table = cache.new_table()
        decoder.forward([TokenChunk(cache, table, ids, [])])
        chunks.append(TokenChunk(cache, table, [77], [0]))
    return chunks


def samples_of(decoder: Decoder) -> list[TokenChunk]:
    """Samples of one prompt, each with tokens of its own and about to take another."""
    ids = torch.randint(100, 20_000, (PROMPT_TOKENS,), generator=torch.Generator().manual_seed(0)).tolist()
    cache = decoder.new_kv_cache(PROMPT_TOKENS + SAMPLES * (SAMPLE_TOKENS + 10 * STEPS))
    prompt = cache.new_table()
    decoder.forward([TokenChunk(cache, prompt, ids, [])])
    tables = [cache.fork(prompt) for _ in range(SAMPLES)]
    for _ in range(SAMPLE_TOKENS):
        cache.append_each(tables, cache.allocate(SAMPLES))  # keys and values are zero: the time is the same
    return [TokenChunk(cache, table, [77], [0]) for table in tables]


def sampling_ms(decoder: Decoder) -> float:
    """Milliseconds of sampling a token for each of `SAMPLED_ROWS` rows."""
    logits = 3 * torch.randn(SAMPLED_ROWS, decoder.config.vocab_size, generator=torch.Generator().manual_seed(0))
    samplers = [Sampler(SamplingParams(seed=1), index, [], [1]) for index in range(SAMPLED_ROWS)]
    sample_tokens(logits, samplers, [0] * SAMPLED_ROWS)
    began = time.perf_counter()
    for _ in range(STEPS):
        sample_tokens(logits, samplers, [0] * SAMPLED_ROWS)
    return (time.perf_counter() - began) / STEPS * 1e3


def main() -> None:
    """Print a table for each number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="local/smollm2-135m")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--format", default="bf16", choices=("fp32", "bf16", "int4"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    files = find_model(args.model, cache_dir=load_settings().cache_dir)
    print(
        f"{args.model}, {args.format}, {args.threads} thread(s); {platform.machine()}, torch {torch.__version__}, "
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC\n"
    )
    with torch.inference_mode():
        decoder = Decoder.load(files.directory, args.format)
        cases = [(f"{rows} row(s)", rows_of(decoder, rows)) for rows in (1, 8)]
        cases.append((f"{SAMPLES} samples of a prompt, {SAMPLE_TOKENS} tokens each", samples_of(decoder)))
        for name, chunks in cases:
            for _ in range(STEPS):
                decoder.forward(chunks)
            began = time.perf_counter()
            for _ in range(STEPS):
                decoder.forward(chunks)
            step_ms = (time.perf_counter() - began) / STEPS * 1e3
            with profile(activities=[ProfilerActivity.CPU]) as measured:
                for _ in range(STEPS):
                    decoder.forward(chunks)
            operations = sorted(measured.key_averages(), key=lambda e: -e.self_cpu_time_total)
            total = sum(e.self_cpu_time_total for e in operations)
            print(f"| {name}, {step_ms:.1f} ms a step | share | calls a step |\n| --- | --- | --- |")
            for e in operations[:6]:
                print(f"| {e.key} | {e.self_cpu_time_total / total:.0%} | {e.count // STEPS} |")
            print()
        print(f"sampling {SAMPLED_ROWS} tokens: {sampling_ms(decoder):.1f} ms")


if __name__ == "__main__":
    main()
