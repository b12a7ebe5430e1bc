"""`reason ask … --model hosted_vllm/small` in a terminal, against a real server: streamed, and interrupted."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.vllm_server import SERVED, RealServer

pytestmark = [pytest.mark.real, pytest.mark.slow]
WAIT_S = 90.0


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, command: list[str], environment: dict[str, str], directory: Path) -> None:
        self.screen, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            cwd=directory,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.seen = ""

    def read_until(self, expected: str | None) -> str:
        """All that was printed once it contains a pattern; None reads to the end."""
        end = time.monotonic() + WAIT_S
        while expected is None or not re.search(expected, self.seen):
            assert time.monotonic() < end, f"{expected!r} did not come:\n{self.seen}"
            if not select.select([self.screen], [], [], 0.2)[0]:
                continue
            try:
                piece = os.read(self.screen, 65536)
            except OSError:  # the other side is closed
                piece = b""
            if not piece:
                assert expected is None, f"{expected!r} did not come:\n{self.seen}"
                break
            self.seen += piece.decode(errors="replace")
        return self.seen

    def press_control_c(self) -> None:
        os.write(self.screen, b"\x03")

    def status(self) -> int:
        self.read_until(None)
        return self.process.wait(WAIT_S)


@pytest.fixture
def run(server: RealServer, tmp_path: Path) -> Iterator[Any]:
    opened: list[Terminal] = []
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("REASON_", "CI", "NO_COLOR"))} | {
        "HOSTED_VLLM_API_BASE": server.base,
        "HOSTED_VLLM_API_KEY": server.key,
        "XDG_CONFIG_HOME": str(tmp_path),
        "XDG_DATA_HOME": str(tmp_path),
        "TERM": "xterm-256color",
    }

    def start(*arguments: str, **more: str) -> Terminal:
        command = [sys.executable, "-c", "from reason.cli.main import main; raise SystemExit(main())", *arguments]
        opened.append(Terminal(command, environment | more, tmp_path))
        return opened[-1]

    yield start
    for terminal in opened:
        with contextlib.suppress(ProcessLookupError):
            terminal.process.kill()
        terminal.process.wait(10)
        os.close(terminal.screen)


def plain(text: str) -> str:
    """Without the terminal's own sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", text)


def idle(server: RealServer) -> None:
    end = time.monotonic() + 1.0
    while server.under_way():
        assert time.monotonic() < end, "the server still works for a run that was interrupted"
        time.sleep(0.01)


def test_an_answer_is_streamed_to_the_terminal(run: Any, server: RealServer) -> None:
    terminal = run("ask", "What is the capital of France?", "--model", f"hosted_vllm/{SERVED}", "--seed", "1")
    assert terminal.status() == 0, terminal.seen
    shown = plain(terminal.seen)
    assert f"hosted_vllm/{SERVED}" in shown
    assert "Traceback" not in shown
    assert "Warning" not in shown
    assert not server.under_way()


def test_control_c_saves_what_there_is_and_frees_the_server(run: Any, server: RealServer) -> None:
    question = "Tell a very long story about a fox, with many chapters."
    terminal = run(
        *("ask", question, "--model", f"hosted_vllm/{SERVED}", "--seed", "3"), *("--set", "max_tokens=700", "--stream")
    )
    while server.under_way() == 0:
        assert terminal.process.poll() is None, terminal.seen
        time.sleep(0.02)
    terminal.read_until(r"(?s)\w+ \w+ \w+ \w+ \w+ \w+ \w+ \w+")
    terminal.press_control_c()
    idle(server)
    assert terminal.status() == 130, terminal.seen
    shown = plain(terminal.seen)
    assert "Traceback" not in shown
    resume = re.search(r"reason runs resume (\S+)", shown)
    assert resume, shown
    kept = run("runs", "show", resume[1])
    assert kept.status() == 0, kept.seen
    assert "interrupted" in plain(kept.seen)


def test_a_model_that_is_not_served_is_one_line_with_its_remedy(run: Any) -> None:
    terminal = run("ask", "Hello?", "--model", "hosted_vllm/smal")
    assert terminal.status() == 2, terminal.seen
    shown = plain(terminal.seen)
    assert f"hosted_vllm/{SERVED}" in shown
    assert "Traceback" not in shown
