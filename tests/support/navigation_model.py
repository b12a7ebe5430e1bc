"""Sums that a scripted model gets right only along some chains of blocks, and trainings on them."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager

from reason.core.settings import Settings
from reason.evals.training.navigator import episodes as episodes_module
from reason.evals.training.navigator import training as training_module
from reason.evals.training.navigator.plan import NavigatorTrainerConfig, as_problems, make_navigator_plan
from reason.evals.training.navigator.training import train_navigator
from reason.reasoning.rlot.learner import LearningConfig

from support.block_model import BlockModel, BlockWorld, asked
from support.eval_tasks import SOURCE, sums_task
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


def plan_of(directory, *, questions=24, reward="outcome", **how):
    """A plan on sums, and its task."""
    task = sums_task(questions)
    settings = settings_of(directory, **({} if reward == "outcome" else {"reward_model": "scripted/reward"}))
    chosen = {"learning": QUICK, "parallel": 4, "validation": 4, "problems": "all", **how}
    return make_navigator_plan([task], settings, reward=reward, **chosen), task


class Workshop:
    """Trains with scripted models; `model` is the one that is opened. Learning curves are drawn only with `draws`."""

    def __init__(self, monkeypatch, directory, world=None, reward=None, model=None, *, draws=False):
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

        if not draws:
            monkeypatch.setattr(training_module, "learning_curve", lambda *_: "<svg/>")
        monkeypatch.setattr(episodes_module, "load_model", load_model)
        monkeypatch.setattr(episodes_module, "load_reward_model", load_reward_model)

    async def train(self, name="work", *, episodes=12, resume=False, observer=None, store=None, task=None, **how):
        config_names = ("max_tokens", "checkpoint_every", "validate_every")
        config = {k: how.pop(k) for k in config_names if k in how}
        plan, made = plan_of(self.directory, **how)
        work = self.directory / name
        return await train_navigator(
            plan,
            [task or made],
            [SOURCE],
            work,
            work / "navigator.safetensors",
            settings_of(self.directory, reward_model=None if plan.reward == "outcome" else "scripted/reward"),
            config=NavigatorTrainerConfig(**{"episodes": episodes, "validate_every": 0, **config}),
            resume=resume,
            store=store,
            observer=observer,
        )

    def file(self, name, work="work"):
        return (self.directory / work / name).read_bytes()

    def harness(self, *, max_tokens=None, **how):
        """A harness on sums and their problems, opened for as long as it is held."""
        plan, task = plan_of(self.directory, **how)

        @asynccontextmanager
        async def opened():
            settings = settings_of(self.directory)
            async with episodes_module.open_episode_resources(
                plan, [task], settings, self.directory / "harness.db", max_tokens=max_tokens
            ) as harness:
                yield harness, as_problems("sums", task.items.values())

        return opened()
