"""A whole training: its files, going on after an interruption, limits, validations, and what is refused."""

from __future__ import annotations

import asyncio
import json
import random
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from reason.core.errors import BackendUnavailable, BudgetExceeded, DataError, StoreError, UserError
from reason.core.extras import install_command
from reason.core.files import question_digest
from reason.core.store.sqlite import SqliteStore
from reason.evals.datasets.loading import load_dataset
from reason.evals.training.navigator.logs import learning_curve, moving_mean, read_records
from reason.evals.training.navigator.plan import split_problems
from reason.evals.training.navigator.trainer import NavigatorState
from reason.evals.training.navigator.training import TrainingObserver, common_states, read_navigator_manifest
from reason.evals.training.run_directory import TrainingDirectory, load_checkpoint
from reason.reasoning.rlot.navigator import load_navigator
from support.eval_tasks import sums_task
from support.navigation_model import QUICK, SUM, SumsModel, SumsWorld, Workshop, plan_of, step_chance
from support.scripted_model import ScriptedModel, replies
from support.scripted_reward import ScriptedReward

FILES = {
    "checkpoint.safetensors",
    "curve.svg",
    "episodes.jsonl",
    "held_out.jsonl",
    "navigator.safetensors",
    "problems.jsonl",
    "usage.json",
    "store.sqlite3",
    "tensorboard",
    "training.json",
}


class Ends(TrainingObserver):
    """Cancels the training after so many samples have been finished."""

    def __init__(self, after):
        self.left = after
        self.task = asyncio.current_task()

    def event(self, event):
        if event.type == "sample.finished":
            self.left -= 1
            if self.left == 0:
                self.task.cancel()


def learned(shop, work="work"):
    """All that must be the same: weights and learner bit for bit, the log, the card."""
    checkpoint = NavigatorState.from_checkpoint(load_checkpoint(shop.directory / work / "checkpoint.safetensors"))
    arrays = {k: v.tobytes() if isinstance(v, np.ndarray) else v for k, v in checkpoint.learner.items()}
    navigator = load_navigator(shop.directory / work / "navigator.safetensors")
    card = navigator.card.model_dump(exclude={"notes": {"generated_tokens", "reused_completions"}})
    return arrays, checkpoint.progress, shop.file("episodes.jsonl", work), navigator.digest, card


async def test_the_files_of_a_training(tmp_path, monkeypatch):
    shop = Workshop(monkeypatch, tmp_path)
    trained = await shop.train(episodes=30, problems="hard", validate_every=12, seed=3)
    assert trained.stopped == "done"
    assert {p.name for p in (tmp_path / "work").iterdir()} >= FILES | {"validations.jsonl"}
    assert shop.opened == 1
    assert shop.model.closed
    records = read_records(tmp_path / "work" / "episodes.jsonl")
    assert records == list(trained.records)
    assert [r.episode for r in records] == list(range(1, 31))

    plan, task = plan_of(tmp_path, problems="hard", seed=3)
    split = split_problems(plan, [task])
    hard = {p.item.id for p in split.train if int(p.item.id[4:]) % 4}
    assert {r.item for r in records} <= hard
    assert (trained.problems, trained.held_out) == (len(hard), len(split.held_out))

    navigator = load_navigator(trained.out)
    card = navigator.card
    assert navigator.digest == trained.navigator.digest
    assert (card.model, card.model_identity, card.reward) == ("scripted/sums", "scripted@1", "outcome")
    assert (card.datasets, card.episodes, card.seed, card.problems) == (("sums",), 30, 3, len(hard))
    assert card.steps == records[-1].steps
    # all questions of the training are on the card, and none that is held out
    asked = {item.id: item.question.text for item in task.items.values()}
    assert set(card.trained_on) == {question_digest(asked[name]) for name in hard}
    assert all(navigator.knows(asked[name].upper()) for name in hard)
    held_out = load_dataset(str(tmp_path / "work" / "held_out.jsonl")).items
    assert [item.id for item in held_out] == [f"sums/{p.item.id}" for p in split.held_out]
    assert not any(navigator.knows(item.question.text) for item in held_out)
    manifest = read_navigator_manifest(tmp_path / "work")
    assert (manifest.plan, manifest.store) == (plan, "store.sqlite3")
    assert json.loads(shop.file("usage.json")) == vars(trained.usage)


@pytest.mark.nightly
async def test_tensorboard_reads_the_scalars(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shop = Workshop(monkeypatch, tmp_path)
    with pytest.raises(asyncio.CancelledError):
        await shop.train(episodes=24, checkpoint_every=7, validate_every=10, observer=Ends(300))
    trained = await shop.train(episodes=24, checkpoint_every=7, validate_every=10, resume=True)
    board = EventAccumulator(str(tmp_path / "work" / "tensorboard"))
    board.Reload()
    numbers = list(range(1, 25))
    for tag, values in {
        "episode/return": [r.episode_return for r in trained.records],
        "episode/correct": [float(r.correct) for r in trained.records],
        "episode/length": [r.length for r in trained.records],
        "learning/epsilon": [r.epsilon for r in trained.records],
        "mean_of_100/accuracy": list(moving_mean([float(r.correct) for r in trained.records])),
    }.items():
        scalars = board.Scalars(tag)
        assert [s.step for s in scalars] == numbers, tag
        assert [s.value for s in scalars] == pytest.approx(values), tag
    checked = board.Scalars("validation/accuracy")
    assert [s.step for s in checked] == [v.episode for v in trained.validations]
    assert [s.value for s in checked] == pytest.approx([v.accuracy for v in trained.validations])
    losses = board.Scalars("learning/loss")
    assert [s.step for s in losses] == [r.episode for r in trained.records if r.loss is not None]


@pytest.mark.nightly
async def test_the_learning_curve_is_one_drawing(tmp_path, monkeypatch):
    shop = Workshop(monkeypatch, tmp_path, draws=True)
    trained = await shop.train(episodes=8, validate_every=5)
    svg = shop.file("curve.svg").decode()
    root = ET.fromstring(svg)
    assert root.tag.endswith("svg")
    texts = {"".join(e.itertext()) for e in root.iter() if e.tag.endswith("text")}
    assert {"episode", "right answers", "return", "blocks before the answer", "random actions (epsilon)"} <= texts
    assert learning_curve(trained.records, trained.validations, "scripted/sums, reward outcome") == svg
    assert list(moving_mean([1, 2, 3, 4], 2)) == [1, 1.5, 2.5, 3.5]
    assert list(moving_mean([])) == []


@pytest.mark.nightly
@pytest.mark.parametrize("reward", ["outcome", "prm", "potential"])
async def test_interruptions_at_any_moment_do_not_change_the_result(tmp_path, monkeypatch, reward):
    how = {"episodes": 26, "problems": "hard", "reward": reward, "validate_every": 9, "checkpoint_every": 4}
    shop = Workshop(monkeypatch, tmp_path, reward=ScriptedReward(step_chance))
    whole = await shop.train("whole", **how)
    rng, cuts = random.Random(reward), 0
    shop = Workshop(monkeypatch, tmp_path, reward=ScriptedReward(step_chance))
    resume = False
    while True:
        try:
            end = await shop.train("cut", **how, resume=resume, observer=Ends(rng.randint(3, 330)))
        except asyncio.CancelledError:
            asyncio.current_task().uncancel()
            cuts, resume = cuts + 1, True
            assert shop.model.running == 0
            assert len(asyncio.all_tasks()) == 1
        else:
            break
    assert cuts > 3
    assert learned(shop, "cut") == learned(shop, "whole")
    assert shop.file("validations.jsonl", "cut") == shop.file("validations.jsonl", "whole")
    # nothing was paid twice: what a cut lost was under way
    assert end.usage.completions >= whole.usage.completions
    assert end.records == whole.records


async def test_resuming_with_more_episodes(tmp_path, monkeypatch):
    shop = Workshop(monkeypatch, tmp_path)
    short = await shop.train(episodes=10)
    long = await shop.train(episodes=16, resume=True)
    assert long.records[:10] == short.records
    assert len(long.records) == 16
    made = len(shop.model.made)
    again = await shop.train(episodes=16, resume=True)
    assert (again.records, again.navigator.digest) == (long.records, long.navigator.digest)
    assert len(shop.model.made) == made


@pytest.mark.nightly
async def test_another_training_reuses_completions(tmp_path, monkeypatch):
    """Seed and reward change no request, so a second training in the same store pays for new chains alone."""
    shop = Workshop(monkeypatch, tmp_path)
    store = tmp_path / "shared.db"
    made = []
    for name, seed, place in (("one", 0, store), ("two", 1, store), ("alone", 1, None)):
        trained = await shop.train(name, episodes=30, questions=8, validation=1, seed=seed, store=place)
        made.append(set(shop.model.made))
        assert len(made[-1]) == len(shop.model.made) == trained.usage.completions
        shop.model.made.clear()
    one, two, alone = made
    assert two == alone - one
    assert alone & one


async def test_a_limit_of_tokens_ends_it_with_a_navigator(tmp_path, monkeypatch):
    shop = Workshop(monkeypatch, tmp_path)
    whole = await shop.train("whole", episodes=20)
    limit = 9000
    first = await shop.train("cut", episodes=20, max_tokens=limit)
    assert first.stopped == "tokens"
    assert first.usage.tokens <= limit
    assert 0 < len(first.records) < 20
    assert load_navigator(first.out).card.episodes == len(first.records)
    second = await shop.train("cut", episodes=20, max_tokens=200_000, resume=True)
    assert second.stopped == "done"
    assert learned(shop, "cut") == learned(shop, "whole")
    assert second.usage.tokens == whole.usage.tokens
    with pytest.raises(BudgetExceeded):
        await shop.train("none", episodes=20, max_tokens=100)
    with pytest.raises(BudgetExceeded):
        await shop.train("direct", episodes=20, problems="hard", max_tokens=600)


@pytest.mark.nightly
async def test_validations_are_greedy_on_held_out_problems(tmp_path, monkeypatch):
    shop = Workshop(monkeypatch, tmp_path)
    trained = await shop.train(episodes=20, validate_every=8, validation=5)
    assert [v.episode for v in trained.validations][0] == 0
    assert [v.episode // 8 for v in trained.validations] == [0, 1, 2, 2]
    assert trained.validations[-1].episode == 20
    assert {v.problems for v in trained.validations} == {5}
    plan, task = plan_of(tmp_path, validation=5)
    held = {p.item.question.text for p in split_problems(plan, [task]).held_out}
    trained_on = {task.items[r.item].question.text for r in trained.records}
    assert trained_on & held == set()
    none = await shop.train("none", episodes=20, validate_every=0, validation=5)
    assert none.validations == ()
    assert none.navigator.digest == trained.navigator.digest


async def test_a_training_without_hard_problems_is_refused(tmp_path, monkeypatch):
    def right(text):
        return replies(f"The answer is {sum(map(int, SUM.findall(text)[-1]))}.")(text)

    shop = Workshop(monkeypatch, tmp_path, model=ScriptedModel(right))
    with pytest.raises(UserError, match="none is hard"):
        await shop.train(problems="hard")
    made = len(shop.model.made)
    with pytest.raises(UserError, match="none is hard"):  # and it costs nothing to hear so again
        await shop.train(problems="hard", resume=True)
    assert len(shop.model.made) == made


async def test_invalid_trainings_are_refused_before_generating(tmp_path, monkeypatch):
    shop = Workshop(monkeypatch, tmp_path)
    await shop.train(episodes=6)
    opened = shop.opened
    with pytest.raises(UserError, match="holds a training already"):
        await shop.train(episodes=6)
    with pytest.raises(UserError, match=r"holds another training: .*seed 0 → 5") as e:
        await shop.train(episodes=6, resume=True, seed=5)
    assert "--run-dir" in e.value.hint
    with pytest.raises(UserError, match=r"holds another training: .*learning.gamma 0.9 → 0.5"):
        await shop.train(episodes=6, resume=True, learning=QUICK.model_copy(update={"gamma": 0.5}))
    with pytest.raises(DataError, match="holds no training"):
        await shop.train("nowhere", resume=True)
    with pytest.raises(DataError, match="not those that the training began with"):
        await shop.train("other", task=sums_task(9))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        await shop.train("file")
    with (
        TrainingDirectory(tmp_path / "work"),
        pytest.raises(UserError, match="another process"),
    ):
        await shop.train(episodes=6, resume=True)
    (tmp_path / "work" / "checkpoint.safetensors").write_bytes(b"no checkpoint")
    with pytest.raises(DataError, match="is damaged"):
        await shop.train(episodes=6, resume=True)
    assert shop.opened == opened
    assert shop.model.made  # the first one's


async def test_another_model_is_refused(tmp_path, monkeypatch):
    shop = Workshop(monkeypatch, tmp_path)
    await shop.train(episodes=6)
    shop.model = SumsModel(SumsWorld(), name="other")
    with pytest.raises(UserError, match="the main model is other@1, and the training began with scripted@1"):
        await shop.train(episodes=9, resume=True)
    assert shop.model.made == []


async def test_logs_that_are_shorter_than_the_checkpoint_are_refused(tmp_path, monkeypatch):
    shop = Workshop(monkeypatch, tmp_path)
    await shop.train(episodes=6)
    log = tmp_path / "work" / "episodes.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole[: whole.index(b"\n") + 1])
    with pytest.raises(DataError, match="has 1 lines, fewer than the 6 of the checkpoint"):
        await shop.train(episodes=9, resume=True)
    log.write_bytes(b"{}\n" + whole)
    with pytest.raises(DataError, match="episodes.jsonl:1: not a line of a training"):
        await shop.train(episodes=9, resume=True)


async def test_missing_packages_are_named(tmp_path, monkeypatch):
    import sys

    shop = Workshop(monkeypatch, tmp_path)
    for package in ("tensorboardX", "matplotlib"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, package, None)
            with pytest.raises(UserError, match=f"training needs the package {package!r}") as e:
                await shop.train()
            assert e.value.hint == install_command("train")
    assert not (tmp_path / "work").exists()


async def test_a_failing_model_leaves_a_checkpoint(tmp_path, monkeypatch):
    class Flaky(SumsModel):
        limit = 120

        async def generate(self, requests, listener=None):
            if len(self.made) > self.limit:
                raise BackendUnavailable("the server is gone")
            return await super().generate(requests, listener)

    shop = Workshop(monkeypatch, tmp_path, model=Flaky(SumsWorld()))
    with pytest.raises(BackendUnavailable):
        await shop.train("cut", episodes=14, checkpoint_every=1000)
    assert not (tmp_path / "cut" / "navigator.safetensors").exists()
    assert json.loads(shop.file("usage.json", "cut"))["completions"] > 100
    shop.model.limit = 10**9
    await shop.train("cut", episodes=14, resume=True)
    await shop.train("whole", episodes=14)
    assert learned(shop, "cut") == learned(shop, "whole")


async def test_missing_scores_are_on_the_card(tmp_path, monkeypatch):
    class Mumbling(SumsWorld):
        def assess(self, steps):
            return "3}" if steps else '{"A1":0}'

    shop = Workshop(monkeypatch, tmp_path, Mumbling())
    trained = await shop.train(episodes=4)
    assert trained.navigator.card.notes["missing_scores"] > 0.8
    assert all(r.scores_missing > 0 for r in trained.records)


async def test_the_card_names_the_common_states(tmp_path, monkeypatch):
    shop = Workshop(monkeypatch, tmp_path)
    trained = await shop.train(episodes=10)
    states = common_states(trained.records)
    assert sum(count for _, count in common_states(trained.records, 10**6)) == sum(
        len(r.actions) for r in trained.records
    )
    assert [count for _, count in states] == sorted((count for _, count in states), reverse=True)
    noted = trained.navigator.card.notes["common_states"]
    assert noted == [[list(state), count] for state, count in states]


async def test_runs_of_a_training_can_be_listed(tmp_path, monkeypatch):
    shop = Workshop(monkeypatch, tmp_path)
    trained = await shop.train(episodes=10, problems="hard")
    store = await SqliteStore.open(tmp_path / "work" / "store.sqlite3")
    runs = await store.list_runs(1000)
    await store.aclose()
    assert {r.status for r in runs} == {"finished"}
    asked = {(r.strategy, r.question) for r in runs}
    assert len(asked) == len(runs)  # every problem is one run of a strategy
    assert {strategy for strategy, _ in asked} == {"rlot", "cot"}
    assert len({r.item for r in trained.records}) == sum(strategy == "rlot" for strategy, _ in asked)
