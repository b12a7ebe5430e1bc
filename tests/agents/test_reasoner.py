import asyncio
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import reason.agents.reasoner as reasoner_module
from reason.agents.reasoner import Reasoner
from reason.core.errors import (
    BackendUnavailable,
    InvalidResponse,
    StoreError,
    UserError,
    interrupted_run,
)
from reason.core.events import MemorySink, RunFinished
from reason.core.types import Document, Question
from support.scripted_model import ScriptedModel, replies

PARIS = replies(
    "It is in France. The answer is Paris.",
    "I believe the answer is Paris",
    "The answer is Lyon.",
    weights=[3, 2, 1],
)


@pytest.fixture
def opened(monkeypatch):
    """The models that reasoners open, by name; a test puts scripted ones there."""
    models = {"scripted": ScriptedModel(PARIS)}

    async def load_model(name, settings, *_):
        if name not in models:
            raise BackendUnavailable(f"no model {name}")
        return models[name]

    monkeypatch.setattr(reasoner_module, "load_model", load_model)
    return models


def voting(settings, n=8, **more):
    return Reasoner(strategy="self-consistency", parameters={"n": n, "max_tokens": 60}, settings=settings, **more)


async def test_the_seed_determines_the_answer(opened, settings):
    async with voting(settings) as reasoner:
        one, two, three = [await reasoner.aask("Where?", seed=s) for s in (1, 1, 2)]
    assert [c.text for c in one.candidates] == [c.text for c in two.candidates]
    assert [c.text for c in one.candidates] != [c.text for c in three.candidates]
    assert one.run_id != two.run_id


async def test_events_form_one_tree_and_are_stored(opened, settings):
    sink = MemorySink()
    async with voting(settings) as reasoner:
        answer = await reasoner.aask("Where?", sinks=[sink])
        stored = await reasoner._store.list_events(answer.run_id)
    assert stored == sink.events
    assert [e.number for e in stored] == list(range(1, len(stored) + 1))
    assert stored[0].type == "run.started"
    assert isinstance(stored[-1], RunFinished)
    assert stored[-1].answer == answer
    assert [e.stage for e in stored if e.type == "stage.started"] == ["solve"]
    solve = next(e.number for e in stored if e.type == "stage.started" and e.stage == "solve")
    (call,) = [e for e in stored if e.type == "call.started"]
    assert call.parent == solve
    assert {e.parent for e in stored if e.type == "sample.finished"} == {call.number}


async def test_astream_ends_with_the_answer_and_shows_the_text(opened, settings):
    async with Reasoner(settings=settings) as reasoner:
        events = [e async for e in reasoner.astream("Where?")]
    assert events[-1].type == "run.finished"
    assert "".join(e.text for e in events if e.type == "text.delta") == events[-1].answer.text


@pytest.mark.parametrize("schema", [{"type": "nonsense"}])
async def test_what_is_no_schema_is_refused_before_anything_is_paid(opened, settings, schema):
    question = Question(text="Where?", answer_schema=schema)
    async with Reasoner(settings=settings) as reasoner:
        with pytest.raises(UserError, match="not a JSON Schema") as e:
            await reasoner.aask(question)
        with pytest.raises(UserError, match="not a JSON Schema"):
            await anext(reasoner.astream(question))
        assert await (await reasoner.open_store()).list_runs() == []
    assert e.value.param == "answer_schema"


async def test_a_stream_takes_a_seed_and_a_run_id(opened, settings):
    async with Reasoner(settings=settings) as reasoner:
        events = [e async for e in reasoner.astream("Where?", seed=77, run_id="named")]
        record = await (await reasoner.open_store()).get_run("named", exact=True)
    assert {e.run_id for e in events} == {"named"}
    assert (events[-1].answer.seed, record.config["seed"]) == (77, 77)


async def test_leaving_a_stream_early_cancels_the_run(opened, settings):
    model = opened["scripted"]
    async with Reasoner(settings=settings) as reasoner:
        stream = reasoner.astream("Where?")
        async for event in stream:
            if event.type == "text.delta":
                break
        await stream.aclose()
        assert model.running == 0
        ((run),) = await reasoner._store.list_runs()
    assert run.status == "interrupted"


def test_the_synchronous_methods_work_with_and_without_a_loop(opened, settings):
    with Reasoner(settings=settings) as reasoner:
        assert reasoner.ask("Where?").answer == "Paris"

        async def notebook_cell():
            return reasoner.ask("Where?")

        assert asyncio.run(notebook_cell()).answer == "Paris"
    assert opened["scripted"].closed


async def test_a_spent_budget_gives_the_best_so_far(opened, settings):
    async with voting(settings, n=8, budget={"tokens": 100}) as reasoner:
        answer = await reasoner.aask("Where?")
    assert answer.stopped == "budget"
    assert 0 < len(answer.candidates) < 8
    assert answer.usage.completion_tokens <= 100
    async with voting(settings, budget={"tokens": 4}) as reasoner:
        answer = await reasoner.aask("Where?")
    assert (answer.stopped, len(answer.candidates), answer.answer) == ("budget", 1, None)


async def test_chains_that_were_cut_do_not_vote_and_are_reported(opened, settings):
    opened["scripted"] = ScriptedModel(
        replies("The answer is Paris.", "Lyon is a city. It is " + "old " * 20, weights=[1, 3])
    )
    async with voting(settings, n=8) as reasoner:
        answer = await reasoner.aask("Where?")
        again = await reasoner.areplay(answer.run_id)
    finished = [c for c in answer.candidates if c.finish_reason == "stop"]
    cut = len(answer.candidates) - len(finished)
    assert 0 < len(finished) < 8
    assert answer.answer == "Paris"
    assert answer.confidence == len(finished) / 8
    assert [c.answer for c in answer.candidates if c.finish_reason == "length"] == [None] * cut
    assert cut > 1
    assert answer.degraded == (
        f"{cut} of 8 attempts were cut at max_tokens=60 before an answer, and did not count: raise it with --set "
        "max_tokens=N (parameters= in Python)",
    )
    assert again.degraded == answer.degraded


async def test_a_chain_that_was_shortened_to_the_budget_was_cut_by_it(opened, settings):
    opened["scripted"] = ScriptedModel(replies("It is in France, on the Seine. " * 9))
    for strategy in ("cot", "self-consistency"):
        async with Reasoner(strategy=strategy, settings=settings, budget={"tokens": 1}) as reasoner:
            answer = await reasoner.aask("Where?")
        assert (answer.stopped, answer.usage.completion_tokens) == ("budget", 1)
        assert [note for note in answer.degraded if " cut " in note] == [
            "1 of 1 attempt was cut by the budget before an answer, and did not count: raise the budget"
        ]


async def test_failed_samples_do_not_vote_and_are_reported(opened, settings):
    opened["scripted"]._failing = frozenset({0, 3})
    async with voting(settings, n=4) as reasoner:
        answer = await reasoner.aask("Where?")
        assert len(answer.candidates) == 2
        assert answer.degraded == ("2 of 4 samples failed and did not vote",)
        opened["scripted"]._failing = frozenset(range(9))
        with pytest.raises(InvalidResponse, match="scripted to fail"):
            await reasoner.aask("Where?", run_id="failing")
        run = await reasoner._store.get_run("failing")
    assert (run.status, run.error["code"]) == ("failed", "invalid_response")


async def test_a_cancelled_run_keeps_its_best_answer_and_can_be_resumed(opened, settings, clock):
    async def hold():
        if held.is_set():
            await asyncio.Event().wait()

    held = asyncio.Event()
    script = replies(*("so " * i + "the answer is Paris" for i in range(8)))
    model = ScriptedModel(script, step=lambda: asyncio.ensure_future(hold()))
    opened["scripted"] = model

    found = []

    def stop_after_two(event):
        if event.type == "candidate.added":
            found.append(event.index)
        if len(found) >= 2:
            held.set()

    async with voting(settings, n=8) as reasoner:
        task = asyncio.create_task(reasoner.aask("Where?", run_id="cancelled", sinks=[stop_after_two]))
        await held.wait()
        await clock.settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert interrupted_run(caught.value) == "cancelled"
        run = await reasoner._store.get_run("cancelled")
        assert run.status == "interrupted"
        assert run.answer["stopped"] == "cancelled"
        lost = run.answer["usage"]["lost_tokens"]
        assert lost > 0
        assert len(run.answer["candidates"]) >= 2
        stored = len(await reasoner._store.list_calls("cancelled"))
        assert 2 <= stored < 8
        held.clear()
        begun = len(model.made)
        answer = await reasoner.aresume("cancelled")
        assert len(model.made) - begun == 8 - stored
        assert (answer.stopped, len(answer.candidates)) == ("done", 8)
        assert answer.usage.replayed_tokens > 0
        assert answer.usage.lost_tokens == lost
        whole = await reasoner.aask("Where?")
        assert (whole.usage.lost_tokens, whole.usage.completion_tokens) == (0, answer.usage.completion_tokens)
        assert [c.text for c in whole.candidates] == [c.text for c in answer.candidates]
        with pytest.raises(UserError, match="is finished"):
            await reasoner.aresume("cancelled")


async def test_a_timeout_names_the_run_that_it_interrupted(opened, settings):
    limit = asyncio.timeout(None)

    async def hold():
        if limit.when() is None:  # time is up once the model is called
            limit.reschedule(asyncio.get_running_loop().time())
        await asyncio.Event().wait()

    held = ScriptedModel(replies("The answer is Paris"), step=lambda: asyncio.ensure_future(hold()))
    opened["scripted"] = held
    async with voting(settings, n=2) as reasoner:
        with pytest.raises(TimeoutError) as caught:
            async with limit:
                await reasoner.aask("Where?")
        name = interrupted_run(caught.value)
        assert name is not None
        held._step = None
        assert (await reasoner.aresume(name)).answer == "Paris"
    with pytest.raises(UserError) as refused:
        await Reasoner(settings=settings).aask("")
    assert interrupted_run(refused.value) is None


async def test_a_run_that_died_after_solving_does_not_call_the_model_again(opened, settings, monkeypatch):
    import reason.agents.pipeline as pipeline

    def die(*_):
        raise RuntimeError("power cut")

    finish = pipeline.finish
    monkeypatch.setattr(pipeline, "finish", die)
    async with voting(settings) as reasoner:
        with pytest.raises(RuntimeError, match="power cut"):
            await reasoner.aask("Where?", run_id="died")
    monkeypatch.setattr(pipeline, "finish", finish)
    calls = len(opened["scripted"].generate_calls)
    async with voting(settings) as reasoner:
        answer = await reasoner.aresume("died")
    assert len(opened["scripted"].generate_calls) == calls
    assert answer.answer == "Paris"
    assert answer.usage.model_calls == answer.usage.replayed_calls == 1
    assert answer.usage.completion_tokens == answer.usage.replayed_tokens > 0


async def test_a_replay_needs_no_model_and_writes_nothing(opened, settings):
    async with voting(settings, budget={"tokens": 300}) as reasoner:
        answer = await reasoner.aask("Where?")
    opened.clear()
    async with Reasoner(settings=settings) as reasoner:
        sink = MemorySink()
        again = await reasoner.areplay(answer.run_id, sinks=[sink])
        assert len(await reasoner._store.list_events(answer.run_id)) == len(sink.events)
        run = await reasoner._store.get_run(answer.run_id)
    assert again.model_dump(exclude={"usage"}) == answer.model_dump(exclude={"usage"})
    assert again.usage.completion_tokens == again.usage.replayed_tokens == answer.usage.completion_tokens
    assert run.answer["usage"]["replayed_tokens"] == 0


async def test_a_run_ended_by_time_replays_unchanged(opened, settings, clock):
    opened["scripted"] = ScriptedModel(PARIS, step=lambda: asyncio.sleep(0.02))
    async with voting(settings, budget={"seconds": 0.3, "tokens": 10_000}) as reasoner:
        answer = await clock.run(reasoner.aask("Where?"))
        assert answer.stopped == "budget"
        again = await reasoner.areplay(answer.run_id)
    assert [c.text for c in again.candidates] == [c.text for c in answer.candidates]
    assert (again.stopped, again.stopped_by) == (answer.stopped, answer.stopped_by) == ("budget", "seconds")


@pytest.mark.parametrize("seconds", [1e-6, 0.05])
async def test_a_run_whose_time_ended_before_its_first_sample_replays_unchanged(opened, settings, clock, seconds):
    opened["scripted"] = ScriptedModel(PARIS, step=lambda: asyncio.sleep(0.1))
    async with Reasoner(settings=settings, budget={"seconds": seconds}) as reasoner:
        answer = await clock.run(reasoner.aask("Where?"))
        again = await reasoner.areplay(answer.run_id)
    assert (answer.stopped, answer.stopped_by) == ("budget", "seconds")
    assert again.model_dump(exclude={"usage"}) == answer.model_dump(exclude={"usage"})


async def test_an_interrupted_run_cannot_be_replayed_to_the_end(opened, settings):
    opened["scripted"]._failing = frozenset(range(9))
    async with Reasoner(settings=settings) as reasoner:
        with pytest.raises(InvalidResponse):
            await reasoner.aask("Where?", run_id="f")
        with pytest.raises(StoreError, match="resume it"):
            await reasoner.areplay("f")


async def test_a_run_is_not_resumed_with_a_changed_model(opened, settings):
    opened["scripted"]._failing = frozenset({0})
    async with Reasoner(settings=settings) as reasoner:
        with pytest.raises(InvalidResponse):
            await reasoner.aask("Where?", run_id="f")
        opened["scripted"].identity = "scripted@2"
        with pytest.raises(UserError, match="not the one that run f began with"):
            await reasoner.aresume("f")


@pytest.mark.parametrize(
    ("question", "options", "message"),
    [
        ("", {}, "the question is empty"),
        ("x" * 1_000_000, {}, "1,000,000 characters"),
        ("?", {"choices": ["only"]}, "at least two choices"),
        ("?", {"choices": ["a", " "]}, "none of them empty"),
        ("?", {"choices": ["x"] * 27}, "more than there are letters"),
    ],
)
async def test_invalid_questions_are_refused(opened, settings, question, options, message):
    async with Reasoner(settings=settings) as reasoner:
        with pytest.raises(UserError, match=message):
            await reasoner.aask(question, **options)
    assert opened["scripted"].made == []


async def test_an_unpriced_model_with_a_money_budget_is_refused(opened, settings):
    opened["scripted"] = ScriptedModel(PARIS, price=None)
    async with Reasoner(settings=settings, budget={"usd": 1}) as reasoner:
        with pytest.raises(UserError, match="price of model 'scripted' is unknown"):
            await reasoner.aask("Where?")


async def test_choices_and_documents_are_in_the_prompt_and_the_answer_is_a_letter(opened, settings):
    opened["scripted"] = model = ScriptedModel(replies("The answer is (B)."))
    async with Reasoner(settings=settings) as reasoner:
        answer = await reasoner.aask(
            Question(text="Capital?", choices=("Lyon", "Paris")),
            documents=[Document(name="atlas", text="Paris rules.")],
        )
    assert answer.answer == "B"
    prompt, _ = model.made[0]
    assert "A) Lyon\nB) Paris" in prompt
    assert "«atlas»:\nParis rules." in prompt


async def test_concurrent_questions_do_not_mix(opened, settings):
    async with voting(settings, n=3) as reasoner:
        answers = await asyncio.gather(*(reasoner.aask(f"Where is {i}?", seed=i) for i in range(12)))
        assert len({a.run_id for a in answers}) == 12
        for i, answer in enumerate(answers):
            alone = await reasoner.aask(f"Where is {i}?", seed=i)
            assert [c.text for c in alone.candidates] == [c.text for c in answer.candidates]
            assert answer.usage.completion_tokens == alone.usage.completion_tokens


_KILLED = textwrap.dedent("""
    import asyncio, os, pathlib, signal, sys
    sys.path.insert(0, sys.argv[2])
    from support.scripted_model import ScriptedModel, replies
    import reason.agents.reasoner as module
    from reason.core.settings import Settings
    texts = [f"{'so ' * i}the answer is {i % 3}" for i in range(12)]
    async def main():
        async def load_model(name, settings, *_):
            return ScriptedModel(replies(*texts), step=lambda: asyncio.sleep(0.004))
        module.load_model = load_model
        settings = Settings(model="scripted", store=pathlib.Path(sys.argv[1]), seed=3)
        finished = 0
        def kill(event):
            nonlocal finished
            finished += event.type == "sample.finished"
            if finished >= int(sys.argv[3]) and event.type in ("sample.finished", "call.started"):
                os.kill(os.getpid(), signal.SIGKILL)
        parameters = {"n": 24, "max_tokens": 60}
        async with module.Reasoner(strategy="self-consistency", parameters=parameters, settings=settings) as r:
            await r.aask("Which?", run_id="killed", sinks=[kill])
    asyncio.run(main())
""")


@pytest.mark.parametrize("finished", [0, 1, pytest.param(15, marks=pytest.mark.nightly), 23])
async def test_resume_of_a_killed_run_does_not_pay_twice(opened, settings, tmp_path, finished):
    tests = os.path.dirname(os.path.dirname(__file__))
    process = subprocess.run([sys.executable, "-c", _KILLED, str(settings.store), tests, str(finished)], check=False)
    assert process.returncode == -signal.SIGKILL
    texts = [f"{'so ' * i}the answer is {i % 3}" for i in range(12)]
    opened["scripted"] = model = ScriptedModel(replies(*texts))
    async with voting(settings, n=24) as reasoner:
        store = await reasoner.open_store()
        stored = len(await store.list_calls("killed"))
        answer = await reasoner.aresume("killed")
        assert len(model.made) == 24 - stored
        assert (answer.usage.replayed_tokens > 0) == (stored > 0)
        whole = await reasoner.aask("Which?", seed=3)
        assert [c.text for c in whole.candidates] == [c.text for c in answer.candidates]
        assert whole.usage.completion_tokens == answer.usage.completion_tokens
        events = await store.list_events("killed")
        assert [e.number for e in events] == sorted({e.number for e in events})


async def test_a_variant_shares_models_and_store(opened, settings):
    async with Reasoner(settings=settings) as reasoner:
        await reasoner.aask("What is the capital of France?", run_id="first")
        other = await reasoner.variant(
            "self-consistency", parameters={"n": 2, "max_tokens": 60}, budget={"tokens": 200}
        )
        answer = await other.aask("What is the capital of France?", run_id="second")
        assert (answer.strategy, len(answer.candidates)) == ("self-consistency", 2)
        await other.aclose()
        assert not opened["scripted"].closed
        assert (await reasoner.areplay("second")).answer == answer.answer
    assert opened["scripted"].closed
