"""The contract with a real endpoint: it holds on every wire, each cell sees its fault, and it costs what it says."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from reason.core.errors import UserError
from reason.core.settings import Settings
from reason.evals.live_contract import CELLS, MAX_USD, Cell, LiveContract, open_contract
from support.scripted_model import ScriptedModel, replies
from support.wires.kinds import KINDS, OTHER_KINDS, Kind
from support.wires.server import Fault, WireServer
from support.wires.stream import Shape

CALLS = [[("get_weather", {"city": "Oslo"})]]
KNOWN = {kind.name: kind for kind in (*KINDS, *OTHER_KINDS)}
GPT_4O = Kind("gpt-4o-mini", "openai/gpt-4o-mini")
"""Of which LiteLLM's map says that it has everything but thoughts."""
FOUND = {"Grok 4.6": "log-probabilities", "Claude 6": "JSON schema", "OpenRouter, Gemini": "effort none"}
"""What a profile says, or LiteLLM's map, and the endpoint does not do."""
IN_CI = ("plain", "gpt-5.6", "Claude 5", "Gemini 3", "Ollama", "Grok 4.6", "GPT-7")
PRICES = {"usd_per_prompt_token": 1e-7, "usd_per_completion_token": 4e-7}


class ForgetfulServer(WireServer):
    """Ignores some fields of requests."""

    def __init__(self, kind: Kind, *ignored: str, **options: Any) -> None:
        super().__init__(kind, pause_s=0.001, calls=CALLS, **options)
        self.ignored = ignored

    async def _text(self, reply: Any, path: str, body: Any, number: int) -> None:
        await super()._text(reply, path, {k: v for k, v in body.items() if k not in self.ignored}, number)


class BlindServer(ForgetfulServer):
    """Refuses images."""

    async def _text(self, reply: Any, path: str, body: Any, number: int) -> None:
        if "image_url" in json.dumps(body["messages"]):
            await reply.error(400, "images cannot be decoded")
        else:
            await super()._text(reply, path, body, number)


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for provider in ("OPENAI", "DEEPSEEK", "ANTHROPIC", "GEMINI", "XAI", "MISTRAL", "OPENROUTER"):
        monkeypatch.setenv(f"{provider}_API_KEY", "none")


async def checked(server: WireServer, **provider: Any) -> tuple[dict[str, Cell], LiveContract]:
    """The cells by name."""
    name = server.kind.model
    async with server.run() as address:
        chosen = {"api_base": server.kind.api_base(address), "max_retries": 0, **provider}
        async with open_contract(name, Settings(providers={name: chosen})) as contract:
            return {cell.name: cell async for cell in contract.check()}, contract


def failed(cells: Mapping[str, Cell]) -> list[str]:
    return [cell.name for cell in cells.values() if cell.state == "fail"]


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, id=k.name, marks=() if k.name in IN_CI else pytest.mark.nightly) for k in KNOWN.values()],
)
async def test_it_holds_on_every_wire(kind):
    server = ForgetfulServer(kind)
    cells, contract = await checked(server)
    assert list(cells) == list(CELLS)
    assert failed(cells) == ([FOUND[kind.name]] if kind.name in FOUND else []), cells
    assert not [cell for cell in cells.values() if cell.state == "skipped"]
    assert (cells["thought"].state == "ok") == (kind.shows != "never"), cells["thought"]
    if cells["tools"].state != "absent":
        assert cells["tools"].state == "ok", cells["tools"]
    assert contract.usage.model_calls <= contract.budget.calls
    assert server.tokens <= contract.budget.tokens
    assert [why for why in server.refusals if why != "Only one completion choice is allowed"] == []


FAULTS: Mapping[str, tuple[str, Callable[[], WireServer], str, str]] = {
    "stop strings are ignored": (
        "stop strings",
        lambda: ForgetfulServer(GPT_4O, "stop"),
        "stop",
        "applied here",
    ),
    "no log-probabilities": (
        "log-probabilities",
        lambda: ForgetfulServer(replace(GPT_4O, has_logprobs=False)),
        "logprobs",
        "the model shows none",
    ),
    "schemas are ignored": (
        "JSON schema",
        lambda: ForgetfulServer(GPT_4O, "response_format"),
        "json_schema",
        "by a prompt",
    ),
    "it thinks in spite of the effort none": (
        "effort none",
        lambda: ForgetfulServer(KNOWN["SGLang"], "chat_template_kwargs", thought_words=1),
        "effort",
        "always thinks",
    ),
}


@pytest.mark.parametrize(("cell", "serve", "parameter", "later"), FAULTS.values(), ids=FAULTS)
async def test_what_an_endpoint_ignores_is_found_and_left_out_later(cell, serve, parameter, later):
    server = serve()
    async with server.run() as address:
        provider = {"api_base": address, "max_retries": 0, "probe": False}
        settings = Settings(providers={server.kind.model: provider})
        async with open_contract(server.kind.model, settings) as contract:
            cells = {c.name: c async for c in contract.check()}
            assert failed(cells) == [cell], cells
            assert list(contract.learned) == [parameter]
        [file] = (settings.data_dir / "refused").glob("*/*.json")
        assert json.loads(file.read_bytes())["message"].startswith("reason doctor --live: ")
        async with open_contract(server.kind.model, settings) as contract:
            cells = {c.name: c async for c in contract.check()}
            assert failed(cells) == []
            assert later in cells[cell].detail
            assert contract.learned == {}
        own = settings.model_copy(update={"profiles": {server.kind.model: {"left_out": []}}})
        async with open_contract(server.kind.model, own) as contract:  # the user's word has precedence
            assert failed({c.name: c async for c in contract.check()}) == [cell]


@pytest.mark.parametrize(
    ("serve", "provider", "cell", "state", "says"),
    [
        (lambda: ForgetfulServer(GPT_4O, shape=Shape(usage="missing")), PRICES, "usage", "fail", "sends no usage"),
        (lambda: ForgetfulServer(GPT_4O, shape=Shape(usage="missing")), {}, "usage", "note", "sends no usage"),
        (lambda: ForgetfulServer(GPT_4O, shape=Shape(usage="constant")), PRICES, "usage", "fail", "has 20 tokens"),
        (lambda: ForgetfulServer(GPT_4O, shape=Shape(tokens=4096)), {}, "streaming", "fail", "in one piece"),
        (lambda: ForgetfulServer(GPT_4O, shape=Shape(tokens=4096)), {}, "cancellation", "note", "had ended"),
        (lambda: ForgetfulServer(GPT_4O, "tools"), {}, "tools", "fail", "called none"),
        (lambda: BlindServer(GPT_4O), {}, "image", "fail", "cannot be decoded"),
        (lambda: ForgetfulServer(replace(GPT_4O, many=False)), {}, "samples", "ok", "a request each"),
        (
            lambda: ForgetfulServer(KNOWN["gpt-5-mini"], shape=Shape(usage="missing")),
            {},
            "thought",
            "fail",
            "no count of its tokens",
        ),
        (
            lambda: ForgetfulServer(Kind("house", "openai/house-mini", "always", shows="hidden"), thought_words=1),
            {},
            "temperature",
            "note",
            "left out: temperature",
        ),
    ],
)
async def test_each_fault_is_seen_by_its_cell(serve, provider, cell, state, says):
    cells, _ = await checked(serve(), probe=False, **provider)
    assert cells[cell].state == state, cells
    assert says in cells[cell].detail
    if state == "fail":
        assert failed(cells) == [cell]


@pytest.mark.parametrize(
    ("server", "says"),
    [
        (ForgetfulServer(GPT_4O), "status 500"),
        (ForgetfulServer(replace(GPT_4O, thinks="always", shows="tags", tags=("[THINK]", "[/THINK]"))), "[THINK]"),
    ],
    ids=["error", "thought in the answer"],
)
async def test_without_an_answer_nothing_more_is_tried(server, says):
    server.faults = [Fault(500)] if "500" in says else []
    cells, _ = await checked(server, probe=False)
    assert list(cells) == failed(cells) == ["answer"]
    assert says in cells["answer"].detail
    assert len(server.generations) == 1


@pytest.mark.parametrize("price", [3e-4, 1e-3])
async def test_it_costs_less_than_five_cents_whatever_a_token_costs(price):
    server = ForgetfulServer(GPT_4O)
    prices = {"usd_per_prompt_token": price / 100, "usd_per_completion_token": price}
    cells, contract = await checked(server, probe=False, **prices)
    assert contract.budget.usd == MAX_USD < 0.05
    prompts = sum(g.prompt_tokens for g in server.generations)
    assert server.tokens * price + prompts * price / 100 < 0.05
    assert [cell for cell in cells.values() if cell.state == "skipped"]
    assert failed(cells) == []


async def test_a_model_without_one_endpoint_is_refused_with_the_remedy(monkeypatch):
    async def load_model(*_: object) -> ScriptedModel:
        return ScriptedModel(replies("12"))

    monkeypatch.setattr("reason.evals.live_contract.load_model", load_model)
    two = {"endpoints": [{"api_base": "http://127.0.0.1:9/v1"}, {"api_base": "http://127.0.0.1:10/v1"}]}
    several = Settings(providers={"hosted_vllm": two})
    for name, says in (("hosted_vllm/plain", "has several"), ("local/any", "has none")):
        with pytest.raises(UserError, match=says) as refused:
            async with open_contract(name, several):
                pass
        assert "NAME@http://" in refused.value.hint


async def test_an_effort_that_is_ignored_is_learned_even_if_thoughts_take_all_of_the_answer():
    server = ForgetfulServer(KNOWN["SGLang"], "chat_template_kwargs")
    cells, contract = await checked(server, probe=False)
    assert (failed(cells), list(contract.learned)) == (["answer"], ["effort"])
