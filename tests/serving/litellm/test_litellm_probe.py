"""What is learnt of a model when it is opened."""

import pytest
from reason.core.messages import Prompt, Request, SamplingParams

COLOURS = ("blue sky", "red rose", "green grass")


def ask(n):
    return Request(prompt=Prompt.user("Go"), sampling=SamplingParams(n=n, max_tokens=20, seed=3))


async def test_capabilities_of_a_vllm_server_are_probed(opened):
    async with opened() as (server, model):
        can = model.capabilities
        assert (can.logprobs, can.top_logprobs, can.prefix, can.scoring, can.seed) == (True, 20, True, True, True)
        assert can.context_tokens == 100_000
        assert "only_tokens" in can.logits_processors
        assert model.traits.multi_sample
        assert (can.usd_per_prompt_token, can.usd_per_completion_token) == (None, None)
        assert model.identity == "hosted_vllm/small=scripts/small+vllm0.32.0"
        assert server.open == 0


@pytest.mark.parametrize("provider", ["hosted_vllm", "openai"])
async def test_server_that_ignores_n_gets_one_request_per_sample(opened, provider):
    async with opened(*COLOURS, provider=provider, settings={"max_retries": 0}, many=False) as (server, model):
        assert not model.traits.multi_sample
        assert model.capabilities.prompt_per_sample
        [made] = await model.generate([ask(n=4)])
        assert [(c.sample_index, c.ok) for c in made] == [(i, True) for i in range(4)]
        assert all(c.text in COLOURS for c in made)
        assert server.count == 4


async def test_server_that_starts_to_ignore_n_is_handled(opened):
    async with opened(*COLOURS, settings={"max_retries": 0}) as (server, model):
        assert model.traits.multi_sample
        server.many = False
        heard = []
        [made] = await model.generate([ask(n=5)], heard.append)
        assert [(c.sample_index, c.ok) for c in made] == [(i, True) for i in range(5)]
        assert [body.get("n", 1) for _, body in server.requests] == [5, 1, 1, 1, 1]
        assert sorted(c.sample_index for c in heard if c.completion is not None) == [0, 1, 2, 3, 4]
        server.many = True
        [again] = await model.generate([ask(n=5)])  # it is not asked for several any more, and gives the same ones
        assert [c.text for c in again] == [c.text for c in made]
        assert [body.get("n", 1) for _, body in server.requests[5:]] == [1] * 5
