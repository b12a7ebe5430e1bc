"""Lists of runs, in both stores."""

import pytest
import reason.sidecar.run_list as run_list
from reason.core.errors import UnknownName
from reason.core.store.records import ListedRun
from reason.sidecar.run_list import find_runs


def config(question, *, strategy="cot", model="m", metadata=None):
    return {
        "question": {"text": question, "metadata": metadata or {}},
        "strategy": strategy,
        "models": {"main": model, "judge": "j"},
    }


def answer(text, *, tokens=10, usd=0.5, seconds=1.0):
    usage = {"completion_tokens": tokens, "thinking_tokens": 4, "cost_usd": usd, "wall_seconds": seconds}
    return {"answer": text, "stopped": "done", "usage": usage}


async def add(store, name, question="?", *, tenant="t", ended=None, **options):
    await store.create_run(name, config(question, **options), tenant=tenant)
    if ended is not None:
        await store.end_run(name, "finished", ended)


async def ids(store, *args, **filters):
    return [run.id for run in await find_runs(store, *args, tenant="t", **filters)]


async def test_a_list_has_the_short_values_of_a_run_and_not_its_configuration(any_store):
    long = "What?" * 100
    await add(any_store, "r", f"  {long} ", metadata={"team": "a", "deep": {"x": 1}}, ended=answer("4" * 300))
    (run,) = await find_runs(any_store)
    assert type(run) is ListedRun
    assert (run.strategy, run.models, run.metadata) == ("cot", {"main": "m", "judge": "j"}, {"team": "a"})
    assert (run.question, run.answer_text) == (long[:199] + "…", "4" * 199 + "…")
    assert (run.stopped, run.tokens, run.thinking_tokens, run.cost_usd, run.seconds) == ("done", 10, 4, 0.5, 1.0)
    record = await any_store.get_run("r")
    assert record.question == run.question
    assert record.config["question"]["text"] == f"  {long} "


async def test_an_option_is_listed_by_its_text_and_letter(any_store):
    await add(any_store, "r", ended={**answer("A"), "option": "21"})
    await add(any_store, "s", ended=answer("A"))
    await add(any_store, "t", ended={**answer(None), "option": None})
    assert {run.id: run.answer_text for run in await find_runs(any_store)} == {"r": "21 (A)", "s": "A", "t": None}


async def test_text_that_a_column_cannot_hold_is_replaced(any_store):
    await add(any_store, "r", "a\0b\ud83dc", metadata={"k\0": "\ud83d"}, ended=answer("\0"))
    (run,) = await find_runs(any_store, search="a b")
    assert (run.question, run.metadata, run.answer_text) == ("a b?c", {"k ": "?"}, " ")
    assert await ids(any_store, search="\0b\ud83d") == ["r"]


async def test_the_pairs_of_a_translated_request_are_its_callers(any_store):
    nested = {"metadata": {"team": "a"}, "user": "u", "instructions": "long"}
    await add(any_store, "r", metadata=nested)
    await add(any_store, "s", metadata={"metadata": "a", "long": "x" * 513})
    assert [run.metadata for run in await find_runs(any_store)] == [{"metadata": "a"}, {"team": "a"}]


async def test_filters_combine(any_store):
    await add(any_store, "r1", "How high is the Äpfel tower?", metadata={"team": "a", "x": '1","y":"2'})
    await add(any_store, "r2", "How wide is it? 100%_", strategy="beam", metadata={"team": "ab"})
    await add(any_store, "r3", "How high is the hill?", model="n", ended=answer("4"))
    await add(any_store, "other", "How high is the tower?", tenant="u")
    for filters, found in (
        ({"search": "HIGH"}, "r3 r1"),
        ({"search": "äPFEL"}, "r1"),
        ({"search": "0%_"}, "r2"),
        ({"search": "%high%"}, ""),
        ({"search": "r3"}, "r3"),
        ({"search": "TEAM"}, "r2 r1"),
        ({"search": "high", "model": "m"}, "r1"),
        ({"strategy": "beam"}, "r2"),
        ({"status": "finished", "search": "high"}, "r3"),
        ({"tag": ("team", "a")}, "r1"),
        ({"tag": ("team", "A")}, ""),
        ({"tag": ("y", "2")}, ""),
        ({"tag": ("x", '1","y":"2')}, "r1"),
    ):
        assert await ids(any_store, **filters) == found.split(), filters


@pytest.mark.parametrize(
    ("sort", "ascending"), [("created", False), ("created", True), ("cost", False), ("tokens", True), ("seconds", True)]
)
async def test_every_order_has_pages_without_gaps(any_store, sort, ascending):
    values = {f"r{i}": (i * 7) % 5 for i in range(9)}
    for name, value in values.items():
        await add(any_store, name, ended=answer("4", tokens=value, usd=value / 2, seconds=float(value)))
    await add(any_store, "open")
    pages, after = [], None
    while page := await ids(any_store, 4, sort=sort, ascending=ascending, after=after):
        pages += page
        after = page[-1]
    by_value = sorted(values, key=lambda name: (values[name], name), reverse=not ascending)
    by_creation = [*values, "open"][:: 1 if ascending else -1]
    assert pages == (by_creation if sort == "created" else [*by_value, "open"])
    with pytest.raises(UnknownName):
        await find_runs(any_store, sort=sort, after="no-such")


async def test_a_filter_looks_at_a_bounded_number_of_runs(any_store, monkeypatch):
    monkeypatch.setattr(run_list, "MAX_SEARCHED_RUNS", 3)
    for i in range(6):
        await add(any_store, f"r{i}", "odd" if i % 2 else "even", ended=answer("4", tokens=10 - i))
    assert await ids(any_store, search="even") == ["r4"]
    assert await ids(any_store, search="even", after="r4") == ["r2"]
    assert await ids(any_store, sort="tokens") == ["r3", "r4", "r5"]
    assert await ids(any_store) == [f"r{i}" for i in range(6)][::-1]


async def test_a_list_has_the_runs_of_its_tenant_only(any_store):
    for name, tenant in (("a1", "a"), ("b1", "b"), ("a2", "a"), ("n1", "")):
        await add(any_store, name, tenant=tenant)
    for tenant, names in (("a", ["a2", "a1"]), ("", ["n1"]), (None, ["n1", "a2", "b1", "a1"])):
        assert [r.id for r in await find_runs(any_store, tenant=tenant)] == names
    with pytest.raises(UnknownName):
        await find_runs(any_store, tenant="a", after="b1")
