"""EdgeJury on one model: its time next to that of its longest chain of calls.

    python benchmarks/jury_batching.py --model local/smollm2-135m --data TRUTHFULQA.jsonl --questions 4

Three jurors of one model answer and review one another, and the model is the chair. For every question, in one process:

    the jury                               each round of requests is one batch
    each of its requests by itself         nothing else runs; as many tokens as in the jury
    the jury, one request after another    the same strategy over a model that makes one sample at a time
    the jury once more                     the mean of the two counts, against a drifting speed

The longest chain of calls is the sum over the rounds of the slowest request: the lower bound for a jury that reviews
after all opinions. The goal is less than 1.5 times as long.

Every measurement has its own engine, so none reuses another's cache; a request that continues an earlier one does reuse
it, as in the jury. Isolated requests ignore end tokens, to be as long as in the jury. The two juries may differ in the
last bits of their sums, so they are compared per token.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from coat_batching import OneByOne
from reason.core.events import MemorySink
from reason.core.messages import Completion, Prompt, Request, SamplingParams
from reason.core.run import Run, RunConfig, new_run_id
from reason.core.settings import Settings, load_settings
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from reason.evals.plan import DatasetSource
from reason.evals.statistics.intervals import bootstrap_means, percentiles
from reason.evals.task import open_task, with_absolute_path
from reason.reasoning.strategy import Models, create_strategy
from reason.serving.factory import load_model
from reason.serving.metered.model import MeteredModel
from reason.serving.model import Capabilities, LanguageModel, Listener
from reporting import processor, table

clock = time.perf_counter


@dataclass(frozen=True)
class Batch:
    """One round of requests to the model.

    Attributes:
        stage: The stage of the jury that it belongs to.
        requests: What was posed.
        tokens: Generated tokens of each request's longest sample.
        seconds: What it took.
    """

    stage: str
    requests: tuple[Request, ...]
    tokens: tuple[int, ...]
    seconds: float


@dataclass
class JuryTiming:
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
        only: Seconds of each request only, by round of the first.
        serial: The jury with one request after the other.
    """

    jury: tuple[JuryTiming, JuryTiming]
    isolated: tuple[tuple[float, ...], ...]
    serial: JuryTiming

    @property
    def seconds(self) -> float:
        """Mean seconds of the jury."""
        return (self.jury[0].seconds + self.jury[1].seconds) / 2

    @property
    def chain(self) -> float:
        """Seconds of the longest chain of calls."""
        return sum(max(seconds) for seconds in self.isolated)


class RecordingModel:
    """A model whose rounds are noted."""

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

    Attributes:
        weight_format: In which numbers the model is computed, once it was opened.
    """

    def __init__(self, args: argparse.Namespace, settings: Settings, store: SqliteStore) -> None:
        self.weight_format = ""
        self._given, self._settings, self._store = args, settings, store

    async def measure(self, question: Question, seed: int) -> Measured:
        """One question with every schedule."""
        first = await self.run_jury(question, seed)
        single = [
            tuple([await self.time_isolated(first.batches, number, i) for i in range(len(batch.requests))])
            for number, batch in enumerate(first.batches)
        ]
        serial = await self.run_jury(question, seed, one_by_one=True)
        return Measured((first, await self.run_jury(question, seed)), tuple(single), serial)

    async def run_jury(self, question: Question, seed: int, *, one_by_one: bool = False) -> JuryTiming:
        """One jury on an engine of its own."""
        args, sink, sat = self._given, MemorySink(), JuryTiming()
        settings = {
            "n": args.jurors,
            "answer_tokens": args.tokens,
            "review_tokens": args.review_tokens,
            "chair_tokens": args.chair_tokens,
            "form": args.form,
            "early_exit": "never",
        }
        strategy, parameters = create_strategy("edgejury", settings)
        config = RunConfig(
            question=question,
            strategy="edgejury",
            parameters=parameters,
            models={"main": args.model},
            seed=seed,
            reuse="none",
        )
        name = new_run_id()
        await self._store.create_run(name, config.model_dump(mode="json"))
        run = Run(name, config, self._store, sinks=[sink])
        model = await self._open()
        try:
            shown: LanguageModel = OneByOne(model) if one_by_one else model  # type: ignore[assignment]
            jury_run = RecordingModel(shown, lambda: _stage(sink), sat.batches)
            metered = MeteredModel(jury_run, "main", run)  # type: ignore[arg-type]
            began = clock()
            await strategy.solve(question, Models({"main": metered}), run)
            sat.seconds = clock() - began
            sat.tokens = run.ledger.usage().completion_tokens
        finally:
            await model.aclose()
        return sat

    async def time_isolated(self, batches: Sequence[Batch], number: int, index: int) -> float:
        """Seconds of one request of a round on an engine of its own, as long as it was in the jury."""
        batch = batches[number]
        request = batch.requests[index]
        model = await self._open()
        try:
            for before in batches[:number]:
                for other, tokens in zip(before.requests, before.tokens, strict=True):
                    if continues(request.prompt, other.prompt):
                        await model.generate([with_fixed_length(other, tokens)])
            began = clock()
            await model.generate([with_fixed_length(request, batch.tokens[index])])
            return clock() - began
        finally:
            await model.aclose()

    async def _open(self) -> LanguageModel:
        model = await load_model(self._given.model, self._settings)
        self.weight_format = str(getattr(model, "weight_format", ""))
        warm = Request(
            prompt=Prompt.user("Count from one to ten."), sampling=SamplingParams(temperature=0.0, max_tokens=8)
        )
        await model.generate([warm])  # an engine's first steps are slower
        return model


def continues(prompt: Prompt, other: Prompt) -> bool:
    """Whether a prompt begins with all messages of another."""
    return bool(other.messages) and prompt.messages[: len(other.messages)] == other.messages


def with_fixed_length(request: Request, tokens: int) -> Request:
    """The same request with so many tokens, whatever they say."""
    args = {"max_tokens": max(1, tokens), "stop": (), "ignore_eos": True}
    return request.model_copy(update={"sampling": request.sampling.model_copy(update=args)})


def _stage(sink: MemorySink) -> str:
    """The stage of the jury that is in flight."""
    begun = [event.stage for event in sink.of_type("stage.started")]
    return str(begun[-1]).removeprefix("jury: ") if begun else ""


GOAL = 1.5
STAGES = ("answer", "review", "chair")


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, help="TruthfulQA's rows; without it the hub's")
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--jurors", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=128, help="limit of an opinion")
    parser.add_argument("--review-tokens", type=int, default=128)
    parser.add_argument("--chair-tokens", type=int, default=192)
    parser.add_argument("--form", choices=("json", "lines"), default="lines")
    print(asyncio.run(report(parser.parse_args())))
    return 0


async def report(options: argparse.Namespace) -> str:
    """Measure, and make the tables."""
    task = open_task(with_absolute_path(DatasetSource(dataset="truthfulqa", data=options.data, variant="mc1")))
    questions = [item.question for item in list(task.items.values())[: options.questions]]
    with tempfile.TemporaryDirectory() as scratch:
        settings = load_settings(store=Path(scratch) / "runs.sqlite3", model=options.model)
        store = await SqliteStore.open(settings.store)
        try:
            bench = Bench(options, settings, store)
            await bench.run_jury(questions[0], len(questions))  # loads what is loaded once
            measured = [await bench.measure(question, seed) for seed, question in enumerate(questions)]
        finally:
            await store.aclose()
    return "\n\n".join([head(options, bench.weight_format, len(questions)), *tables(measured)])


def head(options: argparse.Namespace, weight_format: str, questions: int) -> str:
    """What was measured, where and when."""
    try:
        torch = f", torch {version('torch')}"
    except PackageNotFoundError:
        torch = ""
    numbers = f" in {weight_format}" if weight_format else ""
    return (
        f"{options.model.rpartition('/')[2]}{numbers}, {options.jurors} jurors, {questions} questions of "
        f"TruthfulQA MC1; at most {options.tokens} tokens an opinion, {options.review_tokens} a review, "
        f"{options.chair_tokens} the chair; "
        f"{processor()}, {os.cpu_count()} cores, reason {version('reason-orchestrator')}{torch}, "
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, load {os.getloadavg()[0]:.1f}"
    )


def tables(measured: Sequence[Measured]) -> list[str]:
    """Seconds by stage, and in total."""
    rows = []
    for stage in STAGES:
        of = [
            (batch, single)
            for one in measured
            for batch, single in zip(one.jury[0].batches, one.isolated, strict=True)
            if batch.stage == stage
        ]
        if not of:
            continue
        took, longest = sum(b.seconds for b, _ in of), sum(max(a) for _, a in of)
        everything = sum(sum(a) for _, a in of)
        requests, tokens = sum(len(b.requests) for b, _ in of), sum(sum(b.tokens) for b, _ in of)
        n = len(measured)
        rows.append(
            [
                *(stage, f"{len(of) / n:.2f}", f"{requests / n:.2f}", f"{tokens / n:,.0f}"),
                *(f"{seconds / n:.2f}" for seconds in (took, longest, everything)),
                *(f"{took / longest:.2f}", f"{everything / took:.2f}"),
            ]
        )
    by_stage = table(
        (
            *("stage", "rounds", "requests", "tokens", "s as batches", "s of the longest", "s of all, one by one"),
            *("batches / longest", "all / batches"),
        ),
        rows,
    )
    jury = np.array([[one.seconds, one.chain] for one in measured])
    ratio = quotient(jury)
    pace = np.array(
        [
            [
                *(one.serial.seconds, one.serial.tokens),
                *(one.seconds, (one.jury[0].tokens + one.jury[1].tokens) / 2),
            ]
            for one in measured
        ]
    )
    serial = quotient(np.stack([pace[:, 0] / pace[:, 1], pace[:, 2] / pace[:, 3]], axis=1))
    met = "met" if jury[:, 0].sum() / jury[:, 1].sum() < GOAL else "not met"
    full = table(
        (
            *("questions", "s a question, the jury", "s, its longest chain of calls", "jury / chain [95 %]"),
            *(f"goal < {GOAL}", "one request after another, s a token / the jury's [95 %]"),
        ),
        [[str(len(measured)), *(f"{mean:.2f}" for mean in jury.mean(axis=0)), ratio, met, serial]],
    )
    return ["Means a question.", by_stage, full]


def quotient(pairs: np.ndarray) -> str:
    """The quotient of two columns' sums with its interval over questions."""
    value = pairs[:, 0].sum() / pairs[:, 1].sum()
    if len(pairs) < 2:
        return f"{value:.2f}"
    again = bootstrap_means(pairs, np.arange(len(pairs)))
    low, high = percentiles(again[:, 0] / again[:, 1])
    return f"{value:.2f} [{float(low):.2f}, {float(high):.2f}]"


if __name__ == "__main__":
    sys.exit(main())
