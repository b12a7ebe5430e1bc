from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from reason.core.messages import LogitsProcessorSpec, SamplingParams
from reason.serving.local.sampler import (
    Sampler,
    Scratch,
    _candidates,
    entropy,
    sample_tokens,
    token_logprobs,
    top_logprobs,
)
from reason.serving.logits_processors import make_logits_processors

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0])


def draws(sampling: SamplingParams, count: int, logits: torch.Tensor = LOGITS, index: int = 0) -> list[int]:
    sampler = Sampler(sampling, index, [], [1])
    scratch = Scratch(len(logits))
    return [sampler.sample(logits.numpy(), scratch) for _ in range(count)]


def test_samples_follow_the_distribution_at_temperature():
    count = 5_000
    actual = Counter(draws(SamplingParams(temperature=2.0, seed=3), count))
    expected = torch.softmax(LOGITS / 2, -1).tolist()
    for token, p in enumerate(expected):
        assert actual[token] / count == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / count))


@pytest.mark.parametrize(
    ("top_k", "top_p", "allowed"),
    [(2, 1.0, {0, 1}), (0, 0.6, {0}), (0, 0.7, {0, 1}), (3, 0.95, {0, 1, 2}), (0, 1.0, {0, 1, 2, 3})],
)
def test_truncation_keeps_the_smallest_set(top_k, top_p, allowed):
    assert set(draws(SamplingParams(top_k=top_k, top_p=top_p, seed=1), 4000)) == allowed


def test_seed_and_index_determine_the_samples():
    one = draws(SamplingParams(seed=5), 50, index=0)
    assert draws(SamplingParams(seed=5), 50, index=0) == one
    assert draws(SamplingParams(seed=5), 50, index=1) != one
    assert draws(SamplingParams(seed=-5), 50, index=0) != one
    assert draws(SamplingParams(), 50) != draws(SamplingParams(), 50)


def test_tiny_changes_of_the_logits_do_not_change_the_samples():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50_000, generator=generator)
    noisy = logits + 1e-6 * torch.randn(50_000, generator=generator)
    assert draws(SamplingParams(seed=2), 100, logits) == draws(SamplingParams(seed=2), 100, noisy)


def test_pick_reports_raw_logprobs_whatever_was_done_to_sample():
    hooks = make_logits_processors([LogitsProcessorSpec(name="forbid_tokens", args={"ids": [0]})], "m")
    samplers = [
        Sampler(SamplingParams(temperature=0), 0, hooks, [1]),
        Sampler(SamplingParams(temperature=0), 0, [], [1]),
    ]
    first, second = sample_tokens(torch.stack([LOGITS, LOGITS]), samplers, [2, 0])
    raw = torch.log_softmax(LOGITS, -1).tolist()
    assert not isinstance(first, Exception)
    assert not isinstance(second, Exception)
    assert (first.token, second.token) == (1, 0)
    assert first.logprob == pytest.approx(raw[1])
    assert second.logprob == pytest.approx(raw[0])
    assert [t for t, _ in first.top] == [0, 1]
    assert second.top == ()


def test_a_failing_logits_processor_affects_no_other_row():
    def broken(row: np.ndarray, state: object) -> np.ndarray:
        raise RuntimeError("no")

    samplers = [
        Sampler(SamplingParams(), 0, [("broken", broken)], [1]),
        Sampler(SamplingParams(temperature=0), 0, [], [1]),
    ]
    first, second = sample_tokens(torch.stack([LOGITS, LOGITS]), samplers, [0, 0])
    assert isinstance(first, RuntimeError)
    assert not isinstance(second, Exception)
    assert second.token == 0


def test_entropy_and_top_logprobs():
    uniform = torch.full((8,), -math.log(8))
    assert entropy(uniform) == pytest.approx(math.log(8))
    certain = torch.tensor([0.0, float("-inf")])
    assert entropy(certain) == 0
    assert top_logprobs(torch.log_softmax(LOGITS, -1), 99)[0] == (0, pytest.approx(-0.4401897))
    assert top_logprobs(uniform, 0) == ()


def test_pruning_changes_no_sample():
    generator = torch.Generator().manual_seed(4)
    scratch = Scratch(3000)
    for scale in (0.0, 0.5, 3.0, 30.0):
        scores = (torch.randn(3000, generator=generator) * scale).numpy()
        for seed in range(30):
            uniform = np.random.default_rng(seed).random(3000)
            complete = scores.astype(np.float64) - np.log(-np.log1p(-uniform))
            kept = _candidates(scores, uniform, int(scores.argmax()), scratch)
            assert int(complete.argmax()) in kept


def test_samples_are_those_of_the_race_over_all_tokens():
    logits = torch.randn(6, 5000, generator=torch.Generator().manual_seed(6)) * 3
    samplers = [Sampler(SamplingParams(seed=11, temperature=0.8), i, [], [1]) for i in range(6)]
    noise = [np.random.Generator(np.random.SFC64(np.random.SeedSequence([22, i]))) for i in range(6)]
    for _ in range(20):
        sampled = [s.token for s in sample_tokens(logits, samplers, [0] * 6) if not isinstance(s, Exception)]
        times = [-np.log1p(-generator.random(5000)) for generator in noise]
        scores = [(row.numpy() / np.float32(0.8)).astype(np.float64) for row in logits]
        assert sampled == [int((s - np.log(t)).argmax()) for s, t in zip(scores, times, strict=True)]


@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
def test_log_probabilities_have_the_bits_of_a_log_softmax_of_all_rows(scale):
    logits = torch.randn(5, 50_000, generator=torch.Generator().manual_seed(2)) * scale
    tokens = [0, 7, 49_999, 300, 5]
    expected = logits.log_softmax(-1)
    for i, (logprob, top) in enumerate(token_logprobs(logits, tokens, [3, 0, 2, 5, 1])):
        assert logprob == float(expected[i, tokens[i]])
        assert top == top_logprobs(expected[i], [3, 0, 2, 5, 1][i])


def test_greedy_rows_take_the_first_of_equal_tokens_among_sampled_rows():
    logits = torch.zeros(3, 1000)
    logits[:, [40, 900]] = 60.0
    samplers = [Sampler(SamplingParams(temperature=t, seed=1), i, [], [1]) for i, t in enumerate((0, 1, 0))]
    first, second, third = (s.token for s in sample_tokens(logits, samplers, [0] * 3) if not isinstance(s, Exception))
    assert (first, third) == (40, 40)
    assert second in (40, 900)


def test_rare_tokens_are_as_rare_as_they_should_be():
    logits = torch.full((60_000,), -25.0)
    logits[5] = 0.0
    assert set(draws(SamplingParams(seed=8), 1500, logits)) == {5}
