"""Reward models behind HTTP, over a server that scores a step by its number of characters."""

import math
from contextlib import asynccontextmanager

import pytest
from reason.core.errors import BackendError, BackendUnavailable, UnknownName, UserError
from reason.core.settings import ProviderSettings, RewardSettings, Settings
from reason.serving.rewards.factory import load_reward_model
from reason.serving.rewards.model import RewardModel
from support.fault_server import FaultServer
from support.scripted_model import ScriptedModel, replies

TAG = 2_000_000
NAME = "hosted_vllm_pooling/prm"
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."


class PoolingFake(FaultServer):
    """Speaks the part of vLLM's pooling interface that is used.

    Args:
        kind: "process" or "outcome".
        all_rows: Whether it pools every token.
        no_rows: Whether it pools nothing, as vLLM 0.32 does that was not told the step tag.
        knows_activation: Whether it has the field `use_activation`.
        failures: What the first requests for numbers are answered with.
    """

    def __init__(self, kind="process", *, all_rows=False, no_rows=False, knows_activation=True, failures=(), **more):
        super().__init__(ScriptedModel(replies("x"), context_tokens=600), served="prm", **more)
        self.kind, self.all_rows, self.knows_activation = kind, all_rows, knows_activation
        self.failures, self.no_rows = list(failures), no_rows

    async def _answer(self, reply, method, path, headers, body):
        if path in ("/pooling", "/classify"):
            self.requests.append((path, body))
            fits = path == "/pooling" and body["task"] == "token_classify"
            if fits != (self.kind == "process"):
                await reply.error(400, f"{path} is not for this model")
            elif self.failures:
                await reply.error(self.failures.pop(0), "on demand")
            elif path == "/pooling":
                await reply.json(200, {"data": [{"index": 0, "data": self._rows(body)}]})
            else:
                await reply.json(200, {"data": [{"index": 0, "probs": self._numbers(len(body["input"]) / 10, body)}]})
            return
        await super()._answer(reply, method, path, headers, body)

    def _tokenize(self, body):
        text = body["prompt"] if "prompt" in body else "".join(f"{m['role']}:{m['content']}|" for m in body["messages"])
        ids = []
        for i, part in enumerate(text.split("<extra_0>")):
            ids += ([TAG] if i else []) + [ord(c) for c in part]
        return {"tokens": ids, "count": len(ids)}

    def _rows(self, body):
        if self.no_rows:
            return []
        rows, since = [], 0
        for token in body["input"]:
            since = 0 if token == ord(":") else since + 1
            rows.append(self._numbers(since / 10 if token == TAG else -99.0, body))
            since = 0 if token == TAG else since
        return rows if self.all_rows else [r for r, t in zip(rows, body["input"], strict=True) if t == TAG]

    def _numbers(self, odds, body):
        if body.get("use_activation") is False and self.knows_activation:
            return [0.5, 0.5 + odds]
        p = 1 / (1 + math.exp(-odds))
        return [1 - p, p]


def at(base, rewards=None, **provider):
    settings = {"api_base": base, "retry_s": 5.0, **provider}
    return Settings(providers={"hosted_vllm_pooling": ProviderSettings(**settings)}, rewards=rewards or {})


@asynccontextmanager
async def loaded(fake, **provider):
    """The reward model of a running server, closed afterwards."""
    async with fake.run() as base:
        model = await load_reward_model(NAME, at(base, **provider))
        yield model
        await model.aclose()


SOLUTIONS = [["ab", "abcd"], ["abc"]]
ODDS = [pytest.approx((0.3, 0.5)), pytest.approx((0.4,))]


@pytest.mark.parametrize(("all_rows", "knows_activation"), [(False, True), (True, False)])
async def test_process_model_over_http(all_rows, knows_activation):
    fake = PoolingFake(all_rows=all_rows, knows_activation=knows_activation)
    async with loaded(fake) as model:
        assert isinstance(model, RewardModel)
        assert (model.capabilities.kind, model.capabilities.context_tokens) == ("process", 600)
        scores = await model.score_steps("p", SOLUTIONS)
        assert [s.log_odds for s in scores] == ODDS
        [last] = await model.score_steps("p", SOLUTIONS[:1], "last")
        assert last.log_odds == pytest.approx((0.5,))
    told = [b for path, b in fake.requests if path == "/tokenize" and "messages" in b][-1]
    assert told["messages"] == [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "p"},
        {"role": "assistant", "content": "ab<extra_0>abcd<extra_0>"},
    ]
    assert told["add_generation_prompt"] is False
    assert "scripts/prm" in model.identity
    assert "vllm0.32.0" in model.identity


async def test_outcome_model_over_http():
    async with loaded(PoolingFake("outcome")) as model:
        assert (model.capabilities.kind, model.capabilities.one_pass) == ("outcome", False)
        [scores] = await model.score_steps("p", [["ab", "cd"]])
        sizes = [len(f"user:p|assistant:{answer}|") / 10 for answer in ("ab", "ab\n\ncd")]
        assert scores.log_odds == pytest.approx(sizes)
        assert scores.passes == 2


async def test_transient_fault_is_retried():
    fake = PoolingFake()
    async with loaded(fake) as model:
        fake.failures += [503, 500]
        scores = await model.score_steps("p", SOLUTIONS)
        assert [s.log_odds for s in scores] == ODDS


async def test_permanent_fault_fails_only_one_solution():
    fake = PoolingFake()
    async with loaded(fake, max_retries=0, concurrency=1) as model:
        fake.failures += [500]
        first, second = await model.score_steps("p", SOLUTIONS)
        assert first.failure.code == "backend_error"
        assert second.ok
        fake.failures += [500, 500]
        with pytest.raises(BackendError, match="status 500"):
            await model.score_steps("p", SOLUTIONS)


async def test_too_long_is_not_sent():
    fake = PoolingFake()
    async with loaded(fake) as model:
        before = sum(path == "/pooling" for path, _ in fake.requests)
        fine, long = await model.score_steps("p", [["a"], ["x" * 700]])
        assert fine.ok
        assert long.failure.code == "context_too_long"
        assert sum(path == "/pooling" for path, _ in fake.requests) == before + 1


async def test_server_without_rewards():
    async with PoolingFake("neither").run() as base:
        with pytest.raises(BackendError, match="--runner pooling"):
            await load_reward_model(NAME, at(base, rewards={NAME: RewardSettings(form="qwen")}))


async def test_server_without_the_step_tag():
    async with PoolingFake(no_rows=True).run() as base:
        with pytest.raises(BackendUnavailable, match=f'--pooler-config .*"step_tag_id": {TAG}'):
            await load_reward_model(NAME, at(base))


async def test_models_that_cannot_be_loaded(monkeypatch):
    monkeypatch.delenv("HOSTED_VLLM_POOLING_API_BASE", raising=False)
    with pytest.raises(UserError, match="address is not set"):
        await load_reward_model(NAME, Settings())
    with pytest.raises(BackendUnavailable):
        await load_reward_model(NAME, at("http://127.0.0.1:9/v1", max_retries=0))
    async with PoolingFake().run() as base:
        with pytest.raises(UnknownName) as told:
            await load_reward_model("hosted_vllm_pooling/prn", at(base))
        assert told.value.nearest == (NAME,)
        with pytest.raises(UserError, match="judge"):
            await load_reward_model(NAME, at(base, rewards={NAME: RewardSettings(form="judge")}))
    async with PoolingFake(key="right").run() as base:
        monkeypatch.setenv("HOSTED_VLLM_POOLING_API_KEY", "wrong")
        with pytest.raises(UserError, match="HOSTED_VLLM_POOLING_API_KEY"):
            await load_reward_model(NAME, at(base))
