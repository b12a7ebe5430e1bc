"""The command as a subprocess, on a real tiny model: interruption, killing, resuming, replaying, pipes."""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from reason.core.types import Answer
from support.cli_json import printed_answer
from support.waiting import wait_blocking

TIMEOUT_S = 120.0
PROGRESS = re.compile(r"^\d+ s: .*\n", re.M)
"""Progress lines of a slow machine."""
LONG = ["--set", "max_tokens=60000"]
"""More tokens than any test waits for."""


def finish(child: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Read the remaining output; `communicate` would skip what is already buffered."""
    assert child.stdout is not None
    assert child.stderr is not None
    out, err = child.stdout.read(), child.stderr.read()
    return child.wait(timeout=TIMEOUT_S), out, PROGRESS.sub("", err)


def wait_for(condition: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    """Wait until something is so; fail if the process ends first."""
    wait_blocking(lambda: child.poll() is not None or condition())
    assert child.poll() is None, f"ended early: {child.communicate()}"


def query(home: Path, sql: str) -> list[tuple[object, ...]]:
    """Ask the run store, which may not be there yet."""
    path = home / "data" / "reason" / "runs.sqlite3"
    if not path.exists():
        return []
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return db.execute(sql).fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        db.close()


def ask(model: Path, *more: str) -> list[str]:
    return ["ask", "What is 6 * 7?", "--model", f"local/{model}", "--seed", "7", *more]


def test_quick_commands_load_no_heavy_modules():
    code = (
        "import sys; from reason.cli.main import main; status = main(sys.argv[1:]);"
        "heavy = {'torch', 'litellm', 'openai', 'langgraph', 'transformers', 'vllm', 'numpy', 'scipy', 'sympy',"
        "'aiohttp', 'httpx', 'fastapi', 'uvicorn', 'sqlite3'} & set(sys.modules);"
        # typer's help of a command needs pydantic, its list of commands does not
        "heavy |= {'pydantic'} & set(sys.modules) if sys.argv[1:] in (['--help'], ['--version']) else set();"
        "sys.exit(f'loaded {heavy}' if heavy else status)"
    )
    for arguments in (["--help"], ["ask", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert "loaded" not in done.stderr
        assert done.returncode == 0


def test_interruption_saves_the_partial_run(process, tiny_model, home):
    store = ["--store", str(home / "data" / "reason" / "runs.sqlite3")]
    child = process(*ask(tiny_model, *LONG, *store, "--stream"))
    assert child.stdout is not None
    first = child.stdout.read(1)  # it is writing
    child.send_signal(signal.SIGTERM)
    status, out, err = finish(child)
    ((run_id, run_status, answer),) = query(home, "SELECT id, status, answer FROM runs")
    assert status == 130
    stored = Answer.model_validate_json(str(answer))
    assert stored.usage.lost_tokens == stored.usage.completion_tokens > 0
    assert err.splitlines() == [
        f"interrupted; the partial run is saved: reason runs resume {run_id} {' '.join(store)}",
        f"note: {stored.usage.lost_tokens:,} generated tokens of unfinished calls are lost",
    ]
    assert run_status == "interrupted"
    assert (first + out).strip() == stored.text.strip() != ""


def test_second_interruption_leaves_at_once(process, tiny_model, home):
    code = (
        "import asyncio, os, signal, sys\n"
        "from reason.cli.interrupts import run_interruptible\n"
        "async def stubborn():\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        await asyncio.sleep(1000)\n"
        "    except asyncio.CancelledError:\n"
        "        print('stopping', flush=True)\n"
        "        await asyncio.sleep(1000)\n"
        "run_interruptible(stubborn())\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    assert child.stdout.readline() == "stopping\n"
    child.send_signal(signal.SIGINT)
    assert finish(child) == (130, "", "")


@pytest.mark.nightly
def test_killed_run_is_resumed_without_paying_twice(process, tiny_model, home):
    flags = ["-s", "self-consistency", "--set", "n=48", "--set", "max_tokens=150"]
    complete = printed_answer(finish(process(*ask(tiny_model, *flags, "--json")))[1])

    child = process(*ask(tiny_model, *flags))
    wait_for(
        lambda: (query(home, f"SELECT COUNT(*) FROM calls WHERE run_id != '{complete.run_id}'") or [(0,)])[0][0] != 0,
        child,
    )
    child.kill()
    child.wait()
    ((run_id, status),) = query(home, f"SELECT id, status FROM runs WHERE id != '{complete.run_id}'")
    ((paid,),) = query(home, f"SELECT COUNT(*) FROM calls WHERE run_id = '{run_id}'")
    assert isinstance(paid, int)
    assert status == "running"
    assert 0 < paid < 48

    code, out, err = finish(process("runs", "resume", str(run_id), "--json"))
    assert code == 0
    assert re.fullmatch(r"note: \d+ of 48 attempts were cut at max_tokens=150 .*\n", err)
    resumed = printed_answer(out)
    # other samples share its batches now, which moves a log-probability in its last digits
    assert [(c.text, c.tokens) for c in resumed.candidates] == [(c.text, c.tokens) for c in complete.candidates]
    logprobs = [c.logprob for c in resumed.candidates]
    assert logprobs == pytest.approx([c.logprob for c in complete.candidates], abs=1e-2)
    assert resumed.usage.completion_tokens == complete.usage.completion_tokens
    assert 0 < resumed.usage.replayed_tokens < resumed.usage.completion_tokens
    ((keys,),) = query(home, f"SELECT COUNT(*) FROM calls WHERE run_id = '{run_id}'")
    assert keys == 48


def test_closed_pipe_prints_no_error(process, tiny_model, home):
    child = process(*ask(tiny_model, *LONG, "--stream"))
    assert child.stdout is not None
    assert child.stdout.read(1)
    child.stdout.close()
    child.stdout = None
    assert child.stderr is not None
    assert child.stderr.read() == ""
    assert child.wait(timeout=TIMEOUT_S) == 141
    assert query(home, "SELECT status FROM runs") == [("interrupted",)]
