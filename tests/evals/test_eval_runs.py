"""Runs of an evaluation on a scripted model: rows, going on, reuse of samples, errors."""

from __future__ import annotations

import asyncio

import pytest
from reason.core.errors import BackendUnavailable, ContextTooLong, DataError, UserError
from reason.core.settings import Settings
from reason.evals.run_directory import ITEMS, RunDirectory, read_manifest, read_rows
from reason.evals.runner import RunObserver, SharedResources, evaluate, make_plan, settings_for
from reason.evals.statistics.intervals import wilson
from reason.evals.statistics.outcomes import Outcomes
from reason.evals.summary import mean_of, summarize
from support.eval_tasks import SOURCE, sums
from support.waiting import wait_until

VOTES = {"n": 4, "max_tokens": 40, "temperature": 1.0}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"strategy": "self-consistency"})


@pytest.fixture
def run(model, settings, tmp_path):
    """Evaluates so many sums into the directory `name`."""

    async def run(items: int = 12, name: str = "run", *, decided=None, **options):
        return await evaluate(
            decided or plan(settings, items), sums(items), SOURCE, tmp_path / name, settings, **options
        )

    return run


def plan(settings: Settings, items: int = 12, *, seeds: tuple[int, ...] = (0,), **parameters: object):
    return make_plan(sums(items), settings, parameters={**VOTES, **parameters}, seeds=seeds)


async def test_a_run_writes_a_row_for_every_item_and_seed(run, settings, tmp_path):
    out = tmp_path / "run"
    rows = await run(decided=plan(settings, seeds=(3, 4)))
    assert [r.key for r in rows] == [(f"sum-{i:03}", seed) for seed in (3, 4) for i in range(12)]
    assert read_rows(out) == rows
    row = rows[0]
    assert (row.ledger.model_calls, row.ledger.responses, row.ledger.paid_responses) == (1, 4, 4)
    assert row.ledger.completion_tokens == row.ledger.paid_tokens > 0
    assert (row.engines, row.sampling[0]["max_tokens"]) == ({"main": "scripted@1"}, 40)
    assert (row.timing.uninterrupted, len(row.prompt_hash)) == (True, 64)
    assert rows[0].prompt_hash == rows[12].prompt_hash != rows[1].prompt_hash
    assert rows[0].item_seed != rows[12].item_seed
    manifest = read_manifest(out)
    assert manifest.complete
    assert manifest.environment["reason"]
    result = summarize(rows)
    assert (result.items, result.rows, result.spread.seeds) == (12, 24, 2)
    assert result.accuracy.value == pytest.approx(sum(r.value for r in rows) / 24, abs=1e-12)
    assert set(result.subjects) == {"even", "odd"}
    assert result.cost.total_tokens == result.cost.paid_tokens == sum(r.ledger.completion_tokens for r in rows)


async def test_concurrency_does_not_change_the_rows(run):
    one, many = await run(name="one", concurrency=1), await run(name="many", concurrency=12)
    assert [r.without_times() for r in one] == [r.without_times() for r in many]


async def test_concurrency_bounds_the_items_in_flight(model, run):
    most = 0

    async def look() -> None:
        nonlocal most
        await wait_until(lambda: model.running >= 2 or most >= 2)  # until a second item is in flight
        most = max(most, model.running)

    model._step = look
    await run(concurrency=3)
    assert 1 < most <= 3


async def test_resuming_a_cancelled_run_does_not_pay_twice(model, run, tmp_path):
    whole = await run(name="whole")
    model.made.clear()
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1
        if steps == 60:
            work.cancel()

    model._step = count
    work = asyncio.ensure_future(run(concurrency=2))
    with pytest.raises(asyncio.CancelledError):
        await work
    model._step = None
    assert 0 < len(read_rows(tmp_path / "run")) < 12
    with pytest.raises(UserError, match="--resume"):
        await run()
    rows = await run(resume=True)
    assert [r.without_times() for r in rows] == [r.without_times() for r in whole]
    assert sum(r.ledger.paid_responses for r in rows) == 48


async def test_a_torn_last_line_is_cut_off_and_repeated_and_a_damaged_one_named(model, run, tmp_path):
    file = tmp_path / "run" / ITEMS
    rows = await run()
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])
    with pytest.raises(DataError, match=rf"{ITEMS}:12"):
        read_rows(file.parent)
    made = len(model.made)
    again = await run(resume=True)
    assert len(model.made) == made
    assert [r.without_times() for r in again] == [r.without_times() for r in rows]
    assert file.read_bytes() == whole
    first, second, *others = whole.splitlines(keepends=True)
    file.write_bytes(b"".join([first, second[:50], b"\n", *others]))
    with pytest.raises(DataError, match=rf"{ITEMS}:2"):
        await run(resume=True)


async def test_a_directory_of_another_or_a_running_run_is_refused(run, settings, tmp_path):
    await run(3)
    with pytest.raises(UserError, match=r"parameters\.n 4 → 5"):
        await run(3, decided=plan(settings, 3, n=5), resume=True)
    with pytest.raises(DataError, match="no longer has the rows"):
        await run(4, decided=plan(settings, 3), resume=True)
    with RunDirectory(tmp_path / "other"), pytest.raises(UserError, match="another process"):
        await run(name="other")


async def test_samples_are_recorded_once_for_all_runs(model, settings, tmp_path):
    """n = 8 recorded, then n = 4 and 1 from the store: nothing new, and the tokens count as if they were generated."""
    from reason.agents.reasoner import Reasoner

    task, store = sums(6), tmp_path / "runs.sqlite3"
    plans = [make_plan(task, settings, parameters={**VOTES, "n": n}, seeds=[0]) for n in (8, 4, 1)]
    apart = [await evaluate(p, task, SOURCE, tmp_path / f"apart{i}", settings) for i, p in enumerate(plans)]
    model.made.clear()
    async with Reasoner(settings=settings_for(plans[0], settings, store)) as reasoner:
        shared = SharedResources(reasoner, store)
        rows = [
            await evaluate(p, task, SOURCE, tmp_path / f"shared{i}", settings, shared=shared)
            for i, p in enumerate(plans)
        ]
    assert len(model.made) == 6 * 8
    for mine, alone in zip(rows, apart, strict=True):
        assert [r.answer for r in mine] == [r.answer for r in alone]
        assert [r.ledger.completion_tokens for r in mine] == [r.ledger.completion_tokens for r in alone]
    for mine in rows[1:]:
        assert all(r.ledger.paid_responses == r.ledger.paid_tokens == 0 and not r.timing.uninterrupted for r in mine)
        result = summarize(mine)
        assert result.latency is None
        assert result.cost.total_tokens > 0 == result.cost.paid_tokens


async def test_a_failed_item_counts_as_wrong_and_is_repeated(model, run, monkeypatch):
    generate = model.generate

    async def failing(requests, listener=None):
        if "2 + 3" in requests[0].prompt.messages[0].content:
            raise ContextTooLong("too long", tokens=2, limit=1)
        return await generate(requests, listener)

    monkeypatch.setattr(model, "generate", failing)
    rows = await run(4)
    assert (rows[2].error.code, rows[2].value, rows[2].parsed) == ("context_too_long", 0.0, False)
    assert summarize(rows).failed == 1
    monkeypatch.setattr(model, "generate", generate)
    again = await run(4, resume=True)
    assert (again[2].error, again[2].attempts) == (None, 2)
    result = summarize(again)
    assert (result.failed, result.retried) == (0, 1)


async def test_a_dead_backend_ends_the_run_and_keeps_its_rows(model, run, tmp_path, monkeypatch):
    generate = model.generate

    async def dying(requests, listener=None):
        if len(model.made) >= 12:
            raise BackendUnavailable("the server is gone")
        return await generate(requests, listener)

    monkeypatch.setattr(model, "generate", dying)
    with pytest.raises(BackendUnavailable):
        await run(6, concurrency=1)
    assert len(read_rows(tmp_path / "run")) == 3
    monkeypatch.setattr(model, "generate", generate)
    assert len(await run(6, resume=True)) == 6


@pytest.mark.nightly
async def test_an_error_before_the_run_is_recorded_is_raised(model, settings, tmp_path):
    (tmp_path / "nothing").mkdir()
    knowing = settings.model_copy(update={"strategy": "rag", "context": (str(tmp_path / "nothing"),)})
    decided = make_plan(sums(3), knowing, parameters={"max_tokens": 40})
    with pytest.raises(DataError, match="there is no text in"):
        await evaluate(decided, sums(3), SOURCE, tmp_path / "run", knowing)


async def test_a_limit_counts_only_its_items(run, settings):
    begun = []

    class Counting(RunObserver):
        def begin(self, total, rows) -> None:
            begun.append((total, [r.id for r in rows]))

    for limit in (3, 2):
        decided = make_plan(sums(6), settings, parameters=VOTES, limit=limit, seeds=[0])
        rows = await run(6, decided=decided, resume=True, observer=Counting())
        assert [r.id for r in rows] == [f"sum-{i:03}" for i in range(limit)]
    assert begun == [(3, []), (2, ["sum-000", "sum-001"])]


@pytest.mark.parametrize(
    ("strategy", "parameters", "seeds"),
    [
        ("self-consistency", {}, (0, 1, 2)),
        ("self-consistency", {"temperature": 0}, (0,)),
        ("cot", {}, (0,)),
        ("beam", {}, (0, 1, 2)),
        ("rlot", {}, (0,)),
        ("rlot", {"n_votes": 3}, (0, 1, 2)),
    ],
)
def test_a_strategy_that_samples_has_three_seeds_by_default(strategy, parameters, seeds, settings):
    changed = settings.model_copy(update={"strategy": strategy})
    assert make_plan(sums(1), changed, parameters=parameters).seeds == seeds
    assert make_plan(sums(1), changed, parameters=parameters, seeds=[5]).seeds == (5,)


def test_a_seed_named_twice_is_refused(settings):
    with pytest.raises(UserError, match="twice"):
        plan(settings, seeds=(1, 1))


def test_all_wrong_is_not_certain_to_be_wrong():
    """Every seed of every item wrong: the bootstrap would say [0, 0]."""
    outcomes = Outcomes.of({f"i{i}": {0: 0.0, 1: 0.0} for i in range(10)})
    result = mean_of(outcomes).interval
    assert result == wilson(0, 10)
    mixed = mean_of(Outcomes.of({"a": {0: 1.0, 1: 0.0}, "b": {0: 1.0, 1: 1.0}})).interval
    assert mixed is not None
    assert mixed.method == "bootstrap"


async def test_labels_and_margins_are_summarised(run):
    rows = await run(4)
    gold = {"type": "label", "label": "yes", "labels": ["yes", "no", "maybe"]}
    given = [
        row.model_copy(update={"gold": gold, "label": right, "prediction": said, "metrics": {"margin": margin}})
        for row, right, said, margin in zip(
            rows, ("yes", "yes", "no", "no"), ("yes", "no", "no", None), (-0.5, 0.5, 0.25, 1.5), strict=True
        )
    ]
    result = summarize(given)
    assert result.labels is not None
    # yes: precision 1, recall 1/2; no: precision 1/2, recall 1/2; maybe neither occurs nor was given
    assert result.labels.macro_f1 == pytest.approx((2 / 3 + 1 / 2) / 2, abs=1e-12)
    assert result.metrics["margin"].value == pytest.approx(0.4375, abs=1e-12)
    assert summarize(rows).labels is None
