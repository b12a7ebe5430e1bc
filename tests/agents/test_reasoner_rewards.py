"""The reward model of a `Reasoner`: opened once, shared with a judge, noted, resumed, replayed, priced, closed."""

import asyncio

import pytest
import reason.agents.reasoner as reasoner_module
import reason.serving.rewards.factory as factory
from reason.agents.reasoner import Reasoner
from reason.core.errors import StoreError, UserError
from reason.core.settings import RewardSettings
from reason.core.types import Question
from support.scripted_model import ScriptedModel, replies
from support.scripted_reward import ScriptedReward

CHAINS = ("The answer is 4.", "Surely the answer is 5.")
CHANCES = {"The answer is 4.": 0.5, "Surely the answer is 5.": 0.8}
QUESTION = Question(text="How many?", kind="number")
REWARD = "local/scripted-reward"


@pytest.fixture
def opened(monkeypatch):
    """What reasoners open: language models by name and one reward model; and the names they asked for."""
    models = {"scripted": ScriptedModel(replies(*CHAINS)), "reward": ScriptedReward(CHANCES.get), "asked": []}
    real = reasoner_module.load_reward_model

    async def load_model(name, settings, *_):
        models["asked"].append(name)
        return models[name]

    async def load_reward_model(name, settings, progress, language_model):
        if name.startswith("judge/"):
            return await real(name, settings, progress, language_model)
        models["asked"].append(name)
        return models["reward"]

    monkeypatch.setattr(reasoner_module, "load_model", load_model)
    monkeypatch.setattr(reasoner_module, "load_reward_model", load_reward_model)
    return models


def scoring(settings, n=6, reward_model=REWARD, **more):
    parameters = {"n": n, "max_tokens": 60}
    return Reasoner(strategy="best-of-n", parameters=parameters, reward_model=reward_model, settings=settings, **more)


async def test_a_reward_model_is_loaded_once_recorded_and_closed_with_the_reasoner(opened, settings):
    async with scoring(settings) as reasoner:
        answers = await asyncio.gather(*(reasoner.aask(QUESTION, seed=s, run_id=f"r{s}") for s in range(4)))
        other = await reasoner.variant(parameters={"n": 2, "max_tokens": 60, "select": "weighted"})
        await other.aask(QUESTION)
        await other.aclose()
        record = await reasoner._store.get_run("r0")
        assert not opened["reward"].closed
    assert sorted(opened["asked"]) == [REWARD, "scripted"]
    assert opened["reward"].closed
    assert all(a.answer == "5" for a in answers if any(c.answer == "5" for c in a.candidates))
    assert record.config["models"] == {"main": "scripted", "reward": REWARD}
    assert record.identities["reward"] == {
        "identity": "local/scripted-reward@1",
        "capabilities": {"kind": "process", "one_pass": True, "context_tokens": None, "price_known": True},
    }
    assert answers[0].usage.by_role[f"reward:{REWARD}"].reward_calls > 0


async def test_a_judge_shares_the_language_model_of_its_name(opened, settings):
    def script(text):
        return {"Y": 0.7, "N": 0.3} if "Is the last step right?" in text else replies(*CHAINS)(text)

    opened["scripted"] = ScriptedModel(script)
    words = RewardSettings(good_token="Y", bad_token="N")
    judging = settings.model_copy(update={"rewards": {"judge/scripted": words}})
    async with scoring(judging, reward_model="judge/scripted") as reasoner:
        answer = await reasoner.aask(QUESTION)
    assert opened["asked"] == ["scripted"]
    assert answer.confidence == pytest.approx(0.7)
    assert answer.usage.by_role["reward:judge/scripted"].reward_calls == len({c.text for c in answer.candidates})
    assert opened["scripted"].closed


async def test_a_judge_loaded_by_itself_owns_its_model(opened, settings, monkeypatch):
    model = opened["scripted"]

    async def load_model(name, settings, *_):
        return model

    monkeypatch.setattr(factory, "load_model", load_model)
    judge = await factory.load_reward_model("judge/scripted", settings, None)
    await judge.aclose()
    assert model.closed
    model.closed = False

    async def given(name):
        assert name == "scripted"
        return model

    judge = await factory.load_reward_model("judge/scripted", settings, None, given)
    await judge.aclose()
    assert not model.closed


async def test_a_replay_needs_no_model_and_scores_nothing(opened, settings):
    opened["reward"] = ScriptedReward({**CHANCES, "The answer is 4.": None}.get)  # what failed, fails again
    async with scoring(settings) as reasoner:
        answer = await reasoner.aask(QUESTION)
    assert answer.degraded
    calls = len(opened["reward"].asked)
    opened["asked"].clear()
    async with Reasoner(settings=settings) as reasoner:
        again = await reasoner.areplay(answer.run_id)
    assert again.model_dump(exclude={"usage"}) == answer.model_dump(exclude={"usage"})
    assert again.usage.reward_calls == answer.usage.reward_calls
    assert opened["asked"] == []
    assert len(opened["reward"].asked) == calls


async def cut_off(reasoner, reward, run_id):
    """A run that is cancelled while it is being scored."""
    held, score = asyncio.Event(), reward.score_steps

    async def hold(*args):
        held.set()
        await asyncio.Event().wait()

    reward.score_steps = hold
    task = asyncio.create_task(reasoner.aask(QUESTION, run_id=run_id))
    await held.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    reward.score_steps = score


async def test_an_interrupted_run_keeps_its_best_and_resumes_with_the_same_reward_model(opened, settings):
    async with scoring(settings) as reasoner:
        await cut_off(reasoner, opened["reward"], "r")
        record = await reasoner._store.get_run("r")
        assert (record.status, record.answer["stopped"]) == ("interrupted", "cancelled")
        assert record.answer["answer"] in ("4", "5")  # the majority so far
        with pytest.raises(StoreError, match="resume it"):
            await reasoner.areplay("r")
        begun = len(opened["scripted"].made)
        answer = await reasoner.aresume("r")
        assert len(opened["scripted"].made) == begun  # no sample was made again
        whole = await reasoner.aask(QUESTION)
    assert (answer.answer, answer.stopped) == (whole.answer, "done")
    assert [c.score for c in answer.candidates] == [c.score for c in whole.candidates]


async def test_a_run_is_not_resumed_with_another_reward_model(opened, settings):
    async with scoring(settings) as reasoner:
        await cut_off(reasoner, opened["reward"], "r")
        opened["reward"].identity = "local/scripted-reward@2"
        with pytest.raises(UserError, match="local/scripted-reward is not the one that run r began with"):
            await reasoner.aresume("r")


async def test_an_unpriced_reward_model_with_a_money_budget_is_refused(opened, settings):
    opened["reward"] = ScriptedReward(CHANCES.get, price=None)
    async with scoring(settings, budget={"usd": 1}) as reasoner:
        with pytest.raises(UserError, match="price of model 'local/scripted-reward' is unknown"):
            await reasoner.aask(QUESTION)
    assert opened["scripted"].made == []
