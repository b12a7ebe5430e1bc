"""The key `a` in a real terminal ends a run with an answer; the terminal is restored however the command ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from reason.core.types import Answer
from support.terminal_screen import Screen

from .conftest import Cli

TESTS = Path(__file__).parents[1]
CODE = f"""
import asyncio, sys, time
sys.path.insert(0, {str(TESTS)!r})
import reason.agents.reasoner as reasoner
from reason.cli.main import main
from reason.core.types import Question
from reason.reasoning.prompts import answer_trigger
from support.scripted_model import THINKS, ScriptedModel, replies, thinking

ANSWER = f"{{answer_trigger(Question(text='What is 6 * 7?'))}} 42."

async def load_model(*_):
    script = thinking("Six sevens. " * 100, ANSWER)
    return ScriptedModel(script, profile=THINKS, step=lambda: STEP)

reasoner.load_model = load_model
sys.exit(main())
"""
SLOW, BLOCKED = "asyncio.sleep(0.01)", "time.sleep(60)"
TIMEOUT_S = 60.0


class Terminal:
    """A command whose standard input and standard error are a terminal of its own, as in a shell."""

    def __init__(self, *arguments: str, step: str = SLOW) -> None:
        self.ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 100))
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        self.screen = Screen()
        self.child = subprocess.Popen(
            [sys.executable, "-c", CODE.replace("STEP", step), *arguments],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "OMP_NUM_THREADS": "1"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def read(self, seconds: float) -> None:
        """Show what has been written."""
        while select.select([self.ours], [], [], seconds)[0]:
            self.screen.show(os.read(self.ours, 65536))
            seconds = 0.0

    def wait_for(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < end, self.screen.lines
            assert self.child.poll() is None, self.screen.lines
            self.read(0.05)

    def press(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def shows(self, pattern: str) -> bool:
        return any(re.search(pattern, line) for line in self.screen.lines)

    def finish(self) -> tuple[int, str]:
        """The exit status and standard output."""
        assert self.child.stdout is not None
        end = time.monotonic() + TIMEOUT_S
        while self.child.poll() is None:  # it may wait for the terminal to take its last output
            assert time.monotonic() < end, self.screen.lines
            self.read(0.05)
        self.read(0.0)
        return self.child.wait(), self.child.stdout.read().decode()

    @property
    def is_restored(self) -> bool:
        return termios.tcgetattr(self._theirs) == self.before

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        assert self.child.stdout is not None
        self.child.stdout.close()
        for fd in (self.ours, self._theirs):
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.fixture
def terminal(home: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*arguments: str, step: str = SLOW) -> Terminal:
        opened.append(Terminal(*arguments, step=step))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_a_key_ends_a_thinking_run_with_an_answer(terminal: Callable[..., Terminal]) -> None:
    running = terminal("ask", "What is 6 * 7?", "--json")
    running.wait_for(lambda: running.shows(r"thinking… \d+ tokens") and running.shows("^a: answer now"))
    assert not running.is_restored
    running.press("xa")  # other keys do nothing
    status, out = running.finish()
    answer = Answer.model_validate_json(out)
    assert (status, answer.answer, answer.stopped) == (0, "42", "user")
    assert answer.based_on.startswith("an unfinished sample of 0 tokens of an answer and ")
    assert 0 < answer.usage.thinking_tokens < len("Six sevens. " * 100)
    assert running.is_restored
    assert running.shows("note: the answer was requested before the strategy had one")
    assert not running.shows("^xa")  # keys are not shown


def test_a_thought_is_no_part_of_the_output(terminal: Callable[..., Terminal]) -> None:
    running = terminal("ask", "What is 6 * 7?", "--stream", "--thinking-tokens", "30")
    status, out = running.finish()
    assert (status, out) == (0, "Therefore, the answer is 42.\n")
    assert running.is_restored
    assert running.shows(r"tokens 35, 30 of them thinking")


@pytest.mark.parametrize(("step", "presses"), [(SLOW, 1), (BLOCKED, 2)])
def test_ctrl_c_keeps_its_meaning(terminal: Callable[..., Terminal], step: str, presses: int) -> None:
    running = terminal("ask", "What is 6 * 7?", step=step)
    running.wait_for(lambda: not running.is_restored and running.shows("cot"))
    time.sleep(0.2)
    for _ in range(presses):
        running.press("\x03")
        time.sleep(0.1)
    status, _ = running.finish()
    assert status == 130
    assert running.is_restored


def test_a_killed_command_leaves_no_reader_behind(terminal: Callable[..., Terminal]) -> None:
    running = terminal("ask", "What is 6 * 7?")
    running.wait_for(lambda: not running.is_restored)
    running.child.send_signal(signal.SIGTERM)
    assert running.finish()[0] == 130
    assert running.is_restored


def test_keys_are_read_from_terminals_only(cli: Cli, scripted: Callable[..., object]) -> None:
    scripted()
    status, out, err = cli("ask", "What is 6 * 7?")  # standard input is no terminal here
    assert (status, out) == (0, "The answer is 42.\n")
    assert "answer now" not in err
