"""What an embedding model remembers, and its meter, over a source that counts."""
# ruff: noqa: E402

import asyncio

import pytest

np = pytest.importorskip("numpy")

from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import BudgetExceeded, UserError
from reason.core.messages import Usage
from reason.serving.encoders.embeddings import CachedEmbedding
from reason.serving.encoders.protocols import EmbeddingModel
from reason.serving.metered.scorers import MeteredEmbedding


class Counting:
    """Vector of a text: (length, number of a's, 1)."""

    name, identity, dimension, max_tokens = "counting", "counting@1", 3, None

    def __init__(self, *, pause=None, price=0.0, at_once=1, failing=()):
        self.pause, self.price, self.at_once = pause, price, at_once
        self.price_known = price is not None
        self.failing = list(failing)
        self.batches = []
        self.closed = False

    def prompt(self, kind):
        return {"text": "", "query": "q:", "document": ""}[kind]

    async def compute(self, texts, prompt):
        self.batches.append([prompt + t for t in texts])
        if self.pause is not None:
            await self.pause()
        if self.failing:
            raise self.failing.pop(0)
        rows = [(len(prompt + t), (prompt + t).count("a"), 1) for t in texts]
        return np.array(rows, dtype=np.float32), Usage(
            prompt_tokens=len(texts), cost_usd=(self.price or 0) * len(texts)
        )

    async def count_tokens(self, texts):
        return [len(t) for t in texts]

    def max_usd(self, texts):
        return (self.price or 0) * len(texts)

    async def aclose(self):
        self.closed = True

    @property
    def seen(self):
        return [t for batch in self.batches for t in batch]


async def test_vectors_are_in_order_and_of_length_one():
    source = Counting()
    model = CachedEmbedding(source, batch_texts=2)
    assert isinstance(model, EmbeddingModel)
    raw = await model.embed(["aaa", "b", "ca"], unit=False)
    assert raw.tolist() == [[3, 3, 1], [1, 0, 1], [2, 1, 1]]
    assert raw.dtype == np.float32
    unit = await model.embed(["aaa", "b", "ca"])
    assert np.allclose(np.linalg.norm(unit, axis=1), 1)
    assert np.allclose(unit, raw / np.linalg.norm(raw, axis=1, keepdims=True))
    assert source.batches == [["aaa", "ca"], ["b"]]
    assert (await model.embed([])).shape == (0, 3)
    unit[0] = 0  # the caller's own array
    assert (await model.embed(["aaa"], unit=False)).tolist() == [[3, 3, 1]]
    await model.aclose()
    assert source.closed


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6), max_size=5), st.integers(1, 4), st.integers(0, 5))
def test_cached_texts_are_not_embedded_again(calls, batch, vectors):
    async def check():
        source = Counting()
        model = CachedEmbedding(source, batch_texts=batch)
        model._max_vectors = vectors
        everything = CachedEmbedding(lasting := Counting(), batch_texts=batch)
        for texts in calls:
            expected = [[len(t), t.count("a"), 1] for t in texts]
            assert (await model.embed(texts, unit=False)).tolist() == expected
            await everything.embed(texts)
            assert len(model._cache) <= vectors
        assert sorted(lasting.seen) == sorted({t for texts in calls for t in texts})

    asyncio.run(check())


async def test_least_recently_used_is_evicted():
    source = Counting()
    model = CachedEmbedding(source, batch_texts=1)
    model._max_vectors = 2
    for text in ("a", "b", "a", "c", "a", "b"):
        await model.embed([text])
    assert source.seen == ["a", "b", "c", "b"]


async def test_prompts_are_part_of_the_cache_key():
    source = Counting()
    model = CachedEmbedding(source)
    query = await model.embed(["a"], kind="query", unit=False)
    document = await model.embed(["a"], kind="document", unit=False)
    text = await model.embed(["a"], unit=False)
    assert (query[0, 0], document[0, 0], text[0, 0]) == (3, 1, 1)
    assert source.seen == ["q:a", "a"]


async def test_batches_run_together_where_it_is_worth_it(clock):
    for at_once, seconds in ((1, 7), (3, 3)):
        begun = clock.elapsed
        source = Counting(pause=lambda: asyncio.sleep(1), at_once=at_once)
        await clock.run(CachedEmbedding(source, batch_texts=1).embed(list("abcdefg")))
        assert clock.elapsed - begun == seconds


async def test_invalid_inputs():
    model = CachedEmbedding(Counting())
    for wrong in ("one text", [1], [None]):
        with pytest.raises(UserError, match="list of texts"):
            await model.embed(wrong)
    with pytest.raises(UserError, match="'question'"):
        await model.embed(["a"], kind="question")


async def test_computed_texts_are_charged(runs):
    run = await runs.start(budget={"usd": 1.0})
    model = MeteredEmbedding(CachedEmbedding(Counting(price=0.1)), "embedding", run)
    assert isinstance(model, EmbeddingModel)
    heard = []
    await model.embed(["a", "b"], charged=heard.append)
    await model.embed(["a", "b"], charged=heard.append)
    usage = run.ledger.usage()
    assert (usage.prompt_tokens, usage.model_calls, usage.completion_tokens) == (2, 0, 0)
    assert usage.cost_usd == pytest.approx(0.2)
    assert [u.prompt_tokens for u in heard] == [2]
    assert [e.operation for e in runs.sink.of_type("call.started")] == ["embed", "embed"]
    with pytest.raises(BudgetExceeded) as told:
        await model.embed([str(i) for i in range(9)])
    assert told.value.kind == "usd"
    await model.aclose()


async def test_time_limit_and_unknown_prices(runs, clock):
    with pytest.raises(UserError, match="unknown"):
        MeteredEmbedding(CachedEmbedding(Counting(price=None)), "embedding", await runs.start("a", budget={"usd": 1.0}))
    run = await runs.start("b", budget={"seconds": 10})
    model = MeteredEmbedding(CachedEmbedding(Counting(pause=asyncio.Event().wait)), "embedding", run)
    with pytest.raises(BudgetExceeded) as told:
        await clock.run(model.embed(["a"]))
    assert told.value.kind == "seconds"
