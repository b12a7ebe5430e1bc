"""What a table says of the machine that printed it."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


def processor() -> str:
    """The processor's name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def made_here() -> str:
    """A sentence for a table's head: processor, cores, version of reason and date."""
    return (
        f"{processor()}, {os.cpu_count()} cores, reason {version('reason-orchestrator')}, {datetime.now(UTC):%Y-%m-%d}."
    )
