"""One episode on one problem: states, rewards, the answer's rightness, the problem's run, and what it may generate."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reason.core.errors import BackendUnavailable, BudgetExceeded, UserError
from reason.core.store.sqlite import SqliteStore
from reason.evals.training.navigator.episodes import TrainingEpisode, TrainingUsage, discounted_return
from reason.evals.training.navigator.training import direct_answers
from reason.reasoning.rlot.blocks import Block
from support.block_model import BlockModel
from support.navigation_model import SumsModel, SumsWorld, Workshop, step_chance
from support.scripted_reward import ScriptedReward

R, D, DB, RF, GA = Block


async def walk(harness, problem, actions, **how):
    """Take actions until the end; the episode, and what each came to."""
    navigation = TrainingEpisode(harness, problem, **how)
    await navigation.begin()
    moved = []
    for action in actions:
        if navigation.done:
            break
        moved.append(await navigation.act(action))
    await navigation.close()
    return navigation, moved


async def test_the_record_of_an_episode(tmp_path, monkeypatch):
    async with Workshop(monkeypatch, tmp_path).harness() as (harness, problems):
        navigation, moved = await walk(harness, problems[3], [R, RF, GA])
        record = navigation.record(7, epsilon=0.5, learning_rate=0.01, loss=0.25, steps=20)
    assert [m.block for m in moved] == [R, RF, GA]
    assert [m.done for m in moved] == [False, False, True]
    assert (record.chain, record.length) == ("R-Rf-Ga", 2)
    assert record.states == ((0, 0, 0, 1, 0, 0, 0), (3, 2, 1, 3, 2, 1, 3), (3, 2, 3, 3, 2, 2, 3), (3, 2, 3, 3, 2, 2, 3))
    assert record.rewards == (0.0, 0.0, 1.0)
    assert record.episode_return == pytest.approx(0.81)
    assert (record.correct, record.answer, record.forced) == (True, "7", False)
    assert (record.scores_requested, record.scores_missing, record.calls) == (21, 0, 8)
    assert (record.episode, record.epsilon, record.loss, record.steps) == (7, 0.5, 0.25, 20)


async def test_the_finish_check_ends_it_with_the_outcome(tmp_path, monkeypatch):
    async with Workshop(monkeypatch, tmp_path).harness() as (harness, problems):
        navigation, moved = await walk(harness, problems[3], [R, RF, DB])
    assert [m.done for m in moved] == [False, False, True]
    assert moved[-1].block is DB  # the answer came within the transition
    assert (moved[-1].reward, navigation.correct) == (1.0, True)
    assert navigation.record(1).blocks == ("R", "Rf", "Db")


async def test_the_answer_is_forced_after_the_last_block(tmp_path, monkeypatch):
    shop = Workshop(monkeypatch, tmp_path)
    async with shop.harness(parameters={"max_blocks": 2}) as (harness, problems):
        navigation, moved = await walk(harness, problems[3], [R, R, GA])
        assert moved[1].legal == (False, False, False, False, True)
        record = navigation.record(1)
    assert (record.forced, record.length, record.correct, record.rewards[-1]) == (True, 2, False, 0.0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(st.lists(st.integers(0, 4), min_size=6, max_size=6), st.sampled_from(["prm", "outcome", "potential"]))
async def test_rewards_are_step_scores_and_the_outcome(tmp_path_factory, monkeypatch, actions, reward):
    """Spec (g) 8: in [0, 1] from the reward model, the last one in {0, 1} from the checker."""
    reported = []
    model = ScriptedReward(lambda text: reported.append(step_chance(text)) or reported[-1])
    shop = Workshop(monkeypatch, tmp_path_factory.mktemp("n"), reward=model)
    async with shop.harness(reward=reward) as (harness, problems):
        navigation, moved = await walk(harness, problems[5], actions, substitute=True)
    rewards = [m.reward for m in moved]
    assert moved[-1].done
    if reward == "potential":
        assert discounted_return(rewards, 0.9) == pytest.approx(0.9 ** (len(moved) - 1) * navigation.correct)
        return
    assert rewards[-1] == float(navigation.correct)
    if reward == "outcome":
        assert rewards[:-1] == [0.0] * (len(moved) - 1)
        assert reported == []
    else:
        assert all(r == pytest.approx(step_chance(_last(call))) for r, call in zip(rewards, model.asked, strict=False))
        assert all(0 <= r <= 1 for r in rewards)


def _last(call):
    return call[1][0][-1]


async def test_masked_actions_are_refused_or_substituted(tmp_path, monkeypatch):
    async with Workshop(monkeypatch, tmp_path).harness(parameters={"max_blocks": 1}) as (harness, problems):
        strict = TrainingEpisode(harness, problems[1])
        with pytest.raises(UserError, match="ended or not begun"):
            await strict.act(R)
        await strict.begin()
        with pytest.raises(UserError, match="'refine' is not legal"):
            await strict.act(RF)
        await strict.close()
        navigation, moved = await walk(harness, problems[1], [RF, D], substitute=True)
        assert [m.block for m in moved] == [R, GA]
        assert navigation.actions == [RF, D]
        with pytest.raises(UserError, match="has ended"):
            await navigation.act(GA)


async def test_a_problem_is_one_run_whose_completions_are_reused(tmp_path, monkeypatch):
    shop = Workshop(monkeypatch, tmp_path)
    async with shop.harness() as (harness, problems):
        first, _ = await walk(harness, problems[2], [R, RF, GA])
        made, spent = len(shop.model.made), TrainingUsage(**vars(harness.usage))
        assert (spent.reused_completions, spent.completions) == (0, made)
        second, _ = await walk(harness, problems[2], [R, RF, GA])
        assert len(shop.model.made) == made
        assert second.record(1) == first.record(1)  # what it would have cost is the same
        assert (harness.usage.tokens, harness.usage.reused_completions) == (spent.tokens, made)
        assert harness.usage.reused_tokens == spent.tokens
        await walk(harness, problems[2], [R, D, GA])  # the bare problem and the first block are known
        assert harness.usage.reused_completions == made + 4
    store = await SqliteStore.open(tmp_path / "harness.db")
    (listed,) = await store.list_runs()
    record = await store.get_run(listed.id)
    assert record.id == first._problem_run.run.id
    assert record.id.startswith(f"train-{harness.plan.digest}-")
    assert (record.status, record.answer["text"]) == ("finished", "Therefore, the answer (a number) is 5.")
    assert record.answer["answer"] == "5"  # the last visit's
    assert await store.list_events(record.id) == []
    await store.aclose()


async def test_a_closed_episode_is_interrupted(tmp_path, monkeypatch):
    async with Workshop(monkeypatch, tmp_path).harness() as (harness, problems):
        await walk(harness, problems[2], [R])
    store = await SqliteStore.open(tmp_path / "harness.db")
    (record,) = await store.list_runs()
    assert (record.status, record.owner) == ("interrupted", None)
    await store.aclose()


async def test_a_too_long_prompt_ends_only_its_episode(tmp_path, monkeypatch):
    class Measuring(SumsModel):
        needs = ()

        async def generate(self, requests, listener=None):
            need = [self.count_tokens(r.prompt) + r.sampling.max_tokens for r in requests]
            self.needs = (*self.needs, *need)
            return await super().generate(requests, listener)

    world, directory = SumsWorld(), tmp_path / "roomy"
    directory.mkdir()
    shop = Workshop(monkeypatch, directory, world, model=Measuring(world))
    async with shop.harness() as (harness, problems):
        await walk(harness, problems[1], [D, D, D, D, D, GA])
    begin, *later = shop.model.needs
    assert max(later) > begin
    shop = Workshop(monkeypatch, tmp_path, world, ScriptedReward(step_chance), SumsModel(world, context_tokens=begin))
    async with shop.harness(reward="prm") as (harness, problems):
        navigation, moved = await walk(harness, problems[1], [D, D, D, D, D, GA])
        assert navigation.done
        assert "too long" in navigation.error
        assert moved[-1].block is None
        assert (moved[-1].reward, navigation.correct, navigation.answer) == (0.0, False, None)
        other, _ = await walk(harness, problems[2], [GA])
        assert other.error == ""
    shop.model = SumsModel(world, context_tokens=100)
    async with shop.harness() as (harness, problems):
        navigation, moved = await walk(harness, problems[9], [GA])
        assert (navigation.done, moved) == (True, [])
        assert navigation.record(1).episode_return == 0.0


async def test_a_failing_model_is_raised(tmp_path, monkeypatch):
    class Gone(BlockModel):
        async def generate(self, requests, listener=None):
            raise BackendUnavailable("the server is gone")

    async with Workshop(monkeypatch, tmp_path, model=Gone(SumsWorld())).harness() as (harness, problems):
        navigation = TrainingEpisode(harness, problems[1])
        with pytest.raises(BackendUnavailable):
            await navigation.begin()
        await navigation.close()


async def test_no_step_begins_that_could_exceed_the_token_limit(tmp_path, monkeypatch):
    shop = Workshop(monkeypatch, tmp_path)
    async with shop.harness() as (harness, problems):
        most = TrainingEpisode(harness, problems[1]).most_tokens
    # decompose: list, five subtasks, summary, assessment and check; and the answer behind it
    assert most == 256 + 5 * 192 + 192 + 2 * 96 + 128
    async with shop.harness(max_tokens=most + 95) as (harness, problems):
        navigation = TrainingEpisode(harness, problems[1])
        await navigation.begin()
        spent = harness.usage.tokens
        assert 0 < spent <= 95
        with pytest.raises(BudgetExceeded):
            await TrainingEpisode(harness, problems[2]).begin() or await navigation.act(R) or await navigation.act(R)
        assert harness.usage.tokens <= most + 95


async def test_direct_answers(tmp_path, monkeypatch):
    """Every fourth sum is right when asked directly; asking again costs nothing."""
    shop = Workshop(monkeypatch, tmp_path)
    reported = []
    async with shop.harness() as (harness, problems):
        right = await direct_answers(problems[:9], harness, 3, lambda problem, correct: reported.append(problem.key))
        assert [right["sums", f"sum-{i:03}"] for i in range(9)] == [i % 4 == 0 for i in range(9)]
        assert sorted(reported) == sorted(p.key for p in problems[:9])
        made = len(shop.model.made)
        assert made == 9
        assert await direct_answers(problems[:9], harness, 9) == right
        assert len(shop.model.made) == made
    async with shop.harness(max_tokens=512 * 2) as (harness, problems):
        assert len(await direct_answers(problems[9:10], harness, 1)) == 1
        with pytest.raises(BudgetExceeded):
            await direct_answers(problems[10:], harness, 3)
