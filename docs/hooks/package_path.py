"""Gives the API reference a folder that holds the package under its name.

The repository's root is the package `reason`, whatever the checkout's folder is called. A link named `reason` in a
temporary folder lets the documentation be built from any checkout, whether the package is installed or not.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority

_made: list[Path] = []


@event_priority(100)  # before the reference reads its settings
def on_config(config: Any) -> Any:
    """Put the temporary folder first in the Python handler's search paths."""
    folder = Path(tempfile.mkdtemp(prefix="reason-docs-"))
    _made.append(folder)
    (folder / "reason").symlink_to(Path(config["config_file_path"]).resolve().parent, target_is_directory=True)
    handler = config["plugins"]["mkdocstrings"].config["handlers"]["python"]
    handler["paths"] = [str(folder)]
    return config


def on_shutdown() -> None:
    """Remove it."""
    while _made:
        shutil.rmtree(_made.pop(), ignore_errors=True)
