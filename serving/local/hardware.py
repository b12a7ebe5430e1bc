"""Defaults that depend on the machine: number format, threads, cache size."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from statistics import median

import torch

from .weights import CPU, WeightFormat, processor_flags

SLOW_RATIO = 3.0
"""A step is slow if its time is this many times the best median of its size."""
WINDOW = 8
"""Steps of a median."""
RETRY_STEPS = 256
"""Steps on one thread before several are tried again."""


def native_format(device: torch.device = CPU) -> WeightFormat:
    """bf16 where the device multiplies bf16 natively, else fp32: without it, bf16 is converted at every step.

    Devices that are neither the CPU nor of CUDA cannot be queried, and get fp32.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type != "cpu":
        return "fp32"
    probe = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    native = bool(processor_flags() & {"avx512_bf16", "amx_bf16", "bf16"})
    return "bf16" if native and probe is not None and bool(probe()) else "fp32"


def default_threads() -> int:
    """Physical cores less one; one where the machine is busy already.

    Threads that wait for one another on a busy machine were seen to be tens of times slower than a single one. Differs:
    the engine's specification gives a machine of two cores both of them; there one thread decoded faster at every
    number of rows that was measured (docs/results/engine.md).
    """
    cores = _physical_cores()
    try:
        busy = os.getloadavg()[0] > 0.75 * cores
    except OSError:
        busy = False
    return 1 if busy else max(1, cores - 1)


def default_kv_bytes(device: torch.device = CPU) -> int:
    """A quarter of the device's free memory, at least 64 MiB; of the computer's, where a device cannot be queried."""
    if device.type == "cuda":
        return max(64 << 20, torch.cuda.mem_get_info(device)[0] // 4)
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        free = 2 << 30
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    return max(64 << 20, free // 4)


class ThreadTuner:
    """Chooses the number of threads of the next step from the times of earlier ones.

    When the median of the last steps of a size exceeds three times the best median seen for it, something else is using
    the cores: it goes to one thread, and tries several again later.
    """

    def __init__(self, num_threads: int) -> None:
        self._max_threads = num_threads
        self._times: dict[int, deque[float]] = {}
        self._best: dict[int, float] = {}
        self._single_steps_left = 0

    @property
    def num_threads(self) -> int:
        """Threads the next step should use."""
        return 1 if self._single_steps_left else self._max_threads

    def observe(self, rows: int, seconds: float) -> None:
        """Take the time of a step that decoded `rows` rows and prefilled nothing."""
        if self._single_steps_left:
            self._single_steps_left -= 1
            return
        size = rows.bit_length()
        times = self._times.setdefault(size, deque(maxlen=WINDOW))
        times.append(seconds)
        if len(times) < WINDOW:
            return
        middle = median(times)
        best = self._best[size] = min(self._best.get(size, middle), middle)
        if self._max_threads > 1 and middle > SLOW_RATIO * best:
            self._single_steps_left = RETRY_STEPS
            self._times.clear()


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


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
