"""A custom strategy: sample a short answer, and more of them if the model is uncertain of the first token.

    python examples/own_strategy.py

A package registers such a class under the entry-point group `reason.strategies`, and `Reasoner` and the command line
find it by name; here it runs directly, with the same models, budget, run store and events. Needs the extra `[local]`.
"""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from reason import Models, Parameters, Prompt, Question, Request, SamplingParams, Settings, Solution
from reason.core.run import Run, RunConfig, new_run_id
from reason.core.store.sqlite import SqliteStore
from reason.reasoning.answers.extraction import read_candidate
from reason.reasoning.best_of_n import mean_logprob
from reason.reasoning.conclude import conclude
from reason.serving.factory import load_model
from reason.serving.metered.model import MeteredModel
from reason.serving.model import Feature
from reason.serving.quick_calls import first_tokens


class AskUntilSure:
    """Sample one answer if the first token's distribution has low entropy, else several."""

    name: ClassVar[str] = "ask-until-sure"
    summary: ClassVar[str] = "sample short answers until the first token is certain"
    paper: ClassVar[str] = ""
    confidence: ClassVar[str] = "It has none."
    stability: ClassVar[str] = "experimental"
    requires: ClassVar[frozenset[Feature]] = frozenset({"full_vocabulary"})
    roles: ClassVar[tuple[str, ...]] = ("main",)

    class Config(Parameters):
        """Parameters."""

        tries: int = 4
        max_entropy: float = 1.0  # nats

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """Sample candidates and choose the one with the highest mean log-probability."""
        model, prompt = models.main, Prompt.user(question.text)
        (first,) = await first_tokens(model, [prompt], top=20)  # of the answer, if the model thinks first
        entropy = first.entropy if first is not None else math.inf
        sampling = SamplingParams(
            n=1 if entropy <= self.config.max_entropy else self.config.tries,
            max_tokens=48,
            default_temperature=0.7,  # where the model takes a temperature
            logprobs=model.capabilities.logprobs,
        )
        (samples,) = await model.generate([Request(prompt=prompt, sampling=sampling)])
        samples = await conclude(model, [(prompt, s) for s in samples], question, run)  # those cut while it thought
        candidates = tuple(read_candidate(s, question) for s in samples if s.ok)
        scores = [-math.inf if (mean := mean_logprob(c)) is None else mean for c in candidates]
        best = max(range(len(candidates)), key=scores.__getitem__)
        return Solution(chosen=best, candidates=candidates, notes={"first_token_entropy": entropy})


async def main() -> None:
    """Run it on the default model."""
    settings = Settings()
    model = await load_model(settings.model, settings)
    with TemporaryDirectory() as directory:
        store = await SqliteStore.open(Path(directory) / "runs.sqlite3")
        question = Question(text="What is the capital of France?")
        config = RunConfig(
            question=question, strategy="ask-until-sure", parameters={}, models={"main": model.name}, seed=1
        )
        run = Run(new_run_id(), config, store)
        await store.create_run(run.id, config.model_dump(mode="json"))
        models = Models({"main": MeteredModel(model, "main", run)})
        solution = await AskUntilSure(AskUntilSure.Config()).solve(question, models, run)
        best = solution.best
        print(f"{best.answer if best else None}  ({solution.notes}, {run.ledger.usage().completion_tokens} tokens)")
        await store.aclose()
    await model.aclose()


if __name__ == "__main__":
    asyncio.run(main())
