"""A run store, a scripted model and its runs; starting a run of an existing name resumes it."""

from reason.core.budget import Budget
from reason.core.events import MemorySink
from reason.core.run import Run, RunConfig
from reason.core.types import Question
from reason.reasoning.strategy import Models, create_strategy
from reason.serving.metered.model import MeteredModel
from reason.serving.metered.replay import ReplayModel
from reason.serving.metered.scorers import MeteredReward


def run_config(**changes):
    """A run's configuration, of which a test names what it is about."""
    known = {"question": Question(text="?"), "strategy": "cot", "parameters": {}, "models": {"main": "scripted"}}
    return RunConfig(**known | {"seed": 3} | changes)


def recorded(model, budget):
    """The model as a replay has it."""
    timed = budget is not None and budget.seconds is not None
    return ReplayModel(model.name, model.identity, model.capabilities, limit="seconds" if timed else None)


class RunHarness:
    """A store and a model; `run` is the run started last."""

    def __init__(self, store, model=None):
        self.store, self.model, self.sink, self.begun = store, model, MemorySink(), set()

    async def start(self, name="r", *, budget=None, conclusion=None, replay=False, **config):
        """Start or resume a run."""
        config = run_config(budget=budget or Budget(), **config)
        if name not in self.begun:
            await self.store.create_run(name, {})
            self.begun.add(name)
        return Run(name, config, self.store, sinks=[self.sink], conclusion=conclusion, recording=not replay)

    async def begin(self, name="r", *, model=None, **config):
        """Begin or resume a run; its main model, metered."""
        self.run = await self.start(name, **config)
        return MeteredModel(model or self.model, "main", self.run)

    async def generate(self, *requests, name="r", **options):
        """What is generated for requests in a run that is begun or resumed."""
        return await (await self.begin(name, **options)).generate(requests)

    async def solve(self, strategy, question, *, name="r", reward=None, budget=None, seed=3, **parameters):
        """Solve a question by a strategy, in a run that is begun or resumed."""
        model = await self.begin(name, strategy=strategy, question=question, budget=budget, seed=seed)
        made, _ = create_strategy(strategy, parameters)
        scores = None if reward is None else MeteredReward(reward, "reward", self.run)
        return await made.solve(question, Models({"main": model}, scores), self.run)

    @property
    def spent(self):
        return self.run.ledger.usage()
