"""Step sampling on real weights: exact continuation, the end of the text, and how much of the prompts is cached."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from reason.core.budget import Budget
from reason.core.messages import Prompt, Request, SamplingParams
from reason.core.run import Run, RunConfig
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from reason.reasoning.continuations import Prefix, StepOptions, StepSampler
from reason.reasoning.prompts import question_prompt
from reason.serving.local.engine import LocalModel
from reason.serving.metered.model import MeteredModel
from reason.serving.model_files.find import ModelFiles

pytestmark = pytest.mark.real

QUESTION = Question(
    text="Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?",
    kind="number",
)
INSTRUCTION = (
    "Solve the problem in short numbered steps. Put a blank line between two steps, calculate in every step, and do "
    'not repeat the problem. End with a line that says "The answer is" and the number.'
)
PROMPT = question_prompt(QUESTION, INSTRUCTION)


@pytest.fixture(scope="module")
def model(smollm2_files: ModelFiles) -> Iterator[LocalModel]:
    local_model = LocalModel.load(smollm2_files, weight_format="fp32", threads=1)
    yield local_model
    asyncio.run(local_model.aclose())


class Harness:
    def __init__(self, store, model):
        self.store, self.model = store, model

    async def sampler(self, name, *, new=True, budget=None, prompt=PROMPT, **options):
        config = RunConfig(
            question=QUESTION,
            strategy="astar",
            parameters={},
            models={"main": self.model.name},
            budget=budget or Budget(),
            seed=5,
        )
        if new:
            await self.store.create_run(name, {})
        self.run = Run(name, config, self.store)
        return StepSampler(
            MeteredModel(self.model, "main", self.run), prompt, QUESTION, self.run, StepOptions(**options)
        )


@pytest.fixture
async def harness(tmp_path, model):
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    yield Harness(store, model)
    await store.aclose()


@pytest.mark.nightly
async def test_the_end_of_the_text_differs_from_the_end_of_a_step(harness, model):
    """The backend reports it without a further request."""
    prompt = Prompt.user("Say hello.")
    sampler = await harness.sampler("end", prompt=prompt, temperature=0.0, max_step_tokens=60)
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
    assert ends[-1] == "end"
    assert prefix.token_ids == whole.token_ids
    assert prefix.text.split() == whole.text.split()
    assert tokens == harness.run.ledger.usage().completion_tokens == len(whole.token_ids)
    assert harness.run.ledger.usage().model_calls == len(ends)
    assert harness.run.degraded == []
