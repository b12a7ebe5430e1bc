"""`install_command`: the command that installs an extra of this package into this Python environment.

The package is not on the Python index, so the command names the packages of the extra and not the extra.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shlex
import sys
from pathlib import Path

from .errors import UserError
from .version import DISTRIBUTION

_OF_EXTRA = re.compile(r"(?P<requirement>[^;]+);(?P<marker>.*)extra == ['\"](?P<extra>[\w-]+)['\"]")
_OURS = re.compile(rf"{DISTRIBUTION}\[(?P<extras>[\w,-]+)\]")


def install_command(extra: str) -> str:
    """The command that installs what is missing of an extra, or all of it, for an error's hint or a check."""
    try:
        requirements = sorted(_requirements(extra))
        missing = [r for r in requirements if not _is_installed(re.split(r"[^\w.-]", r, maxsplit=1)[0])]
        what = shlex.join(missing or requirements)
    except importlib.metadata.PackageNotFoundError:  # a checkout on the path that was never installed
        what = f"-e {shlex.quote(f'{Path(__file__).parents[1]}[{extra}]')}"
    python = shlex.quote(sys.executable)
    if importlib.util.find_spec("pip") is None:
        return f"uv pip install --python {python} {what}"
    return f"{python} -m pip install {what}"


def missing_package(user: str, package: str | None, extra: str) -> UserError:
    """The error of what needs a package that is not installed."""
    return UserError(f"{user} needs the package {package!r}, which is not installed", hint=install_command(extra))


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
