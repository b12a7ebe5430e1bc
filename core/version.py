"""The version of the installed package, as its metadata has it; packaging takes it from the last tag."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def _installed() -> str:
    try:
        return version("reason-orchestrator")
    except PackageNotFoundError:  # a checkout on the path that was never installed
        return "0+unknown"


__version__ = _installed()
