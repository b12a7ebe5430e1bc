"""Logits processors on a real vLLM server: named at its start, requested over HTTP, with reports."""

from __future__ import annotations

import json
from typing import Any

import pytest
from reason.core.errors import CapabilityMissing, UserError
from reason.core.messages import LogitsProcessorSpec, Prompt, Request, SamplingParams
from support.vllm_server import SERVED

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real, pytest.mark.slow]
ASK = Prompt.user("What is the capital of France?")


def hooked(*hooks: LogitsProcessorSpec, prompt: Prompt = ASK, **sampling: Any) -> Request:
    requested = {"temperature": 0.0, "max_tokens": 6, "logits_processors": hooks} | sampling
    return Request(prompt=prompt, sampling=SamplingParams(**requested))


def call(name: str, **args: Any) -> LogitsProcessorSpec:
    return LogitsProcessorSpec(name=name, args=args)


async def test_the_probe_measures_what_the_local_engine_does(hosted, smollm2_files):
    from reason.serving.local.engine import LocalModel

    local = LocalModel.load(smollm2_files, weight_format="fp32", threads=1, kv_cache_bytes=64 << 20)
    try:
        requested = hooked(call("entropy_probe", token_logprobs=[5, 6]))
        [[here]], [[there]] = await local.generate([requested]), await hosted.generate([requested])
        assert there.token_ids == here.token_ids
        mine, theirs = here.extras["entropy_probe"], there.extras["entropy_probe"]
        assert theirs["positions"] == mine["positions"] == list(range(6))
        assert theirs["entropy"] == pytest.approx(mine["entropy"], abs=1e-3)
        assert theirs["logprobs"] == [pytest.approx(row, abs=1e-3) for row in mine["logprobs"]]
        [exact], [actual] = await local.next_token([ASK]), await hosted.next_token([ASK])
        assert (actual.support, actual.entropy) == ("full", pytest.approx(exact.entropy, abs=1e-3))
    finally:
        await local.aclose()


async def test_each_sample_has_its_own_report(hosted):
    requested = hooked(call("entropy_probe"), n=4, temperature=1.0, seed=3, max_tokens=10)
    [made] = await hosted.generate([requested])
    [plain] = await hosted.generate(
        [requested.model_copy(update={"sampling": SamplingParams(n=4, seed=3, max_tokens=10)})]
    )
    assert [c.text for c in made] == [c.text for c in plain]  # the probe changes nothing
    probes = [c.extras["entropy_probe"]["entropy"] for c in made]
    assert [len(p) for p in probes] == [len(c.token_ids) for c in made]
    assert all(p[0] == pytest.approx(probes[0][0], abs=1e-3) for p in probes)  # one prompt
    assert len({tuple(p) for p in probes}) == 4


@pytest.mark.parametrize("prompt", [ASK, ASK.with_prefix("The "), Prompt(text="One, two,")], ids=["chat", "ids", "raw"])
async def test_logits_processors_act_in_every_kind_of_request(hosted, prompt):
    [[plain]] = await hosted.generate([hooked(prompt=prompt, logprobs=True)])
    first = plain.token_ids[0]
    [[banned]] = await hosted.generate([hooked(call("forbid_tokens", ids=[first]), prompt=prompt)])
    assert first not in banned.token_ids
    [[only]] = await hosted.generate([hooked(call("only_tokens", ids=[first]), prompt=prompt, logprobs=True)])
    assert only.token_ids == (first,) * 6
    assert only.logprobs[0] == pytest.approx(plain.logprobs[0], abs=1e-3)  # of the raw distribution


async def test_steps_are_controlled_and_reported(hosted):
    end = list(await hosted.ids_of(Prompt(text="The answer is")))
    hook = call("step_control", max_tokens=4, end_ids=end)
    [[made]] = await hosted.generate([hooked(hook, max_tokens=4 + len(end))])
    assert list(made.token_ids[4:]) == end
    assert made.extras["step_control"]["forced"] == list(range(4, 4 + len(end)))


async def test_a_logits_processor_that_fails_leaves_its_siblings(hosted):
    [[failed], [fine]] = await hosted.generate([hooked(call("forbid_tokens", ids=[10_000_000])), hooked()])
    assert (failed.finish_reason, failed.failure.code) == ("error", "user_error")
    assert "10000000" in failed.failure.message
    assert fine.ok


async def test_bad_calls_are_refused_here_and_there(hosted, server):
    with pytest.raises(CapabilityMissing, match="no_such_hook"):
        await hosted.generate([hooked(call("no_such_hook"))])
    with pytest.raises(UserError, match="steer"):
        await hosted.generate([hooked(call("steer"))])
    for order in (
        {"logits_processors": [{"name": "no_such_hook"}]},
        {"logits_processors": [{"name": "steer"}]},
        {"nonsense": 1},
    ):
        body = {"model": SERVED, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
        response = server.post("/v1/chat/completions", {**body, "vllm_xargs": {"reason": json.dumps(order)}})
        assert response.status_code == 400, response.text


async def test_the_page_is_guarded_and_gives_a_report_once(server):
    order = {"id": "mine", "logits_processors": [{"name": "entropy_probe", "args": {"first": 1}}]}
    body = {"model": SERVED, "messages": [{"role": "user", "content": "x"}], "max_tokens": 3}
    server.post("/v1/chat/completions", {**body, "vllm_xargs": {"reason": json.dumps(order)}})
    page = "/v1/reason/reports"
    assert server.post(page, {"ids": ["mine"]}, key="wrong").status_code == 401
    assert server.post(page, {"ids": "mine"}).status_code == 400
    reported = server.post(page, {"ids": ["mine", "nobody"]}).json()["reports"]
    assert list(reported) == ["mine"]
    assert reported["mine"]["extras"]["entropy_probe"]["positions"] == [0]
    assert server.post(page, {"ids": ["mine"]}).json() == {"reports": {}}
