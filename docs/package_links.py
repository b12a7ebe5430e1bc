"""A hook of MkDocs: where the documented package is read from.

`.package/reason` is a link to the repository's root, which contains `.package` again, and often a `.venv`. mkdocstrings
follows links, and would walk all of that forty times. So it reads a temporary directory, in which `reason` has links to
the package's parts alone.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mkdocs.plugins import event_priority

ROOT = Path(__file__).resolve().parents[1]
_directory: TemporaryDirectory[str] | None = None


def link_package(directory: Path) -> None:
    """Create `directory/reason` with a link to each part of the package: directories that have an `__init__.py`."""
    package = directory / "reason"
    package.mkdir()
    shutil.copy(ROOT / "__init__.py", package)  # a link would lead to the root, which is then walked after all
    for init in ROOT.glob("[a-z]*/__init__.py"):
        (package / init.parent.name).symlink_to(init.parent)


def on_startup(**_: Any) -> None:
    """Create the directory."""
    global _directory
    _directory = TemporaryDirectory(prefix="reason-docs-")
    link_package(Path(_directory.name))


@event_priority(100)
def on_config(config: Any) -> None:
    """Name it to mkdocstrings before that reads its settings, at the same event."""
    assert _directory is not None
    config.plugins["mkdocstrings"].config["handlers"]["python"]["paths"] = [_directory.name]


def on_shutdown() -> None:
    """Remove it."""
    assert _directory is not None
    _directory.cleanup()
