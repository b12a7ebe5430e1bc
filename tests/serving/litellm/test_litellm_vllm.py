"""What a vLLM server is asked beyond OpenAI's interface."""

from __future__ import annotations

import json
import math

import pytest
from reason.core.errors import BackendError, CapabilityMissing, ContextTooLong
from reason.core.messages import Completion, LogitsProcessorSpec, Prompt, Request, SamplingParams
from reason.serving.vllm.processor_chain import ProcessorRequest
from support.fault_server import FaultServer

PROMPT = Prompt.user("colour?")


def hook(name: str, **args) -> LogitsProcessorSpec:
    return LogitsProcessorSpec(name=name, args=args)


async def made_by(model, *requests: Request) -> Completion:
    [[completion]] = await model.generate(requests)
    return completion


def ask(prompt: Prompt = PROMPT, **sampling) -> Request:
    return Request(prompt=prompt, sampling=SamplingParams(seed=4, max_tokens=20, **sampling))


def bodies(server, path: str) -> list[dict]:
    return [body for asked, body in server.requests if asked == path]


@pytest.mark.parametrize(("prefix", "rest"), [("blue s", "ky"), ("blue ", "sky"), (tuple(map(ord, "blue ")), "sky")])
async def test_a_prefix_is_sent_as_tokens(opened, prefix, rest):
    async with opened("blue sky", "blue rose") as (server, model):
        made = await made_by(model, ask(PROMPT.with_prefix(prefix), temperature=0.0))
        assert "blue rose".endswith(made.text) or made.text == rest
        [body] = bodies(server, "/v1/completions")
        text = prefix if isinstance(prefix, str) else "".join(map(chr, prefix))
        assert "".join(map(chr, body["prompt"])) == f"user: colour?\nassistant: {text}"


async def test_without_a_tokenizer_there_are_no_exact_prefixes(opened, monkeypatch):
    monkeypatch.setattr(FaultServer, "_tokenize", lambda *_: {"tokens": []})
    async with opened("blue sky") as (_, model):
        assert not model.traits.tokenizer
        assert not model.capabilities.prefix


async def test_raw_text_is_sent_as_tokens(opened):
    async with opened("blue sky") as (_, model):
        assert (await made_by(model, ask(Prompt(text="assistant: blue")))).text == " sky"


async def test_samples_share_one_request_and_are_those_of_their_index(opened):
    async with opened() as (server, model):
        [whole] = await model.generate([ask(n=6)])
        assert len(bodies(server, "/v1/chat/completions")) == 1
        [some] = await model.generate([ask(n=6).model_copy(update={"sample_indices": (4, 1, 2)})])
        assert [c.text for c in some] == [whole[i].text for i in (4, 1, 2)]
        assert [c.sample_index for c in some] == [4, 1, 2]


async def test_vllms_own_fields(opened):
    async with opened() as (server, model):
        processor = hook("only_tokens", ids=[ord("z")])
        made = await made_by(model, ask(top_k=7, temperature=0.0, logits_processors=(processor,)))
        assert made.text == "z" * 20
        [body] = bodies(server, "/v1/chat/completions")
        own = ("temperature", "top_k", "ignore_eos", "return_token_ids")
        assert [body[field] for field in own] == [0.0, 7, False, True]
        order = json.loads(body["vllm_xargs"]["reason"])
        assert order.pop("id")
        assert order == {"sample": 0, "logits_processors": [processor.model_dump()]}
        # what our plug-in reads on the server
        assert ProcessorRequest.from_arguments(body["vllm_xargs"]).logits_processors == (processor,)


async def test_processor_reports_are_returned(opened):
    async with opened("ab", "cd") as (server, model):
        processors = (hook("entropy_probe"), hook("only_tokens", ids=[ord("a")]))
        request = ask(n=6, logits_processors=processors).model_copy(update={"sample_indices": (4, 1)})
        [made] = await model.generate([request])
        assert [c.sample_index for c in made] == [4, 1]
        for sample in made:
            probe = sample.extras["entropy_probe"]
            assert probe["positions"] == list(range(len(sample.token_ids)))
            assert probe["entropy"][0] == pytest.approx(math.log(2))
        asked = [json.loads(b["vllm_xargs"]["reason"]) for b in bodies(server, "/v1/chat/completions")]
        assert sorted(a["sample"] for a in asked) == [1, 4]  # a request for each: its processors are a sample's own
        assert len({a["id"] for a in asked}) == 2
        assert server.told == {}


async def test_failing_processor_fails_only_its_sample(opened):
    async with opened() as (_, model):
        bad = ask(logits_processors=(hook("forbid_tokens", ids=[100_000]),))
        [[failed], [fine]] = await model.generate([bad, ask()])
        assert (failed.finish_reason, failed.stop_reason, failed.failure.code) == ("error", None, "user_error")
        assert "100000" in failed.failure.message
        assert (fine.ok, fine.stop_reason) == (True, "")


async def test_lost_report_is_a_failure(opened):
    async with opened() as (server, model):
        server._reports = lambda body: {"reports": {}}
        with pytest.raises(BackendError, match="no report"):
            await model.generate([ask(logits_processors=(hook("entropy_probe"),))])


async def test_processors_without_effect_are_not_declared(opened, monkeypatch):
    from support import fault_server

    async with opened(reports=False) as (_, model):
        assert model.capabilities.logits_processors == frozenset()
        with pytest.raises(CapabilityMissing, match="entropy_probe"):
            await model.generate([ask(logits_processors=(hook("entropy_probe"),))])
    monkeypatch.setattr(fault_server, "make_logits_processors", lambda calls, name: [])
    async with opened() as (_, model):
        assert model.capabilities.logits_processors == frozenset()


async def test_prompt_that_the_server_would_truncate_is_rejected_and_a_short_one_not_counted_first(opened):
    # a vLLM server lowers max_tokens without a word where the rest of the context is shorter
    async with opened(context_tokens=100) as (server, model):
        room = 100 - len("user: \nassistant: ") - 20
        assert (await made_by(model, ask(Prompt.user("x" * room)))).ok
        with pytest.raises(ContextTooLong) as caught:
            await model.generate([ask(Prompt.user("x" * (room + 1)))])
        assert (caught.value.tokens, caught.value.limit) == (101, 100)
        assert len(bodies(server, "/v1/chat/completions")) == 1
    async with opened() as (server, model):
        await model.generate([ask()])
        assert not bodies(server, "/tokenize")


async def test_a_server_that_hides_logprobs_has_none(opened):
    async with opened(provider="openai", logprobs=False) as (server, model):
        assert (model.capabilities.logprobs, model.capabilities.top_logprobs) == (False, 0)
        assert (await made_by(model, ask())).logprobs is None
        assert "logprobs" not in bodies(server, "/v1/chat/completions")[-1]


async def test_alternatives_have_ids_and_texts(opened):
    async with opened("ab", "cd") as (_, model):
        [token] = await model.next_token([PROMPT])
        assert dict(zip(token.tokens, token.token_ids, strict=True))["a"] == 97
        assert set(token.tokens[:2]) == {"a", "c"}
        assert token.logprobs[:2] == pytest.approx([math.log(0.5)] * 2)
        assert token.entropy == pytest.approx(math.log(2))
        assert token.support == "full"


async def test_without_reports_the_entropy_is_a_lower_bound(opened):
    async with opened("ab", "cd", reports=False) as (_, model):
        assert not model.capabilities.full_vocabulary
        [token] = await model.next_token([PROMPT], top=1)
        assert token.entropy == pytest.approx(math.log(2))  # the unseen half lies on one token
        assert token.support == "top_k"


async def test_scores_of_many_continuations(opened):
    async with opened("ab", "ac", "bb") as (_, model):
        one, other, nothing = await model.score(PROMPT, ["ab", (ord("b"), ord("b")), ""])
        assert one.logprobs == pytest.approx([math.log(2 / 3), math.log(1 / 2)])
        assert other.logprobs == pytest.approx([math.log(1 / 3), 0.0])
        assert (other.is_greedy, nothing.logprobs, nothing.is_greedy) == (False, (), True)
        assert one.usage.prompt_tokens == len("user: colour?\nassistant: ab")
        assert one.usage.cost_usd is None
