"""`reason models show`: the profile of a model, where each field comes from, and how it is kept."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal
from support.thinking_server import KINDS, ThinkingServer

MODEL = "hosted_vllm/qwen3-8b"
SWITCH = {"chat_template_kwargs": {"enable_thinking": False}}


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThinkingServer]:
    """A vLLM server with a reasoning parser and Qwen3's template."""
    kind = next(kind for kind in KINDS if kind.name == "Qwen3, parser")
    serving = ThinkingServer(kind)
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(serving.run()) as base:
        monkeypatch.setenv("HOSTED_VLLM_API_BASE", base)
        yield serving


def settings_file(home: Path) -> Path:
    return home / "config" / "reason" / "reason.toml"


def test_show_prints_the_profile_with_its_sources(cli, server):
    status, out, _ = cli("models", "show", MODEL, "--json")
    assert status == 0
    shown = json.loads(out)
    profile = shown["profile"]
    assert profile["thinks"] == {"value": "default", "source": "measured"}
    assert profile["thought"] == {"value": "field", "source": "measured"}
    assert profile["efforts"]["value"]["none"] == SWITCH
    assert profile["max_thinking_tokens"] == {"value": None, "source": "default"}
    assert "profile" not in shown["capabilities"]
    status, out, _ = cli("models", "show", MODEL)
    assert status == 0
    assert '"<think>\\n"' in out


def test_show_writes_the_measured_profile(cli, server, home):
    measured = ("thinks", "thought", "efforts")
    shown = json.loads(cli("models", "show", MODEL, "--json")[1])
    assert shown["written"] is None
    assert not settings_file(home).exists()

    status, out, err = cli("models", "show", MODEL, "--write", "--json")
    assert status == 0, err
    path = settings_file(home)
    assert json.loads(out)["written"] == str(path)
    written = tomllib.loads(path.read_text())["profiles"][MODEL]
    assert {field: written[field] for field in measured} == {
        field: shown["profile"][field]["value"] for field in measured
    }
    assert written["prefix"] == "thought"

    again = json.loads(cli("models", "show", MODEL, "--json")[1])
    assert again["profile"]["thinks"]["source"] == f'settings [profiles."{MODEL}"]'
    status, _, err = cli("models", "show", MODEL, "--write")
    assert status != 0
    assert "has a profile of" in err


def test_unknown_field_of_a_profile_is_an_error_with_its_name(cli, server, home):
    path = settings_file(home)
    path.parent.mkdir(parents=True)
    path.write_text(f'[profiles."{MODEL}"]\nthinkss = "always"\n')
    status, _, err = cli("models", "show", MODEL)
    assert status == 2
    assert "thinkss" in err
    assert "thinks" in err.replace("thinkss", "")
