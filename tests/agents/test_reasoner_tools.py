"""Tools and conversations through the whole pipeline, and what a tenant's runs share with others: nothing."""

from __future__ import annotations

import pytest
import reason.agents.reasoner as reasoner_module
from reason.agents.reasoner import Reasoner
from reason.core.errors import CapabilityMissing, NotVerified, UserError
from reason.core.events import MemorySink
from reason.core.messages import Message, Tool
from reason.core.types import MAX_CONVERSATION_CHARS, Question, Verification
from reason.verify.davinci.davinci import Davinci
from support.scripted_model import ScriptedModel, replies
from support.scripted_tools import WEATHER, ToolModel, calling

ASKED = Question(text="Is it warm in Rome?", tools=(WEATHER,))
ROME = '[{"arguments":{"city":"Rome"},"name":"weather"}]'


class Salted(ScriptedModel):
    """Keeps the salts that its prompts come with."""

    def __init__(self):
        super().__init__(replies("The answer is 4."))
        self.salts = []

    async def generate(self, requests, listener=None):
        self.salts += [r.prompt.cache_salt for r in requests]
        return await super().generate(requests, listener)

    async def score(self, prompt, continuations):
        self.salts.append(prompt.cache_salt)
        return await super().score(prompt, continuations)

    async def next_token(self, prompts, top=20):
        self.salts += [p.cache_salt for p in prompts]
        return await super().next_token(prompts, top)


@pytest.fixture
def opened(monkeypatch):
    models = {"scripted": ToolModel(replies(calling(city="Rome")))}

    async def load_model(name, settings, *_):
        return models[name]

    monkeypatch.setattr(reasoner_module, "load_model", load_model)
    return models


async def test_an_answer_has_the_tool_calls_of_its_candidate(opened, settings):
    async with Reasoner(settings=settings) as reasoner:
        answer = await reasoner.aask(ASKED)
        assert (answer.answer, answer.stopped) == (ROME, "done")
        assert [c.name for c in answer.tool_calls] == ["weather"]
        assert [c.tool_calls for c in answer.candidates] == [answer.tool_calls]
        replayed = await reasoner.areplay(answer.run_id)
        assert replayed.tool_calls == answer.tool_calls
        turns = (
            Message(role="assistant", tool_calls=answer.tool_calls),
            Message(role="tool", content="24 degrees", tool_call_id=answer.tool_calls[0].id),
        )
        opened["scripted"]._script = replies("The answer is yes.")
        then = await reasoner.aask(ASKED.model_copy(update={"continuation": turns}))
        assert (then.answer, then.tool_calls) == ("yes", ())
        assert "tool_calls" not in then.model_dump(mode="json")
        [[request]] = opened["scripted"].generate_calls[-1:]
        assert request.prompt.messages[-2:] == turns


@pytest.mark.nightly
async def test_tool_calls_are_not_verified(opened, settings, monkeypatch):
    async def verify(*_):
        raise AssertionError("no verifier may be asked")

    monkeypatch.setattr(Davinci, "verify", verify)
    sink = MemorySink()
    async with Reasoner(settings=settings.model_copy(update={"verify": ("davinci",)})) as reasoner:
        with pytest.raises(AssertionError):
            opened["scripted"]._script = replies("The answer is yes.")
            await reasoner.aask(ASKED)
        opened["scripted"]._script = replies(calling(city="Rome"))
        answer = await reasoner.aask(ASKED, sinks=[sink], seed=6)
    assert answer.verification == Verification(verdict="unchecked")
    assert [e.verification.verdict for e in sink.of_type("verification.finished")] == ["unchecked"]
    async with Reasoner(
        settings=settings.model_copy(update={"verify": ("davinci",)}), require_verified=True
    ) as reasoner:
        with pytest.raises(NotVerified, match="no verifier checked the answer") as caught:
            await reasoner.aask(ASKED, seed=7)
    assert caught.value.partial.tool_calls


async def test_strategies_and_models_without_tools_are_refused_before_the_run(opened, settings):
    opened["scripted"] = ScriptedModel(replies("x"))
    async with Reasoner(strategy="coat", settings=settings) as reasoner:
        with pytest.raises(UserError, match="strategy coat does not support tools"):
            await reasoner.aask(ASKED)
        assert await (await reasoner.open_store()).list_runs() == []
    async with Reasoner(settings=settings) as reasoner:
        with pytest.raises(CapabilityMissing, match="tools"):
            await reasoner.aask(ASKED)
    assert opened["scripted"].generate_calls == []


async def test_a_conversation_that_is_too_long_is_refused(opened, settings):
    long = Message(role="user", content="x" * (MAX_CONVERSATION_CHARS - 10))
    async with Reasoner(settings=settings) as reasoner:
        reasoner.plan(Question(text="Why?", conversation=(long,)))
        for more in ({"conversation": (long, long)}, {"tools": (Tool(name="f", description=long.content + "x" * 10),)}):
            with pytest.raises(UserError, match="the conversation and its tools have"):
                reasoner.plan(Question(text="Why?", **more))


@pytest.mark.parametrize(
    ("strategy", "parameters"),
    [
        ("self-consistency", {"n": 2}),
        ("best-of-n", {"n": 2, "score": "self-evaluation"}),
        ("best-of-n", {"n": 2, "score": "logprob"}),
        ("beam", {}),  # its own judge scores the steps
        ("logprob", {"prompt": "qa"}),
    ],
)
async def test_every_call_has_the_tenants_cache_salt_and_a_key_without_it(opened, settings, strategy, parameters):
    question = Question(text="2 + 2?", choices=("Four", "Five"))
    keys = {}
    for tenant in ("", "acme"):
        opened["scripted"] = model = Salted()
        async with Reasoner(strategy=strategy, parameters=parameters, settings=settings) as reasoner:
            config = reasoner.plan(question, tenant=tenant)
            assert config.tenant == tenant
            answer = await reasoner.arun(config)
            store = await reasoner.open_store()
            calls = await store.list_calls(answer.run_id)
        assert model.salts
        assert set(model.salts) == {tenant}
        assert "acme" not in "".join(f"{c.request}{c.response}" for c in calls)
        keys[tenant] = {c.key for c in calls}
    assert keys[""] == keys["acme"] != set()
