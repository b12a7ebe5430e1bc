"""Huge pages for what every step reads: weights, and keys and values.

A step reads all weights once. They have more pages of 4 KiB than the processor remembers addresses of, and looking
these up took a tenth of a step. All of this is advice, which a kernel may refuse without consequences.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

HUGE_PAGE = 2 << 20
"""Bytes of a huge page."""
MADV_HUGEPAGE = 14
"""Linux: use huge pages for what is touched from now on, and for the rest when the kernel finds it, minutes later."""
MADV_COLLAPSE = 25
"""Linux 6.1: move to huge pages now."""
MAX_COLLAPSED = 8 * HUGE_PAGE
"""Bytes moved by one system call: memory cannot be mapped meanwhile."""

Range = tuple[int, int]
"""First address, and the one after the last."""


def memory_of(tensor: Tensor) -> Range:
    """Where a tensor's numbers are in the CPU's memory; an empty range elsewhere."""
    if tensor.device.type != "cpu":
        return 0, 0
    if tensor.is_mkldnn:
        start = int(torch.ops.mkldnn.data_ptr(tensor))
        return start, start + int(torch.ops.mkldnn._nbytes(tensor))
    return tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes


def huge_ranges(memory: Iterable[Range]) -> list[Range]:
    """The full huge pages of ranges, those that are less than a page apart joined."""
    joined: list[Range] = []
    for start, stop in sorted(r for r in memory if r[0] < r[1]):
        if joined and start - joined[-1][1] < HUGE_PAGE:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        else:
            joined.append((start, stop))
    aligned = ((-(-start // HUGE_PAGE) * HUGE_PAGE, stop // HUGE_PAGE * HUGE_PAGE) for start, stop in joined)
    return [(start, stop) for start, stop in aligned if start < stop]


def advise_huge_pages(ranges: Iterable[Range]) -> None:
    """Use huge pages for memory that is touched from now on."""
    for start, stop in ranges:
        _madvise(start, stop - start, MADV_HUGEPAGE)


class HugePageMover:
    """A thread that moves memory in use to huge pages; it takes about two seconds a gigabyte.

    Args:
        ranges: Full huge pages. Memory that is freed meanwhile does no harm: the kernel finds nothing there.
    """

    def __init__(self, ranges: Sequence[Range]) -> None:
        self._ranges = ranges
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="huge-pages", daemon=True)
        if ranges:
            self._thread.start()

    def _run(self) -> None:
        advise_huge_pages(self._ranges)
        for start, stop in self._ranges:
            for first in range(start, stop, MAX_COLLAPSED):
                if self._stopped.is_set():
                    return
                _madvise(first, min(MAX_COLLAPSED, stop - first), MADV_COLLAPSE)

    def close(self) -> None:
        """Stop, and wait for the call in progress."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()


@cache
def _madvise_function() -> Any:
    """The C library's `madvise`; None where it has none, or other constants."""
    if sys.platform != "linux":
        return None
    try:
        function = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function


def _madvise(start: int, nbytes: int, advice: int) -> bool:
    """Give advice; whether it was taken."""
    function = _madvise_function()
    return function is not None and function(start, nbytes, advice) == 0
