"""Equivalence by algebra in a process that can be killed."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from reason.core.budget import Budget
from reason.core.run import Run
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from reason.reasoning.answers import equivalence as math_process
from reason.reasoning.answers.equivalence import (
    MAX_ALGEBRA_S,
    MIN_ALGEBRA_S,
    Comparison,
    Equivalence,
    answer_classes,
    is_heavy,
)
from support.stored_runs import run_config
from support.waiting import wait_until


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def equivalence() -> AsyncIterator[Equivalence]:
    async with Equivalence(timeout_s=30, algebra_s=3600) as shared:  # however slow the machine is
        yield shared


ALGEBRA = [
    ("x+1", "1+x", True),
    ("x^2-1", "(x-1)(x+1)", True),
    (r"\sqrt{8}", r"2\sqrt{2}", True),
    ("x=5", "5", True),
    ("x=3", "y=3", False),
    (r"\{1,2\}", r"\{2,1\}", True),
    (r"\{1,2\}", r"\{1,3\}", False),
    ("1,2", "2,1", True),
    ("(1,2)", "(2,1)", False),
    ("[0,1)", "[0,1]", False),
    (r"(-\infty,1)\cup(2,\infty)", r"(2,\infty)\cup(-\infty,1)", True),
    ("x>1", "1<x", True),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}", True),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&5\end{pmatrix}", False),
    ("$x=1$ and $x=2$", "x=1,x=2", True),
    ("5!", "120", True),
    (r"\frac{n(n+1)}{2}", r"\frac{n^2+n}{2}", True),
    (r"\frac{\pi}{2}", r"0.5\pi", True),
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("a", "b", "same"), ALGEBRA)
async def test_algebra(equivalence, a, b, same):
    expected = Comparison("same" if same else "different", "algebra")
    assert await equivalence.compare(a, b, "math") == expected
    assert await equivalence.compare(b, a, "math") == expected


@pytest.mark.asyncio(loop_scope="module")
async def test_what_cannot_be_read_is_undecided(equivalence):
    outcome = await equivalence.compare(r"\frac{1}{", r"}{2^", "math")
    assert outcome == Comparison("undecided", "unreadable")
    assert await equivalence.same(r"\frac{1}{", r"}{2^", "math") is False


BOMBS = [
    "2^{1000000}",
    "2^1000000",
    "10^{10^{10}}",
    "9^9^9^9",
    "9**9**9",
    "9" * 100_000,
    "(" * 5000 + "x" + ")" * 5000,
    "{" * 30 + "x" + "}" * 30,
    "99999!",
    "(9!)!",
    "x+" * 400 + "1",
]


@pytest.mark.parametrize("bomb", BOMBS, ids=range(len(BOMBS)))
async def test_a_bomb_never_reaches_algebra(bomb):
    quick = Equivalence()
    outcome = await quick.compare(bomb, "x^2", "math")
    assert outcome.verdict != "same"
    assert outcome.reason in ("too_heavy", "plain")
    assert quick._thread is None  # no process was needed
    await quick.aclose()


def test_ordinary_powers_are_not_heavy():
    for formula in ("x^{y^2}", "2^{10}", "10^{-3}", "e^{x^2}", "2^{2n}", "12!", "1.5^2"):
        assert not is_heavy(formula)


async def test_plain_pairs_need_no_process():
    quick = Equivalence()
    answers = ["Paris", "paris.", None, "London", "Paris"]
    assert await quick.group(answers, "text") == [[0, 1, 4], [3]]
    assert await quick.group(["1/2", "0.5", "50%", None, "50", r"\frac12"], "number") == [[0, 1, 2, 5], [4]]
    assert await quick.group(["B", "(b)", "C"], "choice") == [[0, 1], [2]]
    assert await quick.group([], "math") == []
    assert await quick.group([None, None], "math") == []
    assert quick._thread is None
    await quick.aclose()


@pytest.mark.asyncio(loop_scope="module")
async def test_groups_by_algebra(equivalence):
    answers = ["x+1", "2x", "1+x", None, "x + x", "\\frac{2x+2}{2}"]
    assert await equivalence.group(answers, "math") == [[0, 2, 5], [1, 4]]


@given(answers=st.lists(st.one_of(st.none(), st.sampled_from(["1/2", "0.5", "2", "2.0", "x", "7%"])), max_size=12))
def test_groups_are_a_partition_of_what_is_there(answers):
    numbers = [a if a != "x" else "3" for a in answers]
    groups = asyncio.run(Equivalence().group(numbers, "number"))
    assert sorted(i for members in groups for i in members) == [i for i, a in enumerate(numbers) if a is not None]
    assert [members[0] for members in groups] == sorted(members[0] for members in groups)
    reordered = asyncio.run(Equivalence().group(numbers[::-1], "number"))
    assert sorted(map(len, groups)) == sorted(map(len, reordered))


Worker = Callable[[str], None]


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """Replaces the worker by a program that reports that it is ready and then runs a statement for each line."""

    def replace(body: str) -> None:
        script = tmp_path / "worker.py"
        start = "import os, sys, time, json\nprint('ready', flush=True)\nfor line in sys.stdin:\n    "
        script.write_text(f"{start}{body}\n", encoding="utf-8")
        monkeypatch.setattr(math_process, "_WORKER", script)

    return replace


@pytest.fixture
def started(tmp_path: Path, worker: Worker) -> Path:
    """A file that appears when the worker was given a pair, on which it hangs."""
    mark = tmp_path / "started"
    worker(f"open({str(mark)!r}, 'w').close(); time.sleep(600)")
    return mark


async def test_a_hanging_comparison_is_killed(worker):
    worker("time.sleep(600)")
    async with Equivalence(timeout_s=0.1) as equivalence:
        assert await equivalence.compare("x+1", "1+x", "math") == Comparison("undecided", "timeout")
        assert await equivalence.same("x+1", "1+x", "math") is False


@pytest.mark.parametrize(
    ("body", "first", "second"),
    [
        (
            "os.abort() if 'x' in line else print('different', flush=True)",
            Comparison("undecided", "crashed"),
            Comparison("different", "algebra"),  # the next pair gets a new process
        ),
        ("print('perhaps', flush=True)", *[Comparison("undecided", "crashed")] * 2),
        (None, *[Comparison("undecided", "unavailable")] * 2),
    ],
)
async def test_a_worker_that_fails_leaves_the_pair_undecided(
    tmp_path,
    monkeypatch,
    worker,
    body,
    first,
    second,
):
    monkeypatch.setattr(math_process, "_WORKER", tmp_path / "missing.py")
    if body is not None:
        worker(body)
    async with Equivalence() as equivalence:
        assert await equivalence.compare("x+1", "1+x", "math") == first
        assert await equivalence.compare("y+1", "1+y", "math") == second


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs address-space limits")
def test_a_burst_of_memory_stays_in_the_worker(tmp_path, monkeypatch):
    script = tmp_path / "worker.py"
    script.write_text(
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('real', {str(math_process._WORKER)!r})\n"
        "real = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(real)\n"
        "real._same = lambda left, right: not bytearray(1 << 30) if right == 'burst' else left == right\n"
        "real.main(int(sys.argv[1]), float(sys.argv[2]))\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(math_process, "_WORKER", script)
    process = math_process.MathProcess(timeout_s=60, memory_bytes=160 << 20)
    try:
        assert process.compare("x", "burst") == "crashed"
        assert process.compare("x", "x") == "same"
    finally:
        process.close()


async def test_cancelling_kills_the_process(started):
    async with Equivalence(timeout_s=600) as equivalence:
        task = asyncio.create_task(equivalence.same("x+1", "1+x", "math"))
        await wait_until(started.exists)
        pid = equivalence._process.pid
        assert pid is not None
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await equivalence.aclose()  # waits for the process's end
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_closing_is_idempotent_and_releases_waiting_tasks(started):
    equivalence = Equivalence(timeout_s=600)
    first = asyncio.create_task(equivalence.compare("x+1", "1+x", "math"))
    second = asyncio.create_task(equivalence.compare("x+2", "2+x", "math"))
    await wait_until(started.exists)
    await equivalence.aclose()
    await equivalence.aclose()
    assert (await first).verdict == "undecided"
    assert (await second).verdict == "undecided"


async def test_the_worker_killed_from_outside_between_two_pairs_is_replaced(worker):
    worker("print('same', flush=True)")
    async with Equivalence(timeout_s=60) as equivalence:
        assert await equivalence.same("x+1", "1+x", "math")
        pid = equivalence._process.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert await equivalence.same("x+2", "2+x", "math")
        assert equivalence._process.pid != pid


def test_one_object_serves_two_loops_and_a_thread_and_leaves_no_process(worker):
    worker("print('same', flush=True)")
    equivalence = Equivalence(timeout_s=60)
    assert asyncio.run(equivalence.same("x+1", "1+x", "math"))
    assert asyncio.run(equivalence.same("x+2", "2+x", "math"))
    outcomes = []
    thread = threading.Thread(target=lambda it=equivalence: outcomes.append(asyncio.run(it.same("x+3", "3+x", "math"))))
    thread.start()
    thread.join()
    assert outcomes == [True]
    pid = equivalence._process.pid
    assert pid is not None
    del equivalence, thread  # forgotten, not closed
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_results_are_cached_and_the_oldest_are_evicted(tmp_path, monkeypatch, worker):
    log = tmp_path / "log"
    worker(f"open({str(log)!r}, 'a').write(line); print('same', flush=True)")

    def asked() -> list[list[str]]:
        return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]

    monkeypatch.setattr(math_process, "MAX_CACHED_OUTCOMES", 2)
    async with Equivalence() as equivalence:
        for _ in range(2):
            assert await equivalence.same("x+1", "1+x", "math")
            assert await equivalence.same("1+x", "x+1", "math")  # the pair has no order
        assert asked() == [["1+x", "x+1"]]
        for n in (2, 3):
            await equivalence.same(f"x+{n}", f"{n}+x", "math")
        await equivalence.same("x+1", "1+x", "math")
        assert len(asked()) == 4


async def test_after_many_comparisons_only_equal_texts_are_the_same(monkeypatch):
    monkeypatch.setattr(math_process, "MAX_COMPARISONS", 3)
    async with Equivalence() as equivalence:
        assert await equivalence.group(["1", "2", "3", "0.5", "1/2", "3"], "number") == [[0], [1], [2, 5], [3], [4]]
        assert equivalence.is_exhausted
        assert (await equivalence.compare("0.5", "1/2", "number")).reason == "too_many"
        assert await equivalence.same("x", "x", "number")


async def test_after_many_comparisons_by_algebra_formulas_are_undecided(worker, monkeypatch):
    worker("print('same', flush=True)")
    monkeypatch.setattr(math_process, "MAX_ALGEBRA", 1)
    async with Equivalence(timeout_s=30) as equivalence:
        assert await equivalence.same("x+1", "1+x", "math")
        assert await equivalence.compare("x+2", "2+x", "math") == Comparison("undecided", "too_many")
        assert await equivalence.same("x+1", "1+x", "math")  # known
        assert await equivalence.same("0.5", "1/2", "math")  # needs no algebra


async def test_algebra_ends_when_its_time_is_spent(monkeypatch, clock):
    """Pairs that take a second each do not hold a vote for longer than it may take, and lose votes only."""
    begun = []

    def slow(self, left, right):
        begun.append((left, right))
        clock.skip(0.2)
        return "different"

    monkeypatch.setattr(math_process.MathProcess, "compare", slow)
    async with Equivalence(algebra_s=0.5) as equivalence:
        classes = await equivalence.group([f"x^2+{i}y" for i in range(40)], "math")
        assert classes == [[i] for i in range(40)]
        assert (await equivalence.compare("x+z", "z+x", "math")).reason == "too_late"
        assert await equivalence.same("0.5", "1/2", "math")  # numbers need no process
    assert len(begun) == 3


async def test_a_vote_has_the_time_that_is_left_to_the_run(tmp_path, monkeypatch, clock):
    given = []

    class Noted(Equivalence):
        def __init__(self, **options):
            given.append(options["algebra_s"])
            super().__init__(**options)

    monkeypatch.setattr(math_process, "Equivalence", Noted)
    question = Question(text="What is it?", kind="math")
    async with aclosing(await SqliteStore.open(tmp_path / "runs.sqlite3")) as store:
        for seconds in (None, 12.0, 0.5):
            budget = Budget(seconds=seconds)
            config = run_config(question=question, budget=budget)
            run = Run("r", config, store)
            assert await answer_classes(["1", "1.0", "2"], question, run) == [[0, 1], [2]]
    assert given == [MAX_ALGEBRA_S, 12.0, MIN_ALGEBRA_S]
