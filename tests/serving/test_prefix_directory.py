"""Named prefixes on disk, without an engine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import Cancelled, DataError, UnknownName, UserError
from reason.serving.kv_store import PrefixTooLarge, SavedPrefix, check_name
from reason.serving.prefix_directory import DESCRIPTION, PrefixDirectory, PrefixOwner, PrefixStorage

OWNER = PrefixOwner("local/x", "x+bf16", "bfloat16", "t/1")
ROOM = 10_000


def directory_at(root: Path, limit: int = ROOM, owner: PrefixOwner = OWNER) -> PrefixDirectory:
    return PrefixDirectory(PrefixStorage(root, limit), owner)


def put(directory: PrefixDirectory, name: str, size: int = 1000, pinned: tuple[str, ...] = ()) -> SavedPrefix:
    with directory.begin(name, size, pinned) as attempt:
        (attempt.directory / "a.safetensors").write_bytes(name[:1].encode() * size)
        return directory.publish(attempt, (1, 2, 3), 3, pinned)


def names(directory: PrefixDirectory) -> list[str]:
    return [s.saved.name for s in directory.states()]


def content(saved: SavedPrefix, directory: Path) -> bytes:
    return (directory / saved.files[0].name).read_bytes()


def age(directory: PrefixDirectory, *in_order: str) -> None:
    """Let the names have been used in this order."""
    paths = {s.saved.name: s.directory for s in directory.states()}
    for i, name in enumerate(in_order):
        path = paths[name]
        assert path is not None
        os.utime(path / DESCRIPTION, (1000 + i, 1000 + i))


def test_what_is_saved_can_be_read(tmp_path: Path) -> None:
    directory = directory_at(tmp_path / "p")
    assert directory.describe("a") is None
    assert directory.states() == []
    assert not directory.remove("a")
    assert not (tmp_path / "p").exists(), "looking makes nothing"
    saved = put(directory, "a")
    assert directory.describe("a") == saved
    assert directory.read("a", content) == (saved, b"a" * 1000)
    assert names(directory) == ["a"]
    assert directory.remove("a")
    assert names(directory) == []
    assert (tmp_path / "p").stat().st_mode & 0o077 == 0, "prompts may be private"


def test_several_files_are_one_prefix(tmp_path: Path) -> None:
    directory = directory_at(tmp_path)
    with directory.begin("a", 20) as attempt:
        for i in range(2):
            (attempt.directory / f"rank{i}.safetensors").write_bytes(bytes(10))
        (attempt.directory / "notes.txt").write_text("no part of it")
        saved = directory.publish(attempt, (1,), 1)
    assert [f.name for f in saved.files] == ["rank0.safetensors", "rank1.safetensors"]
    assert saved.nbytes == 20


def test_the_least_recently_used_is_evicted_first_and_no_pinned_one(tmp_path: Path) -> None:
    directory = directory_at(tmp_path, limit=5_000)
    for name in "abc":
        put(directory, name)
    age(directory, "a", "c", "b")
    directory.read("a", content)
    put(directory, "d", pinned=("c",))
    assert names(directory) == ["a", "c", "d"]
    put(directory, "e", size=1900, pinned=("c",))
    assert names(directory) == ["c", "d", "e"]


def test_names_of_other_models_go_too(tmp_path: Path) -> None:
    theirs = directory_at(tmp_path, 3_000, PrefixOwner("local/y", "y+bf16", "bfloat16", "t/1"))
    put(theirs, "a")
    put(directory_at(tmp_path, 3_000), "a")
    age(theirs, "a")
    put(directory_at(tmp_path, 3_000), "b")
    assert names(theirs) == []
    assert names(directory_at(tmp_path, 3_000)) == ["a", "b"]


def test_what_cannot_fit_is_refused_and_nothing_removed(tmp_path: Path) -> None:
    directory = directory_at(tmp_path, limit=5_000)
    put(directory, "a")
    with pytest.raises(PrefixTooLarge, match=r"'b' takes 6,000 bytes on disk; the limit is 5,000"):
        put(directory, "b", size=6_000)
    with pytest.raises(PrefixTooLarge, match="pinned prefixes"):
        put(directory, "b", size=4_000, pinned=("a",))
    with pytest.raises(PrefixTooLarge), directory.begin("b", 10) as attempt:  # more than announced
        (attempt.directory / "a.safetensors").write_bytes(bytes(9_000))
        directory.publish(attempt, (1,), 1)
    assert names(directory) == ["a"]
    assert list(tmp_path.rglob(".partial*")) == []


def test_its_own_predecessor_does_not_count(tmp_path: Path) -> None:
    directory = directory_at(tmp_path, limit=3_000)
    for size in (2_000, 2_100, 1_900):
        put(directory, "a", size=size, pinned=("a",))
    assert len(directory.read("a", content)[1]) == 1_900


def test_an_attempt_that_fails_leaves_the_name_as_it_was(tmp_path: Path) -> None:
    directory = directory_at(tmp_path)
    saved = put(directory, "a")
    with pytest.raises(ZeroDivisionError), directory.begin("a", 10) as attempt:
        (attempt.directory / "a.safetensors").write_bytes(bytes(10))
        raise ZeroDivisionError
    stop = threading.Event()
    with pytest.raises(Cancelled), directory.begin("a", 10) as attempt:
        (attempt.directory / "a.safetensors").write_bytes(bytes(10))
        stop.set()
        directory.publish(attempt, (9,), 1, cancel=stop)
    assert directory.read("a", content)[0] == saved
    assert list(tmp_path.rglob(".partial*")) == []


def test_waiting_for_the_lock_can_be_cancelled(tmp_path: Path) -> None:
    directory = directory_at(tmp_path / "p")
    put(directory, "a")
    stop = threading.Event()
    stop.set()
    with FileLock(tmp_path / ".locks" / "p.lock"), pytest.raises(Cancelled):
        directory.read("a", content, cancel=stop)


def test_leftovers_of_a_crash_are_removed_and_running_writes_are_not(tmp_path: Path) -> None:
    directory = directory_at(tmp_path)
    put(directory, "a")
    [state] = directory.states()
    assert state.directory is not None
    home = state.directory.parent
    for name in ("dead=1-aa", "dead=1-aa.old", "other=2-bb.old"):
        (home / f".partial-{name}").mkdir()
        (home / f".partial-{name}" / "a.safetensors").write_bytes(bytes(10))
    (home / ".partial-x=3-cc.lock").touch()
    with directory.begin("b", 10) as under_way:
        assert [p.name for p in home.glob(".partial*") if not p.name.endswith(".lock")] == [under_way.directory.name]
        put(directory, "c")
        assert under_way.directory.exists()
    assert list(home.glob(".partial*")) == []
    assert names(directory) == ["a", "c"]


def test_a_directory_that_must_not_be_written_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write prefixes") as caught:
        put(directory_at(tmp_path / "file" / "p"), "a")
    assert "REASON_CACHE_DIR" in caught.value.hint


def test_strange_things_in_the_directory_are_passed_over(tmp_path: Path) -> None:
    directory = directory_at(tmp_path)
    put(directory, "a")
    [state] = directory.states()
    assert state.directory is not None
    (state.directory.parent / "empty").mkdir()
    (state.directory.parent / "file").write_text("x")
    (tmp_path / "a").write_text("x")
    assert names(directory) == ["a"]
    with pytest.raises(UnknownName):
        directory.read("file", content)
    with pytest.raises(UnknownName):
        directory.read("empty", content)
    assert directory.describe("empty") is None


def test_another_models_file_is_not_read(tmp_path: Path) -> None:
    directory = directory_at(tmp_path)
    put(directory, "a")
    for changed in ("identity", "dtype", "layout"):
        other = PrefixOwner(**{**vars(OWNER), changed: "z"})
        reader = directory_at(tmp_path, owner=other)
        reader._home = directory._home
        with pytest.raises(DataError, match="here it is"):
            reader.read("a", content)
        assert reader.describe("a") is None
        assert reader.states() == []


@given(st.text(max_size=90))
def test_a_name_that_is_taken_is_a_plain_file_name(name: str) -> None:
    try:
        check_name(name)
    except UserError:
        return
    assert name == name.lower() == Path(name).name
    assert 0 < len(name) <= 80
    assert name.isascii()
    assert name[0].isalnum()
    assert name[-1].isalnum()


@given(st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,78}[a-z0-9])?", fullmatch=True))
def test_ordinary_names_are_taken(name: str) -> None:
    if name.split(".")[0][:3] not in ("con", "prn", "aux", "nul", "com", "lpt"):
        assert check_name(name) == name


PROCESS = """
import sys
from pathlib import Path
from reason.core.errors import UnknownName
from reason.serving.prefix_directory import PrefixOwner, PrefixDirectory, PrefixStorage

me = int(sys.argv[2])
owner = PrefixOwner("local/x", "x+bf16", "bfloat16", "t/1")
directory = PrefixDirectory(PrefixStorage(Path(sys.argv[1]), 3 * 4200), owner)
for i in range(25):
    name = f"n{(i + me) % 5}"
    with directory.begin(name, 4000) as attempt:
        (attempt.directory / "a.safetensors").write_bytes(bytes([65 + me]) * 4000)
        directory.publish(attempt, (me,), 1)
    try:
        saved, data = directory.read(f"n{i % 5}", lambda s, f: (f / s.files[0].name).read_bytes())
        assert data == bytes([65 + saved.token_ids[0]]) * 4000
    except UnknownName:
        pass
    if i % 7 == 0:
        directory.remove(name)
    assert sum(s.saved.nbytes for s in directory.states()) <= 3 * 4200
"""


def test_processes_that_share_a_directory_see_complete_prefixes(tmp_path: Path) -> None:
    """They write, read, evict and remove the same names: every sum is checked at every reading."""
    root = tmp_path / "prefixes"
    running = [subprocess.Popen([sys.executable, "-c", PROCESS, str(root), str(i)]) for i in range(3)]
    assert [p.wait(120) for p in running] == [0, 0, 0]
    assert list(root.rglob(".partial*")) == []
