"""`settled_heap`: what was loaded before the first request is not looked through again while requests are answered."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG = 10_000
"""Objects that are made before the collector looks at them: more than a request makes, so most are gone by then."""


@contextmanager
def settled_heap() -> Iterator[None]:
    """Take all objects that there are now out of the garbage collector's sight, and let it look less often.

    Libraries and models are some hundred thousand objects that live as long as the process, and each full collection
    looks at every one of them while all requests wait. What is made from now on is collected as ever; on leaving, so is
    the rest.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
