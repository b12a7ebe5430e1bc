"""Concurrent requests to jurors: batches, deadlines, quorums, failures, and replays from the run store."""

import asyncio

import pytest
from reason.core.budget import Budget
from reason.core.errors import BackendError, BackendTimeout, BackendUnavailable
from reason.core.run import Run, RunConfig
from reason.core.store.sqlite import SqliteStore
from reason.verify.edgejury.panel import Panel
from support.scripted_jury import CAPITAL, JuryRuns, ScriptedJuror, kind_of, model, prompts, rules, says
from support.scripted_model import ScriptedModel
from support.two_models import WithoutStops

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


async def test_jurors_of_one_model_form_one_batch(store):
    alone = model(ScriptedJuror(says("Canberra"), **CHAIR), "m/only")
    runs = JuryRuns(store, {"main": alone})
    await runs.solve(early_exit="never")
    assert [len(call) for call in alone.generate_calls] == [3, 3, 1]
    assert [r.indices for r in alone.generate_calls[0]] == [(0,), (1,), (2,)]
    a, b = model(ScriptedJuror(says("Canberra")), "a/one"), model(ScriptedJuror(says("Perth")), "b/two")
    runs = JuryRuns(store, {"main": model(ScriptedJuror(**CHAIR), "m/m"), "juror-1": a, "juror-2": b, "juror-3": a})
    await runs.solve("shared")
    assert [len(call) for call in a.generate_calls] == [2, 2]
    assert [r.indices for r in a.generate_calls[0]] == [(0,), (1,)]
    assert [r.indices for r in b.generate_calls[0]] == [(0,)]  # its first sample: a pool may have no other
    assert [len(call) for call in b.generate_calls] == [1, 1]
    assert {key.split(":")[0] for key in runs.spent.by_role} == {"main", "juror-1", "juror-2"}


async def test_models_are_called_concurrently(store):
    meeting = asyncio.Barrier(3)
    waited = set()

    def meet(name):
        async def step():
            if name not in waited:  # all three must be at work for any of them to go on
                waited.add(name)
                await meeting.wait()

        return step

    side_by_side = {f"juror-{i}": model(ScriptedJuror(says("Perth")), f"{i}/x", step=meet(i)) for i in (1, 2, 3)}
    runs = JuryRuns(store, {"main": model(ScriptedJuror(), "m/m"), **side_by_side})
    assert (await runs.solve()).best.answer == "D"


async def test_stage_takes_as_long_as_its_slowest_call(store):
    now, waiting = [0.0], []

    def until(seconds):
        async def step():
            if seconds in until.done:
                return
            until.done.add(seconds)
            mine = asyncio.Event()
            waiting.append((seconds, mine))
            if len(waiting) == 3:  # everybody waits: let time pass, the earliest first
                for at, event in sorted(waiting, key=lambda w: w[0]):
                    now[0] = max(now[0], at)
                    event.set()
            await mine.wait()

        return step

    until.done = set()
    slow = {f"juror-{i}": model(ScriptedJuror(says("Perth")), f"{i}/x", step=until(10.0 * i)) for i in (1, 2, 3)}
    runs = JuryRuns(store, {"main": model(ScriptedJuror(), "m/m"), **slow})
    await runs.solve(clock=lambda: now[0])
    assert runs.reports("jury.stage")[0]["latency_ms"] == 30_000
    assert [s.seconds for s in runs.sink.of_type("stage.finished")][0] == 30


async def test_deadline_cancels_slow_juror(store):
    slow = supports_schema(after=5)
    runs = JuryRuns(store, {**jury(), "juror-3": slow})
    solution = await runs.solve(deadline_s=2, early_exit="never")
    first, second, third = runs.reports("jury.opinion")
    assert (first["ok"], second["ok"], third["ok"], third["failure"]) == (True, True, False, "no response in time")
    assert slow.running == 0
    assert runs.spent.by_role["juror-3:c/three"].completion_tokens == 5  # what it used is paid
    assert third["tokens"] == 5
    assert [kind_of(p) for p in prompts(slow)] == ["opinion"]
    assert solution.best.answer == "B"
    assert solution.stopped == "done"


async def test_quorum_completes_a_stage(store):
    slow = supports_schema()
    runs = JuryRuns(store, {**jury(), "juror-3": slow})
    solution = await runs.solve(quorum=2)
    assert [o["ok"] for o in runs.reports("jury.opinion")] == [True, True, False]
    assert slow.running == 0
    assert solution.notes["path"] == "full"  # two opinions, two reviews


async def test_all_late_raises_timeout(store):
    slow = {f"juror-{i}": supports_schema(name=f"{i}/x") for i in (1, 2, 3)}
    runs = JuryRuns(store, {"main": model(ScriptedJuror(), "m/m"), **slow})
    with pytest.raises(BackendTimeout, match="no response in time"):
        await runs.solve(deadline_s=0.05)


async def test_slow_chair_falls_back_to_best_opinion(store):
    chair = ScriptedModel(ScriptedJuror(**CHAIR).script, name="m/chair", step=lambda: asyncio.Event().wait())
    runs = JuryRuns(store, {**jury(), "main": chair})
    solution = await runs.solve(deadline_s=2)
    # all marks are equal, so the first is the best
    assert (solution.notes["source"], solution.best.answer) == ("fallback", "A")
    assert chair.running == 0


async def test_failing_model_does_not_fail_others(store):
    broken = Refusing(ScriptedJuror().script, name="c/three")
    runs = JuryRuns(store, {**jury(), "juror-3": broken})
    solution = await runs.solve()
    assert [o["failure"] for o in runs.reports("jury.opinion")] == ["", "", "no such server"]
    assert len(broken.generate_calls) == 1
    assert solution.notes["path"] == "full"
    alone = {f"juror-{i}": Refusing(ScriptedJuror().script, name=f"{i}/x") for i in (1, 2, 3)}
    runs = JuryRuns(store, {"main": model(ScriptedJuror(), "m/m"), **alone})
    with pytest.raises(BackendUnavailable, match="no such server"):
        await runs.solve("all")


async def test_reviewer_without_context_space_is_skipped(store):
    tight = model(
        ScriptedJuror(says("Canberra")), "c/three", context_tokens=900
    )  # the question fits, the answers do not
    runs = JuryRuns(store, {**jury(), "juror-3": tight})
    await runs.solve(answer_tokens=60, review_tokens=60, early_exit="never")
    assert [o["ok"] for o in runs.reports("jury.opinion")] == [True, True, True]
    assert [r["failure"] for r in runs.reports("jury.review")] == ["", "", "the answers do not fit the context"]


async def test_too_long_prompt_does_not_fail_its_batch(store):
    wide = model(ScriptedJuror(says("Canberra")), "m/one")
    given = {"answer_tokens": 60, "review": False, "decision": "vote", "early_exit": "never"}
    await JuryRuns(store, {"main": wide}).solve("wide", **given)
    lengths = [len(prompt) for prompt in prompts(wide)]
    longest = lengths.index(max(lengths))
    narrow = model(ScriptedJuror(says("Canberra")), "m/one", context_tokens=max(lengths) + 60 - 1)
    runs = JuryRuns(store, {"main": narrow})
    solution = await runs.solve("narrow", **given)
    assert [o["ok"] for o in runs.reports("jury.opinion")] == [i != longest for i in range(3)]
    assert [len(call) for call in narrow.generate_calls] == [3, 1, 1, 1]
    spent = runs.spent.model_calls
    assert await runs.solve("narrow", replay=True, **given) == solution
    assert runs.spent.model_calls == spent


async def test_model_without_stop_strings_can_review(store):
    plain = WithoutStops(
        ScriptedJuror(says("Canberra"), lambda text: (9, 9, 9) if "Canberra" in text else (2, 2, 2)).script, name="c/x"
    )
    runs = JuryRuns(store, {**jury(), "juror-3": plain})
    solution = await runs.solve()
    assert [r["ok"] for r in runs.reports("jury.review")] == [True, True, True]
    again = await runs.solve(replay=True)
    assert again == solution


SCENES = {
    "as it should be": ({}, {}),
    "too slow": ({"juror-3": lambda: supports_schema(after=5)}, {"deadline_s": 0.2, "early_exit": "never"}),
    "a quorum": ({"juror-3": supports_schema}, {"quorum": 2}),
    "a model down": ({"juror-2": lambda: Refusing(ScriptedJuror().script, name="b/two")}, {}),
    "a sample failed": (
        {"juror-1": lambda: model(ScriptedJuror(says("Perth")), "a/one", failing=frozenset({0}))},
        {"n": 4},
    ),
    "no reviews": ({}, {"review": False}),
    "no room": (
        {"juror-3": lambda: model(ScriptedJuror(says("Perth")), "c/three", context_tokens=900)},
        {"answer_tokens": 60},
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
    assert runs.spent.replayed_calls == runs.spent.model_calls
    plain = [(kind, timeless(report)) for kind, report in told]
    assert [(e.type, timeless(e.report)) for e in runs.sink.events if e.type.startswith("jury.")] == plain


@pytest.mark.parametrize(("recording", "over"), [(True, True), (False, False)])
async def test_replay_has_no_deadline(store, recording, over):
    await store.create_run("r", {})
    config = RunConfig(question=CAPITAL, strategy="edgejury", parameters={}, models={}, seed=1)
    run = Run("r", config, store, recording=recording)
    panel = Panel(run, "answer", deadline_s=0.001)
    with panel.stage():
        await asyncio.sleep(0.05)
        assert panel.is_over is over


def timeless(report):
    return {name: value for name, value in report.items() if name != "latency_ms"}


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


async def test_failed_run_repeats_calls_on_resume(store):
    down = {
        f"juror-{i}": Refusing(ScriptedJuror().script, name=n) for i, n in ((1, "a/one"), (2, "b/two"), (3, "c/three"))
    }
    runs = JuryRuns(store, {**jury(), **down})
    with pytest.raises(BackendError):
        await runs.solve("run")
    runs.by_role.update(jury())
    assert (await runs.solve("run")).notes["path"] == "full"
