"""Requests in batches, against a server that follows OpenAI's format."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from reason.core.errors import BackendError, BackendMisconfigured, ContextTooLong, RateLimited, StoreError, UserError
from reason.core.messages import Prompt, Request, SamplingParams
from reason.core.settings import ProviderSettings, Settings
from reason.core.store.sqlite import SqliteStore
from reason.serving.litellm import batches as batches_module
from reason.serving.litellm.batches import BatchedModel, BatchTiming, batched, cancel_batches
from reason.serving.litellm.factory import load_litellm_model
from reason.serving.litellm.providers import find_target
from support.batch_server import BatchServer, last_text

MODEL = "openai/gpt-4o-mini"
TIMING = BatchTiming(quiet_s=0.02, first_poll_s=0.002, max_poll_s=0.01)


def request(text="2 + 2?", n=1, indices=None, **sampling):
    params = SamplingParams(n=n, max_tokens=50, seed=5, **sampling)
    return Request(prompt=Prompt.user(text), sampling=params, sample_indices=indices)


class Bench:
    """A server, a store, and models that share both, one after another or at once."""

    def __init__(self, server, base, store, name):
        self.server, self.store, self.name = server, store, name
        self.notes = []
        prices = {"usd_per_prompt_token": 2e-6, "usd_per_completion_token": 4e-6}
        provider = ProviderSettings(api_base=f"{base}/v1", probe=False, timeout_s=60, **prices)
        self.settings = Settings(providers={"openai": provider})

    async def load(self):
        model = await load_litellm_model(self.name, self.settings)
        wrapped = batched(model, self.store, "plan", self.notes.append, TIMING)
        assert isinstance(wrapped, BatchedModel)
        return wrapped

    @asynccontextmanager
    async def model(self):
        model = await self.load()
        try:
            yield model
        finally:
            await model.aclose()

    def sent(self):
        return [[last_text(params) for _, params in batch.requests] for batch in self.server.batches]


@pytest.fixture
async def bench(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    server = BatchServer()
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    async with server.run() as base:
        yield Bench(server, base, store, MODEL)
    await store.aclose()


async def test_concurrent_requests_are_one_batch_and_none_is_sent_by_itself(bench):
    async with bench.model() as model:
        texts = [f"question {i}" for i in range(20)]
        results = await asyncio.gather(*(model.generate([request(text)]) for text in texts))
    assert [completion.text for [[completion]] in results] == [f"{text} 0" for text in texts]
    assert bench.sent() == [texts]
    assert bench.server.direct == []


async def test_tokens_cost_half_and_waiting_is_no_work(bench):
    async with bench.model() as model:
        [[completion]] = await model.generate([request()])
        assert model.capabilities.usd_per_completion_token == 2e-6
    usage = completion.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (100, len(completion.text))
    assert usage.cost_usd == pytest.approx(100e-6 + len(completion.text) * 2e-6)
    assert usage.waited_s > 0


async def test_rounds_of_a_search_are_batches_of_their_own(bench):
    async def search(model, name):
        text = name
        for _ in range(3):
            [[completion]] = await model.generate([request(text)])
            text = completion.text
        return text

    async with bench.model() as model:
        results = await asyncio.gather(search(model, "a"), search(model, "b"))
    assert results == ["a 0 0 0", "b 0 0 0"]
    assert bench.sent() == [["a", "b"], ["a 0", "b 0"], ["a 0 0", "b 0 0"]]


async def test_a_killed_process_finds_its_batch_again_and_submits_nothing_twice(bench):
    bench.server.num_polls = None
    first = await bench.load()
    work = asyncio.ensure_future(first.generate([request("a"), request("b")]))
    await bench.server.interrupt(work)  # as if killed
    await first.aclose()
    bench.server.end_all()
    async with bench.model() as model:
        [[one], [two]] = await model.generate([request("b"), request("a")])
    assert (one.text, two.text) == ("b 0", "a 0")
    assert bench.sent() == [["a", "b"]]
    assert not any(batch.is_cancelled for batch in bench.server.batches)


async def test_results_that_were_not_stored_before_a_kill_are_read_again(bench):
    async with bench.model() as model:
        await model.generate([request("a")])
    async with bench.model() as model:
        [[again]] = await model.generate([request("a")])
        assert again.text == "a 0"
        assert len(bench.server.batches) == 1


async def test_a_batch_is_not_forgotten_if_the_store_fails_after_its_submission(bench, monkeypatch):
    def fails(self, batch):
        raise StoreError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(SqliteStore, "update_batch", fails)
        async with bench.model() as model:
            with pytest.raises(StoreError):
                await model.generate([request("a")])
    async with bench.model() as model:
        [[completion]] = await model.generate([request("a")])
    assert completion.text == "a 0"
    assert len(bench.server.batches) == 1


@pytest.mark.parametrize("outcome", ["lost", "503"])
async def test_an_interrupted_submission_is_looked_for_before_it_is_repeated(bench, outcome):
    bench.server.submissions = [outcome]
    async with bench.model() as model:
        [[completion]] = await model.generate([request("a")])
    assert completion.text == "a 0"
    assert len(bench.server.batches) == 1


async def test_a_process_killed_while_submitting_finds_the_batch_by_the_providers_list(bench, monkeypatch):
    async with bench.model() as other:
        await other.generate([request("x"), request("y")])
    first = await bench.load()
    submitted = asyncio.Event()
    submit = type(first._queue.api).submit

    async def killed(self, name, lines):
        await submit(self, name, lines)
        submitted.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(type(first._queue.api), "submit", killed)
    work = asyncio.ensure_future(first.generate([request("a")]))
    await submitted.wait()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await first.aclose()
    monkeypatch.undo()
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    assert [batch.status for batch in await bench.store.list_batches("plan")] == ["ended", "submitting"]
    async with bench.model() as model:
        [[completion]] = await model.generate([request("a")])
    assert completion.text == "a 0"
    assert bench.sent() == [["x", "y"], ["a"]]


@pytest.mark.parametrize("fault", ["expired", "missing", "500", "429"])
async def test_requests_that_failed_for_a_passing_reason_go_into_another_batch(bench, fault):
    bench.server.fault = lambda params, before: fault if last_text(params) == "b" and before == 0 else None
    async with bench.model() as model:
        results = await model.generate([request(text) for text in "abc"])
    assert [completion.text for [completion] in results] == ["a 0", "b 0", "c 0"]
    assert bench.sent() == [["a", "b", "c"], ["b"]]


async def test_a_request_that_always_expires_fails_alone(bench):
    bench.server.fault = lambda params, before: "expired" if last_text(params) == "b" else None
    async with bench.model() as model:
        [[one], [two]] = await model.generate([request("a"), request("b")])
        assert one.ok
        assert two.failure.code == "backend_error"
        assert "expired before it was served" in two.failure.message or "expired before" in two.failure.message
    assert len(bench.server.batches) == 1 + batches_module.MAX_RETRIES


async def test_a_refused_request_is_not_repeated(bench):
    bench.server.fault = lambda params, before: "400"
    async with bench.model() as model:
        with pytest.raises(BackendError, match="status 400"):
            await model.generate([request("a")])
    assert bench.sent() == [["a"]]


async def test_a_batch_that_was_cancelled_elsewhere_fails_what_has_no_result(bench):
    bench.server.num_polls = None
    async with bench.model() as model:
        work = asyncio.ensure_future(model.generate([request("a"), request("b")]))
        while not bench.server.batches:
            await asyncio.sleep(0.001)
        bench.server.batches[0].is_cancelled = True
        [[one], [two]] = await work
    assert one.text == "a 0"
    assert "cancelled" in two.failure.message
    assert len(bench.server.batches) == 1


async def test_cancelled_batches_are_cancelled_at_the_provider_and_a_resumed_run_requests_the_rest(bench):
    bench.server.num_polls = None
    first = await bench.load()
    work = asyncio.ensure_future(first.generate([request("a"), request("b")]))
    await bench.server.interrupt(work)
    await first.aclose()
    assert await cancel_batches(bench.store, "plan", lambda name: find_target(name, bench.settings)) == 1
    assert bench.server.batches[0].is_cancelled
    assert await cancel_batches(bench.store, "plan", lambda name: find_target(name, bench.settings)) == 0
    bench.server.end_all()
    async with bench.model() as model:
        [[one], [two]] = await model.generate([request("a"), request("b")])
    assert (one.text, two.text) == ("a 0", "b 0")
    assert bench.sent() == [["a", "b"], ["b"]]  # what the cancelled batch had done is paid, and used


async def test_a_cancelled_caller_is_left_out_of_the_next_batch(bench):
    async with bench.model() as model:
        kept = asyncio.ensure_future(model.generate([request("a")]))
        dropped = asyncio.ensure_future(model.generate([request("b")]))
        await asyncio.sleep(0.005)
        dropped.cancel()
        await kept
    assert bench.sent() == [["a"]]


async def test_a_response_that_nobody_waits_for_any_more_is_reported(bench):
    bench.server.num_polls = None
    async with bench.model() as model:
        kept = asyncio.ensure_future(model.generate([request("a")]))
        dropped = asyncio.ensure_future(model.generate([request("b")]))
        while not bench.server.batches:
            await asyncio.sleep(0.001)
        dropped.cancel()
        bench.server.end_all()
        await kept
        await asyncio.sleep(0)
    assert any("1 responses are paid, and no longer wanted" in note for note in bench.notes)


async def test_batches_keep_within_the_providers_limits(bench, monkeypatch):
    async with bench.model() as model:
        monkeypatch.setattr(batches_module, "MAX_REQUESTS", 3)
        bench.server.max_requests = 3
        await model.generate([request(f"r{i}") for i in range(7)])
        assert [len(batch.requests) for batch in bench.server.batches] == [3, 3, 1]
        monkeypatch.setattr(batches_module, "MAX_REQUESTS", 1000)
        monkeypatch.setattr(batches_module, "MAX_BYTES", 1000)
        bench.server.max_requests, bench.server.max_bytes = 1000, 1000
        await model.generate([request("long " * 120 + str(i)) for i in range(4)])
        assert [len(batch.requests) for batch in bench.server.batches[3:]] == [1, 1, 1, 1]
        with pytest.raises(UserError, match="does not fit into a batch"):
            await model.generate([request("long " * 300)])


def test_the_limits_are_those_that_openai_documents():
    assert (batches_module.MAX_REQUESTS, batches_module.MAX_BYTES) == (50_000, 200_000_000)


async def test_a_failing_poll_is_repeated_and_a_refused_key_is_not(bench, monkeypatch):
    bench.server.faulty_polls = [500, 503, 429]
    async with bench.model() as model:
        [[completion]] = await model.generate([request("a")])
        assert completion.ok
        bench.server.key = "another"
        with pytest.raises(BackendMisconfigured):
            await model.generate([request("b")])
    assert [batch.status for batch in await bench.store.list_batches("plan")] == ["ended"]


async def test_samples_of_one_request_are_told_apart(bench):
    async with bench.model() as model:
        [made] = await model.generate([request("a", n=3)])
    # one request with n, which pays for its prompt once
    assert [completion.text for completion in made] == ["a 0", "a 1", "a 2"]
    assert [completion.usage.prompt_tokens for completion in made] == [100, 0, 0]
    assert sum(completion.usage.completion_tokens for completion in made) == 9
    assert bench.sent() == [["a"]]
    assert [completion.sample_index for completion in made] == [0, 1, 2]


async def test_some_samples_of_a_request_are_found_in_its_earlier_batch(bench):
    async with bench.model() as model:
        [before] = await model.generate([request("a", n=3)])
    async with bench.model() as model:
        [after] = await model.generate([request("a", n=3, indices=(1, 2))])
    assert [completion.text for completion in after] == [completion.text for completion in before[1:]]
    assert [completion.sample_index for completion in after] == [1, 2]
    assert len(bench.server.batches) == 1


async def test_another_evaluation_gets_samples_of_its_own(bench):
    async with bench.model() as model:
        await model.generate([request("a")])
    model = batched(await load_litellm_model(bench.name, bench.settings), bench.store, "other", print, TIMING)
    await model.generate([request("a")])
    await model.aclose()
    assert bench.sent() == [["a"], ["a"]]


async def test_only_openai_has_batches(bench):
    from support.scripted_model import ScriptedModel, replies

    assert batched(ScriptedModel(replies("a")), bench.store, "plan", print) is None


async def test_a_full_queue_is_waited_for(bench):
    bench.server.submissions = ["full", "full"]
    async with bench.model() as model:
        [[completion]] = await model.generate([request("a")])
    assert completion.text == "a 0"
    assert bench.sent() == [["a"]] * 3


async def test_a_queue_that_stays_full_stops_the_evaluation(bench, monkeypatch):
    monkeypatch.setattr(batches_module, "MAX_FULL_RETRIES", 1)
    bench.server.submissions = ["full"] * 100
    async with bench.model() as model:
        with pytest.raises(RateLimited):
            await model.generate([request("a")])


async def test_a_batch_that_is_refused_fails_its_requests_with_the_reason(bench):
    bench.server.submissions = ["invalid"]
    async with bench.model() as model:
        with pytest.raises(BackendError, match="refused the batch batch_0: the batch is invalid"):
            await model.generate([request("a")])
    async with bench.model() as model:
        [[completion]] = await model.generate([request("a")])
    assert completion.ok


async def test_a_prompt_that_is_too_long_is_told_as_such(bench):
    bench.server.fault = lambda params, before: "too long"
    async with bench.model() as model:
        with pytest.raises(ContextTooLong):
            await model.generate([request("a")])


async def test_the_price_of_a_batch_comes_from_the_map(monkeypatch):
    from reason.serving.litellm.model_map import map_entry
    from reason.serving.litellm.providers import find_prices

    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    known = map_entry("anthropic", "claude-sonnet-4-5")
    prices, _ = find_prices(find_target("anthropic/claude-sonnet-4-5", Settings()), batch=True)
    assert prices.prompt == known["input_cost_per_token_batches"] == known["input_cost_per_token"] / 2
    assert prices.written == known["cache_creation_input_token_cost"] / 2
    usual, _ = find_prices(find_target("anthropic/claude-sonnet-4-5", Settings()))
    tokens = {"prompt_tokens": 1000, "cached_tokens": 500, "completion_tokens": 20, "written_tokens": 300}
    assert prices.cost(**tokens) == pytest.approx(usual.cost(**tokens) / 2)
    expected = 200 * known["input_cost_per_token"] + 500 * known["cache_read_input_token_cost"]
    expected += 300 * known["cache_creation_input_token_cost"] + 20 * known["output_cost_per_token"]
    assert usual.cost(**tokens) == pytest.approx(expected)


async def test_a_batch_that_another_process_is_submitting_is_left_to_it(bench, monkeypatch):
    first, going = await bench.load(), asyncio.Event()
    submit = type(first._queue.api).submit

    async def slow(self, name, lines):
        going.set()
        await go_on.wait()
        return await submit(self, name, lines)

    go_on = asyncio.Event()
    monkeypatch.setattr(type(first._queue.api), "submit", slow)
    work = asyncio.ensure_future(first.generate([request("a")]))
    await going.wait()
    monkeypatch.setattr(type(first._queue.api), "submit", submit)
    async with bench.model() as shard:
        [[other]] = await shard.generate([request("b")])
    go_on.set()
    [[completion]] = await work
    await first.aclose()
    assert (completion.text, other.text) == ("a 0", "b 0")
    assert {batch.provider_id for batch in await bench.store.list_batches("plan")} == {
        batch.id for batch in bench.server.batches
    }
