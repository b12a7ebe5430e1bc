"""Juries on one model, each of their requests alone, and one after another, with the seconds that they take."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from coat_batching import OneByOne
from reason.core.event_sinks import MemorySink
from reason.core.messages import Completion, Prompt, Request, Sampling
from reason.core.question import Question
from reason.core.run import Run, RunConfig, new_run_id
from reason.core.settings import Settings
from reason.core.sqlite_store import SqliteStore
from reason.reasoning.strategy import Models, make_strategy
from reason.serving.metered import MeteredModel
from reason.serving.model import Capabilities, LanguageModel, Listener
from reason.serving.open import open_model

clock = time.perf_counter


@dataclass(frozen=True)
class Batch:
    """One round of requests to the model.

    Attributes:
        stage: The stage of the jury that it belongs to.
        requests: What was asked.
        tokens: Generated tokens of each request's longest sample.
        seconds: What it took.
    """

    stage: str
    requests: tuple[Request, ...]
    tokens: tuple[int, ...]
    seconds: float


@dataclass
class Sat:
    """One jury on one question.

    Attributes:
        seconds: From beginning to end.
        tokens: Generated tokens.
        batches: Its rounds.
    """

    seconds: float = 0.0
    tokens: int = 0
    batches: list[Batch] = field(default_factory=list)


@dataclass(frozen=True)
class Measured:
    """One question.

    Attributes:
        jury: The jury, twice.
        alone: Seconds of each request alone, by round of the first.
        serial: The jury with one request after the other.
    """

    jury: tuple[Sat, Sat]
    alone: tuple[tuple[float, ...], ...]
    serial: Sat

    @property
    def seconds(self) -> float:
        """Mean seconds of the jury."""
        return (self.jury[0].seconds + self.jury[1].seconds) / 2

    @property
    def chain(self) -> float:
        """Seconds of the longest chain of calls."""
        return sum(max(seconds) for seconds in self.alone)


class Overheard:
    """A model whose rounds are noted.

    Args:
        model: The model.
        stage: Tells the stage that is under way.
        batches: Where rounds are noted.
    """

    def __init__(self, model: LanguageModel, stage: Callable[[], str], batches: list[Batch]) -> None:
        self._model, self._stage, self._batches = model, stage, batches
        self.name, self.identity = model.name, model.identity

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)

    @property
    def capabilities(self) -> Capabilities:
        """The model's own."""
        return self._model.capabilities

    async def generate(self, requests: Sequence[Request], listener: Listener | None = None) -> list[list[Completion]]:
        """As the model does."""
        began = clock()
        made = await self._model.generate(requests, listener)
        seconds = clock() - began
        tokens = tuple(max(sample.usage.completion_tokens for sample in samples) for samples in made)
        self._batches.append(Batch(self._stage(), tuple(requests), tokens, seconds))
        return made


class Bench:
    """Measures juries of one model.

    Args:
        given: The options.
        settings: How the model is opened.
        store: A run store.

    Attributes:
        weight_format: In which numbers the model is computed, once it was opened.
    """

    def __init__(self, given: argparse.Namespace, settings: Settings, store: SqliteStore) -> None:
        self.weight_format = ""
        self._given, self._settings, self._store = given, settings, store

    async def measure(self, question: Question, seed: int) -> Measured:
        """One question in all ways."""
        first = await self.sit(question, seed)
        alone = [
            tuple([await self.alone(first.batches, number, i) for i in range(len(batch.requests))])
            for number, batch in enumerate(first.batches)
        ]
        serial = await self.sit(question, seed, one_by_one=True)
        return Measured((first, await self.sit(question, seed)), tuple(alone), serial)

    async def sit(self, question: Question, seed: int, *, one_by_one: bool = False) -> Sat:
        """One jury on an engine of its own."""
        given, sink, sat = self._given, MemorySink(), Sat()
        settings = {
            "n": given.jurors,
            "answer_tokens": given.tokens,
            "review_tokens": given.review_tokens,
            "chair_tokens": given.chair_tokens,
            "form": given.form,
            "early_exit": "never",
        }
        strategy, parameters = make_strategy("edgejury", settings)
        config = RunConfig(
            question=question,
            strategy="edgejury",
            parameters=parameters,
            models={"main": given.model},
            seed=seed,
            reuse="none",
        )
        name = new_run_id()
        await self._store.create_run(name, config.model_dump(mode="json"))
        run = Run(name, config, self._store, sinks=[sink])
        model = await self._open()
        try:
            shown: LanguageModel = OneByOne(model) if one_by_one else model  # type: ignore[assignment]
            heard = Overheard(shown, lambda: _stage(sink), sat.batches)
            metered = MeteredModel(heard, "main", run)  # type: ignore[arg-type]
            began = clock()
            await strategy.solve(question, Models({"main": metered}), run)
            sat.seconds = clock() - began
            sat.tokens = run.ledger.usage().completion_tokens
        finally:
            await model.aclose()
        return sat

    async def alone(self, batches: Sequence[Batch], number: int, index: int) -> float:
        """Seconds of one request of a round on an engine of its own, as long as it was in the jury.

        Args:
            batches: The rounds of the jury.
            number: Which round.
            index: Which request of it.
        """
        batch = batches[number]
        request = batch.requests[index]
        model = await self._open()
        try:
            for before in batches[:number]:
                for other, tokens in zip(before.requests, before.tokens, strict=True):
                    if goes_on(request.prompt, other.prompt):
                        await model.generate([as_long(other, tokens)])
            began = clock()
            await model.generate([as_long(request, batch.tokens[index])])
            return clock() - began
        finally:
            await model.aclose()

    async def _open(self) -> LanguageModel:
        model = await open_model(self._given.model, self._settings)
        self.weight_format = str(getattr(model, "weight_format", ""))
        warm = Request(prompt=Prompt.user("Count from one to ten."), sampling=Sampling(temperature=0.0, max_tokens=8))
        await model.generate([warm])  # an engine's first steps are slower
        return model


def goes_on(prompt: Prompt, other: Prompt) -> bool:
    """Whether a prompt begins with all messages of another."""
    return bool(other.messages) and prompt.messages[: len(other.messages)] == other.messages


def as_long(request: Request, tokens: int) -> Request:
    """The same request with so many tokens, whatever they say."""
    given = {"max_tokens": max(1, tokens), "stop": (), "ignore_eos": True}
    return request.model_copy(update={"sampling": request.sampling.model_copy(update=given)})


def _stage(sink: MemorySink) -> str:
    """The stage of the jury that is under way."""
    begun = [event.stage for event in sink.of_type("stage.started")]
    return str(begun[-1]).removeprefix("jury: ") if begun else ""
