"""What each process of an engine that we started begins with: a watchdog, and on a CPU short waits.

The watchdog ends the process with the program that started the engine, however that program ends. A program that is
killed cannot shut its engine down, and vLLM's core does not watch its parent: it would stay, with all its memory, and
wait for requests.

A process of vLLM looks for another one's next message in a loop, and sleeps until it is notified only after a second
without one. A step on a CPU takes less, so that one process would always keep a core from the other.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partialmethod

OWNER_PID = "REASON_VLLM_OWNER"
"""Environment variable with the process id of the program that starts an engine; set during the start."""

POLL_S = 0.5
"""Seconds between two checks of the parent."""

SHUTDOWN_S = 10.0
"""Seconds that a process has to shut down by itself."""

BUSY_S = 0.001
"""Seconds after a message in which a process on a CPU looks for the next one in a loop."""


def prepare_process() -> None:
    """Watch the parent process from a thread, and shorten waits, if this is a process of an engine that we started.

    vLLM calls this in each of its processes before they connect (entry-point group `vllm.general_plugins`), also a
    server's, where it does nothing.
    """
    owner = os.environ.get(OWNER_PID, "")
    if not owner.isdecimal() or int(owner) == os.getpid():
        return
    threading.Thread(target=_watch, args=(os.getppid(), int(owner)), daemon=True, name="reason-owner").start()
    _shorten_waits()


def _shorten_waits() -> None:
    from vllm.distributed.device_communicators.shm_broadcast import SpinCondition
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        SpinCondition.__init__ = partialmethod(SpinCondition.__init__, busy_loop_s=BUSY_S)


def _watch(parent: int, owner: int) -> None:
    is_orphaned = parent == 1 and owner != 1
    while not is_orphaned and os.getppid() == parent:
        time.sleep(POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SHUTDOWN_S)
    os.kill(os.getpid(), signal.SIGKILL)
