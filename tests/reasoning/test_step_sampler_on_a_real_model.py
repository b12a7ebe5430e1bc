"""Step sampling on real weights: exact continuation, and the end of the text."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from reason.core.messages import Prompt, Request, SamplingParams
from reason.reasoning.continuations import Prefix
from reason.serving.local.engine import LocalModel
from reason.serving.model_files.find import ModelFiles
from support.step_sampling import Harness

pytestmark = [pytest.mark.real, pytest.mark.nightly]


@pytest.fixture(scope="module")
def model(smollm2_files: ModelFiles) -> Iterator[LocalModel]:
    local_model = LocalModel.load(smollm2_files, weight_format="fp32", threads=1)
    yield local_model
    asyncio.run(local_model.aclose())


async def test_joined_greedy_steps_are_the_greedy_response_and_its_end_is_told_from_that_of_a_step(store, model):
    """The backend reports the end without a further request."""
    prompt, harness = Prompt.user("Say hello."), Harness(store, model)
    sampler = await harness.sampler(prompt=prompt, temperature=0.0, max_step_tokens=8)
    [[whole]] = await model.generate(
        [Request(prompt=prompt, sampling=SamplingParams(temperature=0.0, max_tokens=200, seed=0))]
    )
    assert (whole.finish_reason, whole.stop_reason) == ("stop", "")
    prefix, ends, tokens = Prefix(), [], 0
    while not prefix.terminal:
        made = await sampler.expand([prefix])
        (sample,) = made.expansions[0].samples
        tokens += made.tokens
        ends.append(sample.end_reason)
        prefix = sample.after
    assert len(ends) > 1
    assert ends[-1] == "end"
    assert prefix.token_ids == whole.token_ids
    assert prefix.text.split() == whole.text.split()
    assert tokens == harness.spent.completion_tokens == len(whole.token_ids)
    assert harness.spent.model_calls == len(ends)
    assert harness.run.degraded == []
