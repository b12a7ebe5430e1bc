"""`install_command`: the command that installs an extra of this package into this Python environment.

The package is not on the Python index, so no command names it there: an extra is installed from where the package was
(PEP 610: the checkout or the wheel), or else by the names of its packages.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import sys
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from .errors import UserError
from .version import DISTRIBUTION

UVX_CACHE = "archive-v0"
"""Directory of uv's cache with the environments of `uvx`, which are not changed but made again."""
_OF_EXTRA = re.compile(r"(?P<requirement>[^;]+);(?P<marker>.*)extra == ['\"](?P<extra>[\w-]+)['\"]")
_OURS = re.compile(rf"{DISTRIBUTION}\[(?P<extras>[\w,-]+)\]")


def install_command(extra: str) -> str:
    """The command that installs an extra, for an error's hint or a check."""
    origin = _origin()
    what = f"{'-e ' if origin[1] else ''}{shlex.quote(f'{origin[0]}[{extra}]')}" if origin else _packages(extra)
    if origin and UVX_CACHE in Path(sys.prefix).parts:
        return f"uvx --from {shlex.quote(f'{origin[0]}[{extra}]')} reason"
    if importlib.util.find_spec("pip") is None:
        return f"uv pip install --python {shlex.quote(sys.executable)} {what}"
    is_active = os.environ.get("VIRTUAL_ENV") == sys.prefix
    return f"{'pip' if is_active else f'{shlex.quote(sys.executable)} -m pip'} install {what}"


def missing_package(user: str, package: str | None, extra: str) -> UserError:
    """The error of what needs a package that is not installed."""
    return UserError(f"{user} needs the package {package!r}, which is not installed", hint=install_command(extra))


def _origin() -> tuple[Path, bool] | None:
    """The checkout or wheel that the package was installed from, and whether editable; None if it is not there now."""
    installed = list(importlib.metadata.distributions(name=DISTRIBUTION))
    if not installed:  # a checkout on the path that was never installed
        return Path(__file__).parents[1], True
    # A checkout that is the current directory has metadata of its building, which say nothing about an installation.
    texts = (distribution.read_text("direct_url.json") for distribution in installed)
    recorded = json.loads(next((text for text in texts if text), "{}"))
    url = urlsplit(recorded.get("url", ""))
    path = Path(url2pathname(url.path))
    if url.scheme != "file" or not path.exists():
        return None
    return path, bool(recorded.get("dir_info", {}).get("editable"))


def _packages(extra: str) -> str:
    """The packages of an extra that are missing, or all of them if none is, as arguments of pip."""
    requirements = sorted(_requirements(extra))
    missing = [r for r in requirements if not _is_installed(re.split(r"[^\w.-]", r, maxsplit=1)[0])]
    return shlex.join(missing or requirements)


def _requirements(extra: str) -> set[str]:
    found: set[str] = set()
    for text in importlib.metadata.requires(DISTRIBUTION) or ():
        match = _OF_EXTRA.fullmatch(text.strip())
        if match is None or match["extra"] != extra or (sys.platform == "win32" and "win32" in match["marker"]):
            continue
        requirement = match["requirement"].strip()
        ours = _OURS.fullmatch(requirement)
        found |= {r for name in ours["extras"].split(",") for r in _requirements(name)} if ours else {requirement}
    return found


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
