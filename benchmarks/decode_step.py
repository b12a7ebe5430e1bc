"""Where a decode step of the embedded engine spends its time: shares of the torch operations, for 1 and 8 rows.

    python benchmarks/decode_step.py [--model NAME] [--threads N] [--format bf16]

NAME is a model as `reason` finds it; the default is the embedded engine's.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import time

import torch
from reason.core.settings import load_settings
from reason.serving.local.attention import TokenChunk
from reason.serving.local.model import Decoder
from reason.serving.model_files.find import find_model
from torch.profiler import ProfilerActivity, profile

PROMPT_TOKENS = 150
STEPS = 10


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
        for rows in (1, 8):
            chunks = rows_of(decoder, rows)
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
            print(f"| {rows} row(s), {step_ms:.1f} ms a step | share | calls a step |\n| --- | --- | --- |")
            for e in operations[:6]:
                print(f"| {e.key} | {e.self_cpu_time_total / total:.0%} | {e.count // STEPS} |")
            print()


if __name__ == "__main__":
    main()
