import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reason.core.budget import Budget
from reason.core.errors import BudgetExceeded, StoreError
from reason.core.events import MemorySink
from reason.core.messages import LogitsProcessorSpec, Prompt, Request, SamplingParams
from reason.core.run import Run, RunConfig
from reason.core.store.run_writer import CALL_DELAY_S, RunWriter
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from reason.serving.metered.model import MeteredModel
from support.scripted_model import ScriptedModel, replies


class Harness:
    """A store, and runs on it."""

    def __init__(self, store):
        self.store = store
        self.sink = MemorySink()

    async def run(self, name="r", *, reuse="run", new=True, seed=7, **budget):
        config = RunConfig(
            question=Question(text="?"),
            strategy="cot",
            parameters={},
            models={"main": "scripted"},
            budget=Budget(**budget),
            seed=seed,
            reuse=reuse,
        )
        if new:
            await self.store.create_run(name, {})
        return Run(name, config, self.store, sinks=[self.sink])


@pytest.fixture
async def harness(tmp_path):
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    yield Harness(store)
    await store.aclose()


def request(n=1, max_tokens=50, text="q", **sampling):
    return Request(prompt=Prompt.user(text), sampling=SamplingParams(n=n, max_tokens=max_tokens, **sampling))


MANY = replies(*(f"answer {i}" for i in range(9)))


async def test_request_for_several_samples_is_one_call(harness):
    model = ScriptedModel(MANY)
    run = await harness.run()
    (samples,) = await MeteredModel(model, "main", run).generate([request(n=8)])
    usage = run.ledger.usage()
    assert len(model.generate_calls) == 1
    assert (usage.model_calls, usage.replayed_calls) == (1, 0)
    assert usage.completion_tokens == sum(c.usage.completion_tokens for c in samples) == 8 * len("answer 0" + "E")
    assert usage.prompt_tokens == model.count_tokens(Prompt.user("q"))
    assert [c.sample_index for c in samples] == list(range(8))
    assert len(harness.sink.of_type("sample.finished")) == 8


async def test_equal_measurements_of_a_call_are_charged_once(harness):
    model = ScriptedModel(MANY)
    one, two = await harness.run("one"), await harness.run("two")
    (single,) = await MeteredModel(model, "main", one).next_token([Prompt.user("q")])
    assert await MeteredModel(model, "main", two).next_token([Prompt.user("q")] * 3) == [single] * 3
    assert two.ledger.usage().prompt_tokens == one.ledger.usage().prompt_tokens > 0
    assert two.ledger.usage().model_calls == one.ledger.usage().model_calls == 1


async def test_stored_samples_are_not_generated_again(harness):
    model = ScriptedModel(MANY)
    first = await MeteredModel(model, "main", await harness.run()).generate([request(n=5)])
    again = await harness.run(new=False)
    second = await MeteredModel(model, "main", again).generate([request(n=8)])
    assert second[0][:5] == first[0]
    assert [index for _, index in model.made] == [0, 1, 2, 3, 4, 5, 6, 7]
    usage = again.ledger.usage()
    assert usage.replayed_tokens == sum(c.usage.completion_tokens for c in first[0])
    assert usage.completion_tokens > usage.replayed_tokens
    third = await harness.run(new=False)
    assert await MeteredModel(model, "main", third).generate([request(n=8)]) == second
    assert third.ledger.usage().replayed_calls == third.ledger.usage().model_calls == 1
    assert len(model.made) == 8


async def test_another_seed_sampling_prompt_or_model_is_another_sample(harness):
    model, other = ScriptedModel(MANY), ScriptedModel(MANY, name="other")
    run = await harness.run()
    for m, r in [
        (model, request()),
        (model, request(seed=1)),
        (model, request(temperature=0.5)),
        (model, request(text="p")),
        (other, request()),
    ]:
        await MeteredModel(m, "main", run).generate([r])
    assert len(model.made) == 4
    assert len(other.made) == 1
    assert len(await harness.store.list_calls("r")) == 5


@pytest.mark.parametrize(("reuse", "made"), [("run", 6), ("store", 3), ("none", 6)])
async def test_samples_of_other_runs_are_reused_if_allowed(harness, reuse, made):
    model = ScriptedModel(MANY)
    await MeteredModel(model, "main", await harness.run("a", reuse=reuse)).generate([request(n=3)])
    await MeteredModel(model, "main", await harness.run("b", reuse=reuse)).generate([request(n=3)])
    assert len(model.made) == made
    assert len(await harness.store.list_calls("b")) == 3  # its own copy either way


async def test_samples_are_stored_while_others_are_generated(harness, clock):
    gate = asyncio.Event()
    steps = 0

    async def hold():
        nonlocal steps
        steps += 1
        if steps == 12:
            await gate.wait()

    script = replies("short", "a much longer answer", weights=[1, 1])
    model = ScriptedModel(script, step=lambda: asyncio.ensure_future(hold()))
    run = await harness.run()

    async def generate():
        async with run.writer.saving():
            await MeteredModel(model, "main", run).generate([request(n=12)])

    task = asyncio.create_task(generate())
    await clock.advance(CALL_DELAY_S)
    assert await harness.store.list_calls("r")
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stored = len(await harness.store.list_calls("r"))
    assert 0 < stored < 12
    assert model.running == 0
    gate.set()
    again = await harness.run(new=False)
    before = len(model.made)
    (samples,) = await MeteredModel(model, "main", again).generate([request(n=12)])
    assert len(model.made) - before == 12 - stored
    (fresh,) = await MeteredModel(ScriptedModel(script), "main", await harness.run("x")).generate([request(n=12)])
    assert [c.text for c in samples] == [c.text for c in fresh]


async def test_cancelled_call_is_charged_for_its_tokens(harness):
    held = asyncio.Event()

    async def forever():
        held.set()
        await asyncio.Event().wait()

    steps = iter(range(100))

    model = ScriptedModel(MANY, step=lambda: asyncio.ensure_future(forever()) if next(steps) == 3 else None)
    run = await harness.run()
    task = asyncio.create_task(MeteredModel(model, "main", run).generate([request(n=2)]))
    await held.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [c.text for _, c in run.partial_completions] == ["ans", "ans"]
    assert run.ledger.usage().completion_tokens == 6
    assert run.ledger.remaining("tokens") == math.inf


async def test_a_token_budget_bounds_every_sample_of_a_call(harness):
    run = await harness.run(tokens=20)
    (samples,) = await MeteredModel(ScriptedModel(MANY), "main", run).generate([request(n=4)])
    assert [c.text for c in samples] == ["answe"] * 4
    assert {(c.finish_reason, c.stop_reason) for c in samples} == {("budget", None)}
    assert run.ledger.exhausted == "tokens"
    with pytest.raises(BudgetExceeded):
        await MeteredModel(ScriptedModel(MANY), "main", run).generate([request(text="more")])


async def test_unreached_budget_changes_no_finish_reason(harness):
    run = await harness.run(tokens=20)
    (samples,) = await MeteredModel(ScriptedModel(replies("abc")), "main", run).generate([request(n=2)])
    assert [(c.text, c.finish_reason) for c in samples] == [("abc", "stop")] * 2
    assert run.ledger.exhausted is None
    (short,) = await MeteredModel(ScriptedModel(replies("abcdef")), "main", run).generate([request(max_tokens=3)])
    assert short[0].finish_reason == "length"  # its own limit, not the budget's


async def test_cost_budget_is_checked_against_the_maximum_cost(harness):
    model = ScriptedModel(MANY, price=0.01)
    prompt = model.count_tokens(Prompt.user("q"))
    run = await harness.run(usd=0.01 * (prompt + 4))
    ((sample,),) = await MeteredModel(model, "main", run).generate([request()])
    assert (sample.text, sample.finish_reason) == ("answ", "budget")
    assert run.ledger.usage().cost_usd == pytest.approx(0.01 * (prompt + 4))
    poor = await harness.run("p", usd=0.01 * (prompt - 1))
    with pytest.raises(BudgetExceeded, match="usd"):
        await MeteredModel(model, "main", poor).generate([request()])
    assert len(model.made) == 1


async def test_time_limit_truncates_a_call_and_keeps_its_text(harness, clock):
    model = ScriptedModel(MANY, step=lambda: asyncio.sleep(0.5))
    run = await harness.run(seconds=1.75)
    (samples,) = await clock.run(MeteredModel(model, "main", run).generate([request(n=2)]))
    assert all(c.finish_reason == "budget" and "answer".startswith(c.text) for c in samples)
    assert {c.stop_reason for c in samples} == {None}
    assert samples[0].usage.prompt_tokens == model.count_tokens(Prompt.user("q"))
    assert run.ledger.exhausted == "seconds"
    assert model.running == 0
    # shown again as it was, but no answer to another run's question
    again = await harness.run(new=False)
    assert (await MeteredModel(model, "main", again).generate([request(n=2)]))[0] == samples
    made = len(model.made)
    model._step = None
    other = await harness.run("other", reuse="store")
    await MeteredModel(model, "main", other).generate([request(n=2)])
    assert len(model.made) == made + 2


async def test_failed_sample_is_not_stored_and_others_are(harness):
    model = ScriptedModel(MANY, failing=frozenset({1}))
    (samples,) = await MeteredModel(model, "main", await harness.run()).generate([request(n=3)])
    assert [c.ok for c in samples] == [True, False, True]
    assert len(await harness.store.list_calls("r")) == 2
    model._failing = frozenset()
    (again,) = await MeteredModel(model, "main", await harness.run(new=False)).generate([request(n=3)])
    assert all(c.ok for c in again)
    assert [i for _, i in model.made] == [0, 1, 2, 1]


async def test_failing_store_stops_the_call(harness):
    class Full(SqliteStore):
        async def save(self, run_id, writes):
            raise StoreError("no space left")

    full = await Full.open(harness.store.path)
    model = ScriptedModel(MANY)
    run = await harness.run()
    run.writer = RunWriter(full, run.id)
    with pytest.raises(StoreError, match="no space"):
        await MeteredModel(model, "main", run).generate([request(n=3)])
    assert model.running == 0
    assert run.ledger._reserved.tokens == 0
    await full.aclose()


async def test_scores_and_distributions_are_stored_too(harness):
    model = ScriptedModel(replies("yes", "no", weights=[3, 1]))
    for turn in (0, 1):
        run = await harness.run(new=turn == 0)
        metered = MeteredModel(model, "main", run)
        yes, no = await metered.score(Prompt.user("q"), ["yes", "no"])
        assert (yes.logprob, no.logprob) == (pytest.approx(math.log(0.75)), pytest.approx(math.log(0.25)))
        (token,) = await metered.next_token([Prompt.user("q")])
        assert token.entropy == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
        assert run.ledger.usage().model_calls == 2
        assert run.ledger.usage().replayed_calls == 2 * turn


async def test_streaming_goes_through_budget_and_store(harness):
    run = await harness.run(tokens=4)
    chunks = [c async for c in MeteredModel(ScriptedModel(MANY), "main", run).stream(request())]
    assert "".join(c.text for c in chunks) == "answ"
    assert chunks[-1].completion is not None
    assert len(await harness.store.list_calls("r")) == 1


async def test_text_events_are_emitted_only_for_subscribers(harness):
    run = await harness.run()
    await MeteredModel(ScriptedModel(replies("abc")), "main", run).generate([request()])
    assert harness.sink.of_type("text.delta") == []
    run.stream_text = True
    await MeteredModel(ScriptedModel(replies("abc")), "main", run).generate([request(text="again")])
    assert "".join(e.text for e in harness.sink.of_type("text.delta")) == "abc"


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.integers(1, 120),
    calls=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 40)), min_size=1, max_size=6),
)
def test_no_sequence_of_calls_overspends(tmp_path_factory, tokens, calls):
    async def scenario():
        store = await SqliteStore.open(tmp_path_factory.mktemp("s") / "runs.sqlite3")
        run = await Harness(store).run(tokens=tokens)
        metered = MeteredModel(ScriptedModel(MANY), "main", run)
        for i, (n, most) in enumerate(calls):
            try:
                await metered.generate([request(n=n, max_tokens=most, text=str(i))])
            except BudgetExceeded:
                break
            assert run.ledger.usage().completion_tokens <= tokens
        await store.aclose()

    asyncio.run(scenario())


async def test_an_impossible_token_keeps_its_infinite_logprob_in_the_store(harness):
    model = ScriptedModel(replies("yes"))
    for turn in (0, 1):
        run = await harness.run(new=turn == 0)
        (no,) = await MeteredModel(model, "main", run).score(Prompt.user("q"), ["n"])
        assert no.logprobs == (-math.inf,)
        assert run.ledger.usage().replayed_calls == turn


@pytest.mark.parametrize("apart", ["provider", "processors", "gaps", None])
async def test_cost_is_reserved_for_every_charged_prompt(harness, monkeypatch, apart):
    model = ScriptedModel(MANY, price=0.01)
    if apart == "provider":
        can = model.capabilities.model_copy(update={"prompt_per_sample": True})
        monkeypatch.setattr(ScriptedModel, "capabilities", can)
    asked = request(n=4, max_tokens=5)
    if apart == "processors":
        asked = request(n=4, max_tokens=5, logits_processors=(LogitsProcessorSpec(name="entropy_probe"),))
    if apart == "gaps":
        asked = asked.model_copy(update={"sample_indices": (0, 2, 4, 6)})
    prompts = model.count_tokens(Prompt.user("q")) * (1 if apart is None else 4)
    run = await harness.run(usd=0.01 * (prompts + 4 * 5 + 0.5))
    [made] = await MeteredModel(model, "main", run).generate([asked])
    assert [c.usage.completion_tokens for c in made] == [5] * 4  # all of it was left for them
    poor = await harness.run("p", usd=0.01 * (prompts - 1))
    with pytest.raises(BudgetExceeded, match="usd"):
        await MeteredModel(model, "main", poor).generate([asked])


async def test_a_prompt_token_budget_refuses_a_call_before_it_is_sent(harness):
    model = ScriptedModel(MANY)
    tokens = model.count_tokens(Prompt.user("q"))
    run = await harness.run(prompt_tokens=2 * tokens + 1)
    metered = MeteredModel(model, "main", run)
    await metered.generate([request(n=3)])  # the samples of a request share its prompt
    await metered.next_token([Prompt.user("q")])
    with pytest.raises(BudgetExceeded, match=f"{2 * tokens + 1} prompt_tokens") as refused:
        await metered.generate([request(text="q")])
    assert (refused.value.kind, run.ledger.exhausted) == ("prompt_tokens", "prompt_tokens")
    with pytest.raises(BudgetExceeded):
        await metered.next_token([Prompt.user("r")])
    with pytest.raises(BudgetExceeded):
        await metered.score(Prompt.user("q"), ["a"])
    assert len(model.generate_calls) == 1
    assert run.ledger.usage().prompt_tokens == 2 * tokens
    charged = harness.sink.of_type("budget.charged")
    assert (charged[-1].total_prompt_tokens, charged[-1].limits) == (2 * tokens, {"prompt_tokens": 2 * tokens + 1})


class Uncounted:
    """A model that cannot count a prompt's tokens."""

    def __init__(self, model):
        self._model = model

    def __getattr__(self, name):
        return getattr(self._model, name)

    def count_tokens(self, prompt):
        return None


async def test_a_prompt_without_a_count_is_reserved_by_its_bytes_and_charged_by_its_tokens(harness):
    model = ScriptedModel(MANY)
    prompt_tokens = model.count_tokens(Prompt.user("q"))
    run = await harness.run(prompt_tokens=17)
    metered = MeteredModel(Uncounted(model), "main", run)
    with pytest.raises(BudgetExceeded):
        await metered.generate([request(text="two")])  # 3 bytes and 16 for the frame of a message
    await metered.generate([request()])
    assert run.ledger.usage().prompt_tokens == prompt_tokens


async def test_fewer_samples_are_made_where_each_pays_for_its_prompt(harness, monkeypatch):
    model = ScriptedModel(MANY)
    prompt = Prompt.user("q")
    run = await harness.run(prompt_tokens=3 * model.count_tokens(prompt) + 1)
    metered = MeteredModel(model, "main", run)
    assert metered.max_samples_of(prompt, 8) == 8
    paid_apart = model.capabilities.model_copy(update={"prompt_per_sample": True})
    monkeypatch.setattr(type(model), "capabilities", paid_apart)
    assert metered.max_samples_of(prompt, 8) == 3
    with pytest.raises(BudgetExceeded):
        await metered.generate([request(n=4)])
    await metered.generate([request(n=3)])


async def test_call_budget_rejects_the_next_call(harness):
    run = await harness.run(calls=2)
    model = ScriptedModel(MANY)
    metered = MeteredModel(model, "main", run)
    await metered.generate([request(text="a"), request(text="b")])
    with pytest.raises(BudgetExceeded) as refused:
        await metered.generate([request(text="c")])
    assert refused.value.kind == "calls"
    assert len(model.generate_calls) == 1


async def test_prompts_of_concurrent_calls_are_reserved(harness):
    model = ScriptedModel(MANY)
    run = await harness.run(prompt_tokens=2 * model.count_tokens(Prompt.user("q")))
    metered = MeteredModel(model, "main", run)
    results = await asyncio.gather(*(metered.generate([request(text=text)]) for text in "abc"), return_exceptions=True)
    assert sum(isinstance(result, BudgetExceeded) for result in results) == 1
    assert run.ledger.remaining("prompt_tokens") == 0
