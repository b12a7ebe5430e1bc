"""A provider whose reply goes through LiteLLM's own stream, and what is read of LiteLLM's map without importing it."""

import subprocess
import sys

import pytest
from reason.core.errors import BackendError
from reason.core.messages import Prompt, Request, SamplingParams
from reason.core.settings import Settings
from reason.serving.litellm.providers import find_prices, find_target, load_litellm, map_entry

pytestmark = pytest.mark.usefixtures("keys")
PROMPT = Prompt.user("colour?")
BASE = {"api_base": "http://127.0.0.1:9/v1"}


async def test_samples_of_another_provider_are_requests_of_their_own(opened):
    async with opened(provider="deepseek", key="key") as (server, model):
        heard = []
        sampling = SamplingParams(n=4, seed=2, max_tokens=20)
        [made] = await model.generate([Request(prompt=PROMPT, sampling=sampling)], heard.append)
        assert all(c.text in ("blue sky", "red rose", "green grass") for c in made), [c.failure for c in made]
        assert all((c.finish_reason, c.stop_reason) == ("stop", None) for c in made)
        assert [c.sample_index for c in made] == [0, 1, 2, 3]
        assert all(c.usage.completion_tokens == len(c.text) + 1 for c in made)
        assert server.count == 4
        assert model.capabilities.prompt_per_sample
        for completion in made:
            own = [c for c in heard if c.sample_index == completion.sample_index]
            assert "".join(c.text for c in own) == completion.text


@pytest.mark.parametrize("fault", ["500", "truncated", "cut"])
async def test_faults_of_another_provider_are_seen(opened, fault):
    async with opened(provider="deepseek", settings={"max_retries": 0}, fault=lambda n: fault) as (server, model):
        with pytest.raises(BackendError):
            await model.generate([Request(prompt=PROMPT)])
        assert server.count == 1


async def test_prices_come_from_the_map_or_are_unknown(load):
    model, listed = await load("openai/gpt-4o-mini"), load_litellm().model_cost["gpt-4o-mini"]
    can = model.capabilities
    assert can.usd_per_prompt_token == listed["input_cost_per_token"] > 0
    assert can.usd_per_completion_token == listed["output_cost_per_token"]
    assert model.prices.cost(1000, 1000, 0) == pytest.approx(1000 * listed["cache_read_input_token_cost"])
    assert (can.context_tokens, can.prompt_per_sample) == (128_000, False)
    priced = {**BASE, "usd_per_prompt_token": 0.5, "usd_per_completion_token": 0.25}
    for own, cost in ((BASE, None), (priced, 2.0)):  # somebody's own server under a known name
        prices, _ = find_prices(find_target("openai/gpt-4o-mini", Settings(providers={"openai": own})))
        assert prices.cost(2, 1, 4) == cost


@pytest.mark.parametrize(
    ("provider", "served"),
    [("openai", "gpt-5.6"), ("deepseek", "deepseek-chat"), ("openai", "gpt-astra-latest"), ("openai", "no-such-model")],
)
def test_an_entry_of_the_map_is_read_as_litellm_reads_it(monkeypatch, provider, served):
    models = load_litellm().model_cost
    expected = models.get(f"{provider}/{served}") or models.get(served) or {}
    monkeypatch.delitem(sys.modules, "litellm")
    entry = map_entry(provider, served)
    assert entry == {k: v for k, v in expected.items() if k in entry}
    assert entry.get("input_cost_per_token") == expected.get("input_cost_per_token")


def test_a_model_that_the_program_registered_with_litellm_is_found(monkeypatch):
    monkeypatch.setitem(load_litellm().model_cost, "mine", {"litellm_provider": "openai", "max_input_tokens": 99})
    assert map_entry("openai", "mine")["max_input_tokens"] == 99
    assert map_entry("azure", "mine") == {}


def test_loading_a_model_of_openai_loads_neither_litellm_nor_the_clients_of_servers():
    program = (
        "import asyncio, sys\nfrom reason.core.settings import Settings\n"
        "from reason.serving.factory import load_model\n"
        "asyncio.run(load_model('openai/gpt-4o', Settings()))\n"
        "loaded = {'litellm', 'openai', 'aiohttp', 'reason.serving.servers'} & set(sys.modules)\n"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
