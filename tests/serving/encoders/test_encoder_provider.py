"""Embeddings from a provider: a server in OpenAI's format, and LiteLLM's own way for all others."""

import asyncio

import pytest

pytest.importorskip("numpy")

import numpy as np
from reason.core.errors import BackendError, InvalidResponse, UnknownName, UserError
from reason.core.settings import ProviderSettings, Settings
from reason.serving.encoders.embeddings import load_embedding_model
from reason.serving.encoders.protocols import EmbeddingModel
from support.fault_server import FaultServer
from support.scripted_model import ScriptedModel, replies


class EmbeddingFake(FaultServer):
    """Vector of a text: (length, 1)."""

    def __init__(self, *, failures=(), wrong=None, **more):
        super().__init__(ScriptedModel(replies("x")), served="embedder", vllm=False, **more)
        self.failures, self.wrong = list(failures), wrong

    async def _answer(self, reply, method, path, headers, body):
        if not path.endswith("/embeddings"):
            await super()._answer(reply, method, path, headers, body)
            return
        self.requests.append((path, body))
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            await reply.error(401, "no such key")
        elif self.failures:
            await reply.error(self.failures.pop(0), "on demand")
        else:
            rows = [
                {"index": i, "object": "embedding", "embedding": [len(t), 1.0]} for i, t in enumerate(body["input"])
            ]
            rows = rows[:-1] if self.wrong == "short" and len(rows) > 1 else rows[::-1]
            usage = {"prompt_tokens": sum(map(len, body["input"])), "total_tokens": 0}
            await reply.json(200, {"object": "list", "model": "embedder", "data": rows, "usage": usage})


def at(base, **encoder):
    provider = ProviderSettings(api_base=base, retry_s=5.0, usd_per_prompt_token=0.01, usd_per_completion_token=0.0)
    return Settings(providers={"openai": provider}, encoders={"openai/embedder": encoder} if encoder else {})


async def test_a_server_in_openais_format():
    fake = EmbeddingFake()
    async with fake.run() as base:
        model = await load_embedding_model("openai/embedder", at(base, batch_texts=2, query_prompt="q: "))
        assert isinstance(model, EmbeddingModel)
        assert (model.dimension, model.price_known) == (2, True)
        heard = []
        found = await model.embed(["a", "bbb", "cc"], unit=False, charged=heard.append)
        assert found.tolist() == [[1, 1], [3, 1], [2, 1]]
        assert sum(u.prompt_tokens for u in heard) == 6
        paid = sum(u.cost_usd for u in heard)
        assert paid == pytest.approx(0.06)
        assert paid <= model.max_usd(["a", "bbb", "cc"])
        assert np.allclose(np.linalg.norm(await model.embed(["a"]), axis=1), 1)
        assert (await model.embed(["a"], kind="query", unit=False)).tolist() == [[4, 1]]
        assert await model.count_tokens(["a"]) is None
        await model.aclose()
    sent = [b["input"] for path, b in fake.requests if path.endswith("/embeddings")]
    assert sent[0] == ["word"]
    assert sorted(sent[1:3], key=len) == [["a"], ["bbb", "cc"]]
    assert sent[3:] == [["q: a"]]


async def test_faults_of_the_server():
    fake = EmbeddingFake(failures=[429, 503])
    async with fake.run() as base:
        model = await load_embedding_model("openai/embedder", at(base))
        fake.failures += [500]
        assert (await model.embed(["a"])).shape == (1, 2)
        fake.failures += [400]
        with pytest.raises(BackendError, match="status 400"):
            await model.embed(["b"])
        await model.aclose()
    async with EmbeddingFake(wrong="short").run() as base:
        settings = at(base)
        settings.providers["openai"].max_retries = 0
        model = await load_embedding_model("openai/embedder", settings)
        with pytest.raises(InvalidResponse, match="for 2 texts"):
            await model.embed(["a", "b"])
        await model.aclose()


async def test_rejections_of_a_provider(monkeypatch):
    async with EmbeddingFake(key="right").run() as base:
        monkeypatch.setenv("OPENAI_API_KEY", "wrong")
        with pytest.raises(UserError, match="OPENAI_API_KEY"):
            await load_embedding_model("openai/embedder", at(base))
    with pytest.raises(UnknownName):
        await load_embedding_model("no-such-provider/x", Settings())
    monkeypatch.delenv("MISTRAL_API_KEY", raising=False)
    with pytest.raises(UserError, match="MISTRAL_API_KEY"):
        await load_embedding_model("mistral/mistral-embed", Settings())


async def test_other_formats_go_through_litellm():
    """Mistral's client in LiteLLM goes through `aembedding`; its address is ours here."""
    fake = EmbeddingFake()
    async with fake.run() as base:
        providers = {"mistral": ProviderSettings(api_base=base, api_key_env="HOME")}
        model = await load_embedding_model("mistral/embedder", Settings(providers=providers))
        assert (await model.embed(["abc"], unit=False)).tolist() == [[3, 1]]
        assert not model.price_known
        await model.aclose()
    assert {path for path, _ in fake.requests} == {"/v1/embeddings"}


async def test_cancelling_closes_the_connection():
    gate = asyncio.Event()

    class Slow(EmbeddingFake):
        async def _answer(self, reply, method, path, headers, body):
            if body.get("input") == ["slow"]:
                gate.set()
                await reply.gone()
                raise ConnectionResetError
            await super()._answer(reply, method, path, headers, body)

    async with Slow().run() as base:
        model = await load_embedding_model("openai/embedder", at(base))
        task = asyncio.create_task(model.embed(["slow"]))
        await gate.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await model.embed(["fast"])).shape == (1, 2)
        await model.aclose()
