"""Self-consistency over recorded samples equals its pure rules on the recorded answers, in the run's order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from reason.core.messages import Request, SamplingParams
from reason.core.types import Question
from reason.reasoning.prompts import question_prompt, step_by_step_instruction
from reason.reasoning.sampling import SampleSet, sample_chains
from reason.reasoning.stopping import Agreement, Beta, Dirichlet, FirstFinished, Lead, StoppingRule, Tally
from reason.serving.recorded.model import RecordedModel
from support.recorded_pools import model_of, samples
from support.stored_runs import RunHarness

QUESTION = Question(text="sums:q1", kind="number")
PROMPT = question_prompt(QUESTION, step_by_step_instruction(QUESTION))
RULES = (Beta(), Agreement(window=3), Lead(lead=2), Dirichlet())


class Harness(RunHarness):
    async def draw(self, seed: int, n: int, **options: object) -> SampleSet:
        model = await self.begin(f"r{seed}", strategy="self-consistency", question=QUESTION, seed=seed)
        sampling = SamplingParams(n=n, max_tokens=1000, temperature=1.0)
        return await sample_chains(model, PROMPT, sampling, QUESTION, self.run, **options)


def tally_of(answers: Sequence[str | None], n: int) -> Tally:
    """Answers as a rule sees them: classes numbered in the order of their first appearance."""
    classes: dict[str, int] = {}
    labels = [None if answer is None else classes.setdefault(answer, len(classes)) for answer in answers]
    return Tally(labels=tuple(labels))


def stopped_at(rule: StoppingRule, answers: Sequence[str | None], *, in_rounds: bool) -> int:
    """Samples that the pure rule takes."""
    taken = 0
    while taken < len(answers):
        tally = tally_of(answers[:taken], len(answers))
        taken += rule.round_size(tally, len(answers) - taken) if in_rounds else 1
        if rule.should_stop(tally_of(answers[:taken], len(answers))):
            break
    return taken


def mixed_pool(directory: Path, seed: int) -> RecordedModel:
    """16 samples of three answers and none, with lengths of their own."""
    rng = random.Random(seed)
    answers = rng.choices(["4", "5", "6", None], weights=(6, 3, 2, 1), k=16)
    return model_of(directory, samples(answers, [rng.randint(1, 300) for _ in answers]))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.rule)
@pytest.mark.parametrize("mode", ["rounds", "race"])
async def test_a_stopping_rule_takes_the_samples_that_the_pure_rule_takes(store, tmp_path, rule, mode):
    model = mixed_pool(tmp_path, 1)
    (question,) = model.questions
    taken = set()
    for seed in range(12):
        answers = [s.answer for s in question.order(seed)]
        expected = stopped_at(rule, answers, in_rounds=mode == "rounds")
        sampled = await Harness(store, model).draw(seed, 16, rule=rule, mode=mode, width=1)
        assert [c.answer for c in sampled.candidates] == answers[:expected], f"seed {seed}"
        taken.add(expected)
        await store.delete_run(f"r{seed}")
    assert len(taken) > 1, "the seeds must differ in their cost"


async def test_first_finished_takes_the_shortest_and_pays_for_all_until_then(store, tmp_path):
    model = model_of(tmp_path, samples(["4", "5", None, "6", "4"], [30, 10, 5, 20, 40]))
    harness = Harness(store, model)
    sampled = await harness.draw(0, 5, rule=FirstFinished(finished=2), mode="race", width=None)
    assert sampled.stopped_early
    assert sorted(str(c.answer) for c in sampled.candidates) == ["5", "6", "None"]
    assert harness.spent.completion_tokens == 5 + 10 + 20 + 20 + 20
    assert sum(c.usage.completion_tokens for c in sampled.cancelled) == 20 + 20


async def test_long_samples_are_replayed_from_event_to_event(tmp_path):
    """A million tokens are 40 events, not a million steps."""
    model = model_of(tmp_path, samples(["4"] * 40, [25_000 + i for i in range(40)]))
    request = Request(prompt=PROMPT, sampling=SamplingParams(n=40, max_tokens=100_000))
    turns = 0
    work = asyncio.ensure_future(model.generate([request]))
    while not work.done():
        turns += 1
        await asyncio.sleep(0)
    assert sum(c.usage.completion_tokens for c in (await work)[0]) > 1_000_000
    assert turns < 2_000
