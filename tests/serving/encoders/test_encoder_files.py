"""Where encoders' files come from: a package, a folder; and what is refused."""

import hashlib
import io
import json
import shutil
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from reason.core.errors import BackendUnavailable, Cancelled, DataError
from reason.serving.encoders.files import find_encoder
from reason.serving.model_files import packages
from reason.serving.model_files.catalogue import KnownEncoder
from reason.serving.model_files.packages import PackagedFiles

NAME = "local/tiny-encoder"


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """A directory of wheels, which is all that the index has."""
    directory = tmp_path / "wheels"
    directory.mkdir()

    def download(requirement, target, pulling):
        name, _, version = requirement.partition("==")
        wheel = directory / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        if not wheel.exists():
            raise BackendUnavailable(f"cannot fetch the package {requirement}")
        return Path(shutil.copy(wheel, target))

    monkeypatch.setattr(packages, "_download_wheel", download)
    return directory


def write_wheel(directory, package, members):
    with zipfile.ZipFile(directory / f"{package.replace('-', '_')}-1.0-py3-none-any.whl", "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def hashes_of(files):
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


@pytest.fixture
def packaged(prompted_folder, wheels):
    """The prompted model in a wheel."""
    files = files_of(prompted_folder)
    members = {f"tiny_encoder/model/{name}": content for name, content in files.items()}
    imported = {"tiny_encoder/__init__.py": b"raise SystemExit('the package was imported')"}
    write_wheel(wheels, "tiny-encoder", imported | members)
    return PackagedFiles(("tiny-encoder==1.0",), "tiny_encoder/model", hashes_of(files), sum(map(len, files.values())))


@pytest.fixture
def split(prompted_folder, wheels):
    """The prompted model in a zip file whose three parts are in wheels."""
    files = files_of(prompted_folder)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"tiny/{name}", content)
    raw = buffer.getvalue()
    cut = len(raw) // 3
    parts = tuple(f"part_{i}/tiny.zip.{i}" for i in range(3))
    for i, content in enumerate((raw[:cut], raw[cut : 2 * cut], raw[2 * cut :])):
        write_wheel(wheels, f"tiny-part-{i}", {parts[i]: content})
    names = tuple(f"tiny-part-{i}==1.0" for i in range(3))
    return PackagedFiles(names, "tiny", hashes_of(files), sum(map(len, files.values())), parts)


def find(files, tmp_path, **more):
    return find_encoder(
        NAME, sentence=True, cache_dir=tmp_path / "cache", known={NAME: KnownEncoder(files, "tiny")}, **more
    )


def test_encoder_is_downloaded_once_and_completely(packaged, wheels, tmp_path):
    stages = []
    found = find(packaged, tmp_path, progress=lambda stage, done, total: stages.append(stage))
    assert found.directory == tmp_path / "cache" / "encoders" / "tiny-encoder"
    assert set(files_of(found.directory)) == set(packaged.sha256)
    assert "unpacking" in stages
    shutil.rmtree(wheels)
    assert find(packaged, tmp_path, pull=False) == found
    assert list(found.directory.parent.glob(".partial*")) == []


def test_missing_encoder_is_reported(packaged, wheels, tmp_path):
    with pytest.raises(BackendUnavailable, match="not on this machine"):
        find(packaged, tmp_path, pull=False)
    shutil.rmtree(wheels)
    with pytest.raises(BackendUnavailable, match="tiny-encoder==1.0"):
        find(packaged, tmp_path)
    assert [p.name for p in (tmp_path / "cache" / "encoders").iterdir()] == [".locks"]


def test_file_with_another_checksum_is_not_used(packaged, tmp_path):
    wrong = {**packaged.sha256, "model.safetensors": "0" * 64}
    files = replace(packaged, sha256=wrong)
    with pytest.raises(DataError, match=r"expected model\.safetensors: its SHA-256"):
        find(files, tmp_path)
    assert [p.name for p in (tmp_path / "cache" / "encoders").iterdir()] == [".locks"]


def test_damaged_file_is_detected(packaged, tmp_path):
    found = find(packaged, tmp_path)
    (found.directory / "1_Pooling" / "config.json").write_text("{}")
    with pytest.raises(DataError, match="damaged model file"):
        find(packaged, tmp_path)


def test_an_archive_in_several_packages_is_joined_from_the_required_versions(split, wheels, tmp_path, monkeypatch):
    site = tmp_path / "site"
    (site / "tiny_part_0-0.9.dist-info").mkdir(parents=True)
    (site / "tiny_part_0-0.9.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: tiny-part-0\nVersion: 0.9\n"
    )
    (site / split.parts[0]).parent.mkdir()
    (site / split.parts[0]).write_bytes(b"an older part")
    monkeypatch.syspath_prepend(site)
    found = find(split, tmp_path)
    assert set(files_of(found.directory)) == set(split.sha256)
    assert found.source == "PyPI packages tiny-part-0==1.0 tiny-part-1==1.0 tiny-part-2==1.0"
    shutil.rmtree(wheels)
    assert find(split, tmp_path, pull=False) == found


def test_an_archive_with_a_damaged_part_is_not_used(split, wheels, tmp_path):
    with zipfile.ZipFile(wheels / "tiny_part_0-1.0-py3-none-any.whl") as wheel:
        size = wheel.getinfo(split.parts[0]).file_size
    write_wheel(wheels, "tiny-part-0", {split.parts[0]: b"x" * size})
    with pytest.raises(DataError, match="does not hold the expected"):
        find(split, tmp_path)
    assert [p.name for p in (tmp_path / "cache" / "encoders").iterdir()] == [".locks"]


def test_cancelling_leaves_nothing(packaged, tmp_path):
    cancel = threading.Event()

    def progress(stage, done, total):
        if stage == "unpacking":
            cancel.set()

    with pytest.raises(Cancelled):
        find(packaged, tmp_path, progress=progress, cancel=cancel)
    assert [p.name for p in (tmp_path / "cache" / "encoders").iterdir()] == [".locks"]


def test_directory_fingerprint_covers_all_relevant_files(prompted_folder, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(prompted_folder, folder)

    def fingerprint(where):
        return find_encoder(f"local/{where}", sentence=True, cache_dir=tmp_path / "cache").fingerprint

    first = fingerprint(folder)
    assert first == fingerprint(prompted_folder)
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({**pooling, "pooling_mode_cls_token": True}))
    assert fingerprint(folder) != first


def test_missing_module_is_reported(prompted_folder, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(prompted_folder, folder)
    shutil.rmtree(folder / "1_Pooling")
    with pytest.raises(DataError, match="lacks 1_Pooling"):
        find_encoder(f"local/{folder}", sentence=True, cache_dir=tmp_path / "cache")
