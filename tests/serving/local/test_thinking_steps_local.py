"""Steps inside a thought on the embedded engine with Qwen3's template: exact continuation, entropies, closed tags."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from reason.core.messages import Completion, LogitsProcessorSpec, Request, Thought
from reason.core.types import Question
from reason.reasoning.hogwild.hogwild import Hogwild
from reason.reasoning.hogwild.prompts import PAST
from reason.reasoning.prompts import lines_instruction, question_prompt
from reason.reasoning.strategy import Models
from reason.serving.local.engine import LocalModel
from reason.serving.model import Listener
from reason.serving.model_files.find import ModelFiles
from support.stored_runs import RunHarness
from support.thinking_templates import QWEN, with_template
from support.two_models import TwoModels, booked

QUESTION = Question(text="What is 2 + 2?", kind="number")


class Constrained:
    """An engine whose samples inside a thought have a logits processor."""

    def __init__(self, model: LocalModel, spec: LogitsProcessorSpec) -> None:
        self._model, self._spec = model, spec

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    async def generate(self, requests: list[Request], listener: Listener | None = None) -> list[list[Completion]]:
        return await self._model.generate([self._constrained(r) for r in requests], listener)

    def _constrained(self, request: Request) -> Request:
        thought, sampling = request.prompt.thought, request.sampling
        if thought is None or thought.closed:
            return request
        specs = (*sampling.logits_processors, self._spec)
        return request.model_copy(update={"sampling": sampling.model_copy(update={"logits_processors": specs})})


WRITES_ON = LogitsProcessorSpec(name="forbid_tokens", args={"ids": [0, 1, 2, 259, 260, 261, 262, 263]})
"""Neither end, nor tags, nor tokens that the tokenizer does not have."""


@pytest.fixture
async def thinker(
    tiny_files: Callable[[str], ModelFiles], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[LocalModel]:
    """The tiny Llama with Qwen3's template, and the tags as tokens."""
    files = with_template(tiny_files("llama"), tmp_path_factory.mktemp("thinks"), QWEN, tag_tokens=True)
    model = LocalModel.load(files, weight_format="fp32", threads=1, kv_cache_bytes=64 << 20)
    yield model
    await model.aclose()


async def test_entropies_are_those_of_the_next_token_in_the_open_thought(store, thinker, monkeypatch):
    monkeypatch.setattr("reason.routers.glimprouter.ANSWER_TOKENS", 8)
    model = Constrained(thinker, WRITES_ON)
    harness = TwoModels(store, model, model)
    made = await harness.solve(threshold=2.0, question=QUESTION, steps="lines", max_step_tokens=64, thinking_tokens=500)
    assert made.notes["entropy_kind"] == "full"
    steps = [s.text for s in made.best.steps]
    assert len(steps) > 1
    base = question_prompt(QUESTION, lines_instruction(QUESTION))
    prompts = [
        base.with_thought(Thought(text="".join(f"{s}\n" for s in steps[:i]), closed=False)) for i in range(len(steps))
    ]
    expected = await thinker.next_token(prompts)
    for entropy, distribution in zip(made.notes["entropies"], expected, strict=True):
        assert entropy == pytest.approx(distribution.entropy, abs=1e-3)
    assert made.best.thought == "\n".join(steps).strip()
    assert booked(made) == harness.generated()


async def test_workers_on_one_cache_write_one_thought_without_its_closing_tag(store, thinker):
    harness = RunHarness(store, thinker)
    model = await harness.begin("r", strategy="hogwild", question=QUESTION, seed=3)
    strategy = Hogwild(Hogwild.Config(any_model=True, workers=1, max_passes=40, temperature=2.0))
    solution = await strategy.solve(QUESTION, Models({"main": model}), harness.run)
    assert (solution.notes["level"], solution.notes["ended"]) == ("full", "passes")
    assert solution.notes["finisher"]
    assert solution.best is not None
    assert "</think>" not in solution.best.thought
    assert PAST not in solution.best.text
    assert solution.best.text.startswith("The final answer is \\boxed{")
