"""Sums that a scripted model gets right only along some chains of blocks, and trainings on them."""

import re
from contextlib import asynccontextmanager

import navigator_training as training
from navigator_training import LearningConfig, TrainingPlan, split_problems, train_navigator
from reason.core.settings import Settings

from support.block_model import BlockModel, BlockWorld, asked
from support.eval_tasks import sums
from support.scripted_model import END, ScriptedModel

SUM = re.compile(r"What is (\d+) \+ (\d+)")
QUICK = LearningConfig(batch=8, learning_starts=16, capacity=64, sync_every=5, eps_decay=0.97, lr_halved_every=40)
"""The paper's numbers, made for some dozen episodes."""


class SumsWorld(BlockWorld):
    """A sum is right if a step was refined, or decomposed where the first number is even; every fourth is easy."""

    a = b = 0

    def script(self, text):
        self.a, self.b = map(int, SUM.findall(text)[-1])
        try:
            asked(text)
        except StopIteration:  # no block: it is asked directly
            written = text.rpartition("assistant: ")[2]
            reply = f"The answer is {self.a + self.b + (self.a % 4 != 0)}." + END
            return {reply[len(written)] if reply.startswith(written) else END: 1.0}
        return super().script(text)

    def assess(self, steps):
        if not steps:
            return (0, 0, 0, 1 + self.a % 3, 0, 0, 0)
        refined = any(step.startswith("refined") for step in steps)
        return (3, 2, 3 if refined else 1, self.a % 4, 2, min(3, len(steps)), 3)

    def finished(self, steps):
        return "yes" if len(steps) == 3 and steps[-1] == "guess" else "no"  # a debate, whose plan is the first line

    def answer(self, steps):
        right = any(s.startswith("refined") or (s.startswith("summed") and self.a % 2 == 0) for s in steps)
        return f"{self.a + self.b + (not right)}."


class SumsModel(BlockModel):
    """The world as a model, direct answers included."""

    async def generate(self, requests, listener=None):
        return await ScriptedModel.generate(self, requests, listener)


def step_chance(text):
    """How right a step is, for a scripted reward model: between 0 and 1, and another for every step."""
    if "refined" in text:
        return 0.9
    return 0.25 + 0.05 * (len(text) % 9)


def settings_of(directory, **how):
    return Settings(
        **{
            "model": "scripted/sums",
            "store": directory / "none",
            "cache_dir": directory / "cache",
            "reuse": "store",
            **how,
        }
    )


def plan_of(**how):
    """A plan on sums."""
    return TrainingPlan(**{"learning": QUICK, "parallel": 4, "validation": 4, "problems": "all", **how})


class Workshop:
    """Trains with scripted models; `model` is the one that is opened."""

    def __init__(self, monkeypatch, directory, world=None, reward=None, model=None):
        self.directory = directory
        self.world = world or SumsWorld()
        self.model = model or SumsModel(self.world)
        self.reward = reward
        self.opened = 0

        async def load_model(name, *_):
            self.opened += 1
            return self.model

        async def load_reward_model(name, *_):
            return self.reward

        monkeypatch.setattr(training, "load_model", load_model)
        monkeypatch.setattr(training, "load_reward_model", load_reward_model)

    def settings(self, reward="outcome"):
        return settings_of(self.directory, reward_model=None if reward == "outcome" else "scripted/reward")

    async def train(self, name="work", *, episodes=12, questions=24, on_progress=lambda _: None, **how):
        plan = plan_of(episodes=episodes, **how)
        work = self.directory / name
        return await train_navigator(
            plan,
            [sums(questions)],
            self.settings(plan.reward),
            work,
            work / "navigator.safetensors",
            on_progress=on_progress,
        )

    def file(self, name, work="work"):
        return (self.directory / work / name).read_bytes()

    def resources(self, *, questions=24, **how):
        """The resources of a training on sums and all its problems, opened for as long as it is held."""
        plan, task = plan_of(**how), sums(questions)

        @asynccontextmanager
        async def opened():
            store = self.directory / "resources.db"
            async with training.open_resources(plan, self.settings(plan.reward), store) as resources:
                problems, _ = split_problems([task], plan.model_copy(update={"holdout": 0.0, "validation": 0}))
                yield resources, problems

        return opened()
