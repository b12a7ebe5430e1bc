"""Parent watchdog: an engine's processes end with the program that started them, however that program ends.

A program that is killed cannot shut its engine down, and vLLM's core does not watch its parent: it would stay, with all
its memory, and wait for requests.
"""

from __future__ import annotations

import os
import signal
import threading
import time

OWNER_PID = "REASON_VLLM_OWNER"
"""Environment variable with the process id of the program that starts an engine; set during the start."""

POLL_S = 0.5
"""Seconds between two checks of the parent."""

SHUTDOWN_S = 10.0
"""Seconds that a process has to shut down by itself."""


def start_watchdog() -> None:
    """Watch the parent process from a thread, if this is a process of an engine that we started.

    vLLM calls this in each of its processes (entry-point group `vllm.general_plugins`), also a server's, where it does
    nothing.
    """
    owner = os.environ.get(OWNER_PID, "")
    if not owner.isdecimal() or int(owner) == os.getpid():
        return
    threading.Thread(target=_watch, args=(os.getppid(), int(owner)), daemon=True, name="reason-owner").start()


def _watch(parent: int, owner: int) -> None:
    is_orphaned = parent == 1 and owner != 1
    while not is_orphaned and os.getppid() == parent:
        time.sleep(POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SHUTDOWN_S)
    os.kill(os.getpid(), signal.SIGKILL)
