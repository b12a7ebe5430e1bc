"""`HeldFolder`: a folder that one process at a time works in."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from filelock import FileLock, Timeout

from ..core.errors import StoreError, UserError


class HeldFolder:
    """A folder that this process holds: a context manager, which makes it if need be.

    Args:
        path: The folder.

    Attributes:
        option: The option of the command line that names it, for messages.

    Raises:
        UserError: Another process works in it.
        StoreError: It cannot be used.
    """

    option: ClassVar[str]

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / ".lock", timeout=0)

    def __enter__(self) -> Self:
        another = f"choose another {self.option}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout as e:
            raise UserError(f"another process works in {self.path}", hint=f"wait until it ends, or {another}") from e
        except OSError as e:
            raise StoreError(f"cannot use the folder {self.path}: {e.strerror}", hint=another) from e
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
