"""What blocks earn: the ranges of all kinds, and the potential that adds nothing to the outcome."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.run import Run, RunConfig
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from reason.evals.training.navigator.episodes import EpisodeRewards, discounted_return
from reason.reasoning.rlot.blocks import Trajectory
from reason.serving.metered.scorers import MeteredReward
from support.scripted_reward import ScriptedReward

PROBLEM = Question(text="How many?", choices=("one", "two"))
CHANCE = st.floats(0.001, 0.999)


def earn(tmp_path, kind, chances, correct, gamma=0.9, reward=None):
    """Rewards of an episode whose steps have these chances and after which it ends; and the rewards' object."""
    table = {f"step {i}": p for i, p in enumerate(chances)}
    reward = reward or ScriptedReward(table.get)

    async def inside():
        store = await SqliteStore.open(tmp_path / "rewards.db")
        config = RunConfig(question=PROBLEM, strategy="rlot", parameters={}, models={"main": "m"}, seed=0, reuse="none")
        run = Run("r", config, store)
        if not await store.list_runs():
            await store.create_run("r", {})
        rewards = EpisodeRewards(kind, gamma, MeteredReward(reward, "reward", run), run)
        trajectory, step_rewards = Trajectory(PROBLEM), []
        for text in table:
            trajectory = trajectory.with_step(text)
            step_rewards.append(await rewards.step_reward(trajectory))
        step_rewards.append(rewards.final_reward(correct=correct))
        await store.aclose()
        return step_rewards, rewards

    return asyncio.run(inside())


@given(st.lists(CHANCE, max_size=5), st.booleans())
def test_prm_rewards_step_probabilities_and_the_outcome(tmp_path_factory, chances, correct):
    step_rewards, _ = earn(tmp_path_factory.mktemp("r"), "prm", chances, correct)
    assert step_rewards[:-1] == pytest.approx(chances)
    assert all(0 <= r <= 1 for r in step_rewards)
    assert step_rewards[-1] in (0.0, 1.0)
    assert step_rewards[-1] == correct


def test_outcome_rewards_only_the_end_without_a_reward_model(tmp_path):
    reward = ScriptedReward(lambda _: 0.7)
    step_rewards, _ = earn(tmp_path, "outcome", [0.1, 0.9], True, reward=reward)
    assert step_rewards == [0.0, 0.0, 1.0]
    assert reward.asked == []


@given(st.lists(CHANCE, max_size=5), st.booleans(), st.floats(0, 1))
def test_the_potential_adds_nothing_to_the_discounted_outcome(tmp_path_factory, chances, correct, gamma):
    """Over a whole episode of T blocks: sum of gamma^t r_t = gamma^(T-1) 1[correct] - Phi(bare problem), which is 0."""
    step_rewards, _ = earn(tmp_path_factory.mktemp("r"), "potential", chances, correct, gamma)
    last = len(chances)
    assert discounted_return(step_rewards, gamma) == pytest.approx(gamma**last if correct else 0.0, abs=1e-12)
    assert all(-1 <= r <= 1 for r in step_rewards)


def test_the_potential_of_each_block(tmp_path):
    step_rewards, _ = earn(tmp_path, "potential", [0.5, 0.8], True)
    assert step_rewards == pytest.approx([0.9 * 0.5 - 0, 0.9 * 0.8 - 0.5, 1 - 0.8])


def test_long_chains_of_good_steps_earn_more_than_a_right_answer_with_prm_and_not_with_a_potential(tmp_path):
    """Spec (h): five steps at 0.8 are worth 3.28 under gamma 0.9, and an answer at once 1."""
    stalling, _ = earn(tmp_path, "prm", [0.8] * 5, False)
    assert discounted_return(stalling, 0.9) == pytest.approx(3.27608)
    at_once, _ = earn(tmp_path, "prm", [], True)
    assert discounted_return(at_once, 0.9) == 1.0
    shaped, _ = earn(tmp_path, "potential", [0.8] * 5, False)
    assert discounted_return(shaped, 0.9) == pytest.approx(0.0)


def test_the_reward_model_receives_problem_choices_and_steps(tmp_path):
    reward = ScriptedReward(lambda _: 0.5)
    earn(tmp_path, "prm", [0.5, 0.5], True, reward=reward)
    problem, steps, which = reward.asked[-1]
    assert "How many?" in problem
    assert "two" in problem
    assert (steps, which) == ([["step 0", "step 1"]], "last")


def test_steps_that_are_too_long_lose_the_oldest(tmp_path):
    class Short(ScriptedReward):
        """Scores two steps at most."""

        def _scores(self, steps, which):
            return super()._scores(steps if len(steps) <= 2 else ["too long"], which)

    reward = Short(lambda text: None if text == "too long" else 0.25 + 0.25 * int(text[-1]) / 3)
    step_rewards, rewards = earn(tmp_path, "prm", [0] * 3, True, reward=reward)
    assert step_rewards[:-1] == pytest.approx([0.25, 0.25 + 0.25 / 3, 0.25 + 0.5 / 3])
    assert [len(steps[0]) for _, steps, _ in reward.asked] == [1, 2, 3, 2]
    assert rewards.unscored == 0


def test_an_unscorable_step_gets_0_and_is_counted(tmp_path):
    step_rewards, rewards = earn(tmp_path, "prm", [0.5, 0.5], True, reward=ScriptedReward(lambda text: None))
    assert step_rewards == [0.0, 0.0, 1.0]
    assert rewards.unscored == 2


@pytest.mark.parametrize(("rewards", "total"), [([], 0.0), ([1.0], 1.0), ([0.5, 0.25, 1.0], 0.5 + 0.225 + 0.81)])
def test_discounting(rewards, total):
    assert discounted_return(rewards, 0.9) == pytest.approx(total)
