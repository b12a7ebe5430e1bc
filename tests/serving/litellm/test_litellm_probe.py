"""What is learnt of a model when it is opened."""

from __future__ import annotations


async def test_a_vllm_server_is_measured(opened):
    async with opened() as (server, model):
        can = model.capabilities
        assert (can.logprobs, can.top_logprobs, can.prefix, can.scoring, can.seed) == (True, 20, True, True, True)
        assert can.context_tokens == 100_000
        assert "only_tokens" in can.hooks
        assert model.traits.many
        assert (can.usd_per_prompt_token, can.usd_per_completion_token) == (None, None)
        assert model.identity == "hosted_vllm/small=scripts/small+vllm0.32.0"
        assert server.open == 0
