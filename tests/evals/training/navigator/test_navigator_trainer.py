"""Episodes in rounds: the same whatever the timing, side by side, on problems that are under way once at a time."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from reason.core.concurrency import gather
from reason.core.errors import BackendUnavailable, DataError
from reason.evals.training.navigator.episodes import TrainingEpisode, map_concurrently
from reason.evals.training.navigator.trainer import EpisodeState, NavigatorTrainer, TrainingProgress
from reason.reasoning.rlot.learner import Learner
from support.navigation_model import SumsModel, SumsWorld, Workshop


def state_of(learner):
    """All of a learner as plain values, which can be compared."""
    return {
        name: value.tobytes() if hasattr(value, "tobytes") else value for name, value in learner.state_dict().items()
    }


async def run(harness, problems, episodes, *, parallel=4, seed=0, watch=lambda trainer: None):
    learner = Learner(harness.plan.learning, seed)
    trainer = NavigatorTrainer(
        problems, learner, lambda p: TrainingEpisode(harness, p), parallel=parallel, episodes=episodes, seed=seed
    )
    records = []
    while not trainer.done:
        watch(trainer)
        records += await trainer.round()
    return records, learner, trainer


class Jittery(SumsModel):
    """The world's model, each of whose replies takes another time."""

    def __init__(self, world, seed):
        super().__init__(world)
        self.rng = random.Random(seed)

    async def generate(self, requests, listener=None):
        for _ in range(self.rng.randrange(40)):
            await asyncio.sleep(0)
        return await super().generate(requests, listener)


@pytest.mark.nightly
async def test_the_result_does_not_depend_on_timing(tmp_path, monkeypatch):
    """Spec (g) 10: a fixed seed gives the same replay content and the same weights."""
    results = []
    for i in range(3):
        model = Jittery(SumsWorld(), i)
        directory = tmp_path / f"{i}"
        directory.mkdir()
        async with Workshop(monkeypatch, directory, model=model).harness() as (harness, problems):
            records, learner, _ = await run(harness, problems, 30)
            results.append((records, state_of(learner), harness.usage))
    assert results[0] == results[1] == results[2]
    records, state, _ = results[0]
    assert state["updates"] > 30
    assert [r.episode for r in records] == list(range(1, 31))
    assert state["steps"] == sum(len(r.actions) for r in records)


async def test_another_seed_or_width_is_another_training(tmp_path, monkeypatch):
    async with Workshop(monkeypatch, tmp_path).harness() as (harness, problems):
        first, _, _ = await run(harness, problems, 12)
        again, _, _ = await run(harness, problems, 12)
        assert again == first  # all of its replies come from the store
        assert (await run(harness, problems, 12, seed=1))[0] != first
        assert (await run(harness, problems, 12, parallel=3))[0] != first


async def test_calls_are_concurrent(tmp_path, monkeypatch):
    class Meeting(SumsModel):
        """Replies once eight calls are there."""

        there, met = 0, asyncio.Event()

        async def generate(self, requests, listener=None):
            self.there += 1
            if self.there == 8:
                self.met.set()
            await asyncio.wait_for(self.met.wait(), 30)
            return await super().generate(requests, listener)

    shop = Workshop(monkeypatch, tmp_path, model=Meeting(SumsWorld()))
    async with shop.harness() as (harness, problems):
        await run(harness, problems, 8, parallel=8)
    assert shop.model.met.is_set()


async def test_a_problem_is_in_flight_once_and_repeats_later(tmp_path, monkeypatch):
    async with Workshop(monkeypatch, tmp_path).harness() as (harness, problems):
        seen = []

        def watch(trainer):
            under_way = [place.problem for place in trainer.progress().slots if place is not None]
            assert len(under_way) == len(set(under_way))
            seen.append(len(under_way))

        records, _, trainer = await run(harness, problems[:5], 40, parallel=16, watch=watch)
    assert trainer.width == 5  # never more than there are problems
    assert max(seen) <= 5
    counts = Counter(r.item for r in records)
    assert set(counts) == {p.item.id for p in problems[:5]}
    assert sum(counts.values()) == 40


async def test_no_completion_is_generated_twice(tmp_path, monkeypatch):
    shop = Workshop(monkeypatch, tmp_path)
    async with shop.harness() as (harness, problems):
        records, _, _ = await run(harness, problems[:6], 40)
    assert max(Counter(shop.model.made).values()) == 1
    assert harness.usage.completions == len(shop.model.made)
    assert harness.usage.completions + harness.usage.reused_completions == sum(r.calls for r in records)
    assert harness.usage.tokens + harness.usage.reused_tokens == sum(r.tokens for r in records)


async def test_schedules_are_counted_by_steps_and_episodes(tmp_path, monkeypatch):
    async with Workshop(monkeypatch, tmp_path).harness() as (harness, problems):
        records, learner, _ = await run(harness, problems, 50)
    steps = [r.steps for r in records]
    assert steps == sorted(steps)
    assert learner.episodes == 50
    assert [r.learning_rate for r in records] == [0.01] * 40 + [0.005] * 10
    eps = learner.learning
    assert all(r.epsilon in {eps.epsilon(n) for n in range(r.steps)} for r in records)
    assert all(r.loss is None for r in records if r.steps < 16)
    assert records[-1].loss is not None


@pytest.mark.nightly
async def test_it_learns_the_chain_that_is_right(tmp_path, monkeypatch):
    """Odd sums are right along R-Rf-Ga alone, at the least; no shorter chain is, and longer ones earn less."""
    async with Workshop(monkeypatch, tmp_path).harness() as (harness, problems):
        odd = [p for i, p in enumerate(problems) if i % 2]
        records, _, _ = await run(harness, odd, 110)
    assert [r.correct for r in records[-15:]] == [True] * 15
    assert {r.length for r in records[-15:]} == {2}


@pytest.mark.nightly
async def test_restoring_between_any_two_rounds_continues_identically(tmp_path, monkeypatch):
    async with Workshop(monkeypatch, tmp_path).harness() as (harness, problems):
        records, learner, _ = await run(harness, problems, 20)
        end = state_of(learner)
        rounds = 0
        while True:
            rounds += 3
            learner = Learner(harness.plan.learning, 0)
            trainer = NavigatorTrainer(
                problems, learner, lambda p: TrainingEpisode(harness, p), parallel=4, episodes=20, seed=0
            )
            done = []
            for _ in range(rounds):
                done += await trainer.round() if not trainer.done else []
            if trainer.done:
                break
            state, progress = learner.state_dict(), trainer.progress()
            await trainer.close()
            other = Learner(harness.plan.learning, 0)
            other.load_state(state)
            again = NavigatorTrainer(
                problems,
                other,
                lambda p: TrainingEpisode(harness, p),
                parallel=4,
                episodes=20,
                seed=0,
                progress=TrainingProgress.model_validate_json(progress.model_dump_json()),
            )
            await again.restore()
            assert again.progress() == progress
            while not again.done:
                done += await again.round()
            assert done == records
            assert state_of(other) == end
    assert rounds > 9


async def test_invalid_progress_is_refused(tmp_path, monkeypatch):
    async with Workshop(monkeypatch, tmp_path).harness() as (harness, problems):

        def trainer(place):
            progress = TrainingProgress(begun=1, slots=(place,))
            return NavigatorTrainer(
                problems,
                Learner(harness.plan.learning, 0),
                lambda p: TrainingEpisode(harness, p),
                parallel=1,
                episodes=5,
                seed=0,
                progress=progress,
            )

        with pytest.raises(DataError, match="none of its problems"):
            await trainer(EpisodeState(problem=("sums", "nowhere"))).restore()
        with pytest.raises(DataError, match="ends earlier than it did"):
            await trainer(EpisodeState(problem=problems[0].key, actions=(4, 0))).restore()


async def test_an_error_of_one_episode_ends_the_others_and_is_raised(tmp_path, monkeypatch):
    class Failing(SumsModel):
        async def generate(self, requests, listener=None):
            if len(self.made) > 30:
                raise BackendUnavailable("the server is gone")
            return await super().generate(requests, listener)

    shop = Workshop(monkeypatch, tmp_path, model=Failing(SumsWorld()))
    async with shop.harness() as (harness, problems):
        learner = Learner(harness.plan.learning, 0)
        trainer = NavigatorTrainer(
            problems, learner, lambda p: TrainingEpisode(harness, p), parallel=4, episodes=50, seed=0
        )
        with pytest.raises(BackendUnavailable):
            while True:
                await trainer.round()
        assert shop.model.running == 0
        await trainer.close()
        assert len(asyncio.all_tasks()) == 1


async def test_map_concurrently_bounds_concurrency():
    under_way, most = 0, 0

    async def work(i):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        for _ in range(7 - i % 5):
            await asyncio.sleep(0)
        under_way -= 1
        return 2 * i

    assert await map_concurrently(range(20), work, 3) == [2 * i for i in range(20)]
    assert most == 3
    assert await map_concurrently([], work, 3) == []
    assert await gather([]) == []


async def test_cancelling_gather_cancels_all():
    ended = []

    async def work(i):
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(i)

    task = asyncio.ensure_future(gather([work(i) for i in range(4)]))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(ended) == [0, 1, 2, 3]
