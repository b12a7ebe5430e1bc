"""A small and a large scripted model on one run store, and the runs of a strategy that works with both.

`chain` is the script of a model that thinks in steps: which letter a step begins with is open, by a distribution of its
own at each place, and the rest follows from the letter. What it writes says who wrote it.
"""

import math
import random

from reason.core.events import MemorySink
from reason.core.types import Question
from reason.reasoning.strategy import Models, create_strategy
from reason.serving.metered.model import MeteredModel

from support.scripted_model import CLOSE, END, OPEN, THINKS, ScriptedModel
from support.stored_runs import RunHarness, recorded

QUESTION = Question(text="What is 2 + 2?", kind="number")
LETTERS = "abcdefgh"


def written_in(text):
    """What the model has written of its answer, or was given as its beginning."""
    return text.rpartition("assistant: ")[2].removeprefix(OPEN + CLOSE)


def first_letters(seed, before):
    """The distribution of a step's first letter after some steps: the same for both models."""
    rng = random.Random(f"{seed}/{before}")
    count = rng.choice([1, 1, 2, 3, 8])
    weights = [rng.random() + 0.01 for _ in range(count)]
    return {letter: w / sum(weights) for letter, w in zip(LETTERS, weights, strict=False)}


def entropy_after(seed, steps):
    """The exact entropy of the next step's first letter, in nats."""
    before = "".join(step + "\n\n" for step in steps)
    return -sum(p * math.log(p) for p in first_letters(seed, before).values())


def chain(who, *, steps=4, seed=0, end="The answer is 4."):
    """The script of a model of that name, which ends after so many steps; a thought is closed there."""

    def script(text):
        written = written_in(text)
        _, closed, answer = written.rpartition(CLOSE)
        if closed or "Therefore" in written:
            said = written.rpartition(" is")[2] if "Therefore" in written else answer
            rest = " 4" if "Therefore" in written else "The answer is 4."
            return {(rest + END)[len(said)]: 1.0} if rest.startswith(said) else {END: 1.0}
        last = CLOSE if written.startswith(OPEN) else END
        written = written.removeprefix(OPEN)
        before, _, begun = written.rpartition("\n\n")
        count = written.count("\n\n")
        if count >= steps:
            return {end[len(begun)] if len(begun) < len(end) else last: 1.0} if end.startswith(begun) else {last: 1.0}
        if not begun:
            return first_letters(seed, before + "\n\n" if count else "")
        line = f"{begun[0]}{count} of {who}.\n\n"
        return {line[len(begun)]: 1.0}

    return script


class Probed(ScriptedModel, changed={"logits_processors": frozenset({"entropy_probe"})}):
    """A scripted model with the hook `entropy_probe` for first tokens."""

    def measured(self, request, completion):
        if not request.sampling.logits_processors:
            return completion
        chances = self._script(self.render(request.prompt))
        entropy = -sum(p * math.log(p) for p in chances.values() if p > 0)
        return completion.model_copy(
            update={"extras": {"entropy_probe": {"positions": [0], "entropy": [entropy]}}, "top_logprobs": None}
        )

    async def generate(self, requests, listener=None):
        def hear(chunk):
            if chunk.completion is not None:
                done = self.measured(requests[chunk.request], chunk.completion)
                chunk = chunk.model_copy(update={"completion": done})
            listener(chunk)

        made = await super().generate(requests, None if listener is None else hear)
        return [[self.measured(r, c) for c in row] for r, row in zip(requests, made, strict=True)]


class TwoModels(RunHarness):
    """Runs on one store; `run`, `sink` and `models` are of the run begun last."""

    def __init__(self, store, small=None, large=None, *, profile=None):
        super().__init__(store)
        self.small = small or ScriptedModel(chain("small"), name="small", profile=profile)
        self.large = large or ScriptedModel(chain("large"), name="large", profile=profile)

    async def begin(
        self,
        name="r",
        *,
        strategy="glimprouter",
        budget=None,
        seed=3,
        question=QUESTION,
        replay=False,
        effort=None,
        effort_tokens=None,
        **given,
    ):
        self.strategy, parameters = create_strategy(strategy, given)
        self.sink = MemorySink()
        models = {"main": self.large, "small": self.small}
        self.run = await self.start(
            name,
            question=question,
            strategy=strategy,
            parameters=parameters,
            models={role: model.name for role, model in models.items()},
            budget=budget,
            seed=seed,
            effort=effort,
            thinking_tokens=effort_tokens,
            replay=replay,
        )
        if replay:
            models = {role: recorded(m, budget) for role, m in models.items()}
        self.models = Models({role: MeteredModel(model, role, self.run) for role, model in models.items()})
        self.question = question

    async def solve(self, name="r", **given):
        await self.begin(name, **given)
        return await self.strategy.solve(self.question, self.models, self.run)

    def think(self):
        """Make both models ones that think."""
        self.small = ScriptedModel(self.small._script, name="small", profile=THINKS)
        self.large = ScriptedModel(self.large._script, name="large", profile=THINKS)

    def generated(self):
        """Generated tokens of each model by the run's ledger."""
        rows = self.spent.by_role
        names = (("large", f"main:{self.large.name}"), ("small", f"small:{self.small.name}"))
        return {who: rows[key].completion_tokens if key in rows else 0 for who, key in names}


def booked(solution):
    """Generated tokens of each model by the solution's notes."""
    return {who: sum(row.values()) for who, row in solution.notes["tokens"].items()}


def texts(solution):
    """(who wrote it, text) of the steps."""
    return list(zip(solution.notes["writers"], [s.text for s in solution.best.steps], strict=True))
