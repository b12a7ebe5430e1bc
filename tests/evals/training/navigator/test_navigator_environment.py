"""Navigating as a Gymnasium environment: the same episodes as the trainer's, synchronous, masks in `info`."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
import threading
import warnings

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from reason.core.errors import UserError
from reason.core.extras import install_command
from reason.evals.training.navigator import episodes
from reason.evals.training.navigator.environment import NavigationEnv
from reason.evals.training.navigator.episodes import TrainingEpisode
from reason.evals.training.navigator.plan import split_problems
from reason.reasoning.rlot.learner import Learner, Transition
from support.navigation_model import SumsModel, SumsWorld, Workshop, plan_of, settings_of, step_chance
from support.scripted_reward import ScriptedReward


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes environments; they are closed in the end."""
    made = []

    def of(world=None, *, held_out=False, **how):
        shop = Workshop(monkeypatch, tmp_path, world, ScriptedReward(step_chance))
        plan, task = plan_of(tmp_path, **how)
        env = NavigationEnv.of(plan, [task], settings_of(tmp_path), store=tmp_path / "env.db", held_out=held_out)
        made.append(env)
        return env, shop, plan, task

    yield of
    for env in made:
        env.close()


@pytest.mark.parametrize("mode", ["mask", "substitute"])
def test_gymnasiums_own_check(make, mode):
    env, *_ = make(reward="prm", parameters={"mask_mode": mode})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*render.*")
        warnings.filterwarnings("ignore", message=".*spec.*")
        check_env(env, skip_render_check=True)


def test_spaces_and_masks(make):
    env, *_ = make(parameters={"max_blocks": 2})
    state, info = env.reset(seed=1)
    assert state.dtype == np.int64
    assert env.observation_space.contains(state)
    assert env.observation_space.shape == (7,)
    assert env.action_space.n == 5
    assert info["action_mask"].dtype == np.int8
    assert info["action_mask"].tolist() == [1, 1, 1, 0, 1]
    assert env.action_space.sample(info["action_mask"]) != 3
    _, reward, ended, truncated, info = env.step(np.int64(0))
    assert (reward, ended, truncated, info["block"]) == (0.0, False, False, "reason")
    assert info["action_mask"].tolist() == [1, 1, 1, 1, 1]
    *_, info = env.step(3)
    assert info["action_mask"].tolist() == [0, 0, 0, 0, 1]
    _, reward, ended, _, info = env.step(1)  # masked: the answer is asked for
    assert (reward, ended, info["block"], info["correct"]) == (1.0, True, "terminate", True)
    assert info["action_mask"].tolist() == [0] * 5
    with pytest.raises(UserError, match="no episode is in flight"):
        env.step(0)
    env.reset(options={"problem": info["problem"]})
    *_, info = env.step(3)  # nothing to refine
    assert info["block"] == "reason"
    with pytest.raises(UserError, match="there is no action 5"):
        env.step(5)


def test_the_problem_is_sampled_or_named(make):
    env, _, plan, task = make()
    split = split_problems(plan, [task])
    names = {f"sums/{p.item.id}" for p in split.train}
    first = [env.reset(seed=4)[1]["problem"], *(env.reset()[1]["problem"] for _ in range(30))]
    again = [env.reset(seed=4)[1]["problem"], *(env.reset()[1]["problem"] for _ in range(30))]
    assert first == again
    assert set(first) <= names
    assert len(set(first)) > 4
    expected = min(names)
    assert env.reset(options={"problem": expected})[1]["problem"] == expected
    assert env.reset(options={"problem": expected.partition("/")[2]})[1]["problem"] == expected
    with pytest.raises(UserError, match="0 problems are called 'none'"):
        env.reset(options={"problem": "none"})
    held, *_ = make(held_out=True)
    assert held.reset(seed=4)[1]["problem"] in {f"sums/{p.item.id}" for p in split.held_out}


async def test_episodes_equal_those_of_the_trainer(make, tmp_path):
    env, _, plan, task = make(reward="potential")
    (problem,) = [p for p in split_problems(plan, [task]).train if p.item.id == env_problem(env)]
    actions = [0, 1, 3, 2, 4]
    state, _ = await asyncio.to_thread(env.reset, options={"problem": problem.item.id})
    states, rewards = [tuple(state)], []
    for action in actions:
        state, reward, ended, _, _ = await asyncio.to_thread(env.step, action)
        states.append(tuple(state))
        rewards.append(reward)
        if ended:
            break
    await asyncio.to_thread(env.close)
    async with episodes.open_episode_resources(plan, [task], settings_of(tmp_path), tmp_path / "other.db") as harness:
        navigation = TrainingEpisode(harness, problem)
        await navigation.begin()
        while not navigation.done:
            await navigation.act(actions[len(navigation.actions)])
        assert navigation.states == states
        assert navigation.rewards == rewards
        await navigation.close()


def env_problem(env):
    return env._problems[0].item.id


def test_our_learner_learns_in_it(make):
    """What any library would do: reset, look at the mask, step."""
    env, _, plan, _ = make(questions=16)
    learner = Learner(plan.learning, 0)
    episode_return = []
    for episode in range(70):
        state, info = env.reset(seed=episode)
        ended, total = False, 0.0
        while not ended:
            legal = tuple(map(bool, info["action_mask"]))
            (action,) = learner.act([tuple(map(int, state))], [legal])
            after, reward, ended, _, info = env.step(action)
            mask = tuple(map(bool, info["action_mask"]))
            learner.observe(Transition(tuple(map(int, state)), action, reward, ended, tuple(map(int, after)), mask))
            state, total = after, total + reward
        learner.end_episode()
        episode_return.append(total)
    assert sum(episode_return[-10:]) == 10


def test_closing_releases_everything_and_reset_reopens(make, tmp_path):
    env, shop, *_ = make()
    env.close()
    env.close()
    assert shop.opened == 0
    env.reset(seed=0)
    env.step(0)
    before = threading.active_count()
    env.close()
    assert shop.model.closed
    assert threading.active_count() < before
    with sqlite3.connect(tmp_path / "env.db") as db:
        assert db.execute("SELECT status, owner FROM runs").fetchall() == [("interrupted", None)]
    made = len(shop.model.made)
    env.reset(seed=0)
    env.step(0)
    assert len(shop.model.made) == made  # found again
    assert shop.opened == 2


@pytest.fixture
def interruptible():
    """SIGINT interrupts, also where whoever started the tests ignores it, as a shell does in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupted_call_ends_what_the_model_does(make, interruptible):
    class Slow(SumsModel):
        holds = False

        async def generate(self, requests, listener=None):
            if self.holds:
                self.running += 1
                try:
                    threading.Thread(target=self.interrupts, daemon=True).start()
                    await asyncio.sleep(60)
                finally:
                    self.running -= 1
            return await super().generate(requests, listener)

        def interrupts(self):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    env, shop, *_ = make()
    shop.model = Slow(SumsWorld())
    env.reset(seed=0)
    shop.model.holds = True
    with pytest.raises(KeyboardInterrupt):
        env.step(0)
    shop.model.holds = False
    assert shop.model.running == 0
    env.reset(seed=1)
    env.step(0)


def test_without_gymnasium(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    monkeypatch.delitem(sys.modules, "reason.evals.training.navigator.environment")
    with pytest.raises(UserError, match="the environment needs the package 'gymnasium'") as e:
        import reason.evals.training.navigator.environment  # noqa: F401
    assert e.value.hint == install_command("train")


def test_no_problem():
    with pytest.raises(UserError, match="no problem to navigate on"):
        NavigationEnv(lambda: None, [])
