"""The processors' arithmetic, exactly, without an engine."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import UserError
from reason.serving.logits_processors import ProcessorState
from reason.serving.logits_processors.builtin import entropy_probe, measure, steer, step_control

EOS = 0
END = [7, 8]
VOCABULARY = 12


def row(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=VOCABULARY).astype(np.float32)


def state(generated: list[int] | None = None) -> ProcessorState:
    return ProcessorState([1], generated or [], 0, eos_ids=frozenset({EOS}))


def write(processor: Any, want: list[int]) -> tuple[list[int], ProcessorState]:
    """A sample that says `want`, except where the processor leaves a single token or forbids what is wanted."""
    here = state()
    for token in want:
        (left,) = np.nonzero(np.isfinite(processor(row(), here)))
        chosen = int(left[0]) if len(left) == 1 else token if token in left else 11
        here.generated_ids.append(chosen)
    return list(here.generated_ids), here


# --- entropy_probe


@given(st.lists(st.floats(-40, 40, width=32), min_size=2, max_size=300))
def test_entropy_is_the_entropy(values):
    logits = np.array(values, dtype=np.float32)
    exact = logits.astype(np.float64)
    logprobs = exact - exact.max() - math.log(np.exp(exact - exact.max()).sum())
    entropy, first = measure(logits, [0, 1])
    assert entropy == pytest.approx(-(np.exp(logprobs) * logprobs).sum(), abs=1e-5)
    assert first == pytest.approx(logprobs[:2].tolist(), abs=1e-5)


def test_entropy_of_forbidden_tokens_and_of_certainty():
    for left, entropy in ((4, math.log(4)), (1, 0.0)):
        logits = np.full(VOCABULARY, float("-inf"), dtype=np.float32)
        logits[:left] = 3.0
        assert measure(logits)[0] == pytest.approx(entropy, abs=1e-6 * (left > 1))


@pytest.mark.parametrize(
    ("args", "expected"),
    [({}, [0, 1, 2, 3]), ({"first": 2}, [0, 1]), ({"positions": [3, 1]}, [1, 3])],
)
def test_probe_reports_the_requested_positions(args, expected):
    processor = entropy_probe(token_logprobs=[4, 2], **args)
    here = state()
    for position in range(4):
        logits = row(position)
        assert processor(logits, here) is logits
        here.generated_ids.append(5)
    measured = [measure(row(p), [4, 2]) for p in expected]
    assert here.extras == {
        "positions": expected,
        "entropy": [entropy for entropy, _ in measured],
        "logprobs": [logprobs for _, logprobs in measured],
    }


def test_repeated_position_counts_once():
    processor, here = entropy_probe(), state()
    processor(row(1), here)
    processor(row(2), here)
    assert here.extras == {"positions": [0], "entropy": [measure(row(2))[0]]}


# --- steer


def test_steering_adds_subtracts_and_decays():
    processor = steer([3], weight=4.0, away_ids=[5], half_life_tokens=2)
    for length, change in ((0, 4.0), (2, 2.0), (4, 1.0)):
        moved = processor(row(), state([1] * length)) - row()
        expected = np.zeros(VOCABULARY)
        expected[3], expected[5] = change, -change
        assert moved == pytest.approx(expected, abs=1e-6)
    assert np.array_equal(steer([3], first=2)(row(), state([1, 1])), row())


# --- step_control


def test_no_step_is_longer_than_allowed_and_a_started_end_is_completed():
    said, here = write(step_control(max_tokens=3, end_ids=END), [1, 2, 3, 4, 5, 6, 1, 2, 7, 8, 1, 1])
    assert said == [1, 2, 3, 7, 8, 6, 1, 2, 7, 8, 1, 1]
    assert here.extras == {"forced": [3, 4, 8, 9], "steps": 2}
    assert write(step_control(max_tokens=3, end_ids=[5, 5]), [1, 2, 5, 1, 1, 1, 1])[0] == [1, 2, 5, 5, 1, 1, 1]


@given(st.lists(st.integers(1, 11), min_size=1, max_size=60), st.integers(1, 6))
def test_a_step_never_outgrows_its_limit(want, limit):
    said, _ = write(step_control(max_tokens=limit, end_ids=END, delimiter_ids=[9]), want)
    length = 0
    for i, token in enumerate(said):
        length += 1
        assert length <= limit + len(END)
        if token == 9 or (length >= 2 and said[i - 1 : i + 1] == END):
            length = 0


def test_end_of_text_is_delayed_until_min_steps():
    processor = step_control(min_steps=2, delimiter_ids=[9], end_ids=END)
    assert write(processor, [EOS, 9, EOS, 7, 8, EOS])[0] == [11, 9, 11, 7, 8, EOS]


# --- arguments


@pytest.mark.parametrize(
    ("factory", "args"),
    [
        (entropy_probe, {"first": 0}),
        (entropy_probe, {"first": 1, "positions": [0]}),
        (entropy_probe, {"positions": "01"}),
        (entropy_probe, {"token_logprobs": [-1]}),
        (steer, {}),
        (steer, {"ids": [1], "away_ids": [1]}),
        (steer, {"ids": [1], "weight": float("nan")}),
        (step_control, {}),
        (step_control, {"max_tokens": 3}),
        (step_control, {"min_steps": 3}),
    ],
)
def test_bad_arguments_name_the_processor(factory, args):
    with pytest.raises(UserError, match=factory.__name__):
        factory(**args)


def test_a_token_outside_the_vocabulary_is_named():
    with pytest.raises(UserError, match="token 99"):
        steer([99])(row(), state())
