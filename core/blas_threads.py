"""Small linear algebra on one thread.

SciPy's solver calls BLAS for matrices of a few rows. Where BLAS has several threads, each call wakes them all and
waits, which costs a hundred times what it computes if other programs want the same cores.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_TURN = threading.Lock()  # the number of threads belongs to the process: whoever changes it must set it back first


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS uses one thread inside; afterwards as many as before."""
    with _TURN, _loaded_libraries().limit(limits=1, user_api="blas"):
        yield


@cache
def _loaded_libraries() -> Any:
    """The BLAS libraries in memory; finding them takes a millisecond, setting one microseconds."""
    import numpy.linalg  # noqa: F401 (loads numpy's BLAS)
    import scipy.linalg  # noqa: F401 (loads scipy's)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
