"""A scripted model that runs logic blocks: what it says depends on the kind of request and the steps before it.

A `BlockWorld` says what comes of each request; `BlockRuns` runs episodes and the strategy in it.
"""

import json
import re
from functools import lru_cache

from reason.core.run import Run
from reason.core.types import Question
from reason.reasoning.rlot import prompts
from reason.reasoning.rlot.block_runner import BlockLimits, BlockRunner
from reason.reasoning.rlot.blocks import NAMES
from reason.reasoning.rlot.episode import Episode
from reason.reasoning.rlot.rlot import RLoT
from reason.reasoning.strategy import Models
from reason.serving.metered.model import MeteredModel
from reason.serving.metered.replay import ReplayModel
from reason.serving.metered.scorers import MeteredReward

from support.scripted_model import END, ScriptedModel
from support.stored_runs import RunHarness

QUESTION = Question(text="How many apples are left?", kind="number")
KINDS = {
    "split": "Break the remaining work into at most",
    "solve": "Solve only subtask ",
    "summary": "a short summary of the results above",
    "plans": " different plans for step ",
    "compare": prompts.COMPARE,
    "follow": "Follow plan ",
    "refine": "Is anything in it wrong or unclear?",
    "assess": "Score each statement:",
    "finished": prompts.FINISHED,
    "answer": "Give the final answer ",
    "choose": "What is the best thing to do next?",
    "reason": "the next step toward the answer",
}
STEP = re.compile(r"^Step \d+: (.*)$", re.MULTILINE)


SOLVING = re.compile(r"^Solve only subtask (\d+): ", re.MULTILINE)


def asked(text):
    """What a rendered prompt asks: the kind of request, the steps so far, and the reply so far."""
    head, _, written = text.rpartition("assistant: ")
    return *shown(head), written


@lru_cache(maxsize=64)
def shown(head):
    last = head.strip().rpartition("\n\n")[2]
    return next(kind for kind, words in KINDS.items() if words in last), tuple(STEP.findall(head))


class BlockWorld:
    """Override what is said, in a subclass or by functions; texts, or {text: weight}.

    `seen` has every request as (kind, steps, prompt).
    """

    begins = True
    """Whether replies can be begun."""

    def __init__(self, **said):
        """`said` replaces methods by name."""
        self.seen = []
        vars(self).update(said)

    def reason(self, steps):
        return f"reasoned {len(steps) + 1}."

    def split(self, steps):
        return ["count them", "take some away"]

    def solve(self, steps):
        return "solved."

    def summary(self, steps):
        return f"summed up {len(steps) + 1}."

    def plans(self, steps):
        return ["count", "guess", "ask"]

    def compare(self, steps):
        return "2, as it is simple."

    def follow(self, steps):
        return f"followed {len(steps) + 1}."

    def refine(self, steps):
        return f"refined {len(steps)}."

    def assess(self, steps):
        return (0,) * 7 if not steps else (3, 2, 3, 1, 2, min(3, len(steps)), 3)

    def finished(self, steps):
        return "no"

    def answer(self, steps):
        return "7."

    def choose(self, steps):
        return "1"

    def script(self, text):
        kind, steps, written = asked(text)
        number = SOLVING.search(text) if kind == "solve" else None
        self.solving = number[1] if number else ""
        said = getattr(self, kind)(steps)
        said = said if isinstance(said, dict) else {self.worded(kind, steps, said): 1.0}
        left = {t + END: w for t, w in said.items() if (t + END).startswith(written)}
        total = sum(left.values())
        chances = {}
        for t, w in left.items():
            chances[t[len(written)]] = chances.get(t[len(written)], 0.0) + w / total
        return chances or {END: 1.0}

    def worded(self, kind, steps, said):
        """The whole reply, with the beginning that it is given."""
        if kind in ("reason", "summary", "follow"):
            return f"Step {len(steps) + 1}: {said}"
        if kind == "refine":
            return f"Step {len(steps)}, improved: {said}"
        if kind == "solve":
            return f"Result of subtask {self.solving}: {said}"
        if kind in ("split", "plans"):
            return said if isinstance(said, str) else "\n".join(f"{i}. {item}" for i, item in enumerate(said, 1))
        if kind == "compare":
            return f"Plan {said}"
        if kind == "assess" and not isinstance(said, str):
            aspects = ("A1", "A2", "A3", "B1", "B2", "C1", "C2")
            return json.dumps(dict(zip(aspects, said, strict=True)), separators=(", ", ":"))
        if kind == "answer":
            return f"Therefore, the answer (a number) is {said}"
        return said


class BlockModel(ScriptedModel):
    """The world as a model; it notes each request once."""

    def __init__(self, world, **how):
        super().__init__(world.script, **how)
        self.world = world
        self.under_way, self.most = 0, 0
        self.meeting = None  # a barrier at which the first calls wait for each other
        self.before = None  # awaited with the requests of each call and their kinds

    @property
    def capabilities(self):
        return super().capabilities.model_copy(update={"prefix": self.world.begins})

    async def generate(self, requests, listener=None):
        texts = [self.render(request.prompt) for request in requests]
        self.world.seen += [(*asked(text)[:2], text) for text in texts]
        if self.before is not None:
            await self.before([asked(text)[:2] for text in texts])
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if self.meeting is not None:
                await self.meeting.wait()
                self.meeting = None  # those who have met go on alone
            return await super().generate(requests, listener)
        finally:
            self.under_way -= 1


def rlot(*, limits=None, **config):
    """The strategy, with maximum lengths other than its own."""
    strategy = RLoT(RLoT.Config(**config))
    strategy.limits = BlockLimits(**limits or {})
    return strategy


class BlockRuns(RunHarness):
    """Runs episodes and the strategy in a world; `events` are those of the run that ended last."""

    def __init__(self, store, world, **how):
        super().__init__(store, BlockModel(world, **how))
        self.world = world

    async def replay(self, *, reward=None, **config):
        """The run that ended last once more, with what the store has and no model."""
        config_, main = self.run.config, self.model
        out_of_time = config_.budget.seconds is not None
        recorded = ReplayModel(main.name, main.identity, main.capabilities, limit="seconds" if out_of_time else None)
        timeless = config_.model_copy(update={"budget": config_.budget.model_copy(update={"seconds": None})})
        run = Run(self.run.id, timeless, self.store, recording=False)
        metered = MeteredModel(recorded, "main", run)
        models = Models({"main": metered}, None if reward is None else MeteredReward(reward, "reward", run))
        solution = await rlot(**config).solve(run.question, models, run)
        return solution, run

    async def runner(self, name="run", *, budget=None, seed=1, limits=None, question=QUESTION, **how):
        self.sink.events.clear()
        self.main = await self.begin(name, strategy="rlot", question=question, budget=budget, seed=seed)
        return BlockRunner(self.main, self.run, limits or BlockLimits(), **how)

    async def episode(self, name="run", *, max_blocks=5, parity="none", with_assessment=True, question=QUESTION, **how):
        runner = await self.runner(name, question=question, **how)
        return Episode(runner, question, max_blocks=max_blocks, parity=parity, with_assessment=with_assessment)

    async def solve(self, name="run", *, question=QUESTION, reward=None, budget=None, seed=1, **config):
        self.sink.events.clear()
        main = await self.begin(name, strategy="rlot", question=question, budget=budget, seed=seed)
        models = Models({"main": main}, None if reward is None else MeteredReward(reward, "reward", self.run))
        return await rlot(**config).solve(question, models, self.run)

    @property
    def events(self):
        return self.sink.events

    def notes(self, name):
        return [e.data for e in self.sink.of_type("strategy.note") if e.name == name]

    def calls(self):
        return [e for e in self.sink.of_type("call.started") if e.operation == "generate"]


def names(blocks):
    return [NAMES[block] for block in blocks]
