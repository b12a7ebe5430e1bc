"""Run small linear algebra on one thread.

SciPy's solver calls BLAS for matrices of a few rows. With several BLAS threads each call has to synchronize all of
them, which takes about a hundred times as long as the computation when other programs use the same cores.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_LOCK = threading.Lock()  # the thread count is global to the process: one change at a time


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread within the block."""
    with _LOCK, _loaded_libraries().limit(limits=1, user_api="blas"):
        yield


@cache
def _loaded_libraries() -> Any:
    """The loaded BLAS libraries, cached: finding them takes a millisecond, setting the limit only microseconds."""
    import numpy.linalg  # noqa: F401 (loads numpy's BLAS)
    import scipy.linalg  # noqa: F401 (loads scipy's)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
