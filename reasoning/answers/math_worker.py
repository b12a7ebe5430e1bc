"""The process that compares formulas: a loop that reads pairs and writes verdicts, one JSON line each.

Run as a script by `equivalence.MathProcess`, never imported by it: it needs nothing but `math-verify`, so neither the
parent's memory nor the main script of the application is carried along. Everything here may hang, exhaust its memory or
crash: the parent kills it at the deadline, and three limits apply if the parent is gone: the end of the input ends it,
an alarm ends it shortly after the parent would have, and its address space is bounded.

`math-verify` limits itself by signals, which work only in a main thread; they are switched off (`timeout_seconds` and
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
    """Serve comparisons until the input ends."""
    # Output of libraries must not mix with the verdicts.
    output = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    _bound_memory(memory_bytes)
    _same("x", "1")  # loads everything that is slow to load, before "ready"
    output.write("ready\n")
    output.flush()
    _serve(sys.stdin, output, seconds)


def _serve(requests: TextIO, output: TextIO, seconds: float) -> None:
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
        output.write("same\n" if same else "different\n" if same is False else "unreadable\n")
        output.flush()


def _same(left: str, right: str) -> bool | None:
    """Whether two formulas are equivalent; None if either cannot be read.

    `verify` follows the form of its first argument, so both orders are tried: the relation is symmetric.
    """
    from math_verify import parse, verify  # type: ignore[import-untyped]

    parsed = []
    for formula in (left, right):
        expressions = parse(formula if "$" in formula else f"${formula}$", parsing_timeout=None)
        # the last entry is the text itself, which is no parsed expression
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
