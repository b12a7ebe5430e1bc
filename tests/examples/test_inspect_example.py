"""The Inspect task of the examples in Inspect's own runner, on the default model."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from reason.core.store.sqlite import SqliteStore

inspect_ai = pytest.importorskip("inspect_ai")
pytestmark = [pytest.mark.real, pytest.mark.usefixtures("inspect_logging")]


async def finished_runs(path: Path) -> set[str]:
    store = await SqliteStore.open(path)
    try:
        return {record.id for record in await store.list_runs() if record.status == "finished"}
    finally:
        await store.aclose()


@pytest.mark.nightly
def test_inspect_evaluates_a_vote_and_a_single_chain(example, home):
    from inspect_ai.log import read_eval_log

    module = example("inspect_task")
    tasks = [module.capitals(n=2, tokens=100), module.capitals("cot", tokens=64)]
    logs = inspect_ai.eval(tasks, model="none/none", log_dir=str(home / "logs"), display="none")
    runs = set()
    for log, strategy, chains, tokens in zip(logs, ("self-consistency", "cot"), (2, 1), (100, 64), strict=True):
        assert log.status == "success", log.error
        samples = read_eval_log(log.location).samples or []
        assert [s.id for s in samples] == ["France", "Italy", "Japan"]
        for sample in samples:
            payload, score = sample.metadata["reason"], sample.scores["extracted"]
            assert (payload["strategy"], len(payload["candidates"])) == (strategy, chains)
            assert chains <= payload["ledger"]["completion_tokens"] <= tokens
            assert sample.output.usage.output_tokens == payload["ledger"]["completion_tokens"]
            right = (payload["answer"] or "").casefold() == module.CAPITALS[sample.id].casefold()
            assert (score.value, score.answer) == ("C" if right else "I", payload["answer"])
            runs.add(payload["run_id"])
        share = sum(s.scores["extracted"].value == "C" for s in samples) / 3
        assert log.results.scores[0].metrics["accuracy"].value == pytest.approx(share)
    assert samples[0].scores["extracted"].value == "C"  # the one chain knows the capital of France
    assert len(runs) == 6
    assert runs == asyncio.run(finished_runs(home / "runs.sqlite3"))
