"""A client over sources that fail in every way: what it returns, counts, tells, stores, and never does."""

import asyncio
import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reason.core.errors import BackendError, BudgetExceeded, StoreError, UserError
from reason.core.store.sqlite import SqliteStore
from reason.reasoning.knowledge import KnowledgeSource, Snippet
from reason.reasoning.retrieval.sources.client import KnowledgeClient, RecordedSource
from reason.serving.metered.replay import NotRecorded
from support.knowledge_sources import KnowledgeRuns, ScriptedKnowledgeSource, hang

FACTS = {"moon": ["The Moon is far.", "The Moon is round."], "sun": ["The Sun is hot."]}


def texts(rows):
    return [[s.text for s in row] for row in rows]


async def test_all_queries_of_all_sources_are_asked_at_once(runs):
    both = asyncio.Event()
    sources = []

    async def until_all_run():
        if sum(b.running for b in sources) == 4:
            both.set()
        await both.wait()

    sources += [ScriptedKnowledgeSource(FACTS, name=n, step=until_all_run) for n in ("one", "two")]
    assert all(isinstance(b, KnowledgeSource) for b in sources)
    found = await KnowledgeClient(sources, await runs.run()).query(["moon", "sun"], 3, ["step 1", "step 2"])
    assert texts(found) == [["The Moon is far.", "The Moon is round."], ["The Sun is hot."]]
    assert [(s.source_name, s.source_kind, s.source_id) for s in found[0]] == [
        ("one", "python", "s0"),
        ("one", "python", "s1"),
    ]
    assert sources[1].asked == [("moon", 3, "step 1"), ("sun", 3, "step 2")]
    assert runs.notes("knowledge.queried") == [{"queries": 4, "replayed": 0, "snippets": 6}]


async def test_snippets_of_several_sources_are_fused_and_equal_texts_come_once(runs):
    one = ScriptedKnowledgeSource({"q": ["a", "b", "c"]}, name="one")
    two = ScriptedKnowledgeSource({"q": ["d", "  b\n", "e"]}, name="two")
    (row,) = await (await runs.client(one, two)).query(["q"], 4)
    assert [s.text for s in row] == ["b", "a", "d", "c"]
    assert row[0].score == pytest.approx(2 / 62)
    assert row[0].source_name == "one"


async def test_the_scores_of_a_single_source_are_its_own_and_k_bounds_it(runs):
    source = ScriptedKnowledgeSource({"q": [Snippet(text=str(i), source_id="", score=9.0 - i) for i in range(9)]})
    (row,) = await (await runs.client(source)).query(["q"], 2)
    assert [(s.text, s.score) for s in row] == [("0", 9.0), ("1", 8.0)]


async def test_no_source_no_query_and_blank_queries_find_nothing(runs):
    run = await runs.run()
    assert await KnowledgeClient([], run).query(["q"], 3) == [[]]
    source = ScriptedKnowledgeSource(FACTS)
    client = KnowledgeClient([source], run)
    assert await client.query([], 3) == []
    assert texts(await client.query([" \n", "sun"], 3)) == [[], ["The Sun is hot."]]
    assert source.texts == ["sun"]


@pytest.mark.parametrize("bad", [{"k": 0}, {"k": 1, "contexts": ["a", "b"]}])
async def test_what_cannot_be_asked_is_refused(runs, bad):
    with pytest.raises(UserError):
        await (await runs.client(ScriptedKnowledgeSource(FACTS))).query(["moon"], **bad)


@pytest.mark.parametrize("bad", [{"timeout_s": 0}, {"timeout_s": float("nan")}])
async def test_bounds_that_bound_nothing_are_refused(runs, bad):
    with pytest.raises(UserError):
        KnowledgeClient([], await runs.run(), **bad)


# -- faults


class Faulty(ScriptedKnowledgeSource):
    """What a query's first word says: raise, hang, empty, tenfold, stubborn, quits, garbage, good."""

    def __init__(self, **more):
        super().__init__({}, **more)
        self.release = asyncio.Event()

    async def query(self, text, k, context=""):
        self.asked.append((text, k, context))
        match text.split()[0]:
            case "raise":
                raise BackendError("the index is gone")
            case "crash":
                raise ZeroDivisionError
            case "hang":
                await hang()
            case "stubborn":
                while not self.release.is_set():
                    with contextlib.suppress(asyncio.CancelledError):
                        await self.release.wait()
            case "quits":
                raise asyncio.CancelledError
            case "slow":
                raise TimeoutError
            case "tenfold":
                return [Snippet(text="the same", source_id=text)] * 10
            case "garbage":
                return ["a text", 7]
            case "none":
                return None
            case "good":
                return [Snippet(text=f"fact of {text}", source_id="")]
        return []


ERRORS, TIMEOUTS = {"raise", "crash", "quits", "garbage", "none"}, {"slow"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(sorted({*ERRORS, *TIMEOUTS, "empty", "tenfold", "good"})), max_size=12))
async def test_counters_match_the_injected_faults_exactly(tmp_path_factory, kinds):
    store = await SqliteStore.open(tmp_path_factory.mktemp("faults") / "runs.sqlite3")
    try:
        runs = KnowledgeRuns(store)
        source = Faulty()
        client = await runs.client(source)
        queries = [f"{kind} {i}" for i, kind in enumerate(kinds)]
        found = await client.query(queries, 3)
        expected = {"tenfold": ["the same"]}
        assert texts(found) == [
            [f"fact of {q}"] if kind == "good" else expected.get(kind, [])
            for q, kind in zip(queries, kinds, strict=True)
        ]
        counts = {
            "errors": sum(k in ERRORS for k in kinds),
            "timeouts": sum(k in TIMEOUTS for k in kinds),
            "repeats": 9 * kinds.count("tenfold"),
        }
        assert counters(client) == counts
        failures = {"raise": "backend_error", "crash": "ZeroDivisionError", "quits": "cancelled"}
        codes = {failures.get(k, "invalid_response") for k in kinds if k in ERRORS}
        codes |= {"backend_timeout"} if counts["timeouts"] else set()
        told = runs.notes("knowledge.failed")
        assert sorted(n["code"] for n in told) == sorted(codes)
        assert len(runs.sink.of_type("run.degraded")) == bool(codes)
        # a resumed run, and a replay, go the same way and ask nothing
        for again in ({}, {"replay": True}):
            other = Faulty() if not again else RecordedSource(source.name, source.kind, source.identity)
            client = await runs.client(other, **again)
            assert texts(await client.query(queries, 3)) == texts(found)
            assert counters(client) == counts
            assert getattr(other, "asked", []) == []
            assert runs.notes("knowledge.failed") == told
    finally:
        await store.aclose()


def counters(client):
    return {name: getattr(client, name) for name in ("errors", "timeouts", "repeats")}


async def test_a_failure_is_told_once_for_each_source_and_kind_and_counted_each_time(runs, clock):
    run = await runs.run()
    client = KnowledgeClient([Faulty(name="one"), Faulty(name="two")], run)
    await clock.run(client.query([f"raise {i}" for i in range(5)], 3))
    await clock.run(client.query(["raise again", "hang"], 3))
    assert counters(client) == {"errors": 12, "timeouts": 2, "repeats": 0}
    told = [(n["source"], n["failed"], n["code"]) for n in runs.notes("knowledge.failed")]
    assert told == [
        ("one", "error", "backend_error"),
        ("two", "error", "backend_error"),
        ("one", "timeout", "backend_timeout"),
        ("two", "timeout", "backend_timeout"),
    ]
    first = runs.notes("knowledge.failed")[0]
    assert (first["query"], first["message"]) == ("raise 0", "the index is gone")
    assert len(run.degraded) == 2
    assert "one" in run.degraded[0]


async def test_a_source_that_cannot_be_cancelled_is_left_behind(runs, clock):
    source = Faulty()
    client = await runs.client(source)
    assert texts(await clock.run(client.query(["stubborn", "good"], 3))) == [[], ["fact of good"]]
    assert client.timeouts == 1
    (left,) = asyncio.all_tasks() - {asyncio.current_task()}
    source.release.set()
    await asyncio.wait((left,))


async def test_what_it_gives_is_bounded_and_can_be_stored(runs):
    nasty = [
        Snippet(text="x" * 100_000, source_id="y" * 5000, score=float("inf")),
        Snippet(text=" \n\t", source_id="blank"),
        Snippet(text="half \ud800 pair \0", source_id="\udfff", score=float("nan")),
        *(Snippet(text=f"n{i}", source_id="") for i in range(1000)),
    ]
    source = ScriptedKnowledgeSource({"q \ud800": nasty, "q ?": nasty})
    client = await runs.client(source)
    (row,) = await client.query(["q \ud800"], 500)
    assert [len(row[0].text), len(row[0].source_id), row[0].score] == [20_000, 1000, 0.0]
    assert (row[1].text, row[1].source_id, row[1].score) == ("half ? pair \0", "?", 0.0)
    assert len(row) == 99  # of the first hundred, one is blank
    again = await runs.client(RecordedSource(source.name, source.kind, source.identity))
    assert await again.query(["q \ud800"], 500) == [row]


# -- the run store


async def test_equal_queries_are_asked_once(runs):
    source = ScriptedKnowledgeSource(FACTS)
    client = await runs.client(source)
    for _ in range(2):
        assert texts(await client.query(["moon", "sun", "moon"], 3)) == [FACTS["moon"], FACTS["sun"], FACTS["moon"]]
    assert source.texts == ["moon", "sun"]
    assert len(await runs.store.list_calls("r")) == 2


async def test_what_is_asked_names_the_reply(runs):
    source = ScriptedKnowledgeSource(FACTS)
    client = await runs.client(source)
    await client.query(["moon"], 3)
    await client.query(["moon"], 2)
    await client.query(["moon"], 3, ["context"])
    await (await runs.client(ScriptedKnowledgeSource(FACTS, identity="other"))).query(["moon"], 3)
    assert len(source.asked) == 3
    assert len(await runs.store.list_calls("r")) == 4
    (call,) = [c for c in await runs.store.list_calls("r") if c.request["context"]]
    assert (call.role, call.model, call.truncated) == ("knowledge", "scripted", False)
    assert call.request == {"knowledge": "moon", "k": 3, "context": "context"}


async def test_other_runs_are_answered_when_asked_for_but_never_by_a_failure(runs, clock):
    first = Faulty()
    await clock.run((await runs.client(first, name="first")).query(["good", "raise", "hang"], 3))
    second = Faulty()
    client = await runs.client(second, name="second", reuse="store")
    assert texts(await clock.run(client.query(["good", "raise", "hang"], 3))) == [["fact of good"], [], []]
    assert second.texts == ["raise", "hang"]
    await runs.store.delete_run("first")
    third = RecordedSource(second.name, second.kind, second.identity)
    replay = await runs.client(third, name="second", replay=True)
    assert texts(await clock.run(replay.query(["good", "raise", "hang"], 3))) == [["fact of good"], [], []]
    fourth = Faulty()
    await clock.run((await runs.client(fourth, name="second", reuse="none")).query(["good"], 3))
    assert fourth.texts == ["good"]


async def test_a_replay_that_asks_for_something_new_ends(runs):
    await (await runs.client(ScriptedKnowledgeSource(FACTS))).query(["moon"], 3)
    before = len(await runs.store.list_calls("r"))
    run = await runs.run(replay=True)
    recorded = RecordedSource("scripted", "python", "scripted@1")
    assert isinstance(recorded, KnowledgeSource)
    with pytest.raises(NotRecorded, match="resume it"):
        await KnowledgeClient([recorded], run).query(["moon", "sun"], 3)
    out_of_time = RecordedSource("scripted", "python", "scripted@1", limit="seconds")
    with pytest.raises(BudgetExceeded):
        await KnowledgeClient([out_of_time], run).query(["sun"], 3)
    assert len(await runs.store.list_calls("r")) == before
    await recorded.aclose()


async def test_errors_of_a_sources_own_store_and_budget_are_its_own(runs):
    source = ScriptedKnowledgeSource({"a": StoreError("its file is locked"), "b": BudgetExceeded("tokens", 1, 1)})
    client = await runs.client(source)
    assert await client.query(["a", "b"], 3) == [[], []]
    assert client.errors == 2


async def test_what_came_before_a_kill_is_not_asked_again(runs, clock):
    """Cancelled while one query hangs: the other's reply is in the store, and nothing is left running."""
    source, run = Faulty(), await runs.run()

    async def query():
        async with run.writer.saving():
            await KnowledgeClient([source], run).query(["good", "hang"], 3)

    task = asyncio.create_task(query())
    await clock.advance(1)
    assert len(source.asked) == 2
    assert len(await runs.store.list_calls("r")) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []
    assert not runs.notes("knowledge.failed")
    resumed = Faulty()
    client = await runs.client(resumed)
    assert texts(await clock.run(client.query(["good", "hang"], 3))) == [["fact of good"], []]
    assert resumed.texts == ["hang"]


# -- bounds


async def test_queries_in_flight_are_bounded(runs):
    source = ScriptedKnowledgeSource(FACTS, step=lambda: asyncio.sleep(0.001))
    await (await runs.client(source)).query([f"q{i}" for i in range(40)], 1)
    assert source.most_running == 16


async def test_the_time_limit_of_the_run_holds_and_what_came_is_kept(runs, clock):
    run = await runs.run(seconds=5)
    source = Faulty()
    with pytest.raises(BudgetExceeded) as stopped:
        await clock.run(KnowledgeClient([source], run, timeout_s=60).query(["good", "hang"], 3))
    assert clock.elapsed == 5
    assert stopped.value.kind == "seconds"
    assert len(await runs.store.list_calls("r")) == 1
    late = Faulty()
    with pytest.raises(BudgetExceeded):
        await KnowledgeClient([late], run).query(["other"], 3)
    assert late.asked == []


async def test_the_store_decides_and_its_failure_is_not_the_sources(runs):
    client = await runs.client(ScriptedKnowledgeSource(FACTS))
    await runs.store.aclose()
    with pytest.raises(StoreError):
        await client.query(["moon"], 3)
    assert client.errors == 0
