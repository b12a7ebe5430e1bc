"""Strategies as Inspect's solvers, in Inspect's own runner, with its scorers and its log."""

from __future__ import annotations

import pytest
from reason.core.settings import Settings
from support.scripted_model import ScriptedModel, replies

inspect_ai = pytest.importorskip("inspect_ai")
pytestmark = pytest.mark.usefixtures("inspect_logging")


@pytest.fixture
def scripted(install) -> ScriptedModel:
    return install(ScriptedModel(replies("The answer is B.", "The answer is C.", weights=[3, 1])))


def test_inspect_runs_a_strategy_and_its_log_has_the_answer(scripted, tmp_path):
    from inspect_ai import Task
    from inspect_ai import eval as run_eval
    from inspect_ai.dataset import Sample
    from inspect_ai.log import read_eval_log
    from inspect_ai.scorer import choice
    from reason.agents.reasoner import Reasoner
    from reason.evals.inspect_solvers import strategy_solver

    settings = Settings(model="scripted", store=tmp_path / "runs.sqlite3", cache_dir=tmp_path / "cache")
    reasoner = Reasoner(strategy="self-consistency", parameters={"n": 5, "max_tokens": 40}, settings=settings)
    task = Task(
        dataset=[Sample(input="Which is a prime?", choices=["21", "23", "25"], target="B", id="p")],
        solver=strategy_solver("self-consistency", reasoner=reasoner),
        scorer=choice(),
    )
    (log,) = run_eval(task, model="none/none", log_dir=str(tmp_path / "logs"), display="none", epochs=2)
    assert log.status == "success", log.error
    read = read_eval_log(log.location)
    samples = read.samples or []
    assert [s.epoch for s in samples] == [1, 2]
    for sample in samples:
        reported = sample.metadata["reason"]
        assert sample.scores["choice"].value == "C"  # correct, as Inspect writes it
        assert (reported["answer"], len(reported["candidates"])) == ("B", 5)
        assert reported["ledger"]["model_calls"] == 1
        assert sample.output.completion.startswith("The answer is B")
        assert sample.output.usage.output_tokens == reported["ledger"]["completion_tokens"]
    assert samples[0].metadata["reason"]["seed"] != samples[1].metadata["reason"]["seed"]


def test_every_strategy_has_a_solver():
    from reason.evals.inspect_solvers import SOLVERS
    from reason.reasoning.strategy import STRATEGIES

    assert set(SOLVERS) == set(STRATEGIES.names())
