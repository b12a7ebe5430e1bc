r"""Equivalence of answers: whether two are the same, and which of many are.

Most pairs are decided by their normal forms, in microseconds (`equal_without_algebra`):

- Numbers are compared by exact value: `1/2`, `0.5`, `\frac12` and `50%` are the same, `-0` and `0`, `1,000` and `1000`.
- A percentage is a hundredth of the written number, so `50%` is not `50`; the extraction drops the sign if the question
  asks for a percentage. This keeps the relation transitive.
- A fraction and a decimal with four or more decimals are the same if the decimal is the fraction, rounded: `1/3` and
  `0.3333`, but not `0.33`.
- A unit may be missing (`5 km` and `5`); different units differ (`5 km`, `5 kg`).

Pairs that need algebra go to `math-verify` in a process of its own that is killed at a deadline (`MathProcess`), except
formulas that are too long, too deep or too large. "Undecided" counts as not the same, so a hostile answer can only lose
a vote. So does a pair after `MAX_COMPARISONS`, or after `MAX_ALGEBRA` or `MAX_ALGEBRA_S` in a process: answers of which
so many differ have no majority. In a run with a time budget, the time is what is left of it.

`math-verify` is lenient: sets and unordered lists are the same in any order, ordered tuples are not, `x=5` is the same
as `5` but not as `y=5`, a half-open interval is not a closed one, decimals agree to six places. The relation is
symmetric. It is not always transitive (`5`, `x=5`, `y=5`), therefore `group` compares with the first answer of each
class.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import re
import subprocess
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from ...core.clock import monotonic
from ...core.messages import is_canonical_calls
from ...core.types import AnswerKind, Question
from ...core.unicode_forms import normalize
from .extraction import answer_kind
from .normalization import MAX_ANSWER_CHARS, Numeral, normalize_characters, parse_numeral, unwrap

if TYPE_CHECKING:
    from ...core.run import Run

MAX_COMPARISONS = 1_000_000
"""Maximum comparisons of different texts by one object: some seconds."""
MAX_ALGEBRA = 2000
"""Maximum comparisons of one object in a process."""
MAX_ALGEBRA_S = 20.0
"""Maximum time of one object's comparisons in processes, in seconds."""
MIN_ALGEBRA_S = 2.0
"""The same for a run whose time is spent: enough to start a process and compare some formulas."""
MAX_FAULTS = 20
"""Maximum comparisons of one object whose process timed out or died."""
COMPARISONS_PER_SLICE = 500
"""Comparisons after which others have the event loop."""
MAX_CACHED_FORMS = 16_384
MAX_CACHED_OUTCOMES = 4096
MEMORY_BYTES = 1 << 30
"""Limit of the process's address space."""
_START_TIMEOUT_S = 60.0

_YES = frozenset({"yes", "true", "y", "correct"})
_NO = frozenset({"no", "false", "n", "incorrect"})
_LETTER = re.compile(r"[(\[]?\s?([A-Za-z])\s?[)\].:]?")
_ARTICLES = re.compile(r"\b(?:the|a|an)\b")
_PUNCTUATION = re.compile(r"[^\w\s%+\-/<>=^]|_")
_HYPHEN = re.compile("(?<=[^\\W\\d_])[-\u2010\u2011](?=[^\\W\\d_])")
_LIST_OR_DECIMAL = re.compile(r"-?[0-9]+,(?:[0-9]{1,2}|[0-9]{4,})")
_BLANKS = re.compile(r"\s+")
_FORMULA_NOISE = re.compile(r"\\(?:left|right|displaystyle|quad|qquad)(?![A-Za-z])|\\[,;:! ]|\s+")
_PROSE = re.compile(r"[^\W\d_][^\W\d_'’\-]*(?:[\s,'’\-]+[^\W\d_]+)*")  # noqa: RUF001 (typographic apostrophe)
_FORMULA_CHARACTER = re.compile(r"[\d\\=^+<>]")
_LONG_RUN = re.compile(r"[^\W\d_]{3,}")
_FUNCTIONS = frozenset(
    ["sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "sqrt", "max", "min", "gcd", "lcm", "mod", "inf", "arg"]
)
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s?\{([^{}]*)\}")
_UNIT = re.compile(r"(?P<number>.{0,60}?[0-9}])[\s~]*(?P<unit>[^\W\d_][^\d=+*/^{}()\[\]\\<>$,;]{0,40})", re.DOTALL)
_MIN_DECIMALS = 4


def equal_without_algebra(a: str, b: str, kind: AnswerKind) -> bool | None:
    """Whether two answers are the same, as far as that can be decided without algebra.

    Returns:
        Yes, no, or None if only algebra can decide.
    """
    if a == b:
        return True
    if kind == "code":
        return _same_code(a, b)
    a, b = a[: 4 * MAX_ANSWER_CHARS], b[: 4 * MAX_ANSWER_CHARS]
    match kind:
        case "choice":
            return _letter(a) == _letter(b)
        case "yes_no":
            return _assent(a) == _assent(b)
        case "text":
            return normalize_text(a) == normalize_text(b) or _same_number(a, b) is True
        case _:
            return _same_mathematics(a, b, kind)


def _same_code(a: str, b: str) -> bool:
    """Whether two sources are the same but for comments and spacing."""
    try:
        return ast.dump(ast.parse(a)) == ast.dump(ast.parse(b))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return a.split() == b.split()


@lru_cache(MAX_CACHED_FORMS)
def normalize_text(answer: str) -> str:
    """An answer without case, articles, punctuation, wrappings and superfluous blanks."""
    text = normalize("NFKC", normalize_characters(answer))
    start, end = unwrap(text, 0, len(text))
    text = _TEXT_COMMAND.sub(r"\1", text[start:end]).casefold()
    text = _HYPHEN.sub(" ", text)
    bare = _BLANKS.sub(" ", _PUNCTUATION.sub(" ", text)).strip()
    return _BLANKS.sub(" ", _ARTICLES.sub(" ", bare)).strip() or bare or text


@lru_cache(MAX_CACHED_FORMS)
def normalize_formula(answer: str) -> str:
    """A formula without its dollars, spacing and size commands; the case of letters is preserved."""
    text = normalize_characters(answer)
    start, end = unwrap(text, 0, len(text))
    text = text[start:end].replace("\\$", "")  # the currency is a unit
    if text.count("$") == 1:  # half of a pair
        text = text.replace("$", "")
    return text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").strip()


def _same_mathematics(a: str, b: str, kind: AnswerKind) -> bool | None:
    formula_a, formula_b = normalize_formula(a), normalize_formula(b)
    if _without_noise(formula_a) == _without_noise(formula_b):
        return True
    # In mathematics "1,2" is a list rather than a decimal.
    listed = kind == "math" and (_LIST_OR_DECIMAL.fullmatch(formula_a) or _LIST_OR_DECIMAL.fullmatch(formula_b))
    by_number = None if listed else _same_number(formula_a, formula_b)
    if by_number is not None:
        return by_number
    prose_a, prose_b = _is_prose(formula_a), _is_prose(formula_b)
    if prose_a and prose_b:
        return normalize_text(a) == normalize_text(b)
    if prose_a or prose_b:  # "no solution" is no formula
        return False
    if kind == "auto" and not any(map(_FORMULA_CHARACTER.search, (formula_a, formula_b))):
        return normalize_text(a) == normalize_text(b)
    return None


@lru_cache(MAX_CACHED_FORMS)
def _without_noise(formula: str) -> str:
    return _FORMULA_NOISE.sub("", formula)


@lru_cache(MAX_CACHED_FORMS)
def _letter(answer: str) -> str:
    start, end = unwrap(answer, 0, len(answer))
    letter = _LETTER.fullmatch(answer[start:end])
    return letter[1].upper() if letter else normalize_text(answer)


def _assent(answer: str) -> str:
    form = normalize_text(answer)
    return "yes" if form in _YES else "no" if form in _NO else form


def _same_number(a: str, b: str) -> bool | None:
    """Whether two numbers, with units or without, are the same; None if either is no number."""
    left, right = _quantity(a), _quantity(b)
    if left is None or right is None:
        return None
    return _values_agree(left[0], right[0]) and _units_agree(left[1], right[1])


@lru_cache(MAX_CACHED_FORMS)
def _quantity(answer: str) -> tuple[Numeral, str] | None:
    text = normalize_characters(answer)
    start, end = unwrap(text, 0, len(text))
    text = text[start:end]
    numeral = parse_numeral(text)
    if numeral is not None:
        return numeral, ""
    if len(text) > 200:
        return None
    text = _TEXT_COMMAND.sub(r" \1 ", text).replace("^\\circ", " degrees").replace("^{\\circ}", " degrees").strip()
    split = _UNIT.fullmatch(text.rstrip(" ."))
    numeral = parse_numeral(split["number"]) if split else None
    # one letter right after a number is a variable ("2x"), a separate word is a unit
    if split is None or numeral is None or (len(split["unit"]) == 1 and " " not in text):
        return None
    return numeral, split["unit"].casefold().strip(" .")


def _values_agree(a: Numeral, b: Numeral) -> bool:
    if a.value == b.value:
        return True
    if (a.decimals is None) == (b.decimals is None):
        return False
    decimals = a.decimals if a.decimals is not None else b.decimals
    exact = b if a.decimals is not None else a
    if decimals is None or decimals < _MIN_DECIMALS or exact.value.denominator == 1:
        return False
    return abs(a.value - b.value) * 2 * Fraction(10) ** decimals <= 1


def _units_agree(a: str, b: str) -> bool:
    """Whether two units may be one: either missing, the same up to a plural, or one the other's abbreviation."""
    short, long = sorted((a.rstrip("s"), b.rstrip("s")), key=len)
    if not short or short == long:
        return True
    if len(long) < 4 or short[0] != long[0]:
        return False
    letters = iter(long)
    return all(letter in letters for letter in short)


@lru_cache(MAX_CACHED_FORMS)
def _is_prose(formula: str) -> bool:
    text = _TEXT_COMMAND.sub(r"\1", formula).strip()
    if not _PROSE.fullmatch(text):
        return False
    return any(run.lower() not in _FUNCTIONS for run in _LONG_RUN.findall(text))


WorkerVerdict = Literal["same", "different", "unreadable", "timeout", "crashed", "unavailable"]

_WORKER = Path(__file__).with_name("math_worker.py")


class MathProcess:
    """A worker process, started with the first comparison and again after each death.

    It is a plain command with pipes, not started by `multiprocessing`: the application's main script is not run again
    in it, nothing is pickled, and any event loop or thread may use it. One comparison at a time; `kill` may
    be called from anywhere.

    Args:
        timeout_s: Timeout of one comparison, in seconds; then the process is killed.
    """

    def __init__(self, *, timeout_s: float, memory_bytes: int) -> None:
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen[str] | None = None
        self._killed = False

    @property
    def pid(self) -> int | None:
        """Process id; None while there is no process."""
        return None if self._process is None else self._process.pid

    def compare(self, left: str, right: str) -> WorkerVerdict:
        """Compare two formulas, waiting for the verdict.

        Returns:
            The worker's verdict; "unreadable" if it could not read one of them, "timeout" if it was killed at the
            deadline, "crashed" if it died, "unavailable" if it cannot be started.
        """
        used = self._process is not None
        try:
            verdict: WorkerVerdict = "crashed" if self._killed else self._compare(left, right)
            if verdict == "crashed" and used and not self._killed:
                # it may have died before this pair reached it: a process that served others is replaced once
                verdict = self._compare(left, right)
            return verdict
        finally:
            self._killed = False

    def kill(self) -> None:
        """End the process at once; the current or next comparison becomes "crashed"."""
        self._killed = True
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    def close(self) -> None:
        """End the process and wait for its end; idempotent."""
        self._killed = False
        process = self._process
        if process is not None:
            self._discard(process)

    def _compare(self, left: str, right: str) -> WorkerVerdict:
        process = self._started()
        if process is None:
            return "unavailable"
        verdict = self._exchange(process, json.dumps([left, right]), self._timeout_s)
        match verdict:
            case "same" | "different" | "unreadable":
                return verdict
            case _:
                self._discard(process)
                return "timeout" if verdict == "timeout" else "crashed"

    def _started(self) -> subprocess.Popen[str] | None:
        process = self._process
        if process is not None and process.poll() is None:
            return process
        if process is not None:
            self._discard(process)
        if not sys.executable:  # embedded interpreters have none
            return None
        command = [sys.executable, "-P", str(_WORKER), str(self._memory_bytes), str(2 * self._timeout_s + 1)]
        try:
            process = subprocess.Popen(  # noqa: S603 (our own interpreter and file)
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="ascii",
                start_new_session=True,  # the terminal's Ctrl-C is the application's to handle
            )
        except OSError:
            return None
        self._process = process
        if self._exchange(process, None, _START_TIMEOUT_S) != "ready":
            self._discard(process)
            return None
        return process

    def _exchange(self, process: subprocess.Popen[str], line: str | None, timeout_s: float) -> str:
        """Send a line and read one; "timeout" if the process had to be killed, "" if it died."""
        late = threading.Event()

        def expire() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(timeout_s, expire)
        timer.daemon = True
        timer.start()
        verdict = ""
        try:
            if line is not None and process.stdin is not None:
                process.stdin.write(line + "\n")
                process.stdin.flush()
            if process.stdout is not None:
                verdict = process.stdout.readline().strip()
        except (OSError, ValueError):  # it died, or was closed from outside
            verdict = ""
        finally:
            timer.cancel()
        return "timeout" if late.is_set() and not verdict else verdict

    def _discard(self, process: subprocess.Popen[str]) -> None:
        if self._process is process:
            self._process = None
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError, ValueError):
                    pipe.close()


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

ComparisonReason = Literal[
    "plain", "algebra", "unreadable", "too_heavy", "too_many", "too_late", "timeout", "crashed", "unavailable"
]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outcome of a comparison.

    Attributes:
        verdict: "same", "different", or "undecided", which counts as not the same.
        reason: How it was decided, "plain" or "algebra"; or why it was not: a formula was "unreadable" or "too_heavy",
            there were "too_many" comparisons before, or they took so long that this one is "too_late", or the process
            met its "timeout", "crashed" (memory included) or is "unavailable".
    """

    verdict: Literal["same", "different", "undecided"]
    reason: ComparisonReason


_SAME = Comparison("same", "plain")
_DIFFERENT = Comparison("different", "plain")
_TOO_MANY = Comparison("undecided", "too_many")
_TOO_LATE = Comparison("undecided", "too_late")


class Equivalence:
    """Compares and groups answers; an asynchronous context manager.

    It is not bound to an event loop: one object may serve several, sequentially or in several threads. A process starts
    with the first pair that needs it. Cancelling the awaiting task kills it.

    Args:
        timeout_s: Timeout of one comparison in the process, in seconds.
        algebra_s: Maximum time of all comparisons in it, in seconds; pairs after it are undecided.
    """

    def __init__(self, *, timeout_s: float = 5.0, algebra_s: float = MAX_ALGEBRA_S) -> None:
        self._outcomes: OrderedDict[tuple[str, str], Comparison] = OrderedDict()
        self._num_compared = self._num_algebra = self._num_faults = 0
        self._algebra_left_s = algebra_s
        self._lock = threading.Lock()
        self._process = MathProcess(timeout_s=timeout_s, memory_bytes=MEMORY_BYTES)
        self._thread: ThreadPoolExecutor | None = None
        self._finalizer = weakref.finalize(self, self._process.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @classmethod
    def for_run(cls, run: Run) -> Self:
        """For answers of a run: algebra takes at most the time that is left to it now, and at least `MIN_ALGEBRA_S`."""
        left_s = run.ledger.remaining_seconds()
        return cls(algebra_s=MAX_ALGEBRA_S if left_s is None else min(MAX_ALGEBRA_S, max(MIN_ALGEBRA_S, left_s)))

    async def same(self, a: str, b: str, kind: AnswerKind) -> bool:
        """Whether two answers are the same; "undecided" is no."""
        return (await self.compare(a, b, kind)).verdict == "same"

    async def compare(self, a: str, b: str, kind: AnswerKind) -> Comparison:
        """Compare two answers."""
        if a == b:
            return _SAME
        self._num_compared += 1
        if self._num_compared > MAX_COMPARISONS:
            return _TOO_MANY
        if self._num_compared % COMPARISONS_PER_SLICE == 0:
            await asyncio.sleep(0)
        plainly = equal_without_algebra(a, b, kind)
        if plainly is not None:
            return _SAME if plainly else _DIFFERENT
        left, right = sorted((normalize_formula(a), normalize_formula(b)))
        if is_heavy(left) or is_heavy(right):
            return Comparison("undecided", "too_heavy")
        known = self._recall((left, right))
        if known is not None:
            return known
        if self._num_algebra >= MAX_ALGEBRA or self._num_faults >= MAX_FAULTS:
            return _TOO_MANY
        if self._algebra_left_s <= 0:
            return _TOO_LATE
        self._num_algebra += 1
        begun = monotonic()
        try:
            async with asyncio.timeout(self._algebra_left_s):
                outcome = _comparison(await self._by_algebra(left, right))
        except TimeoutError:  # its process was killed
            return _TOO_LATE
        finally:
            self._algebra_left_s -= monotonic() - begun
        self._num_faults += outcome.reason in ("timeout", "crashed")
        if (
            self._thread is not None and outcome.reason != "unavailable"
        ):  # closing kills processes: no result for the pair
            self._remember((left, right), outcome)
        return outcome

    @property
    def is_exhausted(self) -> bool:
        """Whether there were so many comparisons that only equal texts are the same from now on."""
        return self._num_compared >= MAX_COMPARISONS

    async def group(self, answers: Sequence[str | None], kind: AnswerKind) -> list[list[int]]:
        """Group equal answers.

        Args:
            answers: The answers; None (no answer) equals nothing.

        Returns:
            Classes of positions, by first member. Each answer is compared with the first of each class, so the maximum
            number of comparisons is answers times classes.
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
        """End the process; idempotent. The object may be used again: a new process starts."""
        with self._lock:
            thread, self._thread = self._thread, None
        self._process.kill()
        if thread is not None:
            thread.shutdown(wait=False, cancel_futures=True)
            # a killed process ends its comparison at once, so the thread ends soon
            await asyncio.to_thread(thread.shutdown, wait=True)
        self._process.close()

    async def _class_of(
        self, answer: str, answers: Sequence[str | None], classes: list[list[int]], kind: AnswerKind
    ) -> list[int] | None:
        for members in classes:
            if self.is_exhausted:
                break
            first = answers[members[0]]
            if first is not None and await self.same(first, answer, kind):
                return members
        return None

    async def _by_algebra(self, left: str, right: str) -> WorkerVerdict:
        job = _Job(self._process, left, right)
        with self._lock:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="reason-equivalence")
            future = self._thread.submit(job.run)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            job.cancel()
            task = asyncio.current_task()
            if future.cancelled() and task is not None and not task.cancelling():
                return "unavailable"  # the job was cancelled by `aclose`, not the task
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
            while len(self._outcomes) > MAX_CACHED_OUTCOMES:
                self._outcomes.popitem(last=False)


def is_heavy(formula: str) -> bool:
    """Whether a formula is too long, too deep or too large for algebra."""
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
    """One comparison in the thread and the process; it can be cancelled at any point."""

    def __init__(self, process: MathProcess, left: str, right: str) -> None:
        self._process, self._left, self._right = process, left, right
        self._lock = threading.Lock()
        self._is_cancelled = self._is_running = False

    def run(self) -> WorkerVerdict:
        with self._lock:
            if self._is_cancelled:
                return "crashed"
            self._is_running = True
        try:
            return self._process.compare(self._left, self._right)
        finally:
            with self._lock:
                self._is_running = False

    def cancel(self) -> None:
        with self._lock:
            self._is_cancelled = True
            if self._is_running:
                self._process.kill()


def _comparison(verdict: WorkerVerdict) -> Comparison:
    match verdict:
        case "same" | "different":
            return Comparison(verdict, "algebra")
        case _:
            return Comparison("undecided", verdict)


async def answer_classes(answers: Sequence[str | None], question: Question, run: Run) -> list[list[int]]:
    """Positions of equal answers, by first member; those without an answer are in no class.

    An answer that is a tool call equals only the same text, which is a normal form (`calls.normalized_calls`).
    """
    async with Equivalence.for_run(run) as equivalence:
        if not question.needs_tools:
            return await equivalence.group(answers, answer_kind(question))
        texts = [None if a is not None and is_canonical_calls(a) else a for a in answers]
        classes = await equivalence.group(texts, answer_kind(question))
    calls: dict[str, list[int]] = {}
    for i, (answer, text) in enumerate(zip(answers, texts, strict=True)):
        if answer is not None and text is None:
            calls.setdefault(answer, []).append(i)
    return sorted([*classes, *calls.values()])


class AnswerLabels:
    """Numbers answers from 0 as they arrive, equal ones alike.

    Args:
        question: The question; its kind decides when two answers are equal.
    """

    def __init__(self, question: Question) -> None:
        self._kind = answer_kind(question)
        self._has_tools = question.needs_tools
        self._firsts: list[str] = []
        self._known: dict[str, int] = {}

    async def label(self, answer: str | None, equivalence: Equivalence) -> int | None:
        """The number of an answer, that of the first one equal to it; None without an answer."""
        if answer is None:
            return None
        if answer not in self._known:
            self._known[answer] = await self._label(answer, equivalence)
        return self._known[answer]

    async def _label(self, answer: str, equivalence: Equivalence) -> int:
        is_call = self._has_tools and is_canonical_calls(answer)
        for label, first in enumerate(self._firsts):
            if is_call or equivalence.is_exhausted:
                break
            if self._has_tools and is_canonical_calls(first):
                continue
            if await equivalence.same(first, answer, self._kind):
                return label
        self._firsts.append(answer)
        return len(self._firsts) - 1
