"""Evaluation of agents in environments: trials, their scores and cost, resumption and errors."""

from __future__ import annotations

import pytest
import reason.agents.reasoner as reasoner_module
from reason.agents.loop.tool import schema_tool
from reason.agents.reasoner import Reasoner
from reason.core.errors import BackendError, DataError
from reason.core.settings import Settings
from reason.evals.environments import Trial, evaluate_environment, summarize
from support.agent_model import AgentModel, call

NUMBER = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}


class Counter:
    """A world with a number that a tool sets; the user asks for a value, and then whether it is set."""

    system = "Set the number."

    def __init__(self, wanted: int) -> None:
        self.wanted, self.value = wanted, 0
        self.tools = [schema_tool("set", "Set the number.", NUMBER, self.set)]
        self._texts = iter([f"Set it to {wanted}.", "Is it set?"])

    def set(self, x: int) -> str:
        self.value = x
        return "ok"

    async def next_user(self, answer):
        return next(self._texts, None)

    async def score(self, conversation):
        assert len(conversation.runs) == 2
        return float(self.value == self.wanted)


class Counters:
    tasks = ("1", "2")

    async def reset(self, task):
        return Counter(int(task))


def turn(messages):
    """Calls the tool with 1, whatever was asked for."""
    if messages[-1].role == "user" and "Set" in messages[-1].content:
        return [call("set", x=1)]
    return "The answer is yes."


@pytest.fixture
def reasoner(monkeypatch, tmp_path):
    async def load_model(*_):
        return AgentModel(turn)

    monkeypatch.setattr(reasoner_module, "load_model", load_model)
    return Reasoner(settings=Settings(model="scripted", store=tmp_path / "runs.sqlite3", cache_dir=tmp_path / "cache"))


async def test_trials_have_worlds_of_their_own_and_are_scored(reasoner):
    written = []
    async with reasoner:
        trials = await evaluate_environment(
            reasoner, Counters(), name="e", trials=2, concurrency=3, write=written.append
        )
    assert [(t.task, t.trial, t.score) for t in trials] == [("1", 0, 1.0), ("1", 1, 1.0), ("2", 0, 0.0), ("2", 1, 0.0)]
    assert sorted(written, key=lambda t: (t.task, t.trial)) == trials
    assert {(t.turns, t.tool_calls, len(t.runs)) for t in trials} == {(3, 1, 2)}


async def test_finished_trials_are_not_repeated(reasoner):
    done = [Trial(task="1", trial=0, score=0.5)]
    async with reasoner:
        trials = await evaluate_environment(reasoner, Counters(), name="e", done=done)
    assert trials[0] is done[0]


@pytest.mark.parametrize("error", [BackendError("broken"), DataError("unusable")])
async def test_an_error_of_a_trial_fails_it_alone(reasoner, error):
    class Broken(Counters):
        async def reset(self, task):
            if task == "1":
                raise error
            return await super().reset("1")

    async with reasoner:
        first, second = await evaluate_environment(reasoner, Broken(), name="e")
    assert (first.score, first.error) == (0.0, error.message)
    assert second.score == 1.0


async def test_an_environment_needs_tasks(reasoner):
    class Empty(Counters):
        tasks = ()

    async with reasoner:
        with pytest.raises(DataError, match="no tasks"):
            await evaluate_environment(reasoner, Empty(), name="e")


def test_pass_hat_k_is_the_share_of_passed_subsets():
    trials = [
        Trial(task=task, trial=i, score=float(passed), cost_usd=0.5)
        for task, outcomes in (("a", (1, 1, 0, 1)), ("b", (0, 0, 1, 0)))
        for i, passed in enumerate(outcomes)
    ]
    summary = summarize(trials)
    assert summary.pass_at_1 == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert summary.pass_hat == pytest.approx({1: 0.5, 2: (3 / 6) / 2, 3: (1 / 4) / 2, 4: 0.0})
    assert (summary.tasks, summary.trials, summary.usd_per_trial) == (2, 8, 0.5)
