"""`LocalModel` on SmolLM2-135M against transformers on the same weights: a small test a mechanism, breadth nightly."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from reason.core.messages import Prompt, Request, SamplingParams
from reason.serving.local.engine import LocalModel
from reason.serving.local.spec_decode import NgramSpeculator
from reason.serving.model_files.find import ModelFiles

pytestmark = pytest.mark.real

CAPITAL = Prompt.user("What is the capital of France?")
TOPICS = ["rivers", "prime numbers", "bread", "the moon", "trains", "bees", "glass", "chess", "rain", "maps"]
FORMS = [
    "What is the most surprising thing about {}?",
    "Write one sentence about {} for a child.",
    "List three facts about {}.",
    "Once upon a time there was a story about {}, which began",
    "Translate to French: I like {} very much. Then explain, step by step and in detail, how you did it.",
]
PROMPTS = [
    Prompt(text=form.format(topic)) if "Once" in form else Prompt.user(form.format(topic))
    for topic in TOPICS
    for form in FORMS
]
PASSAGES = [
    "The history of bread begins with the first farmers, who ground wild grains between stones and baked the paste on "
    "hot ashes. Later somebody left the dough to stand, it soured and rose, and the loaf was lighter than any before.",
    "A river carries what it wears from the hills: boulders near the spring, then gravel, then sand, and at its mouth "
    "the finest mud, of which it builds new land into the sea. Where people straighten it, it runs faster and digs.",
    "To find the greatest common divisor of two numbers, divide the larger by the smaller and keep the remainder. "
    "Then divide the smaller by that remainder, and go on so. The last remainder that is not zero is the answer.",
    "def fibonacci(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a\n\n\n"
    "print([fibonacci(n) for n in range(10)])  # 0, 1, 1, 2, 3, 5, 8, 13, 21, 34\n",
    "Dear Anna, the train was late, and it rained when we came to the coast, but the house is warm and the children "
    "sleep well. Tomorrow we shall walk to the lighthouse, if the wind allows it. Give my love to your mother.",
    "In 1869 the canal was opened after ten years of work. Ships from London to Bombay were spared the way around "
    "Africa, about 7,000 kilometres, and within twenty years three quarters of them were steamers.",
    "Bees tell one another where flowers are by a dance: its angle to the vertical is that of the flowers to the sun, "
    "and the longer the run takes, the farther they are. The hive follows in the dark, by touch.",
]


@pytest.fixture(scope="module")
def hf(smollm2_files: ModelFiles) -> Iterator[Any]:
    """transformers' model, fp32, on one thread."""
    from transformers import AutoModelForCausalLM

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield AutoModelForCausalLM.from_pretrained(smollm2_files.directory, dtype=torch.float32).eval()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def theirs(smollm2_files: ModelFiles) -> Any:
    """transformers' model, bf16."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(smollm2_files.directory, dtype=torch.bfloat16).eval()


@pytest.fixture(scope="module")
def bf16(smollm2_files: ModelFiles) -> Iterator[LocalModel]:
    model = LocalModel.load(smollm2_files, weight_format="bf16", threads=1)
    yield model
    asyncio.run(model.aclose())


def greedy(prompt: Prompt, tokens: int) -> Request:
    return Request(prompt=prompt, sampling=SamplingParams(temperature=0, max_tokens=tokens, logprobs=True))


def logprobs_of(hf: Any, ids: Sequence[int]) -> torch.Tensor:
    with torch.inference_mode():
        return torch.log_softmax(hf(torch.tensor([list(ids)])).logits[0].float(), -1)


async def errors(model: LocalModel, hf: Any, theirs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """How far the log-probabilities of the passages' tokens are from fp32's: the model's, and those of `theirs`."""
    mine, reference = [], []
    for text in PASSAGES:
        ids = model._tokenizer.encode(text)
        start = text.index(" ")
        (scored,) = await model.score(Prompt(text=text[:start]), [text[start:]])
        tail = list(scored.token_ids)
        assert tail == ids[-len(tail) :]
        assert scored.logprobs is not None
        exact, other = (logprobs_of(m, ids)[range(len(ids) - 1), ids[1:]][-len(tail) :] for m in (hf, theirs))
        mine.append((torch.tensor(scored.logprobs) - exact).abs())
        reference.append((other - exact).abs())
    return torch.cat(mine), torch.cat(reference)


@pytest.mark.nightly
async def test_bf16_logits_are_as_near_to_fp32_as_those_of_transformers(bf16, hf, theirs):
    """Over some hundred tokens: of a few dozen, either may be off by half as much again, by luck of the processor."""
    mine, reference = await errors(bf16, hf, theirs)
    assert mine.numel() == reference.numel() > 350
    assert mine.mean() < 1.5 * reference.mean()


async def test_greedy_tokens_and_entropies_are_those_of_transformers(smollm2, hf):
    """One forward pass over prompt and tokens: if each is the most probable after those before, they are greedy."""
    prompts = [CAPITAL, PROMPTS[3]]
    made = [samples[0] for samples in await smollm2.generate([greedy(p, 10) for p in prompts])]
    distributions = await smollm2.next_token(prompts, top=3)
    for prompt, completion, first in zip(prompts, made, distributions, strict=True):
        ids = smollm2._tokenizer.prompt_ids(prompt)
        reference = logprobs_of(hf, [*ids, *completion.token_ids])[len(ids) - 1 : -1]
        assert list(completion.token_ids) == reference.argmax(-1).tolist()
        assert completion.logprobs == pytest.approx(reference.amax(-1).tolist(), abs=1e-3)
        exact = reference[0].double()
        assert first.entropy == pytest.approx(float(-(exact.exp() * exact).sum()), abs=1e-3)
        assert list(first.token_ids) == exact.topk(3).indices.tolist()
    assert "Paris" in made[0].text
    assert made[0].finish_reason == "stop"
    [[again]] = await smollm2.generate([greedy(CAPITAL, 10)])  # its prompt is in the prefix cache
    assert again.usage.cached_tokens == again.usage.prompt_tokens - 1
    assert again.token_ids == made[0].token_ids


async def test_drafts_leave_the_text_and_are_accepted(smollm2, monkeypatch):
    prompt = Prompt(text="a b c d a b c d a b c d a b")
    made = {}
    for mode in ("off", "on"):
        monkeypatch.setattr(smollm2._scheduler, "speculator", NgramSpeculator(smollm2._eos, mode))
        [[made[mode]]] = await smollm2.generate([greedy(prompt.with_cache_salt(mode), 10)])
    assert made["on"].token_ids == made["off"].token_ids
    assert made["on"].logprobs == pytest.approx(made["off"].logprobs, abs=1e-3)
    assert smollm2.spec_decode.accepted > 0


async def test_scores_are_teacher_forced_logprobs(smollm2, hf):
    before = smollm2._tokenizer.prompt_ids(CAPITAL)
    continuations = ["The capital of France is Paris.", "Berlin"]
    scored = await smollm2.score(CAPITAL, continuations)
    for result in scored:
        ids = list(result.token_ids)
        expected = logprobs_of(hf, [*before, *ids])[len(before) - 1 : -1]
        assert result.logprobs == pytest.approx(expected[range(len(ids)), ids].tolist(), abs=1e-3)
    assert max(scored, key=lambda s: s.logprob / len(s.token_ids)) is scored[0]


async def test_the_chat_template_is_the_one_of_transformers(smollm2, smollm2_files):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2_files.directory)
    for prompt in (Prompt.user("héllo\n wörld"), Prompt.user("hi", system="Be brief.")):
        messages = [{"role": m.role, "content": m.content} for m in prompt.messages]
        expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        assert smollm2._tokenizer.prompt_ids(prompt) == list(expected)


@pytest.mark.nightly
async def test_int4_is_labelled_and_gated_on_accuracy(smollm2_files, hf, theirs):
    """The weights were 4-bit blocks of 32 already, so rounding again must hardly change the model's output."""
    model = LocalModel.load(smollm2_files, weight_format="int4", threads=1)
    try:
        assert model.identity == f"{smollm2_files.fingerprint}+int4"
        actual = [r[0] for r in await model.generate([greedy(p, 1) for p in PROMPTS])]
        agree = 0
        for prompt, completion in zip(PROMPTS, actual, strict=True):
            exact = logprobs_of(hf, model._tokenizer.prompt_ids(prompt))[-1]
            first, said = exact.max(), exact[completion.token_ids[0]]
            assert first - said < 0.5  # another word only where the two are about as likely
            agree += bool(said == first)
        assert agree >= 40
        mine, reference = await errors(model, hf, theirs)
        assert mine.mean() < 1.5 * reference.mean()
    finally:
        await model.aclose()
