"""The version of the installed package, as its metadata has it; packaging takes it from the last tag."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "reason-orchestrator"
"""Name of the distribution."""


def _installed() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:  # a checkout on the path that was never installed
        return "0+unknown"


__version__ = _installed()
