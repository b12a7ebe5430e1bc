"""`reason models show` and `probe`: the profile of a model, where each field comes from, and how it is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal
from support.wires.kinds import KINDS
from support.wires.server import WireServer

MODEL = "hosted_vllm/qwen3-8b"
SWITCH = {"chat_template_kwargs": {"enable_thinking": False}}


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WireServer]:
    """A vLLM server with a reasoning parser and Qwen3's template."""
    kind = next(kind for kind in KINDS if kind.name == "Qwen3, parser")
    serving = WireServer(kind)
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(serving.run()) as base:
        monkeypatch.setenv("HOSTED_VLLM_API_BASE", base)
        yield serving


def settings_file(home: Path) -> Path:
    return home / "config" / "reason" / "reason.toml"


def test_show_prints_the_profile_with_its_sources(cli, server):
    status, out, err = cli("models", "show", MODEL, "--json")
    assert status == 0, err
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


def test_probe_measures_again_only_if_it_is_told_to(cli, server):
    status, out, err = cli("models", "probe", MODEL, "--json")
    assert status == 0, err
    server.reset()
    status, again, _ = cli("models", "probe", MODEL, "--json")
    assert (status, again, server.generations) == (0, out, [])
    status, again, _ = cli("models", "probe", MODEL, "--fresh", "--json")
    assert (status, again) == (0, out)
    assert server.generations


def test_unknown_field_of_a_profile_is_an_error_with_its_name(cli, server, home):
    path = settings_file(home)
    path.parent.mkdir(parents=True)
    path.write_text(f'[profiles."{MODEL}"]\nthinkss = "always"\n')
    status, _, err = cli("models", "show", MODEL)
    assert status == 2
    assert "thinkss" in err
    assert "thinks" in err.replace("thinkss", "")
