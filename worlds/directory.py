"""The tool `shell`, and the directory that it changes as a `World`: a fork is a copy, which `commit` makes the origin.

    DATA/forks/KEY/files/        the copy, named by the run and the fork
    DATA/forks/KEY/base.json     the origin as it was copied; written last, so that half a copy is no fork

A commit replaces file by file, each by one rename. It accepts of each path its state when it was copied and its state
in the fork, so it can be repeated after a kill, and refuses any other, which would be lost.
"""

from __future__ import annotations

import asyncio
import difflib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from ..agents.loop.tool import ExecutableTool, ToolResult, tool_of
from ..core.concurrency import cancel_and_wait, off_loop
from ..core.errors import UserError
from ..reasoning.execution.sandbox import CommandResult, SandboxLimits, require_sandbox, run_command

SHELL_LIMITS = SandboxLimits(
    wall_seconds=120.0, total_seconds=120.0, output_bytes=1 << 24, shown_bytes=100_000, directory_bytes=1 << 30
)
MAX_FORK_BYTES: Final = 1 << 30
"""Maximum size of the files of a directory that is forked or committed."""
MAX_FORK_DAYS: Final = 30
"""Days after which the next fork removes one that was left: its run was killed and never resumed."""
MAX_FORK_FILES: Final = 100_000
"""Maximum number of its files and directories."""
MAX_COMPARED_BYTES: Final = 200_000
"""Maximum size of a text whose changed lines are shown with an approval."""
MAX_FILE_LINES: Final = 40
MAX_DETAIL_LINES: Final = 200
MAX_LINE_CHARS: Final = 200
_STAGED: Final = ".reason-commit.tmp"
"""Name of what a commit is about to rename; a name that no fork has."""
_FICLONE: Final = 0x40049409
"""linux/fs.h: share the blocks of a file until one of the two is changed."""
T = TypeVar("T")


class Entry(NamedTuple):
    """A file ("file", with the digest of its content), a directory, or a symbolic link with its target."""

    kind: str
    mode: int
    content: str


class DirectoryWorld:
    """A directory that `shell` changes, or a fork of one.

    Times of files are kept, but a difference in them alone is no change. The owners of files that a commit replaces are
    kept where the system allows it; hard links become files of their own.

    Args:
        origin: The directory, in whose place commands see the fork.
        forks: Directory of all forks.
        fork: Directory of this one; None is the origin itself.
        base: What the origin was when it was copied.
    """

    def __init__(
        self,
        origin: Path,
        forks: Path,
        fork: Path | None = None,
        base: Mapping[str, Entry] | None = None,
        *,
        is_new: bool = False,
    ) -> None:
        self.is_new = is_new
        self._origin, self._forks, self._fork, self._base = origin, forks, fork, base
        self._files = origin if fork is None else fork / "files"
        self._running: set[asyncio.Task[CommandResult]] = set()
        tool = tool_of(
            self._shell(),
            effect="write",
            seconds=SHELL_LIMITS.total_seconds + 30,
            concurrency=1,
            source=f"shell:{origin}",
            world=self,
        )
        self.tools: Mapping[str, ExecutableTool] = {tool.name: tool}

    def _shell(self) -> Callable[..., object]:
        async def shell(command: str) -> ToolResult:
            """Run a command with sh in the user's directory and return its output, with errors, and its exit status.

            The command can change files in that directory only. It has no network, and may run for 120 seconds; what it
            leaves in the background is killed.

            Args:
                command: The command, as for `sh -c`.
            """
            task = asyncio.create_task(run_command(command, self._files, SHELL_LIMITS, shown_as=self._origin))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            result = await task
            ends = {
                "time": f"killed after {SHELL_LIMITS.wall_seconds:g} seconds",
                "output": f"killed after it printed {SHELL_LIMITS.output_bytes:,} bytes",
            }
            end = ends.get(result.outcome, f"exit status {result.status}")
            return ToolResult(text=f"{result.output.rstrip()}\n[{end}]".lstrip(), is_error=end != "exit status 0")

        return shell

    async def fork(self, name: str) -> DirectoryWorld:
        """A copy of the directory; equal names give the same one, also in another process.

        A fork of a fork has the same origin: its changes and its commit are all changes since the first copy.

        Args:
            name: Name that begins with that of the run.

        Raises:
            UserError: It has special files or too many or large ones, or one that cannot be read.
        """
        return await _in_thread(lambda: self._open_fork(name))

    async def changes(self) -> list[str]:
        """What has been added, changed and removed since the origin was copied, a line for each path."""
        return await _in_thread(self._changes)

    async def details(self) -> str:
        """The size of each file before and after, and the difference of texts, shortened."""
        return await _in_thread(self._details)

    async def commit(self, *, outward_links: bool = False) -> None:
        """Make the origin equal to the fork; may be repeated, also after a kill.

        Args:
            outward_links: Whether symbolic links that lead out of the directory are made, too.

        Raises:
            UserError: Something else has changed the origin since it was copied, a link leads out of it, or a file
                cannot be written. Before the first change in the two former cases.
        """
        await _in_thread(lambda: self._commit(outward_links))

    async def close(self) -> None:
        """Kill the commands that run in it, and remove the copy; a directory that is no fork stays."""
        if self._running:
            await cancel_and_wait(*self._running)
        if (fork := self._fork) is not None:
            await _in_thread(lambda: _remove_fork(fork))

    # -- in a thread

    def _open_fork(self, name: str) -> DirectoryWorld:
        if self._forks.is_relative_to(self._origin):
            raise UserError(
                f"{self._origin} cannot be forked: its forks would be in it, in {self._forks}",
                hint="use a store in another directory, or give a smaller one: shell:DIR",
            )
        key = hashlib.sha256(f"{self._origin}\0{name}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
        fork = self._forks / key
        stored = fork / "base.json"
        is_new = not stored.exists()
        if is_new:
            _remove_fork(fork)
            _remove_old(self._forks)
            (fork / "files").mkdir(parents=True, mode=0o700)
            copied = _entries(self._files, copy=fork / "files")
            base: Mapping[str, Entry] = copied if self._base is None else self._base
            staged = fork / _STAGED
            staged.write_text(json.dumps(base), encoding="utf-8")
            staged.replace(stored)
        else:
            base = {path: Entry(*entry) for path, entry in json.loads(stored.read_text(encoding="utf-8")).items()}
        return DirectoryWorld(self._origin, self._forks, fork, base, is_new=is_new)

    def _changes(self) -> list[str]:
        if self._base is None:
            return []
        before, after = self._base, _entries(self._files)
        return [
            f"{_verb(before.get(path), after.get(path))} {self._shown(path, after.get(path) or before[path])}"
            for path in sorted(before.keys() | after.keys())
            if before.get(path) != after.get(path)
        ]

    def _shown(self, path: str, entry: Entry) -> str:
        if entry.kind != "link":
            return _text(path) + ("/" if entry.kind == "directory" else "")
        note = " (leads out of the directory)" if self._leads_out(path, entry) else ""
        return f"{_text(path)} -> {_text(entry.content)}{note}"

    def _leads_out(self, path: str, entry: Entry) -> bool:
        """Whether a link leads out of the directory, by its text or through other links of the fork."""
        target = os.path.join(self._origin, os.path.dirname(path), entry.content)
        inside = os.path.relpath(os.path.normpath(target), self._origin)
        if inside.split(os.sep)[0] == "..":
            return True
        # from here on as the commands see it: an absolute target in the origin is one in the fork
        text = os.path.relpath(entry.content, self._origin) if os.path.isabs(entry.content) else ""
        real = os.path.realpath(self._files / text) if text else os.path.realpath(self._files / path)
        return not Path(real).is_relative_to(os.path.realpath(self._files))

    def _details(self) -> str:
        if self._base is None:
            return ""
        before, after = self._base, _entries(self._files)
        lines: list[str] = []
        for path in sorted(before.keys() | after.keys()):
            old, new = before.get(path), after.get(path)
            if old == new or "file" not in (old and old.kind, new and new.kind):
                continue
            one, other = (_content(root / path) for root in (self._origin, self._files))
            lines.append(f"{_text(path)}: {len(one):,} -> {len(other):,} bytes")
            lines += _difference(one, other)
        more = f"\n… and {len(lines) - MAX_DETAIL_LINES:,} more lines" if len(lines) > MAX_DETAIL_LINES else ""
        return "\n".join(lines[:MAX_DETAIL_LINES]) + more

    def _commit(self, outward_links: bool) -> None:
        if self._base is None:
            return
        lock = os.open(self._origin, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of two commits the second one sees the first
            base, after, now = self._base, _entries(self._files), _entries(self._origin)
            links = [path for path, new in after.items() if new.kind == "link" and new != base.get(path)]
            outward = [self._shown(path, after[path]) for path in links if self._leads_out(path, after[path])]
            if outward and not outward_links:
                raise UserError(
                    f"a link leads out of {self._origin}: {outward[0]}",
                    hint="approve the changes yourself (--approve writes), or do without the link",
                )
            paths = sorted(base.keys() | after.keys() | now.keys())
            if foreign := [p for p in paths if not _is_expected(now.get(p), base.get(p), after.get(p))]:
                more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
                raise UserError(
                    f"{self._origin} was changed since it was copied: {', '.join(map(_text, foreign[:3]))}{more}",
                    hint="undo that and commit again, or begin a new run",
                )
            _replace(self._origin, now, self._files, after)
        finally:
            os.close(lock)


async def _in_thread(work: Callable[[], T]) -> T:
    def reported() -> T:
        try:
            return work()
        except OSError as e:
            where = f"{_text(os.fspath(e.filename))}: " if e.filename is not None else ""
            raise UserError(f"{where}{e.strerror or e}", hint="see its permissions, and the free space") from e

    return await off_loop(reported, is_long=True)


def _entries(root: Path, copy: Path | None = None) -> dict[str, Entry]:
    """Everything in a directory by its relative path, parents first; the directory itself is "."."""
    entries: dict[str, Entry] = {}
    size, pending = 0, ["."]
    while pending:
        parent = pending.pop()
        entries[parent] = Entry("directory", stat.S_IMODE(os.lstat(root / parent).st_mode), "")
        with os.scandir(root / parent) as items:
            for item in items:
                if item.name == _STAGED:
                    continue
                path = os.path.normpath(os.path.join(parent, item.name))
                info = item.stat(follow_symlinks=False)
                size += info.st_size
                if size > MAX_FORK_BYTES or len(entries) + len(pending) >= MAX_FORK_FILES:
                    raise UserError(
                        f"{root} has more than {MAX_FORK_BYTES >> 20} MiB or {MAX_FORK_FILES:,} files",
                        hint="give the part of it that the commands need: shell:DIR",
                    )
                target = None if copy is None else copy / path
                if stat.S_ISDIR(info.st_mode):
                    pending.append(path)
                    if target is not None:
                        target.mkdir(mode=0o700)
                    continue
                if not (stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode)):
                    raise UserError(
                        f"{_text(item.path)} is neither a file nor a directory nor a symbolic link",
                        hint="remove it, or give another directory: shell:DIR",
                    )
                if target is not None:
                    _copy(Path(item.path), target)
                if stat.S_ISLNK(info.st_mode):
                    entries[path] = Entry("link", 0, os.readlink(item.path))
                else:
                    with open(target or item.path, "rb") as content:
                        digest = hashlib.file_digest(content, "sha256").hexdigest()
                    entries[path] = Entry("file", stat.S_IMODE(info.st_mode), digest)
    if copy is not None:
        for path in reversed([path for path, entry in entries.items() if entry.kind == "directory"]):
            shutil.copystat(root / path, copy / path)
    return entries


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a symbolic link with its times; a file shares its blocks where the file system can do that."""
    if source.is_symlink():
        target.symlink_to(os.readlink(source))
    else:
        with source.open("rb") as read, target.open("xb") as write:
            try:
                fcntl.ioctl(write.fileno(), _FICLONE, read.fileno())
            except OSError:
                shutil.copyfileobj(read, write)
    shutil.copystat(source, target, follow_symlinks=False)


def _is_expected(now: Entry | None, before: Entry | None, after: Entry | None) -> bool:
    """Whether a path's state is that before a commit, after it, or one that the commit itself goes through."""
    if now is None and before is not None and after is not None and _must_remove(before, after):
        return True
    return _writable(now) in (_writable(before), _writable(after))


def _must_remove(before: Entry, after: Entry | None) -> bool:
    """Whether no rename can replace the one by the other."""
    return after is None or (before.kind != after.kind and "directory" in (before.kind, after.kind))


def _writable(entry: Entry | None) -> Entry | None:
    """A directory with the permissions that it has while a commit changes its files."""
    if entry is None or entry.kind != "directory":
        return entry
    return entry._replace(mode=entry.mode | stat.S_IRWXU)


def _replace(root: Path, now: Mapping[str, Entry], source: Path, after: Mapping[str, Entry]) -> None:
    """Make `root`, of which the entries are `now`, equal to `source`, of which they are `after`."""
    changed = [path for path in sorted(now.keys() | after.keys()) if now.get(path) != after.get(path)]
    parents = sorted({os.path.dirname(path) or "." for path in changed})
    for path in sorted({*parents, *changed} & now.keys()):
        if now[path] != _writable(now[path]):
            os.chmod(root / path, now[path].mode | stat.S_IRWXU)
    for path in reversed(changed):
        if path in now and _must_remove(now[path], after.get(path)):
            if now[path].kind == "directory":
                _discard(root / path / _STAGED)
            _discard(root / path)
    for path in changed:
        old, new = now.get(path), after.get(path)
        if new is None or (old is not None and old.kind == new.kind == "directory"):
            continue
        staged = (root / path).parent / _STAGED
        _discard(staged)
        if new.kind == "directory":
            staged.mkdir()
            staged.chmod(new.mode | stat.S_IRWXU)
        else:
            _copy(source / path, staged)
            if old is not None and not _must_remove(old, new):
                _keep_owner(root / path, staged)
            if new.kind == "file":
                staged.chmod(new.mode)  # which a change of the owner reduces
                _sync(staged)
        staged.replace(root / path)
    for path in sorted(after, reverse=True):
        if after[path].kind == "directory" and stat.S_IMODE(os.lstat(root / path).st_mode) != after[path].mode:
            os.chmod(root / path, after[path].mode)
    for path in parents:
        if path in after and after[path].kind == "directory":
            _sync(root / path)


def _keep_owner(path: Path, staged: Path) -> None:
    info = os.lstat(path)
    with suppress(PermissionError):
        os.chown(staged, info.st_uid, info.st_gid, follow_symlinks=False)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(path: Path) -> None:
    with suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()


def _remove_old(forks: Path) -> None:
    for fork in forks.glob("*"):
        with suppress(FileNotFoundError):  # another process removes it
            if fork.stat().st_mtime < time.time() - MAX_FORK_DAYS * 86_400:
                _remove_fork(fork)


def _remove_fork(fork: Path) -> None:
    (fork / "base.json").unlink(missing_ok=True)  # from here on it is no fork
    if fork.exists():
        for parent, names, _ in os.walk(fork):
            for name in names:
                if not os.path.islink(path := os.path.join(parent, name)):
                    os.chmod(path, stat.S_IRWXU)
        shutil.rmtree(fork)


def _verb(before: Entry | None, after: Entry | None) -> str:
    return "added" if before is None else "removed" if after is None else "changed"


def _content(path: Path) -> bytes:
    """What a file has; nothing if there is none."""
    if path.is_symlink() or not path.is_file():
        return b""
    return path.read_bytes()


def _difference(before: bytes, after: bytes) -> list[str]:
    """The changed lines of a text with two around them, shortened; none of what is no text, or long."""
    if max(len(before), len(after)) > MAX_COMPARED_BYTES or b"\0" in before + after:
        return []
    old, new = (content.decode("utf-8", "replace").splitlines() for content in (before, after))
    lines = list(difflib.unified_diff(old, new, n=2, lineterm=""))[2:]
    shown = [line[:MAX_LINE_CHARS] for line in lines[:MAX_FILE_LINES]]
    return shown if len(lines) <= MAX_FILE_LINES else [*shown, f"… and {len(lines) - MAX_FILE_LINES:,} more lines"]


def _text(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "replace")


async def shell_world(directory: str, data_dir: Path) -> DirectoryWorld:
    """The world of the tool `shell` in a directory; empty is the working directory.

    Args:
        data_dir: Directory in which forks are kept.

    Raises:
        UserError: It is no directory, or one that holds the system's or a user's files.
        SandboxUnavailable: No isolation can be had here.
    """
    path = await asyncio.to_thread(_checked_directory, directory or ".")
    await require_sandbox()
    return DirectoryWorld(path, await asyncio.to_thread((data_dir / "forks").resolve))


def _checked_directory(directory: str) -> Path:
    path = Path(directory).expanduser().resolve()
    if not path.is_dir():
        raise UserError(f"shell:{directory} is not a directory", hint="give an existing directory: shell:DIR")
    if path in (Path(path.anchor), Path.home()):
        raise UserError(f"shell may not change all of {path}", hint="give a directory in it: shell:DIR")
    return path
