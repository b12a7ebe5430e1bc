import asyncio
import json
import threading
from contextvars import ContextVar
from pathlib import Path

import pytest
from pydantic import ValidationError
from reason.core.errors import StoreError
from reason.core.events import (
    EVENT_ADAPTER,
    EventsDropped,
    JsonlSink,
    LiveSink,
    MemorySink,
    SampleFinished,
    StageStarted,
    TextDelta,
)
from reason.core.messages import Completion
from reason.core.run import Run
from support.stored_runs import run_config


def delta(text="x"):
    return TextDelta(request=0, sample=0, text=text, tokens=1)


async def test_events_are_numbered_and_have_parents(store):
    sink = MemorySink()
    run = Run("r", run_config(), store, sinks=[sink])
    await store.create_run("r", {})
    stage = run.emit(StageStarted(stage="solve"))
    with run.event_scope(stage):
        inner = run.emit(StageStarted(stage="inner"))
        run.emit(delta(), parent=inner)
    run.emit(StageStarted(stage="after"))
    assert [(e.number, e.parent) for e in sink.events] == [(1, None), (2, 1), (3, 2), (4, None)]
    await run.save()
    assert [e.number for e in await store.list_events("r")] == [1, 2, 4]  # text deltas are not stored


def made_run(sinks):
    return Run("r", run_config(), store=None, sinks=sinks, recording=False)


def test_sinks_run_in_the_context_of_the_runs_creator():
    asking = ContextVar("asking", default="nobody")
    heard = []
    asking.set("whoever asked")
    run = made_run([lambda e: heard.append((e.number, asking.get()))])
    asking.set("somebody else")
    run.emit(delta())
    teller = threading.Thread(target=run.emit, args=[delta()])  # a new thread has a context of its own
    teller.start()
    teller.join()
    assert heard == [(1, "whoever asked"), (2, "whoever asked")]
    assert asking.get() == "somebody else"


def test_a_sink_may_emit_an_event_while_handling_one():
    sink = MemorySink()

    def causes_one(event):
        if event.type == "stage.started":
            run.degrade("something")

    run = made_run([causes_one, sink])
    run.emit(StageStarted(stage="solve"))
    assert [e.type for e in sink.events] == ["run.degraded", "stage.started"]


def test_a_sink_that_raises_is_removed_and_the_run_continues(caplog):
    def bad(event):
        heard.append(event.number)
        raise ValueError("my own fault")

    heard, sink = [], MemorySink()
    run = made_run([bad, sink])
    run.emit(delta())
    run.emit(delta())
    assert heard == [1]
    assert [e.number for e in sink.events] == [1, 2]
    (said,) = caplog.records
    assert (said.levelname, said.getMessage()) == ("ERROR", "a sink failed at event 1 of run r and was removed")
    assert str(said.exc_info[1]) == "my own fault"


def test_derived_seeds_depend_only_on_the_run_and_the_names():
    def run(seed):
        return Run("r", run_config(seed=seed), store=None)

    assert run(1).derive_seed("a", 2) == run(1).derive_seed("a", 2)
    assert len({run(s).derive_seed(n, i) for s in (1, 2) for n in "ab" for i in (0, 1)}) == 8
    assert run(1).rng.random() == run(1).rng.random()


def test_a_trace_is_read_back_as_it_was_written(tmp_path):
    path = tmp_path / "t.jsonl"
    events = [StageStarted(number=1, stage="route", run_id="r"), StageStarted(number=3, parent=1, stage="sölve")]
    with JsonlSink(path) as sink:
        sink(events[0])
        sink(delta())
        sink(events[1])
    assert [EVENT_ADAPTER.validate_json(line) for line in path.read_text().splitlines()] == events


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_ends_the_trace_and_not_the_run():
    sink = JsonlSink(Path("/dev/full"))
    with pytest.raises(StoreError, match="incomplete"), sink:
        for _ in range(2000):  # more than a buffer of the file holds
            sink(StageStarted(stage="solve"))
        told = True
    assert told


def test_a_full_disk_does_not_hide_the_runs_error():
    with pytest.raises(KeyError), JsonlSink(Path("/dev/full")) as sink:
        sink(StageStarted(stage="solve"))
        raise KeyError("the run's own")


def test_a_trace_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(StoreError, match="cannot write the trace"):
        JsonlSink(tmp_path / "no" / "t.jsonl")


async def test_a_slow_reader_loses_text_first_and_learns_how_much():
    live = LiveSink(capacity=3)
    for event in (StageStarted(stage="a"), delta("1"), delta("2"), StageStarted(stage="b")):
        live(event)
    live.close()
    seen = [e async for e in live]
    assert isinstance(seen[0], EventsDropped)
    assert seen[0].count == 1
    assert [getattr(e, "stage", None) or e.text for e in seen[1:]] == ["a", "2", "b"]


async def test_a_waiting_reader_receives_events_as_they_are_emitted(clock):
    live = LiveSink()
    seen = []

    async def read():
        async for event in live:
            seen.append(event.stage)

    reader = asyncio.create_task(read())
    for stage in "abc":
        await clock.settle()
        live(StageStarted(stage=stage))
    live.close()
    await reader
    assert seen == ["a", "b", "c"]


def test_a_stamped_event_equals_a_copy_with_its_position():
    place = {"number": 7, "parent": 3, "run_id": "r", "at_s": 1.5}
    for event in (StageStarted(stage="solve"), delta(), StageStarted(stage="solve", number=2)):
        copied, was_emitted = event.model_copy(update=place), event.number
        stamped = event.stamped(**place)
        assert stamped == copied
        assert stamped.model_fields_set == copied.model_fields_set
        assert stamped.model_dump_json() == copied.model_dump_json()
        assert (event.number == 2) if was_emitted else (stamped is event)  # an emitted one is not changed
        with pytest.raises(ValidationError, match="frozen"):
            stamped.number = 8


def test_an_event_has_its_json_once():
    completion = Completion(text="\U0001f600 né", finish_reason="stop", logprobs=(-0.5, float("-inf")))
    for event in (
        SampleFinished(number=3, request=0, sample=1, completion=completion),
        StageStarted(number=4, stage="solve"),
    ):
        assert event.encoded() is event.encoded()
        assert EVENT_ADAPTER.validate_json(event.encoded()) == event
        assert event.model_copy(update={"number": 5}).encoded() != event.encoded()
        moved = event.stamped(number=9, parent=None, run_id="r", at_s=0.0)
        assert (json.loads(moved.encoded())["number"], json.loads(event.encoded())["number"]) == (9, event.number)


def test_a_lone_surrogate_is_escaped():
    event = SampleFinished(request=0, sample=0, completion=Completion(text="\ud83d", finish_reason="stop"))
    assert json.loads(event.encoded())["completion"]["text"] == "\ud83d"
