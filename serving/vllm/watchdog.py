"""`end_with_owner`: an engine's processes end with the program that started them, however that program ended.

A program that is killed cannot shut its engine down, and vLLM's core does not look after its parent: it would stay,
with all its memory, and wait for requests that nobody sends any more.
"""

from __future__ import annotations

import os
import signal
import threading
import time

OWNER = "REASON_VLLM_OWNER"
"""Environment variable that holds the process number of the program whose engine it is; set while it is started."""

LOOK_S = 0.5
"""Seconds between two looks at the parent."""

PATIENCE_S = 10.0
"""Seconds that a process gets to shut down by itself."""


def end_with_owner() -> None:
    """Watch the parent process from a thread, if this is a process of an engine that we started.

    vLLM calls this in each of its processes (entry-point group `vllm.general_plugins`), a server's too, where it does
    nothing.
    """
    owner = os.environ.get(OWNER, "")
    if not owner.isdecimal() or int(owner) == os.getpid():
        return
    threading.Thread(target=_watch, args=(os.getppid(), int(owner)), daemon=True, name="reason-owner").start()


def _watch(parent: int, owner: int) -> None:
    orphaned_already = parent == 1 and owner != 1
    while not orphaned_already and os.getppid() == parent:
        time.sleep(LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_S)
    os.kill(os.getpid(), signal.SIGKILL)
