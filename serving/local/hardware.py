"""Defaults that depend on the machine: number format, threads, cache size."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

from .weights import WeightFormat, processor_flags

CALIBRATION_SECONDS = 0.2
"""Time in which two numbers of threads are compared; a slow model takes four steps all the same."""


def native_format() -> WeightFormat:
    """bf16 where the processor multiplies bf16, else fp32: without it, bf16 is converted at every step."""
    probe = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    native = bool(processor_flags() & {"avx512_bf16", "amx_bf16", "bf16"})
    return "bf16" if native and probe is not None and bool(probe()) else "fp32"


def max_threads() -> int:
    """Threads that a step may use: the physical cores, or what the environment's OMP_NUM_THREADS says."""
    configured = os.environ.get("OMP_NUM_THREADS", "")
    return int(configured) if configured.isdecimal() and int(configured) else _physical_cores()


@contextmanager
def single_threaded() -> Iterator[None]:
    """Work of this thread for which torch starts no others.

    GNU's OpenMP has a team of threads for each thread that ever needed one. Once they are more than the processors, the
    members of all teams sleep between two operations, and waking them takes longer than the operations of a step.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fastest_threads(step: Callable[[], object]) -> int:
    """The number of threads, at most `max_threads()`, with which a step takes the least time.

    Whether more threads are faster depends on the model's size, the memory and on what else runs: it is measured.
    Doublings of one thread are tried in turn with the best so far, until one is not faster.
    """
    limit, before = max_threads(), torch.get_num_threads()
    candidates = [*(1 << i for i in range(limit.bit_length()) if 1 << i < limit), limit]
    best = candidates[0]
    try:
        for candidate in candidates[1:]:
            times: dict[int, list[float]] = {best: [], candidate: []}
            started = time.perf_counter()
            while not times[candidate] or time.perf_counter() - started < CALIBRATION_SECONDS:
                for count, taken in times.items():
                    torch.set_num_threads(count)
                    step()  # the threads of the last count have to be woken or put to sleep
                    taken.append(_seconds(step))
            if median(times[candidate]) >= median(times[best]):
                break
            best = candidate
    finally:
        torch.set_num_threads(before)
    return best


def default_kv_bytes() -> int:
    """A quarter of the free memory, at least 64 MiB."""
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        free = 2 << 30
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    return max(64 << 20, free // 4)


def _physical_cores() -> int:
    """Distinct (package, core) pairs this process may run on; logical ones where the system does not list them."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = set()
    for cpu in usable:
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        try:
            cores.add(tuple((topology / n).read_text().strip() for n in ("physical_package_id", "core_id")))
        except OSError:
            return len(usable)
    return max(1, len(cores))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
