"""The embedded engine next to transformers' `generate` and llama.cpp: decode, prefill, tree search, memory.

    python benchmarks/engine.py [--model NAME] [--threads N] [--rounds N] [--tokens N] [--formats bf16,fp32,int4]

All run in one process on the same weights, interleaved round by round, so that other load affects all of them alike. A
decode rate is the difference between a short and a long generation of the same prompts, so prefill and set-up cancel.
Printed: median over the rounds, the spread, and the ratio to `generate` in the same number format, by wall time and by
CPU time. The machine's load is printed too.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from reason.core.messages import Prompt, Request, SamplingParams
from reason.core.settings import load_settings
from reason.serving.local.engine import LocalModel
from reason.serving.model_files.find import ModelFiles, find_model

PROMPT_TOKENS = 150
SEARCH_PROMPT_TOKENS = 300
PREFILL_TOKENS = 1024
DEPTH, KEEP, WIDTH, STEP_TOKENS, TEMPERATURE = 6, 2, 4, 40, 0.7


@dataclass
class Times:
    """Seconds of one contestant at one job, a value a round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def random_ids(count: int, seed: int) -> list[int]:
    """Token ids of no meaning, the same for every contestant."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(100, 20_000, (count,), generator=generator).tolist()


class Ours:
    """The engine, through its public interface."""

    def __init__(self, files: ModelFiles, weight_format: str, threads: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.model = LocalModel.load(files, weight_format=weight_format, threads=threads)  # type: ignore[arg-type]

    def forget(self) -> None:
        """Drop every stored prefix."""
        self.model._scheduler.prefix_cache.evict_idle()

    def decode(self, prompts: list[list[int]], tokens: int, samples: int = 1) -> None:
        """Greedy decoding of unrelated prompts, or of samples of one."""
        self.forget()
        sampling = SamplingParams(temperature=0, max_tokens=tokens, n=samples, ignore_eos=True)
        requests = [Request(prompt=raw(ids), sampling=sampling) for ids in prompts]
        self.loop.run_until_complete(self.model.generate(requests))

    def prefill(self, ids: list[int]) -> None:
        """One distribution after a long prompt."""
        self.forget()
        self.loop.run_until_complete(self.model.next_token([raw(ids)]))

    def search(self, ids: list[int], reuse: bool) -> None:
        """Beam search over steps of fixed length, ranked by log-probability."""
        self.forget()
        beams = [(0.0, ids)]
        for depth in range(DEPTH):
            if not reuse:
                self.forget()
            sampling = SamplingParams(
                temperature=TEMPERATURE, max_tokens=STEP_TOKENS, n=WIDTH, seed=depth, ignore_eos=True
            )
            requests = [Request(prompt=raw(tokens), sampling=sampling) for _, tokens in beams]
            results = self.loop.run_until_complete(self.model.generate(requests))
            grown = [
                (score + (c.logprob or 0.0), [*tokens, *c.token_ids])
                for (score, tokens), completions in zip(beams, results, strict=True)
                for c in completions
            ]
            beams = sorted(grown, key=lambda b: -b[0])[:KEEP]

    def close(self) -> None:
        """End the engine."""
        self.loop.run_until_complete(self.model.aclose())
        self.loop.close()


class Theirs:
    """transformers' `generate`."""

    def __init__(self, files: ModelFiles, dtype: torch.dtype) -> None:
        from transformers import AutoModelForCausalLM

        self.model: Any = AutoModelForCausalLM.from_pretrained(files.directory, dtype=dtype).eval()

    def generate(self, batch: torch.Tensor, tokens: int, **options: Any) -> Any:
        """`generate` with exactly `tokens` new tokens."""
        return self.model.generate(
            batch,
            attention_mask=torch.ones_like(batch),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            pad_token_id=0,
            **options,
        )

    def decode(self, prompts: list[list[int]], tokens: int, samples: int = 1) -> None:
        """Greedy decoding; samples of one prompt are rows of it."""
        self.generate(torch.tensor(prompts * samples), tokens, do_sample=False)

    def prefill(self, ids: list[int]) -> None:
        """One forward pass."""
        with torch.inference_mode():
            self.model(torch.tensor([ids]), logits_to_keep=1)

    def search(self, ids: list[int], reuse: bool) -> None:
        """The same search; the beams are prefilled again at every step."""
        beams = [(0.0, torch.tensor(ids))]
        for _ in range(DEPTH):
            out = self.generate(
                torch.stack([b for _, b in beams]),
                STEP_TOKENS,
                do_sample=True,
                temperature=TEMPERATURE,
                top_k=0,
                top_p=1.0,
                num_return_sequences=WIDTH,
                return_dict_in_generate=True,
                output_scores=True,
            )
            gained = self.model.compute_transition_scores(out.sequences, out.scores, normalize_logits=True).sum(-1)
            before = [score for score, _ in beams for _ in range(WIDTH)]
            grown = [(b + g, s) for b, g, s in zip(before, gained.tolist(), out.sequences, strict=True)]
            beams = sorted(grown, key=lambda b: -b[0])[:KEEP]


class LlamaCpp:
    """llama.cpp through its Python package, single stream: its high-level interface has no batches."""

    def __init__(self, gguf: Path, threads: int) -> None:
        from llama_cpp import Llama

        self.model: Any = Llama(str(gguf), n_ctx=2048, n_threads=threads, n_threads_batch=threads, verbose=False)

    def decode(self, prompts: list[list[int]], tokens: int, samples: int = 1) -> None:
        """Greedy decoding of one prompt."""
        self.model.reset()
        produced = self.model.generate(prompts[0], temp=0.0)
        for _ in range(tokens):
            next(produced)

    def prefill(self, ids: list[int]) -> None:
        """Evaluate a prompt."""
        self.model.reset()
        self.model.eval(ids)


def raw(ids: list[int]) -> Prompt:
    """A prompt of exactly these tokens: one character's token, then the rest as prefix."""
    return Prompt(text="a", prefix=tuple(ids[1:]))


def bandwidth() -> float:
    """Bytes per second read from memory: the sum of 512 MiB, the best of several."""
    block = torch.ones(128 << 20)
    best = min(timed(block.sum)[0] for _ in range(8))
    return block.nbytes / best


def decode_rates(contestants: dict[str, Any], prompts: list[list[int]], samples: int, args: Any) -> dict[str, Times]:
    """Seconds for each decoded step, interleaved."""
    short, long = 4, 4 + args.tokens
    taken: dict[str, tuple[list[tuple[float, float]], list[tuple[float, float]]]] = {n: ([], []) for n in contestants}
    for round_number in range(args.rounds + 1):
        for name, contestant in contestants.items():
            for tokens, times in zip((short, long), taken[name], strict=True):
                value = timed(lambda c=contestant, t=tokens: c.decode(prompts, t, samples))
                if round_number:  # the first round warms up
                    times.append(value)
    results = {}
    for name, (shorts, longs) in taken.items():
        # The median of the short ones is taken off each long one: pairwise differences would double the noise.
        wall, cpu = (statistics.median(t[i] for t in shorts) for i in (0, 1))
        steps = [((t[0] - wall) / args.tokens, (t[1] - cpu) / args.tokens) for t in longs]
        results[name] = Times([s[0] for s in steps], [s[1] for s in steps])
    return results


def time_jobs(jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, Times]:
    """Seconds of jobs, interleaved."""
    results = {name: Times() for name in jobs}
    for round_number in range(rounds + 1):
        for name, job in jobs.items():
            wall, cpu = timed(job)
            if round_number:
                results[name].wall.append(wall)
                results[name].cpu.append(cpu)
    return results


def report(title: str, results: dict[str, Times], amount: float, unit: str, baselines: dict[str, str]) -> None:
    """Rows of the table: rate, spread, ratios to each contestant's baseline."""
    for name, times in results.items():
        rates = sorted(amount / t for t in times.wall)
        rate = statistics.median(rates)
        against = baselines.get(name)
        ratios = "| |"
        if against in results:
            other = results[against]
            wall = statistics.median(other.wall) / statistics.median(times.wall)
            cpu = statistics.median(other.cpu) / statistics.median(times.cpu)
            ratios = f"{wall:.2f}x | {cpu:.2f}x |"
        print(f"| {title} | {name} | {rate:.1f} {unit} | {rates[0]:.1f} to {rates[-1]:.1f} | {ratios}", flush=True)


def peak_memory(contestant: str, args: Any) -> None:
    """In a process of its own: load, decode eight samples, print the peak."""
    files = find_model(args.model, cache_dir=load_settings().cache_dir)
    torch.set_num_threads(args.threads)
    prompts = [random_ids(PROMPT_TOKENS, 1)]
    if contestant.startswith("transformers"):
        Theirs(files, torch.float32 if "fp32" in contestant else torch.bfloat16).decode(prompts, 32, 8)
    else:
        ours = Ours(files, contestant.split()[-1], args.threads)
        ours.decode(prompts, 32, 8)
        ours.close()
    print(peak_mib())


def peak_mib() -> int:
    """Peak resident memory of this process, in MiB; `ru_maxrss` would include the parent that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [text for text in status.read_text().splitlines() if text.startswith("VmHWM:")]
        return int(line.split()[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="local/smollm2-135m")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--formats", default="bf16,fp32,int4")
    parser.add_argument("--only", default="", help="comma-separated parts: decode, samples, prefill, search, memory")
    parser.add_argument("--gguf", type=Path, help="the same model for llama.cpp")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        peak_memory(args.memory_of, args)
        return
    files = find_model(args.model, cache_dir=load_settings().cache_dir)
    torch.set_num_threads(args.threads)
    formats = args.formats.split(",")
    ours = {f"reason {f}": Ours(files, f, args.threads) for f in formats}
    theirs = {"transformers bf16": Theirs(files, torch.bfloat16)}
    if "fp32" in formats:
        theirs["transformers fp32"] = Theirs(files, torch.float32)
    torch.set_num_threads(args.threads)
    everyone: dict[str, Any] = {**theirs, **ours}
    single: dict[str, Any] = dict(everyone)
    try:
        import llama_cpp  # noqa: F401
    except ImportError:
        print("SKIPPED: llama.cpp (no module llama_cpp here): nothing below compares with it", file=sys.stderr)
    else:
        if args.gguf:
            single["llama.cpp"] = LlamaCpp(args.gguf, args.threads)
        else:
            print("SKIPPED: llama.cpp (give its file with --gguf)", file=sys.stderr)
    baselines = {n: f"transformers {'fp32' if 'fp32' in n else 'bf16'}" for n in single if not n.startswith("transf")}
    heading(args)
    parts = set(args.only.split(",")) - {""} or {"decode", "samples", "prefill", "search", "memory"}
    if "decode" in parts:
        weights = sum(p.numel() for p in theirs["transformers bf16"].model.parameters())
        speed = bandwidth()
        for name, size in (("fp32", 4), ("bf16", 2)):
            floor = f"{speed / (weights * size):.1f} steps/s | {speed / 1e9:.1f} GB/s"
            print(f"| memory floor, one row | {name} | {floor} | | |")
        prompts = [random_ids(PROMPT_TOKENS, seed) for seed in range(16)]
        report("1 row", decode_rates(single, prompts[:1], 1, args), 1, "tok/s", baselines)
        for rows in (8, 16):
            result = decode_rates(everyone, prompts[:rows], 1, args)
            report(f"{rows} prompts", result, rows, "tok/s", baselines)
    if "samples" in parts:
        result = decode_rates(everyone, [random_ids(PROMPT_TOKENS, 1)], 8, args)
        report("8 samples of a prompt", result, 8, "tok/s", baselines)
    if "prefill" in parts:
        ids = random_ids(PREFILL_TOKENS, 2)
        jobs: dict[str, Callable[[], object]] = {n: (lambda c=c: c.prefill(ids)) for n, c in single.items()}
        report(f"prefill {PREFILL_TOKENS}", time_jobs(jobs, args.rounds), PREFILL_TOKENS, "tok/s", baselines)
    if "search" in parts:
        search_table(ours, theirs, args)
    for contestant in ours.values():
        contestant.close()
    if "memory" in parts:
        for name in everyone:
            options = ["--memory-of", name, "--model", args.model, "--threads", str(args.threads)]
            run = subprocess.run([sys.executable, __file__, *options], check=True, capture_output=True, text=True)
            print(f"| peak memory, 8 samples | {name} | {run.stdout.strip().splitlines()[-1]} MiB | | | |")


def search_table(ours: dict[str, Ours], theirs: dict[str, Theirs], args: Any) -> None:
    """The tree search, with and without reuse."""
    ids = random_ids(SEARCH_PROMPT_TOKENS, 3)
    jobs: dict[str, Callable[[], object]] = {}
    baselines: dict[str, str] = {}
    base = "transformers bf16, re-prefill"
    jobs[base] = lambda: theirs["transformers bf16"].search(ids, False)
    for name, engine in ours.items():
        if "fp32" in name:
            continue
        for reuse in (True, False):
            label = f"{name}, {'reuse' if reuse else 're-prefill'}"
            jobs[label] = lambda e=engine, r=reuse: e.search(ids, r)
            baselines[label] = base
    tokens = WIDTH * STEP_TOKENS * (1 + KEEP * (DEPTH - 1))
    result = time_jobs(jobs, max(1, args.rounds // 2))
    report(f"beam search {DEPTH}x{KEEP}x{WIDTH}x{STEP_TOKENS}", result, tokens, "tok/s", baselines)


def heading(args: Any) -> None:
    """Where and when."""
    described = (line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    cpu = next(described, platform.processor()).split(":")[-1].strip()
    import transformers

    load = ", ".join(f"{x:.2f}" for x in os.getloadavg())
    print(
        f"{args.model}; {cpu}, {os.cpu_count()} cores, {args.threads} threads; {platform.system()}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}; "
        f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}; load before: {load}\n"
    )
    print("| job | contestant | rate (median) | spread | ratio, wall | ratio, CPU |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)


if __name__ == "__main__":
    main()
