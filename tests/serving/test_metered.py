import asyncio
import math
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import BudgetExceeded, StoreError
from reason.core.messages import LogitsProcessorSpec, Prompt, Request, SamplingParams
from reason.core.store.run_writer import CALL_DELAY_S
from reason.core.store.sqlite import SqliteStore
from support.scripted_model import THINKS, ScriptedModel, held_after, replies, thinking
from support.stored_runs import RunHarness

MANY = replies(*(f"answer {i}" for i in range(9)))
PROMPT = Prompt.user("q")
TOKENS = ScriptedModel(MANY).count_tokens(PROMPT)


@pytest.fixture
def harness(store):
    return RunHarness(store, ScriptedModel(MANY))


def request(n=1, max_tokens=50, text="q", **sampling):
    return Request(prompt=Prompt.user(text), sampling=SamplingParams(n=n, max_tokens=max_tokens, **sampling))


async def test_request_for_several_samples_is_one_call(harness):
    (samples,) = await harness.generate(request(n=8))
    assert len(harness.model.generate_calls) == 1
    assert (harness.spent.model_calls, harness.spent.replayed_calls) == (1, 0)
    assert sum(c.usage.completion_tokens for c in samples) == 8 * len("answer 0" + "E")
    assert (harness.spent.completion_tokens, harness.spent.prompt_tokens) == (8 * len("answer 0" + "E"), TOKENS)
    assert [c.sample_index for c in samples] == list(range(8))
    assert len(harness.sink.of_type("sample.finished")) == 8


async def test_equal_measurements_of_a_call_are_charged_once(harness):
    (single,) = await (await harness.begin("one")).next_token([PROMPT])
    one = harness.spent
    assert await (await harness.begin("two")).next_token([PROMPT] * 3) == [single] * 3
    assert harness.spent.prompt_tokens == one.prompt_tokens > 0
    assert harness.spent.model_calls == one.model_calls == 1


async def test_stored_samples_are_not_generated_again(harness):
    first = await harness.generate(request(n=5))
    second = await harness.generate(request(n=8))
    assert second[0][:5] == first[0]
    assert [index for _, index in harness.model.made] == list(range(8))
    assert harness.spent.replayed_tokens == sum(c.usage.completion_tokens for c in first[0])
    assert harness.spent.completion_tokens > harness.spent.replayed_tokens
    assert await harness.generate(request(n=8)) == second
    assert harness.spent.replayed_calls == harness.spent.model_calls == 1
    assert len(harness.model.made) == 8


async def test_another_seed_sampling_prompt_or_model_is_another_sample(harness):
    for changes in ({}, {"seed": 1}, {"temperature": 0.5}, {"text": "p"}):
        await harness.generate(request(**changes))
    other = ScriptedModel(MANY, name="other")
    await harness.generate(request(), model=other)
    assert (len(harness.model.made), len(other.made), len(await harness.store.list_calls("r"))) == (4, 1, 5)


@pytest.mark.parametrize(("reuse", "made"), [("run", 6), ("store", 3), ("none", 6)])
async def test_samples_of_other_runs_are_reused_if_allowed(harness, reuse, made):
    for name in "ab":
        await harness.generate(request(n=3), name=name, reuse=reuse)
    assert len(harness.model.made) == made
    assert len(await harness.store.list_calls("b")) == 3  # its own copy either way


async def test_samples_are_stored_while_others_are_generated(harness, clock):
    script = replies("short", "a much longer answer", weights=[1, 1])
    model = harness.model = ScriptedModel(script, step=held_after(11)[0])
    metered = await harness.begin()

    async def generate():
        async with harness.run.writer.saving():
            await metered.generate([request(n=12)])

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
    before = len(model.made)
    (samples,) = await harness.generate(request(n=12))
    assert len(model.made) - before == 12 - stored
    (fresh,) = await harness.generate(request(n=12), name="x", model=ScriptedModel(script))
    assert [c.text for c in samples] == [c.text for c in fresh]


async def test_cancelled_call_is_charged_for_its_tokens(harness):
    step, is_held = held_after(3)
    metered = await harness.begin(model=ScriptedModel(MANY, step=step))
    task = asyncio.create_task(metered.generate([request(n=2)]))
    await is_held.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [c.text for _, c in harness.run.partial_completions] == ["ans", "ans"]
    assert harness.spent.completion_tokens == 6
    assert harness.run.ledger.remaining("tokens") == math.inf


async def test_a_token_budget_bounds_every_sample_of_a_call(harness):
    metered = await harness.begin(budget={"tokens": 20})
    (samples,) = await metered.generate([request(n=4)])
    assert [(c.text, c.finish_reason, c.stop_reason) for c in samples] == [("answe", "budget", None)] * 4
    assert harness.run.ledger.exhausted == "tokens"
    with pytest.raises(BudgetExceeded):
        await metered.generate([request(text="more")])


async def test_unreached_budget_changes_no_finish_reason(harness):
    metered = await harness.begin(budget={"tokens": 20}, model=ScriptedModel(replies("abc")))
    (samples,) = await metered.generate([request(n=2)])
    assert [(c.text, c.finish_reason) for c in samples] == [("abc", "stop")] * 2
    assert harness.run.ledger.exhausted is None
    ((short,),) = await metered.generate([request(max_tokens=2, text="p")])
    assert short.finish_reason == "length"  # its own limit, not the budget's


async def test_cost_budget_is_checked_against_the_maximum_cost(harness):
    harness.model = ScriptedModel(MANY, price=0.01)
    ((sample,),) = await harness.generate(request(), budget={"usd": 0.01 * (TOKENS + 4)})
    assert (sample.text, sample.finish_reason) == ("answ", "budget")
    assert harness.spent.cost_usd == pytest.approx(0.01 * (TOKENS + 4))
    with pytest.raises(BudgetExceeded, match="usd"):
        await harness.generate(request(), name="p", budget={"usd": 0.01 * (TOKENS - 1)})
    assert len(harness.model.made) == 1


async def test_time_limit_truncates_a_call_and_keeps_its_text(harness, clock):
    model = harness.model = ScriptedModel(MANY, step=lambda: asyncio.sleep(0.5))
    (samples,) = await clock.run(harness.generate(request(n=2), budget={"seconds": 1.75}))
    assert {(c.finish_reason, c.stop_reason) for c in samples} == {("budget", None)}
    assert all("answer".startswith(c.text) for c in samples)
    assert samples[0].usage.prompt_tokens == TOKENS
    assert (harness.run.ledger.exhausted, model.running) == ("seconds", 0)
    # shown again as it was, but no answer to another run's question
    assert await harness.generate(request(n=2)) == [samples]
    made, model._step = len(model.made), None
    await harness.generate(request(n=2), name="other", reuse="store")
    assert len(model.made) == made + 2


async def test_failed_sample_is_not_stored_and_others_are(harness):
    model = harness.model = ScriptedModel(MANY, failing=frozenset({1}))
    (samples,) = await harness.generate(request(n=3))
    assert [c.ok for c in samples] == [True, False, True]
    assert len(await harness.store.list_calls("r")) == 2
    model._failing = frozenset()
    (again,) = await harness.generate(request(n=3))
    assert all(c.ok for c in again)
    assert [i for _, i in model.made] == [0, 1, 2, 1]


async def test_failing_store_stops_the_call(harness, monkeypatch):
    async def save(self, run_id, writes):
        raise StoreError("no space left")

    metered = await harness.begin()
    monkeypatch.setattr(SqliteStore, "save", save)
    with pytest.raises(StoreError, match="no space"):
        await metered.generate([request(n=3)])
    assert (harness.model.running, harness.run.ledger._reserved.tokens) == (0, 0)


async def test_scores_and_distributions_are_stored_too(harness):
    harness.model = ScriptedModel(replies("yes", "no", weights=[3, 1]))
    for turn in (0, 1):
        metered = await harness.begin()
        scored = await metered.score(PROMPT, ["yes", "no", "m"])
        assert [s.logprob for s in scored] == pytest.approx([math.log(0.75), math.log(0.25), -math.inf])
        (token,) = await metered.next_token([PROMPT])
        assert token.entropy == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
        assert (harness.spent.model_calls, harness.spent.replayed_calls) == (2, 2 * turn)


async def test_streaming_goes_through_budget_and_store(harness):
    metered = await harness.begin(budget={"tokens": 4})
    chunks = []
    await metered.generate([request()], chunks.append)
    assert "".join(c.text for c in chunks) == "answ"
    assert chunks[-1].completion is not None
    assert len(await harness.store.list_calls("r")) == 1


async def test_text_events_are_emitted_only_for_subscribers(harness):
    metered = await harness.begin(model=ScriptedModel(replies("abc")))
    await metered.generate([request()])
    assert harness.sink.of_type("text.delta") == []
    harness.run.stream_text = True
    await metered.generate([request(text="again")])
    assert "".join(e.text for e in harness.sink.of_type("text.delta")) == "abc"


@pytest.mark.parametrize(
    ("kind", "spent", "model"),
    [
        ("tokens", "completion_tokens", ScriptedModel(MANY)),
        ("thinking_tokens", "thinking_tokens", ScriptedModel(thinking("two and two", "It is 4."), profile=THINKS)),
    ],
)
@given(
    limit=st.integers(1, 120),
    calls=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 40)), min_size=1, max_size=6),
)
async def test_no_sequence_of_calls_overspends(tmp_path_factory, kind, spent, model, limit, calls):
    async with aclosing(await SqliteStore.open(tmp_path_factory.mktemp("s") / "runs.sqlite3")) as store:
        harness = RunHarness(store, model)
        metered = await harness.begin(budget={kind: limit})
        for i, (n, most) in enumerate(calls):
            try:
                await metered.generate([request(n=n, max_tokens=most, text=str(i))])
            except BudgetExceeded:
                assert harness.run.ledger.exhausted == kind
                break
            assert getattr(harness.spent, spent) <= limit


def pay_each_prompt(monkeypatch, model):
    """Let each sample pay for its prompt, as providers do."""
    can = model.capabilities.model_copy(update={"prompt_per_sample": True})
    monkeypatch.setattr(ScriptedModel, "capabilities", can)


@pytest.mark.parametrize("apart", ["provider", "processors", "gaps", None])
async def test_cost_is_reserved_for_every_charged_prompt(harness, monkeypatch, apart):
    harness.model = ScriptedModel(MANY, price=0.01)
    hooks = (LogitsProcessorSpec(name="entropy_probe"),) if apart == "processors" else ()
    asked = request(n=4, max_tokens=5, logits_processors=hooks)
    if apart == "provider":
        pay_each_prompt(monkeypatch, harness.model)
    if apart == "gaps":
        asked = asked.model_copy(update={"sample_indices": (0, 2, 4, 6)})
    prompts = TOKENS * (1 if apart is None else 4)
    [made] = await harness.generate(asked, budget={"usd": 0.01 * (prompts + 4 * 5 + 0.5)})
    assert [c.usage.completion_tokens for c in made] == [5] * 4  # all of it was left for them
    with pytest.raises(BudgetExceeded, match="usd"):
        await harness.generate(asked, name="p", budget={"usd": 0.01 * (prompts - 1)})


async def test_a_prompt_token_budget_refuses_a_call_before_it_is_sent(harness):
    limit = 2 * TOKENS + 1
    metered = await harness.begin(budget={"prompt_tokens": limit})
    await metered.generate([request(n=3)])  # the samples of a request share its prompt
    await metered.next_token([PROMPT])
    with pytest.raises(BudgetExceeded, match=f"{limit} prompt_tokens") as refused:
        await metered.generate([request()])
    assert (refused.value.kind, harness.run.ledger.exhausted) == ("prompt_tokens", "prompt_tokens")
    for call in (metered.next_token([Prompt.user("r")]), metered.score(PROMPT, ["a"])):
        with pytest.raises(BudgetExceeded):
            await call
    assert len(harness.model.generate_calls) == 1
    assert harness.spent.prompt_tokens == 2 * TOKENS
    charged = harness.sink.of_type("budget.charged")[-1]
    assert (charged.total_prompt_tokens, charged.limits) == (2 * TOKENS, {"prompt_tokens": limit})


class Uncounted(ScriptedModel):
    """A model that cannot count a prompt's tokens before it is sent."""

    def count_tokens(self, prompt):
        return super().count_tokens(prompt) if self.generate_calls else None


async def test_a_prompt_without_a_count_is_reserved_by_its_bytes_and_charged_by_its_tokens(harness):
    metered = await harness.begin(model=Uncounted(MANY), budget={"prompt_tokens": 17})
    with pytest.raises(BudgetExceeded):
        await metered.generate([request(text="two")])  # 3 bytes and 16 for the frame of a message
    await metered.generate([request()])
    assert harness.spent.prompt_tokens == TOKENS


async def test_fewer_samples_are_made_where_each_pays_for_its_prompt(harness, monkeypatch):
    metered = await harness.begin(budget={"prompt_tokens": 3 * TOKENS + 1})
    assert metered.max_samples_of(PROMPT, 8) == 8
    pay_each_prompt(monkeypatch, harness.model)
    assert metered.max_samples_of(PROMPT, 8) == 3
    with pytest.raises(BudgetExceeded):
        await metered.generate([request(n=4)])
    await metered.generate([request(n=3)])


async def test_a_server_that_ignores_the_limit_is_reported_and_ends_the_run(harness, monkeypatch):
    ignores = harness.model.generate

    async def generate(requests, listener=None):
        sampling = requests[0].sampling.model_copy(update={"max_tokens": 100})
        return await ignores([requests[0].model_copy(update={"sampling": sampling})], listener)

    monkeypatch.setattr(harness.model, "generate", generate)
    metered = await harness.begin(budget={"tokens": 1})
    await metered.generate([request()])
    spent = harness.spent.completion_tokens
    assert spent > 1
    assert harness.run.degraded == [f"scripted exceeded the limit of its request: {spent} of 1 tokens are spent"]
    assert [(e.kind, e.used) for e in harness.sink.of_type("budget.exhausted")] == [("tokens", spent)]
    with pytest.raises(BudgetExceeded):
        await metered.generate([request(text="more")])


async def test_call_budget_rejects_the_next_call(harness):
    metered = await harness.begin(budget={"calls": 2})
    await metered.generate([request(text="a"), request(text="b")])
    with pytest.raises(BudgetExceeded) as refused:
        await metered.generate([request(text="c")])
    assert (refused.value.kind, len(harness.model.generate_calls)) == ("calls", 1)


async def test_prompts_of_concurrent_calls_are_reserved(harness):
    metered = await harness.begin(budget={"prompt_tokens": 2 * TOKENS})
    results = await asyncio.gather(*(metered.generate([request(text=text)]) for text in "abc"), return_exceptions=True)
    assert sum(isinstance(result, BudgetExceeded) for result in results) == 1
    assert harness.run.ledger.remaining("prompt_tokens") == 0
