"""The backend contract on a real vLLM server through `hosted_vllm/…`, fp32."""

from __future__ import annotations

from typing import Any

import pytest
from reason.core.messages import Prompt, Request, SamplingParams
from reason.serving.structured_output import TRIAL_SCHEMA, TRIAL_TOKENS, is_trial
from support.backend_contract import *  # noqa: F403
from support.backend_contract import Probe
from support.vllm_server import CONTEXT, RealServer

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real, pytest.mark.slow]


@pytest.fixture
def backend(hosted: Any) -> Any:
    return hosted


@pytest.fixture
def probe(server: RealServer) -> Probe:
    return Probe(
        prompt=Prompt.user("What is the capital of France?"),
        others=(Prompt.user("Name a colour."), Prompt.user("Say hello."), Prompt.user("Count to five.")),
        too_long=Prompt.user("word " * 2 * CONTEXT),
        under_way=server.under_way,
        tolerance=1e-3,
    )


async def test_everything_is_declared_that_this_server_can_do(hosted):
    can = hosted.capabilities
    assert (can.logprobs, can.top_logprobs, can.full_vocabulary) == (True, 20, True)
    assert (can.scoring, can.prefix, can.seed, can.json_schema) == (True, True, True, True)
    assert can.context_tokens == CONTEXT
    ours = {"only_tokens", "forbid_tokens", "steer", "step_control", "entropy_probe"}
    assert ours <= can.logits_processors
    assert (hosted.traits.multi_sample, hosted.traits.tokenizer, hosted.traits.reports) == (True, True, True)


async def test_a_schema_holds_behind_a_beginning_that_is_sent_as_tokens_too(hosted, probe):
    sampling = SamplingParams(temperature=0, max_tokens=TRIAL_TOKENS, seed=1, json_schema=TRIAL_SCHEMA)
    for prefix in ("Here it is:", "Here it is: "):  # chat templates would strip the second one's blank
        [[made]] = await hosted.generate([Request(prompt=probe.prompt.with_prefix(prefix), sampling=sampling)])
        assert is_trial(made.text)
        assert made.logprobs is None
