"""The main job on real weights, as a user's script would run it."""

import asyncio
import subprocess
import sys

import pytest
from reason import Reasoner, Settings, aask, ask, astream
from reason.core.settings import LocalSettings

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
    """Whether the engine stops decoding: it looks for what was cancelled after the step that it is in."""
    (model,) = reasoner._models._models.values()
    for _ in range(100):
        if model.num_running == 0:
            return True
        await asyncio.sleep(0.02)
    return False


async def test_it_knows_the_capital_of_france(settings):
    answer = await aask(QUESTION, parameters={"logprobs": True}, settings=settings)
    assert (answer.answer, answer.stopped, answer.strategy) == ("Paris", "done", "cot")
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.cost_usd == 0
    assert answer.candidates[0].logprob < 0


async def test_eight_chains_are_one_call_and_a_seed_repeats_them(settings):
    parameters = {"n": 8, "max_tokens": 48}
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
    assert one.confidence >= votes / 8


async def test_a_finished_race_stops_the_engine(settings):
    question = "What is the capital of France? Answer with one word."
    parameters = {"n": 12, "max_tokens": 400, "stopping": {"rule": "first-finished", "finished": 2}, "mode": "race"}
    async with Reasoner(strategy="self-consistency", parameters=parameters, settings=settings) as reasoner:
        answer = await reasoner.aask(question, run_id="r")
        assert await comes_to_rest(reasoner)
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
async def test_rpc_weights_the_chains_that_self_consistency_counts(settings):
    parameters = {"n": 8, "max_tokens": 96}
    async with Reasoner(strategy="rpc", parameters=parameters, settings=settings) as reasoner:
        weighed = await reasoner.aask(QUESTION)
        counted = await (await reasoner.variant("self-consistency", parameters=parameters)).aask(QUESTION)
    assert [c.text for c in weighed.candidates] == [c.text for c in counted.candidates]
    assert [note for note in weighed.degraded if " cut at max_tokens=96" not in note] == []
    assert 0 < weighed.confidence <= 1


@pytest.mark.nightly
async def test_adaptive_starts_greedy_and_prunes_on_real_weights(settings):
    async with Reasoner(
        strategy="adaptive", parameters={"threshold": 0, "max_tokens": 32}, settings=settings
    ) as reasoner:
        one = await reasoner.aask(QUESTION)
        greedy = await (await reasoner.variant("cot", parameters={"max_tokens": 32})).aask(QUESTION)
        pruning = {"n": 6, "max_tokens": 40, "prune_at": [12], "keep": 0.5, "beta": 0.9, "auroc": 0.7}
        pruned = await (await reasoner.variant("adaptive", parameters=pruning)).aask(QUESTION)
    assert [c.text for c in one.candidates] == [c.text for c in greedy.candidates]
    assert 3 <= len(pruned.candidates) <= 6
    assert pruned.usage.completion_tokens <= 6 * 12 + 3 * 28


async def test_a_spent_budget_gives_a_partial_answer(settings):
    # so few that no answer fits: how long one is depends on the processor's arithmetic
    answer = await aask(QUESTION, budget={"tokens": 5}, settings=settings)
    assert answer.stopped == "budget"
    assert 4 <= answer.usage.completion_tokens <= 5
    assert answer.text


async def test_a_stream_emits_text_as_it_is_generated(settings):
    events = [e async for e in astream(QUESTION, parameters={"max_tokens": 24}, settings=settings)]
    deltas = [e for e in events if e.type == "text.delta"]
    assert len(deltas) > 5
    assert "".join(e.text for e in deltas) == events[-1].answer.text


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
        assert await comes_to_rest(reasoner)
        resumed = await reasoner.aresume("r")
        whole = await reasoner.aask(QUESTION)
    assert [c.text for c in resumed.candidates] == [c.text for c in whole.candidates]


def test_the_synchronous_methods(settings):
    assert ask(QUESTION, settings=settings).answer == "Paris"


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


def test_a_script_that_asks_ends_without_close(tmp_path):
    script = (
        "import sys\n"
        "from reason import Reasoner\n"
        "from reason.core.settings import load_settings\n"
        "settings = load_settings(model='local/smollm2-135m', store=sys.argv[1], budget={'tokens': 8})\n"
        "print(Reasoner(settings=settings).ask('What is 2 + 2?').usage.completion_tokens)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "runs.sqlite3")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) <= 8
