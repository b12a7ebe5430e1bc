"""The backend contract on a vLLM engine that drafts, and that drafts change no greedy text and no distribution."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from reason.core.errors import CapabilityMissing
from reason.core.messages import LogitsProcessorSpec, Prompt, Request, SamplingParams
from reason.core.settings import VllmSettings
from reason.serving.model_files.find import ModelFiles
from support.backend_contract import *  # noqa: F403
from support.backend_contract import Probe

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.real, pytest.mark.slow]
COPY = Prompt.user(
    "Copy these lines, word for word.\nThe fox went down to the river and drank.\n"
    "The owl sat up in the oak and slept.\nThe bee flew round the meadow and hummed."
)
TASKS = (
    COPY,
    Prompt.user("Count from one to thirty in words, one number a line."),
    Prompt.user("Tom has 3 apples, buys 2 bags of 4 apples and eats one. How many are left? Think step by step."),
    Prompt(text="red green blue red green blue red green blue red green"),
)
ROUND = Prompt(text=" a b c d e f a b c d e f a b c d e f a b c d e f a b c d")
"""Starts with tokens so common that what follows is drafted from the second token on."""
SAMPLES = 400
SETTINGS = VllmSettings(
    dtype="float32",
    max_model_len=1024,
    max_num_seqs=16,
    kv_cache_bytes=256 << 20,
    engine={
        "speculative_config": {
            "method": "ngram",
            "num_speculative_tokens": 5,
            "prompt_lookup_max": 2,
            "prompt_lookup_min": 2,
        }
    },
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def drafting(_vllm: None, smollm2_files: ModelFiles) -> AsyncIterator[Any]:
    """A model whose engine drafts by n-grams."""
    from reason.serving.vllm.model import VllmModel

    model = await asyncio.to_thread(VllmModel.load, "vllm/smollm2-135m", smollm2_files, SETTINGS)
    await model.check_engine()
    yield model
    await model.aclose()


@pytest.fixture
def backend(drafting: Any) -> Any:
    return drafting


@pytest.fixture
def probe(drafting: Any) -> Probe:
    return Probe(
        prompt=Prompt.user("What is the capital of France?"),
        others=(Prompt.user("Name a colour."), Prompt.user("Say hello."), Prompt.user("Count to five.")),
        too_long=Prompt.user("word " * 2000),
        under_way=lambda: int(drafting.num_running),
        tolerance=1e-3,
    )


async def counted(model: Any, before: Any, tokens: int) -> Any:
    """What was drafted since `before`; the counters lag a moment."""
    async with asyncio.timeout(120):
        while (since := model.spec_decode - before).tokens < tokens:
            await asyncio.sleep(0.02)
    return since


async def test_greedy_texts_are_those_without_drafts_in_fewer_passes(drafting: Any, vllm_model: Any) -> None:
    sampling = SamplingParams(temperature=0, max_tokens=120, ignore_eos=True, logprobs=True)
    requests = [Request(prompt=p, sampling=sampling) for p in TASKS]
    before, plain_before = drafting.spec_decode, vllm_model.spec_decode
    made, plain = await drafting.generate(requests), await vllm_model.generate(requests)
    for [ours], [theirs] in zip(made, plain, strict=True):
        assert ours.token_ids == theirs.token_ids
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-3)
    written = len(TASKS) * 119
    since = await counted(drafting, before, written)
    assert since.tokens == written  # the first of each comes with its prompt
    assert since.passes < written
    assert since.tokens_per_pass > 1.2
    assert 0 < since.accepted < since.drafted
    assert written <= since.passes + since.accepted  # some may be right after the end
    without = await counted(vllm_model, plain_before, written)
    assert (without.passes, without.tokens, without.drafted, without.accepted) == (written, written, 0, 0)


async def test_a_greedy_text_goes_up_to_the_end_of_the_context(drafting: Any, vllm_model: Any) -> None:
    context = drafting.capabilities.context_tokens
    assert context == vllm_model.capabilities.context_tokens
    words = "The fox went down to the river and drank. The owl sat up in the oak and slept. " * 100
    long = Prompt(text=words[: 4 * context])
    while (left := context - drafting.count_tokens(long)) < 40:
        long = Prompt(text=long.text[:-40])
    near = Request(prompt=long, sampling=SamplingParams(temperature=0, max_tokens=left, ignore_eos=True))
    neighbour = Request(prompt=TASKS[1], sampling=SamplingParams(temperature=0, max_tokens=left, ignore_eos=True))
    [[ours], [other]] = await drafting.generate([near, neighbour])
    [[theirs], [another]] = await vllm_model.generate([near, neighbour])
    assert len(ours.token_ids) == left
    assert (ours.token_ids, other.token_ids) == (theirs.token_ids, another.token_ids)


@pytest.mark.parametrize(
    "how", [{"temperature": 1.0}, {"temperature": 0.6, "top_k": 8}, {"temperature": 1.0, "top_p": 0.86}]
)
async def test_draft_tokens_are_sampled_from_the_models_distribution(drafting: Any, how: dict[str, Any]) -> None:
    first, _ = await begins(drafting)
    at = ROUND.with_prefix((first,))
    [exact] = await drafting.next_token([at], top=40)
    shown = dict(zip(exact.token_ids, exact.logprobs, strict=True))
    kept = list(shown)[: how.get("top_k", len(shown))]
    before_it = [math.fsum(math.exp(shown[t]) for t in kept[:at]) for at in range(len(kept))]
    kept = [t for t, mass in zip(kept, before_it, strict=True) if mass < how.get("top_p", 1.0)]
    weights = {t: math.exp(shown[t] / how["temperature"]) for t in kept}
    complete = math.fsum(weights.values())
    before = drafting.spec_decode
    sampling = SamplingParams(max_tokens=2, n=SAMPLES, seed=11, ignore_eos=True, **how)
    [made] = await drafting.generate([Request(prompt=ROUND, sampling=sampling)])
    seconds = Counter(c.token_ids[1] for c in made if c.token_ids[0] == first)
    sampled = sum(seconds.values())
    since = await counted(drafting, before, SAMPLES)
    assert since.drafted >= sampled > SAMPLES / 4
    if len(how) > 1:
        assert set(seconds) <= set(kept)
    listed = sum(n for t, n in seconds.items() if t in weights)
    expected = {t: listed * w / complete for t, w in weights.items()}
    often = [t for t in kept if expected[t] >= 5]
    assert len(often) > 1
    rare = listed - sum(seconds[t] for t in often), listed - sum(expected[t] for t in often)
    cells = [(seconds[t], expected[t]) for t in often] + ([rare] if rare[1] >= 5 else [])
    statistic = sum((n - e) ** 2 / e for n, e in cells)
    assert statistic < 2 * len(cells) + 20, cells  # far beyond what chance makes of a right distribution


async def test_greedy_texts_are_the_same_next_to_sampled_ones(drafting: Any) -> None:
    sampling = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
    greedy = [Request(prompt=p, sampling=sampling) for p in TASKS]
    sampled = [Request(prompt=p, sampling=SamplingParams(temperature=1.0, max_tokens=60, seed=4, n=2)) for p in TASKS]
    single = await drafting.generate(greedy)
    neighbour = await drafting.generate([*greedy, *sampled])
    assert [c.token_ids for [c] in single] == [c.token_ids for [c] in neighbour[: len(greedy)]]


async def test_what_cannot_be_had_is_not_declared_and_is_refused(drafting: Any, vllm_model: Any) -> None:
    can, plain = drafting.capabilities, vllm_model.capabilities
    assert (can.logits_processors, can.json_schema, can.seed, can.full_vocabulary, can.kv_sharing) == (
        frozenset(),
        *[False] * 4,
    )
    assert (can.logprobs, can.scoring, can.prefix, can.forks) == (True,) * 4
    assert (can.top_logprobs, can.tools) == (plain.top_logprobs, plain.tools)
    assert drafting.identity == f"{vllm_model.identity}+ngram-5-2-2"
    hooked = SamplingParams(logits_processors=(LogitsProcessorSpec(name="only_tokens", args={"ids": [1]}),))
    with pytest.raises(CapabilityMissing, match=r"logits processor only_tokens.*vllm\.speculative_method"):
        await drafting.generate([Request(prompt=COPY, sampling=hooked)])
    with pytest.raises(CapabilityMissing, match=r"json_schema.*vllm\.speculative_method"):
        await drafting.generate([Request(prompt=COPY, sampling=SamplingParams(json_schema={"type": "object"}))])
    assert drafting.num_running == 0


async def test_next_token_reports_top_k_support(drafting: Any, vllm_model: Any) -> None:
    [[ours], [theirs]] = await drafting.next_token([COPY]), await vllm_model.next_token([COPY])
    assert (ours.support, theirs.support) == ("top_k", "full")
    assert ours.token_ids == theirs.token_ids
    assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-3)
    assert ours.entropy <= theirs.entropy + 1e-3


async def begins(model: Any) -> tuple[int, float]:
    """The token that most samples of `ROUND` begin with, and its log-probability."""
    [token] = await model.next_token([ROUND], top=1)
    return token.token_ids[0], token.logprobs[0]
