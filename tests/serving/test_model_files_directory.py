"""Names, the user's own model folders, and hub models: what is found and what is said when it is not."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest
from huggingface_hub import constants
from reason.core.errors import BackendUnavailable, Cancelled, DataError, UnknownName, UserError
from reason.serving.model_files.catalogue import KNOWN_MODELS, locate
from reason.serving.model_files.find import find_model, list_models, remove_model
from support.hub_server import HubServer


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("local/smollm2-135m", "known"),
        ("local/org/model-1.5B", "hub"),
        ("local/./org/model", "directory"),
        ("local/../x", "directory"),
        ("local/~/models/x", "directory"),
        ("local/x.gguf", "gguf"),
        ("local/~/x.gguf", "gguf"),
        ("local/kept-one", "kept"),
    ],
)
def test_name_resolution(name, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert locate(name, KNOWN_MODELS, ["kept-one"]).kind == kind


def test_directory_precedes_hub_id_but_not_short_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "model").mkdir(parents=True)
    (tmp_path / "smollm2-135m").mkdir()
    assert locate("local/org/model", KNOWN_MODELS).path == tmp_path / "org" / "model"
    assert locate("local/smollm2-135m", KNOWN_MODELS).kind == "known"


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("local/smolm2-135m", UnknownName, "did you mean 'local/smollm2-135m'"),
        ("smollm2-135m", UnknownName, "did you mean 'local/smollm2-135m'"),
        ("local/a/b/c", UnknownName, "local/<hub id>"),
        ("local/", UserError, "names no model"),
        ("openai/gpt", UserError, "begin with local/"),
        ("", UserError, "begin with local/"),
    ],
)
def test_unknown_names(name, error, says, tmp_path):
    with pytest.raises(error, match=says):
        find_model(name, cache_dir=tmp_path)


@pytest.fixture
def folder(tiny_gguf, tmp_path, find) -> Path:
    """A model directory as a user may have it."""
    target = tmp_path / "mine"
    shutil.copytree(find(tiny_gguf, "maker").directory, target, ignore=shutil.ignore_patterns("reason.json"))
    return target


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}


def test_directory_is_used_in_place_and_unchanged(folder, tmp_path, find):
    before = contents(folder)
    files = find(folder)
    assert (files.directory, files.name) == (folder, f"local/{folder}")
    with pytest.raises(UserError, match="your own directory"):
        remove_model(f"local/{folder}", tmp_path / "cache")
    assert contents(folder) == before


def test_directory_fingerprint_depends_on_the_content_only(folder, tmp_path, find):
    first = find(folder).fingerprint
    assert find(shutil.copytree(folder, tmp_path / "copy"), "other").fingerprint == first
    (folder / "README.md").write_text("words")
    assert find(folder).fingerprint == first
    for name in ("model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"):
        old = (folder / name).read_bytes()
        (folder / name).write_bytes(old[:-1] + bytes([old[-1] ^ 1]) if name.startswith("model") else old + b" ")
        assert find(folder).fingerprint != first
        (folder / name).write_bytes(old)
    assert find(folder).fingerprint == first


def test_a_fingerprint_is_computed_once(folder, find):
    stages = [[], []]
    for told in stages:
        find(folder, progress=lambda stage, *_, told=told: told.append(stage))
    assert set(stages[0]) == {"checking"}
    assert stages[1] == []


def _shards(folder: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer"),
        (lambda f: (f / "config.json").unlink(), r"has no config\.json"),
        (lambda f: (f / "config.json").write_text("{"), "is not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "is not a JSON object"),
        (lambda f: (f / "config.json").write_text("{}"), "names no model_type"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), r"has no \*\.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "it has no header"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x08" + b"\0" * 7 + b"notjson!"), "header is unreadable"),
        (lambda f: _cut(f / "model.safetensors", -1), "bytes and should have"),
        (lambda f: _cut(f / "model.safetensors", 2000), "damaged model file"),
        (_shards, r"lacks model-2\.safetensors"),
    ],
)
def test_incomplete_directory(damage, says, folder, find):
    damage(folder)
    with pytest.raises(DataError, match=says):
        find(folder)


def _cut(path: Path, end: int) -> None:
    path.write_bytes(path.read_bytes()[:end])


def test_missing_directory(tmp_path, find):
    with pytest.raises(DataError, match="no such model directory"):
        find(tmp_path / "none")


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    (folder / "pytorch_model.bin").write_bytes(b"not wanted")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    with HubServer(folder) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def test_a_hub_model_is_pulled_listed_used_offline_and_removed(hub, tmp_path, find, monkeypatch):
    cache = tmp_path / "cache"
    told = []
    files = find("org/tiny", progress=lambda *report: told.append(report))
    assert contents(files.directory).keys() == contents(hub.folder).keys() - {"pytorch_model.bin"}
    assert files.source == "hub org/tiny"
    assert files.fingerprint == find(hub.folder).fingerprint
    assert any(stage == "downloading" and done > 0 for stage, done, _ in told)
    assert [m.name for m in list_models(cache, {})] == ["local/org/tiny"]

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    asked = len(hub.asked)
    assert find("org/tiny") == files
    assert len(hub.asked) == asked

    assert remove_model("local/org/tiny", cache) > 0
    assert list_models(cache, {}) == []
    assert not files.directory.exists()
    with pytest.raises(UserError, match="not on this machine"):
        remove_model("local/org/tiny", cache)


def test_a_hub_without_the_model_or_its_safetensors(hub, find):
    with pytest.raises(UnknownName, match="local/org/other"):
        find("org/other")
    (hub.folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"has no \*\.safetensors"):
        find("org/tiny")


def test_a_hub_pull_that_is_cancelled_leaves_nothing_partial(hub, tmp_path, find):
    cancel = threading.Event()
    with pytest.raises(Cancelled):
        find("org/tiny", progress=lambda stage, *_: cancel.set() if stage == "downloading" else None, cancel=cancel)
    assert not list((tmp_path / "hub-cache").rglob("*.incomplete"))
    assert list_models(tmp_path / "cache", {}) == []


def test_unreachable_hub(no_network, tmp_path, find, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    with pytest.raises(BackendUnavailable, match="cannot reach the hub") as caught:
        find("org/tiny")
    assert "local/smollm2-135m" in caught.value.hint
    assert "\n" not in str(caught.value)
    with pytest.raises(BackendUnavailable, match="not on this machine"):
        find("org/tiny", pull=False)


def test_offline_setting(hub, find, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BackendUnavailable, match="HF_HUB_OFFLINE"):
        find("org/tiny")
    assert hub.asked == []
