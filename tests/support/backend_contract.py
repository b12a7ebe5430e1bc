"""What every backend must keep, run unchanged against each of them.

A test module imports everything from here and gives two fixtures: `backend`, the model, and `probe`, a `Probe` that
says what to ask it. Where a model's capabilities do not cover a test, the test is skipped and says which is missing.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from reason.core.errors import CapabilityMissing, ContextTooLong
from reason.core.messages import Completion, Prompt, Request, SamplingParams
from reason.serving.model import Feature, LanguageModel
from reason.serving.structured_output import TRIAL_SCHEMA, TRIAL_TOKENS, is_trial
from reason.serving.tool_calls import TRIAL_TOOL

from support.waiting import wait_until

ENOUGH = 200
"""Tokens in which one of the probe's greedy replies comes to its end."""


@dataclass(frozen=True)
class Probe:
    """What to ask a model.

    Attributes:
        prompt: A prompt whose samples differ at temperature 1.
        others: Prompts with greedy replies of their own.
        too_long: A prompt that does not fit; None if the model's context is too large to try.
        under_way: Number of samples that the engine or server works on right now.
        tolerance: Nats that two computations of one log-probability may differ.
        max_tokens: Tokens in which a reply of the prompts may end or not.
        reports_stop: Whether the backend knows what ended a sample.
    """

    prompt: Prompt
    others: tuple[Prompt, ...]
    too_long: Prompt | None
    under_way: Callable[[], int]
    tolerance: float = 1e-3
    max_tokens: int = 12
    reports_stop: bool = True


def need(model: LanguageModel, *features: Feature) -> None:
    """Skip, saying why, where the model lacks a feature."""
    for feature in features:
        if not model.capabilities.has(feature):
            pytest.skip(f"{model.name} has no {feature}")


def greedy(prompt: Prompt, max_tokens: int, **more: Any) -> Request:
    return Request(prompt=prompt, sampling=SamplingParams(temperature=0.0, max_tokens=max_tokens, seed=0, **more))


async def one(model: LanguageModel, request: Request) -> Any:
    [[completion]] = await model.generate([request])
    assert completion.ok, completion.failure
    return completion


async def sampled(
    model: LanguageModel, probe: Probe, *, seed: int, n: int = 12, samples: tuple[int, ...] | None = None
) -> list[Completion]:
    """Samples of the probe's prompt."""
    sampling = SamplingParams(temperature=1.0, max_tokens=probe.max_tokens, n=n, seed=seed)
    [made] = await model.generate([Request(prompt=probe.prompt, sampling=sampling, sample_indices=samples)])
    return made


async def test_replies_come_in_the_order_of_the_requests(backend: LanguageModel, probe: Probe) -> None:
    requests = [greedy(p, probe.max_tokens) for p in probe.others]
    together = await backend.generate(requests)
    alone = [await one(backend, r) for r in requests]
    assert [r[0].text for r in together] == [c.text for c in alone]
    assert len({c.text for c in alone}) > 1, "the probe's prompts must have different replies"
    assert await backend.generate([]) == []


async def test_samples_of_one_request_are_numbered_and_differ(backend: LanguageModel, probe: Probe) -> None:
    samples = await sampled(backend, probe, seed=3)
    assert [(s.sample_index, s.ok) for s in samples] == [(i, True) for i in range(12)]
    assert len({s.text for s in samples}) > 1


async def test_a_seed_gives_the_same_samples_again_and_another_seed_others(
    backend: LanguageModel, probe: Probe
) -> None:
    need(backend, "seed")
    first, again, others, three = [
        [s.text for s in await sampled(backend, probe, seed=seed, samples=samples)]
        for seed, samples in ((7, None), (7, None), (8, None), (7, (9, 2, 3)))
    ]
    assert again == first
    assert others != first
    assert three == [first[9], first[2], first[3]]


async def test_a_stop_string_ends_the_text_before_itself_and_the_sample_says_so(
    backend: LanguageModel, probe: Probe
) -> None:
    if backend.capabilities.profile.refused("stop", thinking=False):
        pytest.skip(f"{backend.name} takes no stop strings")
    whole = await one(backend, greedy(probe.prompt, probe.max_tokens))
    for stop in (whole.text[2:3], whole.text[2:4]):
        request = greedy(probe.prompt, probe.max_tokens, stop=("never said", stop))
        cut = await one(backend, request)
        assert cut.text == whole.text[: whole.text.index(stop)]
        assert (cut.finish_reason, cut.stop_reason) == ("stop", stop if probe.reports_stop else None)
    short = await one(backend, greedy(probe.prompt, 1, stop=("never said",)))
    assert (short.finish_reason, short.stop_reason) == ("length", None)
    asked = [greedy(p, ENOUGH, stop=("never said",)) for p in (probe.prompt, *probe.others)]
    ended = [c for [c] in await backend.generate(asked) if c.finish_reason == "stop"]
    assert ended, "one of the probe's greedy replies must come to its end"
    assert {c.stop_reason for c in ended} == {"" if probe.reports_stop else None}


async def test_max_tokens_bounds_a_sample(backend: LanguageModel, probe: Probe) -> None:
    cut = await one(backend, greedy(probe.prompt, 2))
    assert cut.finish_reason == "length"
    assert cut.usage.completion_tokens == 2
    assert len(cut.token_ids) in (0, 2)


async def test_every_token_has_its_logprob(backend: LanguageModel, probe: Probe) -> None:
    need(backend, "logprobs")
    made = await one(backend, greedy(probe.prompt, probe.max_tokens, logprobs=True))
    assert made.logprobs is not None
    assert len(made.logprobs) == made.usage.completion_tokens
    assert len(made.token_ids) in (0, len(made.logprobs))
    assert all(v <= 1e-6 and math.isfinite(v) for v in made.logprobs)
    silent = await one(backend, greedy(probe.prompt, probe.max_tokens))
    assert silent.text == made.text


async def test_alternatives_are_sorted_and_hold_the_greedy_token(backend: LanguageModel, probe: Probe) -> None:
    need(backend, "top_logprobs")
    made = await one(backend, greedy(probe.prompt, probe.max_tokens, logprobs=True, top_logprobs=3))
    assert made.top_logprobs is not None
    assert made.logprobs is not None
    assert len(made.top_logprobs) == len(made.logprobs)
    for position, (row, value) in enumerate(zip(made.top_logprobs, made.logprobs, strict=True)):
        assert 1 <= len(row) <= 3
        assert [t.logprob for t in row] == sorted((t.logprob for t in row), reverse=True)
        assert row[0].logprob == pytest.approx(value, abs=probe.tolerance)
        if made.token_ids:
            assert row[0].token_id == made.token_ids[position]


async def test_usage_counts_prompt_and_completion(backend: LanguageModel, probe: Probe) -> None:
    samples = await sampled(backend, probe, seed=1, n=3)
    first = samples[0].usage
    assert first.prompt_tokens > 0
    assert backend.count_tokens(probe.prompt) in (None, first.prompt_tokens)
    for sample in samples:
        assert 0 <= sample.usage.cached_tokens <= sample.usage.prompt_tokens
        assert 1 <= sample.usage.completion_tokens <= probe.max_tokens
        if sample.token_ids:
            assert sample.usage.completion_tokens == len(sample.token_ids)
    assert (first.cost_usd is None) == (backend.capabilities.usd_per_completion_token is None)


async def test_the_listener_hears_everything_once(backend: LanguageModel, probe: Probe) -> None:
    heard = []
    shown = backend.capabilities.logprobs
    sampling = SamplingParams(temperature=1.0, max_tokens=probe.max_tokens, n=2, seed=5, logprobs=shown)
    requests = [Request(prompt=p, sampling=sampling) for p in probe.others]
    replies = await backend.generate(requests, heard.append)
    for i, reply in enumerate(replies):
        for completion in reply:
            own = [c for c in heard if (c.request, c.sample_index) == (i, completion.sample_index)]
            assert [c.completion for c in own if c.completion is not None] == [completion]
            assert own[-1].completion is not None
            assert "".join(c.text for c in own) == completion.text
            assert sum((c.token_ids for c in own), ()) == completion.token_ids
            if completion.logprobs is not None:
                assert sum((c.logprobs for c in own), ()) == pytest.approx(completion.logprobs)


async def test_cancelling_leaves_nothing_running(backend: LanguageModel, probe: Probe) -> None:
    begun = asyncio.Event()
    sampling = SamplingParams(temperature=1.0, max_tokens=200, n=4, seed=1)
    requests = [Request(prompt=p, sampling=sampling) for p in probe.others]
    task = asyncio.create_task(backend.generate(requests, lambda chunk: begun.set()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_until(lambda: not probe.under_way())
    assert (await one(backend, greedy(probe.prompt, 2))).usage.completion_tokens == 2


async def test_a_request_that_does_not_fit_is_refused_with_its_numbers(backend: LanguageModel, probe: Probe) -> None:
    if probe.too_long is None:
        pytest.skip(f"{backend.name}: no prompt is too long to try")
    with pytest.raises(ContextTooLong) as caught:
        await backend.generate([greedy(probe.too_long, probe.max_tokens)])
    # a provider that does not tell its limit has 0 there
    assert caught.value.limit == (backend.capabilities.context_tokens or 0)
    assert caught.value.tokens > caught.value.limit


async def test_a_prefix_is_continued_as_if_the_model_had_written_it(backend: LanguageModel, probe: Probe) -> None:
    need(backend, "prefix")
    whole = await one(backend, greedy(probe.prompt, probe.max_tokens))
    assert len(whole.token_ids) >= 4, "the probe's reply must have four tokens"
    by_ids = probe.prompt.with_prefix(whole.token_ids[:3])
    rest = await one(backend, greedy(by_ids, probe.max_tokens - 3))
    assert rest.token_ids == whole.token_ids[3:]
    assert whole.text.endswith(rest.text)
    by_text = probe.prompt.with_prefix(whole.text[: len(whole.text) - len(rest.text)])
    assert (await one(backend, greedy(by_text, probe.max_tokens - 3))).text == rest.text


async def test_a_text_is_held_to_a_json_schema_or_the_request_is_refused(backend: LanguageModel, probe: Probe) -> None:
    sampling = SamplingParams(temperature=0, max_tokens=TRIAL_TOKENS, seed=1, json_schema=TRIAL_SCHEMA)
    request = Request(prompt=probe.prompt, sampling=sampling)
    if not backend.capabilities.json_schema:
        with pytest.raises(CapabilityMissing, match="json_schema"):
            await backend.generate([request])
        return
    for [completion] in await backend.generate([request, request]):
        assert is_trial(completion.text), completion.text
        if completion.finish_reason == "stop":
            assert json.loads(completion.text) == {"zq": "q7"}
        else:  # a server may leave blanks free, and this model fill its reply with them
            assert completion.finish_reason == "length"
            assert completion.text[-1].isspace()


async def test_tools_are_shown_or_the_request_is_refused(backend: LanguageModel, probe: Probe) -> None:
    plain = greedy(Prompt.user("Look up what a quay is."), 1)
    beside = plain.model_copy(update={"prompt": plain.prompt.model_copy(update={"tools": (TRIAL_TOOL,)})})
    if not backend.capabilities.tools:
        with pytest.raises(CapabilityMissing, match="tools"):
            await backend.generate([beside])
        return
    longer, shorter = await one(backend, beside), await one(backend, plain)
    assert longer.usage.prompt_tokens > shorter.usage.prompt_tokens > 0


async def test_scores_agree_with_the_logprobs_of_generation(backend: LanguageModel, probe: Probe) -> None:
    need(backend, "scoring", "logprobs")
    made = await one(backend, greedy(probe.prompt, probe.max_tokens, logprobs=True))
    scored, short, by_text = await backend.score(probe.prompt, [made.token_ids, made.token_ids[:2], made.text])
    assert scored.token_ids == made.token_ids
    assert scored.logprobs == pytest.approx(made.logprobs, abs=probe.tolerance)
    assert scored.is_greedy
    assert short.logprobs == pytest.approx(made.logprobs[:2], abs=probe.tolerance)
    assert scored.usage.prompt_tokens > short.usage.prompt_tokens
    # a text has the tokens of the whole
    assert len(by_text.logprobs) == len(by_text.token_ids) > 0
    assert all(v <= 1e-6 for v in by_text.logprobs)
    assert await backend.score(probe.prompt, []) == []


async def test_the_next_token_is_the_first_of_a_greedy_sample(backend: LanguageModel, probe: Probe) -> None:
    need(backend, "top_logprobs", "logprobs")
    made = await one(backend, greedy(probe.prompt, 1, logprobs=True, top_logprobs=1))
    tokens = await backend.next_token([probe.prompt, *probe.others], top=5)
    assert len(tokens) == 1 + len(probe.others)
    first = tokens[0]
    assert made.top_logprobs is not None
    assert first.tokens[0] == made.top_logprobs[0][0].token
    assert first.logprobs[0] == pytest.approx(made.logprobs[0], abs=probe.tolerance)
    for token in tokens:
        mass = math.fsum(map(math.exp, token.logprobs))
        assert 0 < mass <= 1 + 1e-6
        assert len(token.tokens) == len(token.token_ids) == len(token.logprobs) <= 5
        assert list(token.logprobs) == sorted(token.logprobs, reverse=True)
        known = -math.fsum(math.exp(v) * v for v in token.logprobs)
        assert token.entropy >= known - 1e-6, "the entropy holds at least what is listed"
        assert token.support == ("full" if backend.capabilities.full_vocabulary else "top_k")
