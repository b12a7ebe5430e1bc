"""What one's own server was measured to support is remembered, and its probes are short and paid for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from reason import tool
from reason.agents.reasoner import Reasoner
from reason.cli.doctor import _check_measurements
from reason.core.errors import CapabilityMissing
from reason.core.settings import Settings
from reason.serving.litellm.factory import load_litellm_model
from reason.serving.litellm.model import LiteLLMModel
from reason.serving.servers.measurements import forget_measurements
from reason.serving.structured_output import TRIAL_TOKENS
from support.wires.kinds import KINDS
from support.wires.server import WireServer
from support.wires.stream import SHAPES

KNOWN = {kind.name: kind for kind in KINDS}
PLAIN = KNOWN["plain"]
OWN = [kind for kind in KINDS if kind.vllm]


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[LiteLLMModel]:
    """The model of a process that starts."""
    model = await load_litellm_model(settings.model, settings)
    try:
        yield model
    finally:
        await model.aclose()


@asynccontextmanager
async def serving(server: WireServer) -> AsyncIterator[Settings]:
    """Settings of a model at a server that runs."""
    model = server.kind.model
    async with server.run() as address:
        base = server.kind.api_base(address)
        yield Settings(model=model, providers={model.partition("/")[0]: {"api_base": base, "max_retries": 0}})


def entry(settings: Settings) -> Path:
    [file] = (settings.data_dir / "servers").glob("*.json")
    return file


async def test_warm_start_generates_nothing():
    server = WireServer(KNOWN["Qwen3, parser"])
    async with serving(server) as settings:
        async with started(settings) as model:
            measured = (model.capabilities, model.traits, model.identity)
        server.reset()
        async with started(settings) as model:
            assert server.generations == []
            assert (model.capabilities, model.traits, model.identity) == measured


async def test_other_weights_under_the_name_are_measured():
    server = WireServer(PLAIN)
    async with serving(server) as settings:
        async with started(settings):
            pass
        server.reset()
        server.kind = replace(PLAIN, root="scripts/other")
        async with started(settings) as model:
            assert server.generations
            assert model.identity.startswith("hosted_vllm/plain=scripts/other+vllm")


@pytest.mark.parametrize(
    "changed",
    [{"date": (datetime.now(UTC) - timedelta(days=8)).isoformat()}, {"package": "0"}, {"declared": ""}, {"traits": 1}],
    ids=["a week old", "another version", "another profile", "damaged"],
)
async def test_measurement_that_does_not_hold_any_more_is_made_again(changed):
    server = WireServer(PLAIN)
    async with serving(server) as settings:
        async with started(settings):
            pass
        file = entry(settings)
        kept = json.loads(file.read_bytes())
        file.write_text(json.dumps(kept | changed))
        server.reset()
        async with started(settings):
            assert server.generations
        again = json.loads(file.read_bytes())
        assert {**again, "date": ""} == {**kept, "date": ""}


async def test_forgetting_a_model_leaves_the_others():
    server = WireServer(PLAIN)
    async with serving(server) as settings:
        async with started(settings):
            pass
        forget_measurements(settings.data_dir, "hosted_vllm/other")
        assert entry(settings).exists()
        forget_measurements(settings.data_dir, settings.model)
        assert not list((settings.data_dir / "servers").iterdir())


async def test_forgetting_an_address_forgets_its_models():
    server = WireServer(PLAIN)
    async with server.run() as address:
        settings = Settings(model=address)
        async with started(settings):
            pass
        forget_measurements(settings.data_dir, "http://127.0.0.1:1/v1")
        assert entry(settings).exists()
        forget_measurements(settings.data_dir, f"{address}/")
        assert not list((settings.data_dir / "servers").iterdir())


@pytest.mark.parametrize("kind", OWN, ids=[kind.name for kind in OWN])
async def test_no_probe_is_long(kind):
    server = WireServer(kind)
    async with serving(server) as settings, started(settings):
        assert server.generations
        assert all(
            g.body.get("max_tokens", g.body.get("max_completion_tokens")) <= TRIAL_TOKENS for g in server.generations
        )


async def test_probes_are_charged_to_the_run_that_caused_them(tmp_path):
    server = WireServer(PLAIN)
    async with serving(server) as own:
        settings = own.model_copy(update={"store": tmp_path / "runs.sqlite3"})
        for _ in range(2):
            server.reset()
            async with Reasoner(settings=settings) as reasoner:
                answer = await reasoner.aask("What is 5 + 7?", seed=1)
            assert answer.usage.completion_tokens == server.tokens
            assert answer.usage.prompt_tokens == sum(g.prompt_tokens for g in server.generations)


@pytest.mark.parametrize("usage", ["constant", "missing"])
async def test_gateway_that_counts_nothing_can_still_take_tools(usage):
    shape = next(shape for shape in SHAPES if shape.usage == usage)
    server = WireServer(PLAIN, shape=shape)
    async with serving(server) as settings, started(settings) as model:
        assert model.capabilities.tools


def lacking_tools(settings, age=timedelta()):
    """Remember that the server takes no tools."""
    file = entry(settings)
    kept = json.loads(file.read_bytes())
    kept["capabilities"]["tools"] = False
    file.write_text(json.dumps(kept | {"date": (datetime.now(UTC) - age).isoformat()}))


@tool(effect="read")
def look_up(word: str) -> str:
    """Look a word up."""
    return f"{word}: a drink"


async def test_what_a_run_needs_is_measured_again_before_it_is_refused(tmp_path):
    server = WireServer(PLAIN)
    async with serving(server) as own:
        settings = own.model_copy(update={"store": tmp_path / "runs.sqlite3"})
        async with started(settings):
            pass
        lacking_tools(settings)
        async with Reasoner(settings=settings, tools=[look_up]) as reasoner:
            answer = await reasoner.aask("What is 5 + 7?", seed=1)
            assert (await reasoner.areplay(answer.run_id)).text == answer.text
        assert json.loads(entry(settings).read_bytes())["capabilities"]["tools"]
        server.reset()
        async with Reasoner(settings=settings, tools=[look_up]) as reasoner:
            await reasoner.aask("What is 5 + 7?", seed=2)
        assert len(server.generations) == 1


async def test_a_refusal_after_a_measurement_names_the_command_that_measures(tmp_path, monkeypatch):
    monkeypatch.setattr("support.wires.server._shown_tools", lambda body: "")
    monkeypatch.setattr(WireServer, "_calls", lambda *_: [])
    server = WireServer(PLAIN)
    async with serving(server) as own:
        settings = own.model_copy(update={"store": tmp_path / "runs.sqlite3"})
        async with Reasoner(settings=settings, tools=[look_up]) as reasoner:
            with pytest.raises(CapabilityMissing, match="reason models probe hosted_vllm/plain --fresh"):
                await reasoner.aask("What is 5 + 7?", run_id="refused")
            assert (await (await reasoner.open_store()).get_run("refused")).status == "failed"
        lacking = len(server.generations)
        async with started(settings):
            assert len(server.generations) == lacking
        lacking_tools(settings, age=timedelta(hours=2))
        async with started(settings):
            assert len(server.generations) > lacking


async def test_a_server_that_counts_no_tools_shows_them_by_a_call(monkeypatch):
    monkeypatch.setattr("support.wires.server._shown_tools", lambda body: "")
    server = WireServer(PLAIN)
    async with serving(server) as settings, started(settings) as model:
        assert model.capabilities.tools


async def test_what_is_remembered_is_listed_with_its_age():
    server = WireServer(PLAIN)
    async with serving(server) as settings, started(settings):
        check = _check_measurements(settings.data_dir)
        assert check.detail.startswith("hosted_vllm/plain 0 min ago: tools, json_schema, logprobs")
