"""Training a navigator: problems, rewards, episodes, and whole trainings, also interrupted ones."""

import asyncio
import json
import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from navigator_training import (
    EpisodeRecord,
    EpisodeRewards,
    Learner,
    Problem,
    TrainingEpisode,
    TrainingPlan,
    TrainingUsage,
    custom_record,
    direct_answers,
    discounted_return,
    run_episodes,
    split_problems,
)
from reason.core.errors import BackendUnavailable, BudgetExceeded, UserError
from reason.core.files import question_digest
from reason.core.run import Run
from reason.core.store.run_writer import CALL_DELAY_S
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Document, Question
from reason.evals.datasets.items import (
    ChoiceGold,
    Dataset,
    Item,
    LabelGold,
    MathGold,
    TextGold,
)
from reason.evals.datasets.loading import load_dataset
from reason.evals.scoring import Scorer
from reason.reasoning.rlot.blocks import Block, Trajectory
from reason.reasoning.rlot.navigator import load_navigator
from reason.reasoning.rlot.rlot import RLoT
from reason.serving.metered.scorers import MeteredReward
from support.eval_tasks import answered, sums
from support.navigation_model import SUM, SumsModel, SumsWorld, Workshop, step_chance
from support.scripted_model import ScriptedModel, replies
from support.scripted_reward import ScriptedReward
from support.stored_runs import run_config

R, D, DB, RF, GA = Block


@pytest.fixture
def shop(monkeypatch, tmp_path):
    return Workshop(monkeypatch, tmp_path)


# problems


@given(st.integers(1, 40), st.floats(0, 0.99), st.randoms())
def test_the_split_depends_only_on_the_text(count, share, rng):
    """No training question is held out: not in other letters, with other blanks, or in another dataset."""
    texts = [f"What is {i}  and {i}?" for i in range(count)]
    datasets = []
    for name, shown in (("a", texts), ("b", [text.upper().replace("  ", "\n") for text in texts])):
        items = [Item(id=str(i), question=Question(text=t), gold=TextGold(answers=("x",))) for i, t in enumerate(shown)]
        rng.shuffle(items)
        datasets.append(Dataset(name=name, source="", items=tuple(items), size=count, fingerprint=""))
    try:
        train, held_out = split_problems(datasets, TrainingPlan(holdout=share, validation=0))
    except UserError:
        return  # none is in the training part
    assert {p.digest for p in train}.isdisjoint(p.digest for p in held_out)
    assert len(train) + len(held_out) == 2 * count
    assert {p.item.id for p in train if p.dataset == "a"} == {p.item.id for p in train if p.dataset == "b"}


def items_of_all_kinds():
    yield Item(id="m", question=Question(text="1 + 1?", kind="math"), gold=MathGold(answer="2", equivalents=("2.0",)))
    yield Item(
        id="c", question=Question(text="Which?", choices=("x", "y", "z"), kind="choice"), gold=ChoiceGold(correct=(2,))
    )
    documents = (Document(name="a", text="Rome."), Document(name="b", text="Oslo."))
    yield Item(
        id="t",
        question=Question(text="Where?", documents=documents),
        gold=TextGold(answers=("Rome", "Roma")),
        subject="slots",
        group="g",
    )
    yield Item(
        id="l",
        question=Question(text="True?", choices=("Yes", "No"), kind="choice"),
        gold=LabelGold(label="no", labels=("yes", "no"), shown=("yes", "no")),
    )


@pytest.mark.parametrize("item", list(items_of_all_kinds()), ids=lambda item: item.id)
async def test_held_out_problems_can_be_evaluated_on(item, tmp_path):
    """What was right stays right, and what was wrong wrong, in the file that is written of them."""
    path = tmp_path / "held_out.jsonl"
    problem = Problem("kinds", item, question_digest(item.question.text))
    path.write_text(json.dumps(custom_record(problem)) + "\n")
    read = load_dataset(str(path), seed=None).items[0]
    assert read.id == f"kinds/{item.id}"
    asked = [
        (one.question.text, one.question.choices, one.question.documents, one.subject, one.group)
        for one in (read, item)
    ]
    assert asked[0] == asked[1]
    async with Scorer() as scorer:
        for said in ("2", "2.0", "3", "A", "B", "C", "Rome", "Roma", "Oslo", None):
            answer = answered(said)
            assert (await scorer.score(read, answer)).correct == (await scorer.score(item, answer)).correct, said


# rewards

PROBLEM = Question(text="How many?", choices=("one", "two"))
CHANCE = st.floats(0.001, 0.999)


def earn(tmp_path, kind, chances, correct, gamma=0.9, reward=None):
    """Rewards of an episode whose steps have these chances and after which it ends; and the rewards' object."""
    table = {f"step {i}": p for i, p in enumerate(chances)}
    reward = reward or ScriptedReward(table.get)

    async def inside():
        store = await SqliteStore.open(tmp_path / "rewards.db")
        config = run_config(question=PROBLEM, strategy="rlot", seed=0, reuse="none")
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
    assert discounted_return(step_rewards, gamma) == pytest.approx(gamma ** len(chances) * correct, abs=1e-12)
    assert all(-1 <= r <= 1 for r in step_rewards)


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


# episodes


async def walk(resources, problem, actions):
    """Take actions until the end; the episode, and its transitions."""
    episode = await TrainingEpisode.begin(resources, problem)
    moved = []
    for action in actions:
        if episode.done:
            break
        moved.append(await episode.act(action))
    return episode, moved


async def test_the_record_of_an_episode(shop):
    async with shop.resources() as (resources, problems):
        episode, moved = await walk(resources, problems[3], [R, RF, GA])
        finished, until_check = await walk(resources, problems[3], [R, RF, DB])
    record = episode.record(7, epsilon=0.5)
    assert [m.done for m in moved] == [False, False, True]
    assert (record.blocks, record.length) == (("R", "Rf", "Ga"), 2)
    assert record.states == ((0, 0, 0, 1, 0, 0, 0), (3, 2, 1, 3, 2, 1, 3), (3, 2, 3, 3, 2, 2, 3), (3, 2, 3, 3, 2, 2, 3))
    assert record.rewards == (0.0, 0.0, 1.0)
    assert record.episode_return == pytest.approx(0.81)
    assert (record.correct, record.answer, record.forced) == (True, "7", False)
    assert (record.scores_requested, record.scores_missing, record.calls) == (21, 0, 8)
    assert (record.episode, record.epsilon) == (7, 0.5)
    assert [m.done for m in until_check] == [
        False,
        False,
        True,
    ]  # the finish check found the answer within the transition
    assert (until_check[-1].reward, finished.correct) == (1.0, True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10, deadline=None)
@given(st.lists(st.sampled_from([R, D, DB, GA]), min_size=5, max_size=5), st.sampled_from(["prm", "potential"]))
async def test_rewards_are_step_scores_and_the_outcome(tmp_path_factory, monkeypatch, actions, reward):
    """In [0, 1] from the reward model, the last one in {0, 1} from the checker."""
    model = ScriptedReward(step_chance)
    shop = Workshop(monkeypatch, tmp_path_factory.mktemp("n"), reward=model)
    async with shop.resources(reward=reward) as (resources, problems):
        episode, moved = await walk(resources, problems[5], [*actions, GA])
    rewards = [m.reward for m in moved]
    assert moved[-1].done
    if reward == "potential":
        assert discounted_return(rewards, 0.9) == pytest.approx(0.9 ** (len(moved) - 1) * episode.correct)
        return
    assert rewards[-1] == float(episode.correct)
    assert all(r == pytest.approx(step_chance(call[1][0][-1])) for r, call in zip(rewards, model.asked, strict=False))


async def test_a_problem_is_one_run_whose_completions_are_reused(shop, tmp_path):
    async with shop.resources() as (resources, problems):
        first, _ = await walk(resources, problems[2], [R, RF, GA])
        made, spent = len(shop.model.made), TrainingUsage(**vars(resources.usage))
        assert (spent.reused_completions, spent.completions) == (0, made)
        second, _ = await walk(resources, problems[2], [R, RF, GA])
        assert len(shop.model.made) == made
        assert second.record() == first.record()  # what it would have cost is the same
        assert (resources.usage.tokens, resources.usage.reused_completions) == (spent.tokens, made)
        assert resources.usage.reused_tokens == spent.tokens
        await walk(resources, problems[2], [R, D, GA])  # the bare problem and the first block are known
        assert resources.usage.reused_completions == made + 4
    store = await SqliteStore.open(tmp_path / "resources.db")
    (listed,) = await store.list_runs()
    assert (listed.status, await store.list_events(listed.id)) == ("finished", [])
    await store.aclose()


async def test_samples_are_stored_while_others_of_their_call_are_generated(tmp_path, monkeypatch, clock):
    held = asyncio.Event()

    class Holding(SumsModel):
        async def generate(self, requests, listener=None):
            made = await super().generate(requests[:1], listener)
            if len(requests) > 1:
                held.set()
                await asyncio.Event().wait()
            return made

    shop = Workshop(monkeypatch, tmp_path, model=Holding(SumsWorld()))
    async with shop.resources() as (resources, problems):
        task = asyncio.create_task(walk(resources, problems[2], [D]))
        await held.wait()
        await clock.advance(CALL_DELAY_S)
        run = await resources.run(problems[2], RLoT.name, resources.parameters)
        assert len(await resources._store.list_calls(run.id)) == len(shop.model.made)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_too_long_prompt_ends_only_its_episode(tmp_path, monkeypatch):
    shop = Workshop(monkeypatch, tmp_path, model=SumsModel(SumsWorld(), context_tokens=100))
    async with shop.resources() as (resources, problems):
        episode, moved = await walk(resources, problems[9], [GA])
        assert (episode.done, moved) == (True, [])
        assert "too long" in episode.error
        assert episode.record().episode_return == 0.0


async def test_direct_answers(shop):
    """Every fourth sum is right when asked directly; asking again costs nothing."""
    async with shop.resources() as (resources, problems):
        right = await direct_answers(resources, problems[:9])
        assert right == [i % 4 == 0 for i in range(9)]
        assert len(shop.model.made) == 9
        assert await direct_answers(resources, problems[:9]) == right
        assert len(shop.model.made) == 9


# trainings


async def train(resources, problems, seed=0):
    learner = Learner(resources.plan.learning, seed)
    return [record async for record in run_episodes(resources, learner, problems)], learner


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
    results = []
    for i in range(2):
        directory = tmp_path / f"{i}"
        directory.mkdir()
        shop = Workshop(monkeypatch, directory, model=Jittery(SumsWorld(), i))
        async with shop.resources(episodes=30) as (resources, problems):
            records, learner = await train(resources, problems)
            assert learner.updates > 30
            results.append((records, learner.replay, resources.usage))
    assert results[0] == results[1]
    assert [r.episode for r in results[0][0]] == list(range(1, 31))


async def test_a_problem_is_in_flight_once_and_no_completion_is_generated_twice(shop):
    async with shop.resources(episodes=40, parallel=16) as (resources, problems):
        records, _ = await train(resources, problems[:5])
    counts = Counter(r.item for r in records)
    assert set(counts) == {p.item.id for p in problems[:5]}
    assert sum(counts.values()) == 40
    assert max(Counter(shop.model.made).values()) == 1
    assert resources.usage.completions == len(shop.model.made)
    assert resources.usage.completions + resources.usage.reused_completions == sum(r.calls for r in records)


async def test_the_files_of_a_training(shop, tmp_path):
    trained = await shop.train(episodes=15, problems="hard", validate_every=6, seed=3)
    assert trained.is_complete
    assert shop.opened == 1
    assert shop.model.closed
    records = [EpisodeRecord.model_validate_json(line) for line in shop.file("episodes.jsonl").splitlines()]
    assert records == list(trained.records)
    train_part, held_out = split_problems([sums(24)], TrainingPlan(problems="hard"))
    hard = {p.item.id for p in train_part if int(p.item.id[4:]) % 4}
    assert {r.item for r in records} <= hard
    assert (trained.num_problems, trained.num_held_out) == (len(hard), len(held_out))
    assert [v.episode for v in trained.validations] == [0, 6, 12, 15]
    assert {v.problems for v in trained.validations} == {4}
    assert len(shop.file("validations.jsonl").splitlines()) == 4

    navigator = load_navigator(tmp_path / "work" / "navigator.safetensors")
    card = navigator.card
    assert navigator.digest == trained.navigator.digest
    assert (card.model, card.model_identity, card.reward) == ("scripted/sums", "scripted@1", "outcome")
    assert (card.datasets, card.episodes, card.seed, card.problems) == (("sums",), 15, 3, len(hard))
    questions = {item.id: item.question.text for item in sums(24).items}
    assert set(card.trained_on) == {question_digest(questions[name]) for name in hard}
    written = load_dataset(str(tmp_path / "work" / "held_out.jsonl")).items
    assert [item.id for item in written] == [f"sums/{p.item.id}" for p in held_out]
    assert not any(navigator.knows(item.question.text) for item in written)


class Interrupted(Exception):
    """What a test ends a training with."""


@pytest.mark.nightly
@pytest.mark.parametrize("reward", ["outcome", "prm"])
async def test_an_interrupted_training_continues_without_paying_twice(tmp_path, monkeypatch, reward):
    how = {"episodes": 26, "problems": "hard", "reward": reward, "validate_every": 9}
    shop = Workshop(monkeypatch, tmp_path, reward=ScriptedReward(step_chance))
    complete = await shop.train("complete", **how)
    made = set(shop.model.made)
    shop = Workshop(monkeypatch, tmp_path, reward=ScriptedReward(step_chance))
    for after in (1, 7, 15):
        left = iter(range(after))

        def interrupt(_, left=left):
            if next(left, None) is None:
                raise Interrupted

        with pytest.raises(Interrupted):
            await shop.train("cut", **how, on_progress=interrupt)
    end = await shop.train("cut", **how)
    assert max(Counter(shop.model.made).values()) == 1
    assert set(shop.model.made) == made
    assert (end.records, end.validations) == (complete.records, complete.validations)
    assert end.navigator.digest == complete.navigator.digest
    more = await shop.train("cut", **{**how, "episodes": 30})
    assert more.records[:20] == end.records[:20]  # up to those with which no further episode was started


async def test_a_limit_of_tokens_ends_it_with_a_navigator(shop, tmp_path):
    complete = await shop.train("complete", episodes=8)
    first = await shop.train("cut", episodes=8, max_tokens=2400)
    assert not first.is_complete
    assert 0 < len(first.records) < 8
    assert load_navigator(tmp_path / "cut" / "navigator.safetensors").card.episodes == len(first.records)
    second = await shop.train("cut", episodes=8)
    assert (second.records, second.navigator.digest) == (complete.records, complete.navigator.digest)
    with pytest.raises(BudgetExceeded):
        await shop.train("none", episodes=8, max_tokens=1)


async def test_a_training_without_hard_problems_is_refused(tmp_path, monkeypatch):
    def right(text):
        return replies(f"The answer is {sum(map(int, SUM.findall(text)[-1]))}.")(text)

    shop = Workshop(monkeypatch, tmp_path, model=ScriptedModel(right))
    with pytest.raises(UserError, match="right when it answers directly"):
        await shop.train(problems="hard")


async def test_invalid_trainings_are_refused_before_a_model_is_opened(shop, monkeypatch):
    monkeypatch.setattr(shop, "settings", lambda reward: type(shop).settings(shop))
    with pytest.raises(UserError, match="no reward model is set"):
        await shop.train(reward="prm")
    with pytest.raises(UserError, match="'policy' of rlot cannot be set"):
        await shop.train(parameters={"policy": "fixed"})
    with pytest.raises(UserError, match="max_blocks"):
        await shop.train(parameters={"max_blocks": 0})
    assert shop.opened == 0


async def test_a_failing_model_is_raised_and_its_work_is_kept(tmp_path, monkeypatch):
    class Flaky(SumsModel):
        limit, in_flight = 40, 0

        async def generate(self, requests, listener=None):
            if len(self.made) > self.limit:
                self.in_flight = max(self.in_flight, self.running)
                raise BackendUnavailable("the server is gone")
            return await super().generate(requests, listener)

    shop = Workshop(monkeypatch, tmp_path, model=Flaky(SumsWorld()))
    with pytest.raises(BackendUnavailable):
        await shop.train(episodes=12)
    assert shop.model.running == 0
    assert len(asyncio.all_tasks()) == 1
    shop.model.limit = 100_000
    await shop.train(episodes=12)
    repeated = [made for made, times in Counter(shop.model.made).items() if times > 1]
    assert len(repeated) <= shop.model.in_flight  # only what the failure cancelled
