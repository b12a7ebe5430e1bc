"""The user wants the answer now: every strategy ends, in one short call at most, and a replay ends in the same way."""

from __future__ import annotations

import asyncio
import itertools
import threading

import pytest
import reason.agents.reasoner as reasoner_module
from reason.agents.reasoner import Reasoner
from reason.core.events import MemorySink
from reason.reasoning.strategy import STRATEGIES
from support.injected_models import loaded_models
from support.scripted_model import ALWAYS_THINKS, THINKS, ScriptedModel, replies, thinking

QUESTION = "What is 2 + 2?"
THOUGHT = "Two and two.\n\nThat is a sum.\n\nIt has two parts.\n\nSo it is four."
ANSWER = "First, 2 and 2 are added.\n\nThen the sum is 4.\n\nThe answer is 4."
END = "\x03"

OTHERS = {"auto", "rlot", "logprob", "rag"}
"""Strategies that need a trained file, choices, or knowledge."""
LEXICAL = {"davinci": {"judge": "lexical"}}
PARAMETERS = {"hogwild": {"any_model": True}}


def worker(text):
    """Thinks and answers; asked for the answer after a trigger, or now, it gives it at once; it judges nothing."""
    written = text.rpartition("assistant: ")[2]
    if "</think>" not in written:
        return thinking(THOUGHT, ANSWER)(text)
    answered = written.rpartition("</think>")[2]
    if answered.endswith(("answer is", "(a number) is")) or (not answered and "no time left" in text):
        return {" ": 1.0}
    if answered.endswith("is ") or answered == " ":
        return {"4": 1.0}
    if answered.endswith("is 4") or answered == " 4":
        return {END: 1.0}
    if not ANSWER.startswith(answered):
        return {END: 1.0}
    return thinking(THOUGHT, ANSWER)(text)


def slow_after(tokens, gate):
    """A step that holds the model after some tokens, once, until it is cancelled; sets the gate then."""
    count = itertools.count(1)

    async def hold():
        gate.set()
        await asyncio.Event().wait()

    return lambda: asyncio.ensure_future(hold()) if next(count) == tokens else None


async def concluded(settings, tokens, *, strategy="cot", profile=THINKS, sink=None, **options):
    """The answer of a run whose user wanted it after some tokens, and the run's replay."""
    gate = asyncio.Event()
    step = slow_after(tokens, gate)
    model = ScriptedModel(worker, profile=profile, step=step)
    small = ScriptedModel(worker, profile=profile, name="small", step=step)
    with loaded_models({"scripted": model, "small": small}):
        async with Reasoner(strategy=strategy, settings=settings, **options) as reasoner:
            task = asyncio.create_task(reasoner.aask(QUESTION, run_id="r", sinks=[sink] if sink else []))
            waits = asyncio.ensure_future(gate.wait())
            await asyncio.wait((task, waits), return_when=asyncio.FIRST_COMPLETED)
            waits.cancel()
            if task.done():
                return await task, None
            calls = len(model.generate_calls) + len(small.generate_calls)
            assert reasoner.conclude("r")
            answer = await asyncio.wait_for(task, 60)
            assert len(model.generate_calls) + len(small.generate_calls) <= calls + 1
            assert not reasoner.conclude("r")
            return answer, await reasoner.areplay("r")


def same(answer, replay):
    shown = {"answer", "text", "thought", "stopped", "based_on", "degraded"}
    assert answer.model_dump(include=shown) == replay.model_dump(include=shown)
    return True


@pytest.mark.parametrize(
    ("profile", "tokens", "based_on"),
    [
        (THINKS, 10, "an unfinished sample of 0 tokens of an answer and 9 of a thought"),
        (ALWAYS_THINKS, 10, "an unfinished sample of 0 tokens of an answer and 9 of a thought"),
        (THINKS, len(THOUGHT) + 13, "an unfinished sample of 10 tokens of an answer and 65 of a thought"),
    ],
)
async def test_an_unfinished_chain_is_concluded(settings, profile, tokens, based_on):
    sink = MemorySink()
    answer, replay = await concluded(settings, tokens, profile=profile, sink=sink)
    assert (answer.answer, answer.stopped, answer.based_on) == ("4", "user", based_on)
    assert THOUGHT.startswith(answer.thought)
    assert "Two and two" not in answer.text
    assert [e.kind for e in sink.of_type("budget.exhausted")] == ["user"]
    assert same(answer, replay)


async def test_finished_samples_are_counted_and_the_others_dropped(settings):
    texts = replies("The answer is 4.", "Let me think about it for a while. The answer is 5.", weights=[1, 1])
    gate = asyncio.Event()
    model = ScriptedModel(texts, step=slow_after(30, gate))
    with loaded_models({"scripted": model}):
        async with Reasoner(strategy="self-consistency", settings=settings) as reasoner:
            task = asyncio.create_task(reasoner.aask(QUESTION, run_id="r"))
            await gate.wait()
            reasoner.conclude("r")
            answer = await task
            replay = await reasoner.areplay("r")
    assert (answer.answer, answer.stopped) == ("4", "user")
    assert answer.based_on.endswith("finished samples")
    assert len(model.generate_calls) == 1
    assert same(answer, replay)


@pytest.mark.parametrize("tokens", [3, 90, *(pytest.param(tokens, marks=pytest.mark.nightly) for tokens in (40, 200))])
@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES.names()) - OTHERS))
async def test_every_strategy_ends_with_an_answer(settings, strategy, tokens):
    options = {"small_model": "small"} if "small" in STRATEGIES.load(strategy).roles else {}
    options["parameters"] = PARAMETERS.get(strategy, {})
    answer, replay = await concluded(settings, tokens, strategy=strategy, **options)
    if replay is None:
        return  # it was done before
    assert answer.stopped == "user"
    assert answer.answer is not None, answer.degraded
    assert "Two and two" not in answer.text
    assert same(answer, replay)


async def test_a_concluded_run_skips_its_verifiers(settings):
    answer, replay = await concluded(settings, 10, verify=["davinci"], verify_parameters=LEXICAL)
    assert (answer.answer, answer.stopped, answer.verification.verdict) == ("4", "user", "unchecked")
    assert same(answer, replay)


async def test_a_run_that_was_killed_while_concluding_is_concluded_when_it_is_resumed(settings):
    gate, sink = asyncio.Event(), MemorySink()
    model = ScriptedModel(worker, profile=THINKS, step=slow_after(10, gate))
    with loaded_models({"scripted": model}):
        async with Reasoner(settings=settings) as reasoner:
            task = asyncio.create_task(reasoner.aask(QUESTION, run_id="r"))
            await gate.wait()
            gate.clear()
            model._step = slow_after(1, gate)  # holds the concluding call
            reasoner.conclude("r")
            await gate.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            model._step = None
            calls = len(model.generate_calls)
            answer = await reasoner.aresume("r", sinks=[sink])
            assert len(model.generate_calls) == calls + 1  # nothing but the conclusion
            replay = await reasoner.areplay("r")
    assert (answer.answer, answer.stopped) == ("4", "user")
    assert answer.based_on == "an unfinished sample of 0 tokens of an answer and 9 of a thought"
    assert same(answer, replay)


async def test_an_unknown_or_ended_run_cannot_be_concluded(settings):
    with loaded_models({"scripted": ScriptedModel(worker, profile=THINKS)}):
        async with Reasoner(settings=settings) as reasoner:
            assert not reasoner.conclude("nothing")
            await reasoner.aask(QUESTION, run_id="r")
            assert not reasoner.conclude("r")


def test_a_synchronous_run_is_concluded_from_another_thread(settings):
    begun, held = threading.Event(), []

    async def hold():
        begun.set()
        await asyncio.Event().wait()

    def step():
        held.append(1)
        return asyncio.ensure_future(hold()) if len(held) == 10 else None

    answers = []
    with (
        loaded_models({"scripted": ScriptedModel(worker, profile=THINKS, step=step)}),
        Reasoner(settings=settings) as reasoner,
    ):
        caller = threading.Thread(target=lambda: answers.append(reasoner.ask(QUESTION, run_id="r")))
        caller.start()
        assert begun.wait(60)
        assert reasoner.conclude("r")
        caller.join(60)
    assert [(a.answer, a.stopped) for a in answers] == [("4", "user")]


async def test_a_wish_while_the_models_load_is_remembered(settings, monkeypatch):
    loading, is_loaded = asyncio.Event(), asyncio.Event()
    model = ScriptedModel(worker, profile=THINKS)

    async def load_model(*_):
        loading.set()
        await is_loaded.wait()
        return model

    monkeypatch.setattr(reasoner_module, "load_model", load_model)
    async with Reasoner(settings=settings) as reasoner:
        task = asyncio.create_task(reasoner.aask(QUESTION, run_id="r"))
        await loading.wait()
        assert reasoner.conclude("r")
        is_loaded.set()
        answer = await asyncio.wait_for(task, 60)
        replay = await reasoner.areplay("r")
        assert not reasoner.conclude("r")
    assert (answer.answer, answer.stopped) == ("4", "user")
    assert answer.based_on == "no sample: the question was answered at once"
    assert len(model.generate_calls) == 1
    assert same(answer, replay)


# -- runs without an answer


@pytest.mark.parametrize(
    ("script", "options", "reason"),
    [
        (thinking("x" * 500, ANSWER), {"thinking_tokens": 5, "budget": {"calls": 1}}, "ended while the model thought"),
        (thinking("x", "Hm."), {"budget": {"tokens": 1}}, "the budget was spent before a sample was finished"),
    ],
)
async def test_a_missing_answer_has_a_reason(settings, script, options, reason):
    with loaded_models({"scripted": ScriptedModel(script, profile=THINKS)}):
        async with Reasoner(settings=settings, **options) as reasoner:
            answer = await reasoner.aask("How many?")
    assert answer.answer is None
    assert any(reason in note for note in answer.degraded), answer.degraded


async def test_a_budget_that_cuts_the_thought_still_gives_an_answer(settings):
    def script(text):
        has_thought = "</think>" in text.rpartition("assistant: ")[2]
        return worker(text) if has_thought else thinking(THOUGHT * 2, ANSWER)(text)

    with loaded_models({"scripted": ScriptedModel(script, profile=THINKS)}):
        async with Reasoner(settings=settings, budget={"tokens": 200}) as reasoner:
            answer = await reasoner.aask(QUESTION)
    assert answer.answer == "4"
    assert answer.usage.completion_tokens <= 200
    assert any("cut while the model thought" in note for note in answer.degraded)


async def test_a_cancelled_run_shows_no_thought_as_text(settings):
    gate = asyncio.Event()
    model = ScriptedModel(worker, profile=THINKS, step=slow_after(len(THOUGHT) + 13, gate))
    with loaded_models({"scripted": model}):
        async with Reasoner(settings=settings) as reasoner:
            task = asyncio.create_task(reasoner.aask(QUESTION, run_id="r"))
            await gate.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            record = await (await reasoner.open_store()).get_run("r")
    assert record.answer["text"] == "First, 2 a"
    assert record.answer["thought"] == THOUGHT
    assert record.answer["stopped"] == "cancelled"
