"""The process that compares formulas: a loop that reads pairs and writes verdicts, one JSON line each.

Run as a script by `math_process`, never imported by it: it needs nothing but `math-verify`, so neither the parent's
memory nor the main script of the application is carried along. Everything here may hang, burst or crash: the parent
kills it at the deadline, and three limits hold should the parent be gone: the end of the input ends it, an alarm
ends it a little after the parent would have, and its address space is bounded.

`math-verify` limits itself by signals, which work in a main thread alone; they are switched off (`timeout_seconds` and
`parsing_timeout` None), the alarm used instead has no handler and so ends the process even within a long operation of
the interpreter.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import TextIO


def main(memory_bytes: int, seconds: float) -> None:
    """Serve comparisons until the input ends.

    Args:
        memory_bytes: Bound on the address space, where the system can set one.
        seconds: Longest time for one comparison before the process ends itself.
    """
    # Whatever a library prints must not mix with the verdicts.
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    _bound_memory(memory_bytes)
    _same("x", "1")  # loads everything that is slow to load, before "ready"
    replies.write("ready\n")
    replies.flush()
    _serve(sys.stdin, replies, seconds)


def _serve(requests: TextIO, replies: TextIO, seconds: float) -> None:
    for line in requests:
        left, right = json.loads(line)
        _alarm(seconds)
        try:
            same = _same(left, right)
        except MemoryError:
            os._exit(2)
        except Exception:  # noqa: BLE001 (whatever the library meets in a formula, the pair is undecided)
            same = None
        _alarm(0)
        replies.write("same\n" if same else "different\n" if same is False else "unreadable\n")
        replies.flush()


def _same(left: str, right: str) -> bool | None:
    """Whether two formulas are equivalent; None if either cannot be read.

    `verify` follows the form of its first argument, so it is asked both ways: the relation is symmetric.
    """
    from math_verify import parse, verify  # type: ignore[import-untyped]

    parsed = []
    for formula in (left, right):
        expressions = parse(formula if "$" in formula else f"${formula}$", parsing_timeout=None)
        # The last entry is the text itself, kept for want of a reading; alone it says nothing.
        if not any(not isinstance(e, str) for e in expressions):
            return None
        parsed.append(expressions)
    a, b = parsed
    return any(verify(x, y, timeout_seconds=None, raise_on_error=True) for x, y in ((a, b), (b, a)))


def _alarm(seconds: float) -> None:
    try:
        import signal

        signal.setitimer(signal.ITIMER_REAL, seconds)
    except (ImportError, AttributeError):  # no such timer on this system: the parent's deadline remains
        return


def _bound_memory(memory_bytes: int) -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    except (ImportError, ValueError, OSError):  # no such limit on this system, or a lower one is set already
        return


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
