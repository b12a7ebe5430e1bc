"""`reason serve` as a real process that begins at once: forked from one that has imported everything already.

What a server imports takes seconds, and drills start many. The process that is forked has no threads and no event loop
of its own; everything from the command line on happens in the child.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FORK_SERVER_CODE = """
import json, os, sys
import reason.cli.main, reason.cli.serve, reason.sidecar.server
import reason.serving.litellm.factory, aiohttp
import threading
assert threading.active_count() == 1, threading.enumerate()
for line in sys.stdin:
    told = json.loads(line)
    if "poll" in told:
        try:
            pid, status = os.waitpid(told["poll"], os.WNOHANG)
        except ChildProcessError:
            pid, status = told["poll"], 0
        print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None), flush=True)
        continue
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.chdir(told["folder"])
        os.environ.update(told["environment"])
        log = os.open(told["log"], os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        for number in (1, 2):
            os.dup2(log, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv = ["reason", *told["arguments"]]
        code = 1
        try:
            code = reason.cli.main.main()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(pid, flush=True)
"""


class ForkServer:
    """The process that servers are forked from.

    Args:
        prefix: A command that executes it, such as `ip netns exec NAME`.
        prelude: Python that it executes first.
    """

    def __init__(self, *prefix: str, prelude: str = "") -> None:
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-c", prelude + FORK_SERVER_CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **told: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class ForkedChild:
    """What of `subprocess.Popen` is used, for a child of the fork server's."""

    def __init__(
        self, fork_server: ForkServer, command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path
    ) -> None:
        self._fork_server = fork_server
        self.returncode: int | None = None
        given = {"folder": str(folder), "environment": dict(environment), "log": str(log)}
        self.pid: int = fork_server.ask(arguments=list(command[1:]), **given)

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._fork_server.ask(poll=self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("reason", timeout or 0.0)
            time.sleep(0.01)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)
