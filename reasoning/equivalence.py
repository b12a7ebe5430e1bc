"""Whether two answers are the same, and which of many are.

Most pairs are decided by their plain forms (`plain_forms`), in microseconds. What only algebra can decide goes to
`math-verify` in a process of its own that is killed when it takes too long (`math_process`); a formula that looks like
a bomb does not get that far. "Undecided" counts as not the same, so a hostile answer can lose a vote and nothing else.

`math-verify` reads formulas generously: sets and unordered lists are the same in any order, ordered tuples are not,
`x=5` is the same as `5` but not as `y=5`, a half-open interval is not a closed one, decimals agree to six places.
The relation is symmetric. It is not always transitive (`5`, `x=5`, `y=5`), therefore `group` compares with the first
answer of each class.
"""

from __future__ import annotations

import asyncio
import queue
import re
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from ..core.errors import UserError
from ..core.question import AnswerKind
from .math_process import MathProcess, Reply
from .plain_forms import formula_form, same_plainly

MAX_FORMULA_CHARS = 600
MAX_NESTING = 24
MAX_DIGITS = 60
"""Longest run of digits that reaches algebra; plain numbers up to 400 digits are compared without it."""

_HEAVY = re.compile(
    rf"[0-9]{{{MAX_DIGITS + 1},}}"  # a number of many digits
    r"|\^\s{0,3}\{?\s{0,3}[-+(]{0,2}[0-9]{5,}"  # an exponent of five digits
    r"|[0-9]\s{0,3}\}?\s{0,3}(?:\^|\*\*)\s{0,3}[{(]?\s{0,3}[0-9]+\s{0,3}(?:\^|\*\*)"  # a tower of powers
    r"|[0-9]{4,}\s{0,3}\)?\s{0,3}!|!\s{0,3}\)?\s{0,3}!"  # a factorial of a large number, or of a factorial
)

Why = Literal["plain", "algebra", "unreadable", "too_heavy", "timeout", "crashed", "unavailable"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outcome of a comparison.

    Attributes:
        verdict: "same", "different", or "undecided", which counts as not the same.
        why: What decided, "plain" or "algebra"; or why nothing did: a formula was "unreadable" or "too_heavy", or the
            process ran into its "timeout", "crashed" (memory included) or is "unavailable".
    """

    verdict: Literal["same", "different", "undecided"]
    why: Why


class Equivalence:
    """Compares and groups answers; an asynchronous context manager.

    It belongs to no event loop: one object may serve several, one after the other or in several threads. Processes
    start with the first pair that needs one. Cancelling the awaiting task kills the process at work for it.

    Args:
        workers: Most processes at a time.
        timeout_s: Longest time for one comparison in a process, in seconds.
        memory_bytes: Bound on each process's address space.
        remembered: Outcomes of algebra kept, the least recently used leaving first.

    Raises:
        UserError: An argument is not positive.
    """

    def __init__(
        self, *, workers: int = 1, timeout_s: float = 5.0, memory_bytes: int = 1 << 30, remembered: int = 4096
    ) -> None:
        given = {"workers": workers, "timeout_s": timeout_s, "memory_bytes": memory_bytes, "remembered": remembered}
        for name, value in given.items():
            if not value > 0:
                raise UserError(f"Equivalence({name}={value!r}) must be greater than 0")
        self._workers = workers
        self._remembered = remembered
        self._outcomes: OrderedDict[tuple[str, str], Comparison] = OrderedDict()
        self._lock = threading.Lock()
        self._processes = [MathProcess(timeout_s=timeout_s, memory_bytes=memory_bytes) for _ in range(workers)]
        self._idle: queue.SimpleQueue[MathProcess] = queue.SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        self._threads: ThreadPoolExecutor | None = None
        self._finalizer = weakref.finalize(self, _close, self._processes)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def same(self, a: str, b: str, kind: AnswerKind) -> bool:
        """Whether two answers are the same; "undecided" is no."""
        return (await self.compare(a, b, kind)).verdict == "same"

    async def compare(self, a: str, b: str, kind: AnswerKind) -> Comparison:
        """Compare two answers.

        Args:
            a: An answer, as `answers.extract` gives it.
            b: Another.
            kind: What they are.
        """
        plainly = same_plainly(a, b, kind)
        if plainly is not None:
            return Comparison("same" if plainly else "different", "plain")
        left, right = sorted((formula_form(a), formula_form(b)))
        if is_heavy(left) or is_heavy(right):
            return Comparison("undecided", "too_heavy")
        known = self._recall((left, right))
        if known is not None:
            return known
        outcome = _comparison(await self._by_algebra(left, right))
        if self._threads is not None and outcome.why != "unavailable":  # closing kills: that says nothing of the pair
            self._remember((left, right), outcome)
        return outcome

    async def group(self, answers: Sequence[str | None], kind: AnswerKind) -> list[list[int]]:
        """Put the same answers together.

        Args:
            answers: The answers; None (no answer) is the same as nothing.
            kind: What they are.

        Returns:
            Classes of positions, by first member; each answer was compared with the first of each class, so at most
            answers times classes comparisons are made.
        """
        classes: list[list[int]] = []
        written: dict[str, list[int]] = {}
        for i, answer in enumerate(answers):
            if answer is None:
                continue
            members = written.get(answer)
            if members is None:
                members = await self._class_of(answer, answers, classes, kind)
                if members is None:
                    members = []
                    classes.append(members)
                written[answer] = members
            members.append(i)
        return classes

    async def aclose(self) -> None:
        """End the processes; idempotent. The object may be used again: processes start anew."""
        with self._lock:
            threads, self._threads = self._threads, None
        for process in self._processes:
            process.kill()
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)
            # A killed process ends its comparison at once, so the threads are gone in a moment.
            await asyncio.to_thread(threads.shutdown, wait=True)
        for process in self._processes:
            process.close()

    async def _class_of(
        self, answer: str, answers: Sequence[str | None], classes: list[list[int]], kind: AnswerKind
    ) -> list[int] | None:
        for members in classes:
            first = answers[members[0]]
            if first is not None and await self.same(first, answer, kind):
                return members
        return None

    async def _by_algebra(self, left: str, right: str) -> Reply:
        job = _Job(left, right)
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="reason-equivalence")
            future = self._threads.submit(job.run, self._idle)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            job.cancel()
            task = asyncio.current_task()
            if future.cancelled() and task is not None and not task.cancelling():
                return "unavailable"  # not the task was cancelled: `aclose` took the job away
            raise

    def _recall(self, pair: tuple[str, str]) -> Comparison | None:
        with self._lock:
            outcome = self._outcomes.get(pair)
            if outcome is not None:
                self._outcomes.move_to_end(pair)
            return outcome

    def _remember(self, pair: tuple[str, str], outcome: Comparison) -> None:
        with self._lock:
            self._outcomes[pair] = outcome
            self._outcomes.move_to_end(pair)
            while len(self._outcomes) > self._remembered:
                self._outcomes.popitem(last=False)


def is_heavy(formula: str) -> bool:
    """Whether a formula is too long, too deep or too large to be given to algebra."""
    if len(formula) > MAX_FORMULA_CHARS or _HEAVY.search(formula):
        return True
    depth = 0
    for character in formula:
        if character in "([{":
            depth += 1
            if depth > MAX_NESTING:
                return True
        elif character in ")]}":
            depth = max(0, depth - 1)
    return False


class _Job:
    """One comparison on its way through a thread and a process; it can be cancelled at any point."""

    def __init__(self, left: str, right: str) -> None:
        self._left = left
        self._right = right
        self._lock = threading.Lock()
        self._cancelled = False
        self._process: MathProcess | None = None

    def run(self, idle: queue.SimpleQueue[MathProcess]) -> Reply:
        process = idle.get()  # as many processes as threads: there is one
        try:
            with self._lock:
                if self._cancelled:
                    return "crashed"
                self._process = process
            return process.compare(self._left, self._right)
        finally:
            with self._lock:
                self._process = None
            idle.put(process)

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            if self._process is not None:
                self._process.kill()


def _comparison(reply: Reply) -> Comparison:
    match reply:
        case "same" | "different":
            return Comparison(reply, "algebra")
        case _:
            return Comparison("undecided", reply)


def _close(processes: list[MathProcess]) -> None:
    for process in processes:
        process.close()
