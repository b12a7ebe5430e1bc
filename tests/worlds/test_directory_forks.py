"""Forks of a directory: copies, changes, and commits that can be repeated after a kill at any point."""

import asyncio
import os
import shutil
import stat
import tempfile
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reason.agents.loop.tool import ToolCallContext
from reason.core.errors import SandboxUnavailable, UserError
from reason.worlds import directory
from reason.worlds.directory import DirectoryWorld, shell_world

CONTEXT = ToolCallContext(run_id="run", intent="i")
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
NAMES = st.sampled_from(["a", "b", "-c", "\udcff"])
FILES = st.tuples(st.just("file"), st.sampled_from([0o644, 0o755, 0o400]), st.sampled_from(["", "1", "2"]))
LINKS = st.tuples(st.just("link"), st.just(0), st.sampled_from(["a", "../b", "/no/such"]))
TREES = st.recursive(
    FILES | LINKS,
    lambda inner: st.tuples(
        st.just("directory"), st.sampled_from([0o755, 0o700, 0o555]), st.dictionaries(NAMES, inner, max_size=3)
    ),
    max_leaves=5,
)
ROOTS = st.dictionaries(NAMES, TREES, max_size=3)


class Killed(BaseException):
    """The process dies here."""


def write(root, tree):
    """Make a directory hold exactly a tree."""
    for path in root.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    _write(root, tree)


def _write(root, tree):
    for name, (kind, mode, content) in tree.items():
        path = root / name
        if kind == "link":
            path.symlink_to(content)
            continue
        if kind == "file":
            path.write_text(content)
            os.utime(path, ns=(5, 10**18 + len(content)))
        else:
            path.mkdir()
            _write(path, content)
        path.chmod(mode)


def read(root):
    """The tree of a directory."""
    tree = {}
    for path in root.iterdir():
        info = path.lstat()
        mode = stat.S_IMODE(info.st_mode)
        if stat.S_ISLNK(info.st_mode):
            tree[path.name] = ("link", 0, os.readlink(path))
        elif stat.S_ISDIR(info.st_mode):
            tree[path.name] = ("directory", mode, read(path))
        else:
            tree[path.name] = ("file", mode, path.read_text())
    return tree


def files_of(data):
    """The directory of the only fork."""
    (fork,) = (data / "forks").iterdir()
    return fork / "files"


def place(directory_name):
    """An empty origin, and its world as a new process opens it."""
    origin, data = Path(directory_name, "origin"), Path(directory_name, "data")
    origin.mkdir()
    return origin, data, lambda: DirectoryWorld(origin, data / "forks")


@settings(max_examples=60, deadline=None)
@given(ROOTS, ROOTS)
def test_a_commit_gives_exactly_the_fork_and_the_origin_is_untouched_before(before, after):
    async def steps():
        with tempfile.TemporaryDirectory(dir=MEMORY) as name:
            origin, data, opened = place(name)
            write(origin, before)
            fork = await opened().fork("run/1")
            assert fork.is_new
            assert read(files_of(data)) == before
            write(files_of(data), after)
            assert bool(await fork.changes()) == (before != after)
            assert read(origin) == before
            again = await opened().fork("run/1")
            assert not again.is_new
            await again.commit(outward_links=True)
            assert read(origin) == after
            await again.commit(outward_links=True)
            await again.close()
            assert read(origin) == after
            assert list((data / "forks").iterdir()) == []

    asyncio.run(steps())


def kill_at(monkeypatch, number):
    """Die before a change of the file system: the one of this number."""
    changes = count()

    def dying(real):
        def change(*arguments, **options):
            if next(changes) == number:
                raise Killed
            return real(*arguments, **options)

        return change

    for name in ("chmod", "chown", "mkdir", "replace", "rmdir", "symlink", "unlink", "utime"):
        monkeypatch.setattr(os, name, dying(getattr(os, name)))


def repeated_after_every_kill(before, after):
    async def steps():
        for number in count():
            with tempfile.TemporaryDirectory(dir=MEMORY) as name, pytest.MonkeyPatch.context() as monkeypatch:
                origin, data, opened = place(name)
                write(origin, before)
                fork = await opened().fork("run/1")
                write(files_of(data), after)
                kill_at(monkeypatch, number)
                try:
                    await fork.commit(outward_links=True)
                except Killed:
                    monkeypatch.undo()
                    await (await opened().fork("run/1")).commit(outward_links=True)
                    assert read(origin) == after
                else:
                    monkeypatch.undo()
                    assert read(origin) == after
                    return

    asyncio.run(steps())


@settings(max_examples=10, deadline=None)
@given(ROOTS, ROOTS)
def test_a_commit_killed_at_any_change_is_completed_by_its_repetition(before, after):
    repeated_after_every_kill(before, after)


def test_a_killed_commit_of_every_kind_of_change_is_completed():
    def tree(mode, **content):
        return ("directory", mode, content)

    file, link = ("file", 0o644, "1"), ("link", 0, "x")
    before = {
        "gone": tree(0o555, x=file, y=tree(0o555, z=link)),
        "file_to_directory": file,
        "directory_to_file": tree(0o755, x=file),
        "link_to_directory": link,
        "directory_to_link": tree(0o755, x=tree(0o700)),
        "file_to_link": file,
        "changed": file,
        "inside": tree(0o555, x=file),
    }
    after = {
        "file_to_directory": tree(0o555, x=file),
        "directory_to_file": file,
        "link_to_directory": tree(0o755, x=link),
        "directory_to_link": link,
        "file_to_link": link,
        "changed": ("file", 0o755, "1"),
        "inside": tree(0o500, x=("file", 0o644, "2"), new=tree(0o755)),
    }
    repeated_after_every_kill(before, after)


def test_a_killed_copy_is_no_fork(tmp_path, monkeypatch):
    origin, data, opened = place(tmp_path)
    before = {"a": ("directory", 0o755, {"b": ("file", 0o644, "1")}), "c": ("link", 0, "a")}
    write(origin, before)

    async def steps():
        for number in count():
            with pytest.MonkeyPatch.context() as patch:
                kill_at(patch, number)
                try:
                    fork = await opened().fork("run/1")
                except Killed:
                    patch.undo()
                    fork = await opened().fork("run/1")
                else:
                    number = None
            assert read(files_of(data)) == before
            await fork.close()
            if number is None:
                return

    asyncio.run(steps())


@pytest.mark.parametrize("path", ["a", "b", "new"])
async def test_a_commit_that_would_lose_the_changes_of_others_is_refused(tmp_path, path):
    origin, data, opened = place(tmp_path)
    write(origin, {"a": ("file", 0o644, "1"), "b": ("file", 0o644, "1")})
    fork = await opened().fork("run/1")
    (files_of(data) / "a").write_text("2")
    (origin / path).write_text("theirs")
    before = read(origin)
    with pytest.raises(UserError, match=f"was changed since it was copied: {path} \\("):
        await fork.commit()
    assert read(origin) == before


async def test_changes_name_each_path(tmp_path):
    origin, data, opened = place(tmp_path)
    write(origin, {"a": ("file", 0o644, "1"), "b": ("file", 0o644, "1"), "c": ("directory", 0o755, {})})
    fork = await opened().fork("run/1")
    write(files_of(data), {"a": ("file", 0o755, "1"), "d": ("directory", 0o755, {"e": ("link", 0, "x")})})
    assert await fork.changes() == ["changed a", "removed b", "removed c/", "added d/", "added d/e -> x"]


@pytest.mark.parametrize(
    ("links", "shown"),
    [
        ({"l": ("link", 0, "/etc/passwd")}, "l -> /etc/passwd"),
        ({"l": ("link", 0, "../x")}, "l -> ../x"),
        ({"d": ("link", 0, "."), "l": ("link", 0, "d/../x")}, "l -> d/../x"),
    ],
)
async def test_a_link_that_leads_out_is_named_and_made_only_if_that_was_approved(tmp_path, links, shown):
    origin, data, opened = place(tmp_path)
    write(origin, {"a": ("file", 0o644, "1")})
    fork = await opened().fork("run/1")
    write(files_of(data), {"a": ("file", 0o644, "1"), **links})
    assert f"added {shown} (leads out of the directory)" in await fork.changes()
    with pytest.raises(UserError, match=f"a link leads out of .*: {shown}"):
        await fork.commit()
    assert not (origin / "l").is_symlink()
    await fork.commit(outward_links=True)
    assert (origin / "l").is_symlink()


async def test_links_within_the_directory_are_made(tmp_path):
    origin, data, opened = place(tmp_path)
    write(origin, {"d": ("directory", 0o755, {"a": ("file", 0o644, "1")})})
    fork = await opened().fork("run/1")
    os.symlink("../d/a", files_of(data) / "d" / "b")
    os.symlink(origin / "d", files_of(data) / "c")
    assert await fork.changes() == [f"added c -> {origin}/d", "added d/b -> ../d/a"]
    await fork.commit()
    assert (origin / "c" / "b").read_text() == "1"


async def test_details_are_sizes_and_changed_lines(tmp_path):
    origin, data, opened = place(tmp_path)
    write(origin, {"a": ("file", 0o644, "1\n2\n"), "b": ("file", 0o644, "\0")})
    fork = await opened().fork("run/1")
    write(
        files_of(data), {"a": ("file", 0o644, "1\n3\n"), "b": ("file", 0o644, "\0\0"), "c": ("file", 0o644, "x\n" * 99)}
    )
    lines = (await fork.details()).splitlines()
    assert lines[:6] == ["a: 4 -> 4 bytes", "@@ -1,2 +1,2 @@", " 1", "-2", "+3", "b: 1 -> 2 bytes"]
    assert lines[6:9] == ["c: 0 -> 198 bytes", "@@ -0,0 +1,99 @@", "+x"]
    assert lines[-1] == "… and 60 more lines"


async def test_times_are_kept_and_are_no_change(tmp_path):
    origin, data, opened = place(tmp_path)
    write(origin, {"a": ("file", 0o644, "1"), "d": ("directory", 0o755, {})})
    os.utime(origin / "d", ns=(1, 10**18))
    fork = await opened().fork("run/1")
    files = files_of(data)
    assert [(files / n).stat().st_mtime_ns for n in "ad"] == [10**18 + 1, 10**18]
    os.utime(files / "a", ns=(7, 7))
    assert await fork.changes() == []
    (files / "a").write_text("2")
    os.utime(files / "a", ns=(8, 8))
    await fork.commit()
    assert (origin / "a").stat().st_mtime_ns == 8


async def test_what_cannot_be_copied_is_refused(tmp_path, monkeypatch):
    origin, _, opened = place(tmp_path)
    os.mkfifo(origin / "pipe")
    with pytest.raises(UserError, match="pipe is neither a file nor a directory"):
        await opened().fork("run/1")
    (origin / "pipe").unlink()
    (origin / "a").write_bytes(bytes(100))
    monkeypatch.setattr(directory, "MAX_FORK_BYTES", 99)
    with pytest.raises(UserError, match="origin has more than 0 MiB or 100,000 files"):
        await opened().fork("run/1")
    monkeypatch.setattr(directory, "MAX_FORK_BYTES", 100)
    monkeypatch.setattr(directory, "MAX_FORK_FILES", 1)
    with pytest.raises(UserError, match="or 1 files"):
        await opened().fork("run/1")
    with pytest.raises(UserError, match="its forks would be in it"):
        await DirectoryWorld(origin, origin / "data" / "forks").fork("run/1")


async def test_a_fork_of_a_fork_commits_to_the_origin_and_is_independent(tmp_path):
    origin, data, opened = place(tmp_path)
    write(origin, {"a": ("file", 0o644, "1")})
    first = await opened().fork("run/1")
    (files_of(data) / "a").write_text("2")
    second = await first.fork("run/1/1")
    assert await second.changes() == ["changed a"]
    await first.close()
    (files_of(data) / "b").write_text("3")
    assert await second.changes() == ["changed a", "added b"]
    await second.commit()
    assert read(origin) == {"a": ("file", 0o644, "2"), "b": ("file", 0o644, "3")}


async def test_a_fork_that_was_left_is_removed_by_the_next_one_after_days(tmp_path):
    _, data, opened = place(tmp_path)
    await opened().fork("killed")
    (killed,) = (data / "forks").iterdir()
    await opened().fork("waiting")
    os.utime(killed, (1, 1))
    await opened().fork("new")
    assert len(list((data / "forks").iterdir())) == 2
    assert not killed.exists()
    assert not (await opened().fork("waiting")).is_new


async def test_closing_an_origin_removes_nothing(tmp_path):
    origin, _, opened = place(tmp_path)
    write(origin, {"a": ("file", 0o644, "1")})
    world = opened()
    await world.commit()
    await world.close()
    assert (await world.changes(), sorted(read(origin))) == ([], ["a"])


async def test_commands_in_a_fork_see_the_path_of_the_origin_and_end_with_the_fork(tmp_path):
    origin, data, _ = place(tmp_path)
    (origin / "a").write_text("1")
    try:
        world = await shell_world(str(origin), data)
    except SandboxUnavailable as e:
        pytest.skip(str(e))
    fork = await world.fork("run/1")
    shell = fork.tools["shell"]
    assert (shell.world, world.tools["shell"].world) == (fork, world)
    result = await shell.call({"command": f"pwd; echo 2 > {origin}/a; cat a"}, CONTEXT)
    assert result.text == f"{origin}\n2\n[exit status 0]"
    assert (origin / "a").read_text() == "1"
    os.mkfifo(files_of(data) / "fifo")
    running = asyncio.ensure_future(shell.call({"command": "(echo ready; exec sleep 1000) > fifo & wait"}, CONTEXT))
    fifo = await asyncio.to_thread(os.open, files_of(data) / "fifo", os.O_RDONLY)
    assert await asyncio.to_thread(os.read, fifo, 10) == b"ready\n"
    await fork.close()
    assert await asyncio.to_thread(os.read, fifo, 10) == b""  # its last writer has ended
    os.close(fifo)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert list((data / "forks").iterdir()) == []
