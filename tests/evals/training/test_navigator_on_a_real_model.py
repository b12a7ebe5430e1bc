"""A few episodes on SmolLM2-135M, run again with more: nothing is paid twice, and a navigator comes of it."""

from __future__ import annotations

import json

import pytest
from reason.core.settings import load_settings
from reason.evals.datasets.loading import open_dataset
from reason.evals.plan import DatasetSource
from reason.evals.training import navigator as training
from reason.evals.training.navigator import LearningConfig, TrainingPlan, train_navigator
from reason.reasoning.rlot.navigator import load_navigator
from reason.serving.factory import load_model

pytestmark = pytest.mark.real

LIMITS = {
    "step_tokens": 6,
    "plan_tokens": 6,
    "pick_tokens": 2,
    "subtask_tokens": 4,
    "summary_tokens": 4,
    "assess_tokens": 8,
    "finished_tokens": 2,
    "answer_tokens": 6,
    "subtasks": 1,
}
"""Too short for good answers: what is tested is that everything fits together."""


async def test_a_few_episodes(smollm2_files, tmp_path, monkeypatch):
    data = tmp_path / "sums.jsonl"
    rows = [{"id": f"s{i}", "question": f"What is {i} + {i + 1}?", "answer": str(2 * i + 1)} for i in range(6)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = open_dataset(DatasetSource(dataset=str(data)))
    settings = load_settings(model="local/smollm2-135m", reward_model="judge/local/smollm2-135m")
    model = await load_model("local/smollm2-135m", settings)
    close = model.aclose

    async def open_once(*_):
        return model

    async def stay_open():
        """Three trainings share it."""

    monkeypatch.setattr(training, "load_model", open_once)
    monkeypatch.setattr(model, "aclose", stay_open)
    work, out = tmp_path / "work", tmp_path / "navigator.safetensors"

    async def train(episodes):
        plan = TrainingPlan(
            episodes=episodes,
            parameters={"limits": LIMITS, "max_blocks": 1},
            problems="all",
            holdout=0.4,
            reward="prm",
            learning=LearningConfig(batch=2, learning_starts=2),
            parallel=1,
            validation=0,
        )
        return await train_navigator(plan, [task], settings, work, out)

    first = await train(1)
    assert first.usage.completions > 0
    second = await train(2)
    assert second.records[:1] == first.records
    for r in second.records:
        assert len(r.rewards) == len(r.actions) >= 1
        assert all(0 <= reward <= 1 for reward in r.rewards)
        assert r.rewards[-1] in (0.0, 1.0)
        assert r.length <= 1
    again = await train(2)
    assert again.usage.completions == 0
    assert load_navigator(out).digest == again.navigator.digest == second.navigator.digest
    assert load_navigator(out).card.reward_model == "judge/local/smollm2-135m"
    await close()
