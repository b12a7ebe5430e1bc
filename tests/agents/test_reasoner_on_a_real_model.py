"""The main job on real weights, as a user's script would run it."""

import asyncio

import pytest
from reason import Reasoner, Settings, aask
from reason.core.settings import LocalSettings
from support.waiting import wait_until

QUESTION = "What is the capital of France?"

pytestmark = pytest.mark.real


@pytest.fixture
def settings(tmp_path, smollm2_files):
    return Settings(
        store=tmp_path / "runs.sqlite3",
        cache_dir=smollm2_files.directory.parent.parent,
        seed=1,
    )


async def comes_to_rest(reasoner):
    """Wait until the engine has stopped decoding: it looks for cancelled requests after each step."""
    (model,) = reasoner._models._models.values()
    await wait_until(lambda: model.num_running == 0)


@pytest.mark.nightly
async def test_it_knows_the_capital_of_france(settings):
    answer = await aask(QUESTION, parameters={"logprobs": True}, settings=settings)
    assert (answer.answer, answer.stopped, answer.strategy) == ("Paris", "done", "cot")
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.cost_usd == 0
    assert answer.candidates[0].logprob < 0


async def test_chains_are_one_call_and_a_seed_repeats_them(settings):
    parameters = {"n": 3, "max_tokens": 16}
    async with Reasoner(strategy="self-consistency", parameters=parameters, settings=settings) as reasoner:
        one = await reasoner.aask(QUESTION)
        two = await reasoner.aask(QUESTION)
        other = await reasoner.aask(QUESTION, seed=2)
    assert one.usage.model_calls == 1
    assert len({c.text for c in one.candidates}) > 1
    assert [c.text for c in two.candidates] == [c.text for c in one.candidates]
    assert [c.text for c in other.candidates] != [c.text for c in one.candidates]
    assert two.usage.replayed_tokens == 0  # made again, not read from the store
    assert two.usage.cached_tokens > 0  # but the prompt was not computed again
    votes = sum(c.answer == one.answer for c in one.candidates)
    assert one.confidence >= votes / 3


async def test_a_finished_race_stops_the_engine(settings):
    question = "What is the capital of France? Answer with one word."
    parameters = {"n": 12, "max_tokens": 400, "stopping": {"rule": "first-finished", "finished": 2}, "mode": "race"}
    async with Reasoner(strategy="self-consistency", parameters=parameters, settings=settings) as reasoner:
        answer = await reasoner.aask(question, run_id="r")
        await comes_to_rest(reasoner)
        calls = await reasoner._store.list_calls("r")
        replayed = await reasoner.areplay("r")
    made = [c for c in calls if "index" in c.request]
    cut = [c for c in made if c.truncated]
    assert cut
    assert {c.response["finish_reason"] for c in cut} == {"cancelled"}
    # the ledger has every token that was generated; a cut sample is no candidate, nor one that ended after enough had
    assert answer.usage.completion_tokens == sum(len(c.response["token_ids"]) for c in made)
    assert len(answer.candidates) == 2 <= len(made) - len(cut)
    assert answer.answer == "Paris"
    assert [c.text for c in replayed.candidates] == [c.text for c in answer.candidates]


@pytest.mark.nightly
async def test_cancelling_leaves_the_engine_idle_and_the_run_resumable(settings):
    parameters = {"n": 4, "max_tokens": 200}
    async with Reasoner(strategy="self-consistency", parameters=parameters, settings=settings) as reasoner:
        seen = asyncio.Event()
        task = asyncio.create_task(
            reasoner.aask(
                QUESTION, run_id="r", sinks=[lambda e: seen.set() if e.type == "text.delta" else None], stream_text=True
            )
        )
        await seen.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await comes_to_rest(reasoner)
        resumed = await reasoner.aresume("r")
        whole = await reasoner.aask(QUESTION)
    assert [c.text for c in resumed.candidates] == [c.text for c in whole.candidates]


@pytest.mark.nightly
async def test_a_run_is_resumed_in_its_number_format(settings):
    fp32 = settings.model_copy(update={"local": LocalSettings(weight_format="fp32")})
    parameters = {"n": 2, "max_tokens": 100}
    async with Reasoner(strategy="self-consistency", parameters=parameters, settings=fp32) as reasoner:
        begun = asyncio.Event()
        tell = lambda e: begun.set() if e.type == "text.delta" else None  # noqa: E731
        task = asyncio.create_task(reasoner.aask(QUESTION, run_id="r", sinks=[tell], stream_text=True))
        await begun.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with Reasoner(settings=settings) as reasoner:
        answer = await reasoner.aresume("r")
        record = await reasoner._store.get_run("r")
    assert len(answer.candidates) == 2
    assert record.identities["main"]["identity"].endswith("+fp32")
