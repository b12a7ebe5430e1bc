"""`LocalModel.relevance` on tiny random models of every family: the forward is the engine's, the derivative is one."""

from __future__ import annotations

import asyncio

import pytest
import torch
from reason.core.errors import BackendUnavailable, CapabilityMissing, ContextTooLong, DataError, UserError
from reason.core.messages import Message, Prompt, Request, SamplingParams
from reason.serving.local.config import ModelConfig
from reason.serving.local.engine import LocalModel
from reason.serving.local.model import load_layer
from reason.serving.local.relevance import PassCancelled, RelevancePass, tokenize_parts
from reason.serving.local.tokenizer import Tokenizer
from reason.serving.local.weights import WeightReader
from reason.serving.model import ExplainsTokens
from reason.serving.model_files.find import ModelFiles
from torch import Tensor
from torch.nn import functional

PARTS = ["Bees live here.", "Boats float.", "What floats?"]
PROMPT = Prompt.user("\n".join(PARTS), system="Be brief.")
CLAIM = "Boats float."


@pytest.mark.parametrize("family", ["llama3", "qwen2", "qwen3"])
def test_relevance_is_that_of_the_rules_written_out(tiny_files, family):
    config, weights, placed = opened(tiny_files(family))
    work = RelevancePass(config, weights)
    relevance, _ = work.relevance(placed.token_ids, placed.num_continuation)
    expected = written_out(work, config, weights, placed.token_ids, placed.num_continuation)
    assert relevance[:-1].tolist() == pytest.approx(expected.tolist(), abs=1e-4)


async def test_any_number_format_uses_the_checkpoints_weights(tiny_files):
    actual = []
    for weight_format in ("fp32", "int4"):
        model = LocalModel.load(tiny_files("llama"), weight_format=weight_format, threads=1, kv_cache_bytes=64 << 20)
        actual.append(await model.relevance(PROMPT, PARTS, CLAIM))
        await model.aclose()
    assert actual[0] == actual[1]


async def test_the_engine_goes_on_as_before(tiny):
    request = Request(prompt=Prompt(text="The quick"), sampling=SamplingParams(max_tokens=24, seed=3, ignore_eos=True))
    single = await tiny.generate([request])
    neighbour, _ = await asyncio.gather(tiny.generate([request]), tiny.relevance(PROMPT, PARTS, CLAIM))
    assert [c.token_ids for c in neighbour[0]] == [c.token_ids for c in single[0]]


async def test_parts_are_found_in_their_order_and_the_log_probability_is_the_engines(tiny):
    assert isinstance(tiny, ExplainsTokens)
    actual = await tiny.relevance(PROMPT, PARTS, CLAIM)
    (scored,) = await tiny.score(PROMPT, [CLAIM])
    assert actual.logprob == pytest.approx(scored.logprob, abs=2e-4)
    assert actual.tokens == tuple(len(p) for p in PARTS)  # a token is a byte
    assert actual.usage.prompt_tokens == tiny.count_tokens(PROMPT) + len(CLAIM)
    repeated = Prompt(text="one two one two")
    actual = await tiny.relevance(repeated, ["one", "one"], " three")
    assert actual.tokens == (3, 3)
    assert actual.relevance[0] != actual.relevance[1]
    for parts, unknown in ((["one"] * 3, "'one'"), (["four"], "'four'"), ([" "], "' '")):
        with pytest.raises(UserError, match=f"{unknown} does not appear"):
            await tiny.relevance(repeated, parts, " three")


async def test_what_cannot_be_explained_is_refused(tiny):
    with pytest.raises(UserError, match="no tokens of its own"):
        await tiny.relevance(PROMPT, PARTS, "")
    with pytest.raises(UserError, match="prefix is text"):
        await tiny.relevance(PROMPT.with_prefix((5, 6)), PARTS, CLAIM)
    with pytest.raises(ContextTooLong):
        await tiny.relevance(Prompt(text="x" * 1020), [], CLAIM)


async def test_a_family_of_transformers_own_is_refused(tiny_files):
    model = LocalModel.load(tiny_files("gpt_neox"), weight_format="fp32", threads=1, kv_cache_bytes=64 << 20)
    with pytest.raises(CapabilityMissing, match="relevance"):
        await model.relevance(PROMPT, PARTS, CLAIM)
    await model.aclose()


async def test_a_closed_engine_raises_and_a_cancelled_wait_is_harmless(tiny):
    waiting = asyncio.ensure_future(tiny.relevance(PROMPT, PARTS, CLAIM))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await tiny.relevance(PROMPT, PARTS, CLAIM)).logprob < 0
    await tiny.aclose()
    with pytest.raises(BackendUnavailable):
        await tiny.relevance(PROMPT, PARTS, CLAIM)


async def test_weights_that_are_gone_fail_this_call_only(tiny, tmp_path):
    tiny._checkpoint = tmp_path
    with pytest.raises(DataError, match="holds no model"):
        await tiny.relevance(PROMPT, PARTS, CLAIM)
    assert (await tiny.score(PROMPT, [CLAIM]))[0].logprob < 0


def test_a_pass_is_given_up_between_layers(tiny_files):
    config, weights, placed = opened(tiny_files("llama"))
    requested = iter([False] * 4 + [True])
    with pytest.raises(PassCancelled):
        RelevancePass(config, weights, lambda: next(requested)).relevance(placed.token_ids, placed.num_continuation)


@pytest.mark.real
def test_a_token_across_an_end_belongs_to_the_part_with_more_of_it(smollm2_files):
    tokenizer = Tokenizer(smollm2_files.directory, "smollm2")
    text = "Bees hum. Boats float."
    ids, positions = tokenizer.encode_with_offsets(text)
    assert [text[a:b] for a, b in positions] == [tokenizer.decode([i]) for i in ids]
    prompt = Prompt(messages=(Message(role="user", content=text),))
    placed = tokenize_parts(tokenizer, prompt, ["Bees hum.", "Boats float."], "Yes.")
    owned = [
        "".join(tokenizer.decode([i]) for i, o in zip(placed.token_ids, placed.part_of, strict=True) if o == p)
        for p in (0, 1)
    ]
    assert owned == ["Bees hum.", " Boats float."]
    assert tokenizer.decode(placed.token_ids[-placed.num_continuation :]) == "Yes."


def opened(files: ModelFiles):
    placed = tokenize_parts(Tokenizer(files.directory, files.name), PROMPT, PARTS, CLAIM)
    return ModelConfig.from_directory(files.directory), WeightReader(files.directory), placed


def written_out(work: RelevancePass, config: ModelConfig, weights: WeightReader, ids, count: int) -> Tensor:
    """The rules of AttnLRP over one plain forward pass with its complete graph."""

    def norm(of, x: Tensor) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + config.norm_eps).sqrt().detach() * of._twice[: x.shape[-1]]

    def halved(x: Tensor) -> Tensor:
        return x / 2 + (x / 2).detach()

    embedded = work._embedding[torch.tensor(ids[:-1])].clone().requires_grad_()
    x, rows = embedded, len(ids) - 1
    heads, kv_heads, width = config.num_heads, config.num_kv_heads, config.head_dim
    for i in range(config.num_layers):
        layer = load_layer(weights, config, i, "fp32", False)
        qkv = layer.qkv(norm(layer.attention_norm, x)).view(rows, heads + 2 * kv_heads, width)
        queries, keys, values = qkv.split([heads, kv_heads, kv_heads], 1)
        if config.qk_norm:
            queries, keys = norm(layer.query_norm, queries), norm(layer.key_norm, keys)
        cos, sin = work._rotary.cos_sin(torch.arange(rows))
        queries, keys = (work._rotary.rotate(t, (cos[:, None], sin[:, None])) for t in (queries, keys))
        queries, keys = queries.transpose(0, 1), keys.transpose(0, 1)
        keys, values = (t.repeat_interleave(heads // kv_heads, 0) for t in (keys, values.transpose(0, 1)))
        scores = halved(queries @ keys.transpose(1, 2)) * config.attention_scale
        hidden = torch.arange(rows)[:, None] < torch.arange(rows)
        seen = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        x = layer.output(halved(seen @ values).transpose(0, 1).reshape(rows, -1)) + x
        h = norm(layer.mlp_norm, x)
        gate = layer.gate(h)
        x = layer.down(halved(gate * gate.sigmoid().detach() * layer.up(h))) + x
    logits = functional.linear(norm(work._norm, x[-count:]), work._head)
    logprob = logits.log_softmax(-1).gather(1, torch.tensor(ids[-count:])[:, None]).sum()
    (gradient,) = torch.autograd.grad(logprob, embedded)
    return (gradient * embedded.detach()).sum(-1)
