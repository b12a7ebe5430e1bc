"""Concurrent requests to jurors: batches, deadlines, quorums, failures, and replays from the run store."""

import asyncio

import pytest
from reason.core.budget import Budget
from reason.core.errors import BackendUnavailable
from reason.core.store.sqlite import SqliteStore
from support.scripted_jury import JuryRuns, ScriptedJuror, model, prompts, rules, says
from support.scripted_model import ScriptedModel

CHAIR = {"chair": rules("Canberra it is.", "Canberra")}


@pytest.fixture
async def store(tmp_path):
    opened = await SqliteStore.open(tmp_path / "runs.sqlite3")
    yield opened
    await opened.aclose()


def jury(**others):
    """Three jurors of three families who differ; some of them replaced."""
    made = {
        "main": model(ScriptedJuror(**CHAIR), "m/chair"),
        "juror-1": model(ScriptedJuror(says("Sydney")), "a/one"),
        "juror-2": model(ScriptedJuror(says("Canberra")), "b/two"),
        "juror-3": model(ScriptedJuror(says("Canberra")), "c/three"),
    }
    return {**made, **{f"juror-{name[-1]}": m for name, m in others.items()}}


def supports_schema(after=0, name="c/three", option="Canberra"):
    """A model that hangs after some characters of every response, and whether it was cancelled."""
    written = {"count": 0}

    async def step():
        if written["count"] >= after:
            await asyncio.Event().wait()
        written["count"] += 1

    return model(ScriptedJuror(says(option)), name, step=step)


class Refusing(ScriptedModel):
    """A model whose every call fails."""

    async def generate(self, requests, listener=None):
        self.generate_calls.append(list(requests))
        raise BackendUnavailable("no such server")


async def test_jurors_of_one_model_get_its_samples_in_turn(store):
    alone = model(ScriptedJuror(says("Canberra"), **CHAIR), "m/only")
    runs = JuryRuns(store, {"main": alone})
    await runs.solve(early_exit=False)
    assert [len(call) for call in alone.generate_calls] == [1] * 7
    assert sorted(call[0].indices for call in alone.generate_calls[:3]) == [(0,), (1,), (2,)]  # at once, in any order
    a, b = model(ScriptedJuror(says("Canberra")), "a/one"), model(ScriptedJuror(says("Perth")), "b/two")
    runs = JuryRuns(store, {"main": model(ScriptedJuror(**CHAIR), "m/m"), "juror-1": a, "juror-2": b, "juror-3": a})
    await runs.solve("shared")
    assert sorted(call[0].indices for call in a.generate_calls[:2]) == [(0,), (1,)]
    assert [r.indices for r in b.generate_calls[0]] == [(0,)]  # its first sample: a pool may have no other
    assert {key.split(":")[0] for key in runs.spent.by_role} == {"main", "juror-1", "juror-2"}


async def test_stage_takes_as_long_as_its_slowest_call(store, clock):
    def first_call_takes(seconds):
        left = [seconds]
        return lambda: asyncio.sleep(left.pop() if left else 0)

    slow = {
        f"juror-{i}": model(ScriptedJuror(says("Perth")), f"{i}/x", step=first_call_takes(10 * i)) for i in (1, 2, 3)
    }
    runs = JuryRuns(store, {"main": model(ScriptedJuror(), "m/m"), **slow})
    await clock.run(runs.solve())
    assert runs.reports("jury.stage")[0]["latency_ms"] == 30_000
    assert [s.seconds for s in runs.sink.of_type("stage.finished")][0] == 30


async def test_failing_model_does_not_fail_others(store):
    broken = Refusing(ScriptedJuror().script, name="c/three")
    runs = JuryRuns(store, {**jury(), "juror-3": broken})
    solution = await runs.solve()
    assert [o["failure"] for o in runs.reports("jury.opinion")] == ["", "", "no such server"]
    assert len(broken.generate_calls) == 1
    assert solution.notes["path"] == "full"


async def test_reviewer_without_context_space_is_skipped(store):
    tight = model(
        ScriptedJuror(says("Canberra")), "c/three", context_tokens=900
    )  # the question fits, the answers do not
    runs = JuryRuns(store, {**jury(), "juror-3": tight})
    await runs.solve(max_tokens=60, early_exit=False)
    assert [o["ok"] for o in runs.reports("jury.opinion")] == [True, True, True]
    assert [r["failure"] for r in runs.reports("jury.review")] == ["", "", "the answers do not fit the context"]


async def test_too_long_prompt_does_not_fail_other_jurors(store):
    wide = model(ScriptedJuror(says("Canberra")), "m/one")
    given = {"max_tokens": 60, "review": False, "decision": "vote", "early_exit": False}
    await JuryRuns(store, {"main": wide}).solve("wide", **given)
    lengths = [len(prompt) for prompt in prompts(wide)]
    longest = lengths.index(max(lengths))
    narrow = model(ScriptedJuror(says("Canberra")), "m/one", context_tokens=max(lengths) + 60 - 1)
    runs = JuryRuns(store, {"main": narrow})
    solution = await runs.solve("narrow", **given)
    assert [o["ok"] for o in runs.reports("jury.opinion")] == [i != longest for i in range(3)]
    assert [len(call) for call in narrow.generate_calls] == [1, 1, 1]
    spent = runs.spent.model_calls
    assert await runs.solve("narrow", replay=True, **given) == solution
    assert runs.spent.model_calls == spent


FAILED_CALLS = {"a model down": 1, "a sample failed": 2}
SCENES = {
    "as it should be": ({}, {}),
    "a model down": ({"juror-2": lambda: Refusing(ScriptedJuror().script, name="b/two")}, {}),
    "a sample failed": (
        {"juror-1": lambda: model(ScriptedJuror(says("Perth")), "a/one", failing=frozenset({0}))},
        {"n": 4},
    ),
    "no room": (
        {"juror-3": lambda: model(ScriptedJuror(says("Perth")), "c/three", context_tokens=900)},
        {"max_tokens": 60},
    ),
    "few tokens": ({}, {"budget": Budget(tokens=90)}),
    "few calls": ({}, {"budget": Budget(calls=5)}),
    "no time": ({"juror-3": lambda: supports_schema(after=3)}, {"budget": Budget(seconds=1.0)}),
}


@pytest.mark.parametrize("scene", SCENES)
async def test_replay_takes_same_path_without_models_and_clock(store, scene):
    changed, given = SCENES[scene]
    runs = JuryRuns(store, {**jury(), **{role: make() for role, make in changed.items()}})
    solution = await runs.solve("run", **given)
    spent, told = (
        runs.spent,
        [(e.type, getattr(e, "report", None)) for e in runs.sink.events if e.type.startswith("jury.")],
    )
    made = [len(m.generate_calls) for m in runs.by_role.values()]
    again = await runs.solve("run", replay=True, **given)
    assert again == solution
    assert [len(m.generate_calls) for m in runs.by_role.values()] == made
    assert (runs.spent.model_calls, runs.spent.completion_tokens) == (spent.model_calls, spent.completion_tokens)
    assert runs.spent.replayed_calls == runs.spent.model_calls - FAILED_CALLS.get(scene, 0)
    unknown = {"prompt_tokens"} if scene == "a sample failed" else set()  # the store has no failed samples
    plain = [(kind, timeless(report, unknown)) for kind, report in told]
    assert [(e.type, timeless(e.report, unknown)) for e in runs.sink.events if e.type.startswith("jury.")] == plain


def timeless(report, unknown):
    return {name: value for name, value in report.items() if name not in {"latency_ms", "failure", *unknown}}


async def test_interrupted_run_resumes(store):
    reached = asyncio.Event()

    async def stop():
        reached.set()
        await asyncio.Event().wait()

    runs = JuryRuns(store, {**jury(), "main": model(ScriptedJuror(**CHAIR), "m/chair", step=stop)})
    work = asyncio.ensure_future(runs.solve("run"))
    await reached.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert all(m.running == 0 for m in runs.by_role.values())
    whole = JuryRuns(store, jury())
    expected = await whole.solve("whole")
    runs.by_role["main"] = model(ScriptedJuror(**CHAIR), "m/chair")
    asked = [len(m.generate_calls) for role, m in runs.by_role.items() if role != "main"]
    assert await runs.solve("run") == expected
    assert [len(m.generate_calls) for role, m in runs.by_role.items() if role != "main"] == asked
    assert runs.spent.replayed_calls == 6
