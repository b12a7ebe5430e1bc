"""Texts of every family through the engine, against transformers in fp32: greedy, sampled, of thinking templates."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from reason.core.messages import Completion, Prompt, Request, SamplingParams
from reason.serving.local import attention
from reason.serving.local.engine import LocalModel
from reason.serving.local.tokenizer import Tokenizer
from reason.serving.model_files.find import ModelFiles
from support.thinking_templates import QWEN, with_template

TIE = 2e-4
"""Logits that differ by less are equal: kernels sum in different orders."""


class Reference:
    """The same weights in transformers, in fp32."""

    def __init__(self, directory: Path) -> None:
        from transformers import AutoModelForCausalLM

        self._model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()

    @torch.inference_mode()
    def logits(self, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> torch.Tensor:
        """Logits before each token of a continuation."""
        ids = torch.tensor([[*prompt_ids, *token_ids[:-1]]])
        logits: torch.Tensor = self._model(ids, logits_to_keep=len(token_ids)).logits[0]
        return logits

    def check_greedy(self, prompt_ids: Sequence[int], completion: Completion) -> None:
        """The completion is the greedy one: each of its tokens is the most likely one after those before it."""
        logits = self.logits(prompt_ids, completion.token_ids)
        chosen = logits.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
        assert (logits.amax(1) - chosen).max() < TIE

    def check_logprobs(self, prompt_ids: Sequence[int], completion: Completion) -> None:
        """Log-probabilities of the completion's tokens."""
        logprobs = self.logits(prompt_ids, completion.token_ids).log_softmax(-1)
        expected = logprobs.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0].tolist()
        assert completion.logprobs == pytest.approx(expected, abs=1e-3)


def load(files: ModelFiles, **more: Any) -> LocalModel:
    options = {"weight_format": "fp32", "threads": 1, "kv_cache_bytes": 512 << 20} | more
    return LocalModel.load(files, **options)


def texts(count: int, step: int) -> list[str]:
    """Texts of lengths from 3 letters on, in steps."""
    draw = random.Random(count)
    return ["".join(draw.choice("abcdefgh ") for _ in range(3 + step * i)) for i in range(count)]


async def greedy(model: LocalModel, prompts: Sequence[str], max_tokens: int) -> list[tuple[list[int], Completion]]:
    """Prompts' tokens and their greedy completions, of one call."""
    sampling = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True, logprobs=True)
    completions = await model.generate([Request(prompt=Prompt(text=text), sampling=sampling) for text in prompts])
    ids = [model._tokenizer.prompt_ids(Prompt(text=text)) for text in prompts]
    return [(before, completion) for before, (completion,) in zip(ids, completions, strict=True)]


@pytest.mark.parametrize("family", ["qwen25", "qwen3", "llama32", "gemma3"])
async def test_greedy_texts_are_those_of_transformers(tiny_files, family):
    files = tiny_files(family)
    model = load(files)
    results = await greedy(model, texts(3, 20), 40)  # shorter and longer than a window of 24, and across its edge
    await model.aclose()
    reference = Reference(files.directory)
    for before, completion in results:
        assert len(completion.token_ids) == 40
        reference.check_greedy(before, completion)


@pytest.mark.parametrize("family", ["llama32", "gemma3"])  # native, and of transformers' modules
async def test_samples_of_one_prompt_have_transformers_log_probabilities(tiny_files, family, monkeypatch):
    monkeypatch.setattr(attention, "CASCADE_COST", -(10**9))  # attention in two parts always
    files = tiny_files(family)
    model = load(files)
    prompts = [Prompt(text="a bad cafe"), Prompt(text="a head had a bead " * 4)]
    sampling = SamplingParams(n=6, temperature=3, max_tokens=50, seed=1, ignore_eos=True, logprobs=True)
    completions = await model.generate([Request(prompt=prompt, sampling=sampling) for prompt in prompts])
    ids = [model._tokenizer.prompt_ids(prompt) for prompt in prompts]
    await model.aclose()
    reference = Reference(files.directory)
    for before, samples in zip(ids, completions, strict=True):
        assert len({sample.token_ids for sample in samples}) == 6
        for sample in samples:
            reference.check_logprobs(before, sample)


async def test_a_prompt_is_continued_alike_after_any_prefill(tiny_files):
    """A cached prefix, chunks and a prompt computed at once give the same window."""
    files = tiny_files("gemma3")
    model = load(files)
    text = texts(2, 600)[1]
    reference = Reference(files.directory)
    for start in (0, 300, 0):
        ((before, completion),) = await greedy(model, [text[: 603 - start]], 10)
        reference.check_greedy(before, completion)
    await model.aclose()


@pytest.mark.parametrize("effort", [None, "none"])
def test_a_thinking_prompt_has_the_tokens_of_transformers(tiny_files, tmp_path, effort):
    from transformers import PreTrainedTokenizerFast

    files = with_template(tiny_files("qwen3"), tmp_path / "thinks", QWEN, tag_tokens=True)
    rendered = PreTrainedTokenizerFast.from_pretrained(files.directory).apply_chat_template(
        [{"role": "user", "content": "What is 2 + 2?"}],
        add_generation_prompt=True,
        enable_thinking=effort != "none",
        return_dict=False,
    )
    assert Tokenizer(files.directory, files.name).prompt_ids(Prompt.user("What is 2 + 2?"), effort) == rendered


QUESTIONS = [
    "The capital of France is",
    "Water boils at",
    "def fibonacci(n):\n",
    "Once upon a time, in a small village,",
    "The three primary colours are",
    "1, 1, 2, 3, 5, 8,",
    "In 1969, the first humans",
    "La tour Eiffel se trouve",
    "Ein Hund und eine Katze",
    "The opposite of hot is",
    "SELECT name FROM users WHERE",
    "# Shopping list\n\n- apples\n-",
    "Dear Sir or Madam,\n\n",
    "E = mc",
    "The quick brown fox",
    "日本の首都は",
    "To make bread you need flour,",
    "<html>\n<body>\n",
]
FACTS = [f"The number {n} is {'even' if n % 2 == 0 else 'odd'}, and {n} times {n} is {n * n}." for n in range(1, 40)]


@pytest.mark.nightly
@pytest.mark.real
@pytest.mark.parametrize("fixture", ["smollm2_files", "gemma3_files"])
async def test_twenty_real_texts_are_those_of_transformers(fixture, request):
    files = request.getfixturevalue(fixture)
    model = load(files)
    # the last two are nearly as long as Gemma's window of 512 tokens, and longer
    results = await greedy(model, [*QUESTIONS, " ".join(FACTS[:24]), " ".join(FACTS[:30])], 24)
    await model.aclose()
    if fixture == "gemma3_files":
        assert len(results[-2][0]) < 512 < len(results[-2][0]) + 24
        assert len(results[-1][0]) > 512
    reference = Reference(files.directory)
    for before, completion in results:
        reference.check_greedy(before, completion)
