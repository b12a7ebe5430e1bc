"""The parts of the LiteLLM backend that need no server: waiting, seeds, shares, prices, entropy, limits."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import BackendError, BackendTimeout, InvalidResponse, RateLimited, UserError
from reason.core.messages import SamplingParams, Usage
from reason.core.settings import ProviderSettings
from reason.serving.litellm.errors import FailedAttempt, RetryPolicy, retry_after_s
from reason.serving.litellm.limiter import LimiterRegistry
from reason.serving.litellm.providers import Prices, Target
from reason.serving.litellm.requests import consecutive, sample_seed
from reason.serving.litellm.responses import (
    HIDDEN,
    MAX_COUNTED_TOKENS,
    SampleCollector,
    _split,
    split_usage,
    to_completion,
    token_id,
)

FAULT = FailedAttempt(BackendTimeout("silent"), retryable=True)


def test_wait_doubles_up_to_its_maximum_with_jitter():
    retrying = RetryPolicy(max_retries=20, max_seconds=1e9, initial_wait_s=1.0, max_wait_s=8.0)
    assert [retrying.wait(FAULT, n, 0, lambda: 0.999999) for n in range(5)] == pytest.approx([1, 2, 4, 8, 8], rel=1e-4)
    assert [retrying.wait(FAULT, n, 0, lambda: 0.0) for n in range(5)] == [0.5, 1, 2, 4, 4]


def test_retry_after_is_a_lower_bound():
    retrying = RetryPolicy(max_seconds=60)
    for seconds, passed, wait in ((7, 0, 7), (7, 54, None), (0, 0, 0)):
        limited = FailedAttempt(RateLimited("slow down", retry_after_s=seconds), retryable=True)
        assert retrying.wait(limited, 0, passed, lambda: 0.0) == wait


def test_retries_end_by_count_by_time_and_by_kind():
    retrying = RetryPolicy(max_retries=2, max_seconds=10)
    refused, fatal = FailedAttempt(BackendError("400")), FailedAttempt(UserError("key"), fatal=True)
    attempts = [(FAULT, 1, 0), (FAULT, 2, 0), (FAULT, 0, 10), (refused, 0, 0), (fatal, 0, 0)]
    ended = [retrying.wait(*attempt, lambda: 0.5) is None for attempt in attempts]
    assert ended == [False, True, True, True, True]


def test_retry_after_in_both_forms():
    date = {"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}
    assert [retry_after_s(date, now=784111777 + seconds) for seconds in (-4, 4)] == [4, 0]
    assert [retry_after_s(h) for h in ({"Retry-After": "3.5"}, {"retry-after": "soon"}, {})] == [3.5, None, None]


@given(st.integers(0, 2**63 - 1), st.sets(st.integers(0, 4095), min_size=2, max_size=20))
def test_samples_never_share_a_seed(seed, indices):
    seeds = [sample_seed(seed, i) for i in sorted(indices)]
    assert len(set(seeds)) == len(indices)
    assert all(0 <= s < 2**31 for s in seeds)
    assert seeds == [sample_seed(seed, i) for i in sorted(indices)]
    assert sample_seed(seed, 8) == sample_seed(seed, 5) + 3


@given(st.lists(st.integers(0, 30), unique=True, max_size=12))
def test_runs_partition_the_indices_in_order(indices):
    runs = consecutive(indices)
    assert [i for run in runs for i in run] == indices
    assert all(run == tuple(range(run[0], run[0] + len(run))) for run in runs)
    assert all(a[-1] + 1 != b[0] for a, b in pairwise(runs))


@given(st.integers(0, 10_000), st.lists(st.integers(0, 50), min_size=1, max_size=9))
def test_split_adds_up_to_the_total(total, weights):
    parts = _split(total, weights)
    assert sum(parts) == total
    assert len(parts) == len(weights)
    assert all(p >= 0 for p in parts)


def test_costs():
    prices = Prices(prompt=2.0, completion=3.0, cached=0.5)
    assert prices.cost(10, 4, 2) == 6 * 2.0 + 4 * 0.5 + 2 * 3.0
    assert Prices(prompt=2.0, completion=3.0).cost(10, 4, 2) == 26.0
    assert Prices(prompt=2.0).cost(0, 0, 0) is None
    assert Prices(prompt=0.0, completion=0.0).cost(5, 0, 5) == 0.0


def target(provider):
    return Target(f"{provider}/m", provider, "m", None, None, "KEY", ProviderSettings(), frozenset(), Path())


def collected(*choices, indices=(0,), usage=None):
    """The reading of chunks with one choice each, of which the last has the usage."""
    reading = SampleCollector(indices, lambda *_: None, "here")
    for choice in choices:
        reading.take([{"choices": [{"index": 0, **choice}], "usage": usage if choice is choices[-1] else None}])
    return reading


def usages_of(usage):
    """(prompt, cached, generated, thoughts) of two samples of two tokens and one."""
    pieces = [{"index": i, "text": "x", "token_ids": [7] * (2 - i)} for i in (0, 1)]
    reading = collected(*pieces, indices=(0, 1), usage=usage)
    made = split_usage(reading.usage, reading.samples, Prices(), target("openai"), 0.0)
    return [(u.prompt_tokens, u.cached_tokens, u.completion_tokens, u.thinking_tokens) for u in made]


def test_usage_is_split_by_streamed_tokens():
    details = {"prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 1}}
    assert usages_of({"prompt_tokens": 9, "completion_tokens": 3, **details}) == [(9, 4, 2, 0), (0, 0, 1, 1)]
    assert usages_of({"prompt_tokens": 9, "completion_tokens": 6, "prompt_tokens_details": None}) == [
        (9, 0, 4, 0),
        (0, 0, 2, 0),
    ]


@pytest.mark.parametrize(
    "usage",
    [
        5,
        "many",
        [1],
        {"prompt_tokens": "9", "completion_tokens": 3},
        {"prompt_tokens": 9, "completion_tokens": 3.5},
        {"prompt_tokens": -1, "completion_tokens": 3},
        {"prompt_tokens": 9, "completion_tokens": MAX_COUNTED_TOKENS + 1},
        {"completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": "all"}},
    ],
)
def test_invalid_usage_is_ignored(usage):
    assert usages_of(usage) == usages_of(None) == [(0, 0, 2, 0), (0, 0, 1, 0)]


def test_token_id_parsing():
    assert token_id("token_id:17") == 17
    assert token_id("token_id:") == token_id("17") == token_id("token_id:x") == token_id("token_id:²") == HIDDEN


NO_CALL = "here sent a tool call that is not in OpenAI's form"


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"index": 1, "text": "x", "finish_reason": None}, "sample 1 of 1"),
        *(
            ({"delta": {"tool_calls": [piece]}}, NO_CALL)
            for piece in (
                {"index": 0, "function": {"name": "f", "arguments": {"a": 1}}},
                {"index": 0, "function": {"name": ["f"]}},
                {"index": "0", "function": {"name": "f"}},
                {"index": 0, "id": 7, "function": {"name": "f"}},
            )
        ),
    ],
)
def test_a_response_of_an_unknown_sample_or_with_a_malformed_call_is_invalid(choice, says):
    with pytest.raises(InvalidResponse, match=says):
        collected(choice)


def test_call_deltas_without_an_index_start_with_a_name():
    pieces = ({"name": "f", "arguments": '{"a"'}, {"arguments": ": 1}"}, {"name": "g"})
    deltas = [{"delta": {"tool_calls": [{"function": piece}]}} for piece in pieces]
    [sample] = collected(*deltas, {"delta": {}, "finish_reason": "tool_calls"}).samples
    made = to_completion(sample, Usage(), SamplingParams(), {}, target("openai"))
    assert [(c.name, c.arguments) for c in made.tool_calls] == [("f", '{"a": 1}'), ("g", "{}")]


@pytest.mark.parametrize(
    ("told", "stopped_by"),
    [
        ({"finish_reason": "stop", "stop_reason": "\n\n"}, "\n\n"),
        ({"finish_reason": "stop", "stop_reason": None}, ""),
        ({"finish_reason": "stop", "stop_reason": 128009}, ""),  # one of several tokens that end texts
        ({"finish_reason": "stop"}, None),
        ({"finish_reason": "length", "stop_reason": None}, None),
        ({"finish_reason": "repetition", "stop_reason": "repetition_detected"}, None),
    ],
)
def test_stop_reason_of_vllm(told, stopped_by):
    [sample] = collected({"text": "x", "finish_reason": None, "stop_reason": None}, {"text": "x", **told}).samples
    for provider in ("hosted_vllm", "openai"):  # other providers' field of this name means something else
        made = to_completion(sample, Usage(), SamplingParams(), {}, target(provider))
        assert made.stop_reason == (stopped_by if provider == "hosted_vllm" else None)


async def test_models_of_one_endpoint_share_a_limit():
    limiters = LimiterRegistry()
    one = limiters.of("http://here/v1", "small", 2)
    assert limiters.of("http://here/v1", "small", 9) is one
    assert limiters.of("http://there/v1", "small", 9) is not one
    inside, counts = set(), []

    async def work(number: int) -> None:
        async with one.slot():
            inside.add(number)
            counts.append(len(inside))
            await asyncio.sleep(0)
            inside.remove(number)

    await asyncio.gather(*map(work, range(10)))
    assert max(counts) == 2
