"""Logits processors on the embedded engine, with a tiny random model in fp32."""

from __future__ import annotations

from typing import Any

import pytest
from reason.core.messages import LogitsProcessorSpec, Prompt, Request, SamplingParams
from reason.serving.local.engine import LocalModel

ASK = Prompt.user("hello")


async def sample(model: LocalModel, *hooks: LogitsProcessorSpec, **sampling: Any) -> Any:
    [[made]] = await model.generate([Request(prompt=ASK, sampling=SamplingParams(logits_processors=hooks, **sampling))])
    assert made.ok, made.failure
    return made


async def test_a_probe_reports_the_entropies_of_the_full_distribution_and_changes_nothing(tiny):
    sampling = {"temperature": 1.0, "seed": 1, "max_tokens": 8}
    made = await sample(tiny, LogitsProcessorSpec(name="entropy_probe"), **sampling)
    before = [ASK.with_prefix(made.token_ids[:i]) for i in range(len(made.token_ids))]
    exact = [token.entropy for token in await tiny.next_token(before)]
    assert made.extras["entropy_probe"]["positions"] == list(range(len(exact)))
    assert made.extras["entropy_probe"]["entropy"] == pytest.approx(exact, abs=1e-4)
    assert made.token_ids == (await sample(tiny, **sampling)).token_ids


async def test_eos_waits_for_the_steps(tiny):
    control = LogitsProcessorSpec(name="step_control", args={"max_tokens": 3, "end_ids": [70, 71], "min_steps": 4})
    push = LogitsProcessorSpec(name="steer", args={"ids": [2], "weight": 40.0})  # the model wants to end at once
    made = await sample(tiny, push, control, temperature=1.0, seed=2, max_tokens=60)
    assert made.finish_reason == "stop"
    assert made.token_ids[-1] == 2
    assert len(made.token_ids) == 4 * 5 + 1
    assert made.extras["step_control"]["steps"] == 4
