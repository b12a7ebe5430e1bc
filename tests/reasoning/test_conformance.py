"""The conformance checks: our strategies pass all of them, and each broken strategy fails its own check."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import ClassVar

import pytest
from reason.core.errors import BudgetExceeded, UserError
from reason.core.events import NodesSearched, StageStarted
from reason.core.messages import Prompt, Request, SamplingParams, Tool
from reason.core.types import Question, Solution
from reason.reasoning.answers.extraction import read_candidate
from reason.reasoning.conformance import ConformanceError, assert_conforms, check_strategy
from reason.reasoning.strategy import STRATEGIES, Parameters

CHECKS = [
    "declaration",
    "solution",
    "token accounting",
    "determinism",
    "replay",
    "budgets",
    "cancellation",
    "resumption",
    "event pairs",
]
ASK_MORE = {"hogwild", "logprob", "rag"}
"""Of these the kit's question or model is not enough: a known model, choices, a trained file, knowledge."""


class Own:
    """A sound strategy: two samples one after the other, the second one answers."""

    name: ClassVar[str] = "own"
    summary: ClassVar[str] = "ask twice"
    paper: ClassVar[str] = ""
    confidence: ClassVar[str] = "It has none."
    stability: ClassVar[str] = "experimental"
    requires: ClassVar[frozenset[str]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)

    class Config(Parameters):
        tries: int = 2

    def __init__(self, config):
        self.config = config

    async def sample(self, models, index, **how):
        request = Request(
            prompt=Prompt.user("2 + 3?"),
            sampling=SamplingParams(max_tokens=40, default_temperature=0.7, **how),
            sample_indices=(index,),
        )
        ((sample,),) = await models.main.generate([request])
        return sample

    async def solve(self, question, models, run):
        return await self.work(question, models, run)

    async def work(self, question, models, run):
        candidates, stopped = [], "done"
        for index in range(self.config.tries):
            try:
                sample = await self.sample(models, index)
            except BudgetExceeded as e:
                run.record_limit(e)
                stopped = "budget"
                break
            candidates.append(read_candidate(sample, question))
            if sample.finish_reason == "budget":
                stopped = "budget"
        chosen = len(candidates) - 1 if candidates else None
        return Solution(chosen=chosen, candidates=tuple(candidates), stopped=stopped)


class Undeclared(Own):
    stability = "finished"


class Mute(Own):
    async def solve(self, question, models, run):
        return Solution(chosen=None)


class Cheater(Own):
    async def solve(self, question, models, run):
        await models.main.backend.generate([Request(prompt=Prompt.user("psst"), sampling=SamplingParams(max_tokens=5))])
        return await self.work(question, models, run)


class Moody(Own):
    """Never draws the same sample twice; counted, so that two runs do not agree by luck."""

    numbers = count()

    async def sample(self, models, index, **how):
        return await super().sample(models, next(self.numbers), **how)


class Forgetful(Own):
    """Draws the first sample with a different seed each time, so that the run store has no response for it."""

    calls = 0

    async def solve(self, question, models, run):
        type(self).calls += 1
        await self.sample(models, 0, seed=type(self).calls)
        return await self.work(question, models, run)


class Spender(Own):
    async def solve(self, question, models, run):
        candidates = [read_candidate(await self.sample(models, i), question) for i in range(2)]
        return Solution(chosen=1, candidates=tuple(candidates))


class Deaf(Own):
    async def solve(self, question, models, run):
        try:
            return await self.work(question, models, run)
        except asyncio.CancelledError:
            return Solution(chosen=None, stopped="cancelled")


class Careless(Own):
    async def solve(self, question, models, run):
        self.left = asyncio.create_task(asyncio.sleep(30))
        return await self.work(question, models, run)


class Endless(Own):
    async def solve(self, question, models, run):
        run.emit(StageStarted(stage="solving"))
        return await self.work(question, models, run)


class Unended(Own):
    async def solve(self, question, models, run):
        run.emit(NodesSearched(search="s"))
        return await self.work(question, models, run)


@pytest.mark.parametrize("name", ["adaptive", "auto", "cascade", "edgejury", "glimprouter", "self-consistency"])
async def test_our_strategies_conform_with_tools(name):
    await assert_conforms(STRATEGIES.load(name), question=Question(text="What is 2 + 3?", tools=(Tool(name="add"),)))


@pytest.mark.parametrize("name", [n for n in STRATEGIES.names() if n not in ASK_MORE])
async def test_our_strategies_conform(name):
    results = await check_strategy(STRATEGIES.load(name))
    assert {f.check: f.error for f in results if not f.ok} == {}
    assert [f.check for f in results] == CHECKS


async def test_parameters_and_a_question_of_ones_own():
    question = Question(text="Which is a prime?", choices=("21", "23"), kind="choice")
    await assert_conforms(STRATEGIES.load("logprob"), question=question)
    await assert_conforms(STRATEGIES.load("self-consistency"), {"n": 3, "max_tokens": 20})
    with pytest.raises(UserError, match="most"):
        await assert_conforms(STRATEGIES.load("self-consistency"), {"most": 3})


async def test_sound_strategies_of_ones_own():
    await assert_conforms(Own)


@pytest.mark.parametrize(
    ("kind", "check", "wrong"),
    [
        (Undeclared, "declaration", "its stability is none of stable, beta, experimental"),
        (Mute, "solution", "it chose no candidate"),
        (Cheater, "token accounting", "the model wrote"),
        (Moody, "determinism", "candidates of the solution differ"),
        (Forgetful, "replay", "a sample was requested that the first run did not generate"),
        (Spender, "budgets", "a spent budget is no error"),
        (Deaf, "cancellation", "it suppressed the cancellation"),
        (Careless, "solution", "its tasks were still running after it had answered: sleep"),
        (Endless, "event pairs", "stage solving was started and not finished"),
        (Unended, "event pairs", "search s has no end"),
    ],
)
async def test_a_broken_strategy_fails_its_check(kind, check, wrong):
    results = {f.check: f.error for f in await check_strategy(kind)}
    assert wrong in results[check]
    with pytest.raises(ConformanceError, match=f"own: .*{check}: "):
        await assert_conforms(kind)


async def test_features_that_the_plain_model_lacks_are_reported():
    class Hooked(Own):
        requires = frozenset({"logits_processors"})

    assert [f.error for f in await check_strategy(Hooked)][1:] == ["the plain model has no logits_processors"]
