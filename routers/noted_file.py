"""Files that decide how a run goes: a run notes which one it began with, since a file may change under its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..core.errors import DataError, UserError


class Digested(Protocol):
    """What was read from a file."""

    @property
    def digest(self) -> str:
        """Names its content."""


FileT = TypeVar("FileT", bound=Digested)


def with_digest(given: Any, load: Callable[[Path], FileT]) -> Any:
    """Parameters with the digest of the file that `router` names, as `router_digest`.

    Args:
        given: The parameters as they came.
        load: Reads such a file.

    Raises:
        UserError: `router_digest` says that it was another file.
    """
    if not isinstance(given, Mapping) or not isinstance(given.get("router"), str) or not given["router"]:
        return given
    try:
        found = file_of_digest(given["router"], str(given.get("router_digest") or ""), load)
    except DataError:
        return given  # told where it is needed
    return {**given, "router_digest": found.digest}


def file_of_digest(name: str, digest: str, load: Callable[[Path], FileT], called: str = "router") -> FileT:
    """What a file holds, which must be of this digest unless that is empty.

    Args:
        name: The file.
        digest: Which content; empty takes any.
        load: Reads such a file.
        called: What the file is called in messages.

    Raises:
        DataError: It cannot be read.
        UserError: It holds something else by now.
    """
    found = load(Path(name).expanduser())
    if digest not in ("", found.digest):
        raise UserError(
            f"the {called} {name} is another one than the run began with",
            hint="put the file back, or begin another run",
        )
    return found
