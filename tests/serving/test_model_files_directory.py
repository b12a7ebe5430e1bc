"""Names, the user's own model folders, and hub models: what is found and what is said when it is not."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from pathlib import Path

import pytest
from huggingface_hub import constants
from reason.core.errors import BackendUnavailable, Cancelled, DataError, UnknownName, UserError
from reason.serving.model_files.catalogue import KNOWN_MODELS, locate
from reason.serving.model_files.find import find_model, list_models, remove_model

sys.path.insert(0, str(Path(__file__).parents[1]))
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
def folder(tiny_gguf, tmp_path) -> Path:
    """A model directory as a user may have it."""
    made = find_model(f"local/{tiny_gguf}", cache_dir=tmp_path / "maker").directory
    target = tmp_path / "mine"
    shutil.copytree(made, target, ignore=shutil.ignore_patterns("reason.json"))
    return target


def test_directory_is_used_in_place_and_unchanged(folder, tmp_path):
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}
    files = find_model(f"local/{folder}", cache_dir=tmp_path / "cache")
    assert (files.directory, files.name) == (folder, f"local/{folder}")
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()} == before
    with pytest.raises(UserError, match="your own directory"):
        remove_model(f"local/{folder}", tmp_path / "cache")
    assert folder.is_dir()


def test_directory_fingerprint_depends_on_the_content_only(folder, tmp_path):
    def fingerprint(path: Path, cache: str = "cache") -> str:
        return find_model(f"local/{path}", cache_dir=tmp_path / cache).fingerprint

    first = fingerprint(folder)
    assert fingerprint(shutil.copytree(folder, tmp_path / "copy"), "other") == first
    (folder / "README.md").write_text("words")
    assert fingerprint(folder) == first
    for name in ("model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"):
        old = (folder / name).read_bytes()
        (folder / name).write_bytes(old[:-1] + bytes([old[-1] ^ 1]) if name.startswith("model") else old + b" ")
        assert fingerprint(folder) != first
        (folder / name).write_bytes(old)
    assert fingerprint(folder) == first


def test_a_fingerprint_is_computed_once(folder, tmp_path):
    stages: list[str] = []
    for _ in range(2):
        find_model(f"local/{folder}", cache_dir=tmp_path / "cache", progress=lambda s, _d, _t: stages.append(s))
        assert stages.count("checking") == len(stages)
        if _ == 0:
            first = len(stages)
    assert len(stages) == first > 0


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
def test_incomplete_directory(damage, says, folder, tmp_path):
    damage(folder)
    with pytest.raises(DataError, match=says):
        find_model(f"local/{folder}", cache_dir=tmp_path / "cache")


def _cut(path: Path, end: int) -> None:
    path.write_bytes(path.read_bytes()[:end])


def test_missing_directory(tmp_path):
    with pytest.raises(DataError, match="no such model directory"):
        find_model(f"local/{tmp_path / 'none'}", cache_dir=tmp_path)


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    (folder / "pytorch_model.bin").write_bytes(b"not wanted")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    with HubServer(folder) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def test_a_hub_model_is_pulled_listed_used_offline_and_removed(hub, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    told: list[tuple[str, int, int | None]] = []
    files = find_model("local/org/tiny", cache_dir=cache, progress=lambda *report: told.append(report))
    assert {p.name for p in files.directory.iterdir()} == {
        p.name for p in hub.folder.iterdir() if p.name != "pytorch_model.bin"
    }
    assert files.source == "hub org/tiny"
    assert files.fingerprint == find_model(f"local/{hub.folder}", cache_dir=cache).fingerprint
    assert any(stage == "downloading" and done > 0 for stage, done, _ in told)
    assert [m.name for m in list_models(cache, {})] == ["local/org/tiny"]

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    asked = len(hub.asked)
    assert find_model("local/org/tiny", cache_dir=cache) == files
    assert len(hub.asked) == asked

    assert remove_model("local/org/tiny", cache) > 0
    assert list_models(cache, {}) == []
    assert not files.directory.exists()
    with pytest.raises(UserError, match="not on this machine"):
        remove_model("local/org/tiny", cache)


def test_a_hub_without_the_model(hub, tmp_path):
    with pytest.raises(UnknownName, match="local/org/other"):
        find_model("local/org/other", cache_dir=tmp_path)


def test_a_hub_model_without_safetensors(hub, tmp_path):
    (hub.folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"has no \*\.safetensors"):
        find_model("local/org/tiny", cache_dir=tmp_path)


def test_a_hub_pull_that_is_cancelled_leaves_nothing_partial(hub, tmp_path):
    cancel = threading.Event()

    def progress(stage: str, done: int, _total: int | None) -> None:
        if stage == "downloading":
            cancel.set()

    with pytest.raises(Cancelled):
        find_model("local/org/tiny", cache_dir=tmp_path / "cache", progress=progress, cancel=cancel)
    assert not list((tmp_path / "hub-cache").rglob("*.incomplete"))
    assert list_models(tmp_path / "cache", {}) == []


def test_unreachable_hub(no_network, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    with pytest.raises(BackendUnavailable, match="cannot reach the hub") as caught:
        find_model("local/org/tiny", cache_dir=tmp_path)
    assert "local/smollm2-135m" in caught.value.hint
    assert "\n" not in str(caught.value)
    with pytest.raises(BackendUnavailable, match="not on this machine"):
        find_model("local/org/tiny", cache_dir=tmp_path, pull=False)


def test_offline_setting(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BackendUnavailable, match="HF_HUB_OFFLINE"):
        find_model("local/org/tiny", cache_dir=tmp_path)
    assert hub.asked == []
