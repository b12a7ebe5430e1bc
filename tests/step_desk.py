"""A run store, a scripted model and the step samplers of its runs, for tests of step sampling."""

from __future__ import annotations

from reason.core.budget import Budget
from reason.core.events import MemorySink
from reason.core.messages import Prompt
from reason.core.question import Question
from reason.core.run import Run, RunConfig
from reason.reasoning.reply_prefix import Prefix
from reason.reasoning.step_sampler import StepOptions, StepSampler
from reason.serving.metered import MeteredModel

QUESTION = Question(text="What is 2 + 2?", kind="number")
PROMPT = Prompt.user("What is 2 + 2?")
CHAIN = "Step 1: two.\n\nStep 2: and two.\n\nThe answer is 4."
ROOT = Prefix()


class Desk:
    """A store and a model; every `sampler` is of a run of that name, begun or resumed."""

    def __init__(self, store, model):
        self.store, self.model, self.sink, self.begun = store, model, MemorySink(), set()

    async def sampler(self, name="r", *, seed=3, prompt=PROMPT, question=QUESTION, budget=None, **options):
        config = RunConfig(
            question=question,
            strategy="astar",
            parameters={},
            models={"main": "scripted"},
            budget=budget or Budget(),
            seed=seed,
        )
        if name not in self.begun:
            await self.store.create_run(name, {})
            self.begun.add(name)
        self.run = Run(name, config, self.store, sinks=[self.sink])
        options = StepOptions(**{"temperature": 1.0, **options})
        return StepSampler(MeteredModel(self.model, "main", self.run), prompt, question, self.run, options)

    @property
    def spent(self):
        return self.run.ledger.usage()


async def walk(sampler, prefix=ROOT, **how):
    """The steps of a reply, one after another."""
    steps = []
    while not prefix.terminal and len(steps) < 20:
        (expansion,) = (await sampler.expand([prefix], 1, **how)).expansions
        (sample,) = expansion.samples
        steps.append(sample)
        prefix = sample.after
    return steps
