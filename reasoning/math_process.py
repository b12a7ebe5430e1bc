"""One killable process that compares formulas (`math_worker`), seen from outside."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Literal

Reply = Literal["same", "different", "unreadable", "timeout", "crashed", "unavailable"]

_WORKER = Path(__file__).with_name("math_worker.py")


class MathProcess:
    """A worker process, started with the first comparison and again after each death.

    It is started as a plain command with pipes, not through `multiprocessing`: the application's main script is not
    run again in it, nothing is pickled, and any event loop or thread may use it. One comparison at a time; `kill` may
    be called from anywhere.

    Args:
        timeout_s: Longest time for one comparison, in seconds; then the process is killed.
        memory_bytes: Bound on the process's address space.
        start_timeout_s: Longest time to start, in seconds.
    """

    def __init__(self, *, timeout_s: float, memory_bytes: int, start_timeout_s: float = 60.0) -> None:
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[str] | None = None
        self._killed = False

    @property
    def pid(self) -> int | None:
        """Process id; None while there is no process."""
        return None if self._process is None else self._process.pid

    def compare(self, left: str, right: str) -> Reply:
        """Compare two formulas, waiting for the verdict.

        Returns:
            The worker's verdict; "unreadable" if it could not read one of them, "timeout" if it was killed at the
            deadline, "crashed" if it died, "unavailable" if it cannot be started.
        """
        used = self._process is not None
        try:
            reply: Reply = "crashed" if self._killed else self._compare(left, right)
            if reply == "crashed" and used and not self._killed:
                # It may have died before this pair reached it: a process that served others gets one successor.
                reply = self._compare(left, right)
            return reply
        finally:
            self._killed = False

    def kill(self) -> None:
        """End the process at once; the comparison under way or just about to begin becomes "crashed"."""
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

    def _compare(self, left: str, right: str) -> Reply:
        process = self._started()
        if process is None:
            return "unavailable"
        reply = self._exchange(process, json.dumps([left, right]), self._timeout_s)
        match reply:
            case "same" | "different" | "unreadable":
                return reply
            case _:
                self._discard(process)
                return "timeout" if reply == "timeout" else "crashed"

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
        if self._exchange(process, None, self._start_timeout_s) != "ready":
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
        reply = ""
        try:
            if line is not None and process.stdin is not None:
                process.stdin.write(line + "\n")
                process.stdin.flush()
            if process.stdout is not None:
                reply = process.stdout.readline().strip()
        except (OSError, ValueError):  # it died, or was closed from outside
            reply = ""
        finally:
            timer.cancel()
        return "timeout" if late.is_set() and not reply else reply

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
