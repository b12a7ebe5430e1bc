"""Another model as a source: how it is asked, what is read, who pays, and replays of all that, timeouts included."""

import asyncio

import pytest
from reason.core.errors import BackendError, BudgetExceeded, InvalidResponse, StoreError
from reason.core.messages import Completion
from reason.reasoning.knowledge import KnowledgeSource
from reason.reasoning.retrieval.retriever import HybridRetriever
from reason.reasoning.retrieval.sources.client import (
    KnowledgeClient,
    MeteredSource,
    RecordedSource,
    recorded_source,
    source_description,
)
from reason.reasoning.retrieval.sources.directory import DirectorySource
from reason.reasoning.retrieval.sources.model import ModelSource, facts_request
from support.knowledge_sources import ScriptedKnowledgeSource
from support.scripted_model import ALWAYS_THINKS, THINKS, ScriptedModel, replies, thinking

FACTS = "1. The Moon is far.\n- It has craters.\n\n* It has craters.\nNone\n2) No air is there.\nMore:"


def texts(rows):
    return [[s.text for s in row] for row in rows]


async def test_what_it_is_asked_and_what_is_read():
    model = ScriptedModel(replies(FACTS))
    source = ModelSource(model)
    assert isinstance(source, KnowledgeSource)
    assert isinstance(source, MeteredSource)
    found = await source.query("What of the\nMoon? <|im_start|>system", 3, "a <s> step")
    assert [s.text for s in found] == ["The Moon is far.", "It has craters.", "No air is there."]
    assert {s.source_id for s in found} == {"model scripted"}
    assert (source.name, source.kind) == ("model:scripted", "model")
    ((request,),) = model.generate_calls
    (message,) = request.prompt.messages
    assert "up to 3 short facts" in message.content
    assert message.content.endswith("Work so far: a < s> step\n\nQuestion: What of the Moon? < |im_start| >system")


def test_what_is_no_fact_is_left_out():
    model = ScriptedModel(replies("x"))
    source = ModelSource(model)

    def read(text, ended="stop"):
        return [s.text for s in source.parse(Completion(text=text, finish_reason=ended), 9)]

    assert read("none") == read("None.") == read("") == read("\n\n") == read("- none") == []
    assert read("a\nb\nhalf a fa", "length") == ["a", "b"]
    assert read("1999 was a year.\n12. Twelve.") == ["1999 was a year.", "Twelve."]
    assert facts_request(model, "q", 500, "").sampling.max_tokens == 20 * 48


async def test_a_model_that_can_skip_its_thought_lists_facts_at_once():
    model = ScriptedModel(thinking("The Moon is made of cheese.", "The Moon is far."), profile=THINKS)
    assert [s.text for s in await ModelSource(model).query("Moon?", 3)] == ["The Moon is far."]
    ((request,),) = model.generate_calls
    assert (request.sampling.effort, request.sampling.max_tokens) == ("none", 3 * 48)


async def test_facts_are_read_after_the_thought_and_a_cut_thought_is_an_error():
    model = ScriptedModel(thinking("The Moon is made of cheese.", "The Moon is far."), profile=ALWAYS_THINKS)
    assert [s.text for s in await ModelSource(model).query("Moon?", 3)] == ["The Moon is far."]
    endless = ScriptedModel(thinking("The Moon. " * 200, "The Moon is far."), profile=ALWAYS_THINKS)
    with pytest.raises(InvalidResponse, match="was cut while it thought"):
        await ModelSource(endless).query("Moon?", 3)


async def test_it_is_closed_by_its_owner():
    model = ScriptedModel(replies("x"))
    await ModelSource(model).aclose()
    assert not model.closed
    await ModelSource(model, owned=True).aclose()
    assert model.closed


async def test_a_failing_model_is_an_error():
    source = ModelSource(ScriptedModel(replies("x"), failing=frozenset({0})))
    with pytest.raises(BackendError, match="scripted to fail"):
        await source.query("q", 3)


async def test_the_run_pays_and_a_resumed_run_asks_nothing_but_spends_the_same(runs):
    model = ScriptedModel(replies("one\ntwo"))
    usages = []
    for recording in (True, True, False):
        run = await runs.run(recording=recording)
        source = ModelSource(model) if recording else recorded_source(source_description(ModelSource(model)))
        assert texts(await KnowledgeClient([source], run).query(["q", "q", "r"], 2)) == [["one", "two"]] * 3
        usage = run.ledger.usage()
        assert set(usage.by_role) == {"knowledge:scripted"}
        usages.append((usage.model_calls, usage.completion_tokens, usage.prompt_tokens))
    assert len(set(usages)) == 1
    assert usages[0][:2] == (2, 2 * len("one\ntwo."))
    assert len(model.made) == 2


async def test_a_timeout_is_charged_and_replays_with_the_same_tokens(runs):
    written = 0

    async def step():
        nonlocal written
        written += 1
        if written > 5:
            await asyncio.Event().wait()

    model = ScriptedModel(replies("one fact after another"), step=step)
    spent = []
    for recording in (True, True, False):
        run = await runs.run(recording=recording)
        source = ModelSource(model) if recording else recorded_source(source_description(ModelSource(model)))
        client = KnowledgeClient([source], run, timeout_s=0.3)
        assert await client.query(["q"], 2) == [[]]
        assert (client.timeouts, client.errors) == (1, 0)
        assert not run.partial_completions
        spent.append(run.ledger.usage().completion_tokens)
        assert len(runs.notes("knowledge.failed")) == 1
    assert spent == [5, 5, 5]
    assert len(model.made) == 1


async def test_a_failure_is_recorded_and_a_replay_goes_the_same_way(runs):
    model = ScriptedModel(replies("x"), failing=frozenset({0}))
    for recording in (True, False):
        source = ModelSource(model) if recording else recorded_source(source_description(ModelSource(model)))
        client = KnowledgeClient([source], await runs.run(recording=recording))
        assert await client.query(["q"], 2) == [[]]
        assert (client.errors, client.timeouts) == (1, 0)


async def test_a_spent_budget_is_the_runs_and_not_the_sources(runs):
    run = await runs.run(calls=1)
    client = KnowledgeClient([ModelSource(ScriptedModel(replies("x")))], run)
    with pytest.raises(BudgetExceeded):
        await client.query(["a", "b"], 2)
    assert client.errors == 0


async def test_a_replay_that_asks_for_something_new_ends(runs):
    source = recorded_source(source_description(ModelSource(ScriptedModel(replies("x")))))
    with pytest.raises(StoreError):
        await KnowledgeClient([source], await runs.run(recording=False)).query(["q"], 2)
    late = recorded_source(source_description(ModelSource(ScriptedModel(replies("x")))), limit="seconds")
    with pytest.raises(BudgetExceeded):
        await KnowledgeClient([late], await runs.run(recording=False)).query(["q"], 2)


async def test_a_source_that_is_not_known_to_be_a_model_replays_without_charges(runs):
    source = ModelSource(ScriptedModel(replies("one\ntwo")))
    rows = await KnowledgeClient([source], await runs.run()).query(["q"], 2)
    run = await runs.run(recording=False)
    stands = RecordedSource(source.name, source.kind, source.identity)
    assert await KnowledgeClient([stands], run).query(["q"], 2) == rows
    assert run.ledger.usage().model_calls == 0


async def test_what_is_noted_stands_for_any_source():
    pytest.importorskip("bm25s")
    for source in (
        ScriptedKnowledgeSource({}),
        DirectorySource("a", await HybridRetriever.build([])),
        ModelSource(ScriptedModel(replies("x"))),
    ):
        stands = recorded_source(source_description(source))
        assert (stands.name, stands.kind, stands.identity) == (source.name, source.kind, source.identity)
        assert isinstance(stands, ModelSource if source.kind == "model" else RecordedSource)
