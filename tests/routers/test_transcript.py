"""The steps of a chain: joining, splitting, and when thinking ends."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reason.core.types import Question
from reason.routers.transcript import (
    RoutedStep,
    Transcript,
    alternates,
    handovers,
    large_share,
    repeats,
)

NUMBER = Question(text="What is 2 + 2?", kind="number")
WORDS = st.text(alphabet="ab \n", min_size=1, max_size=6).map(lambda t: t.strip("\n")).filter(bool)


def transcript(*texts, ended="separator", tokens=1, in_thought=False):
    last = len(texts) - 1
    steps = [RoutedStep(text, "small", tokens, ended if i == last else "separator") for i, text in enumerate(texts)]
    return Transcript(steps, in_thought)


def ended(*texts, limit=100, **how):
    return transcript(*texts, **how).ended(NUMBER, limit)


@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=12))
def test_two_alternating_steps_end_thinking(steps):
    for n in range(1, len(steps) + 1):
        if ended(*steps[:n]) is not None:
            break
    else:
        n = len(steps) + 1
    assert n <= 5  # of two steps, no five go on
    for shorter in range(1, n):
        assert not repeats(steps[:shorter])
        assert not alternates(steps[:shorter])


@settings(max_examples=20)
@given(st.lists(st.tuples(WORDS, st.integers(0, 3)), min_size=10, max_size=10))
def test_tokens_add_up_without_reported_usage(steps):
    made = Transcript()
    for text, tokens in steps:
        made.steps.append(RoutedStep(text, "small", tokens))
        if made.ended(NUMBER, 10) is not None:
            return
    pytest.fail("ten steps did not use ten tokens up")


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (ended(), None),
        (ended("a"), None),
        (ended("a", "a"), None),
        (ended("a", "b", "b"), "repeated"),
        (ended("a", "b", "a", "b"), "alternating"),
        (ended("b", "a", "a", "b"), None),
        (ended("a", tokens=100), "tokens"),
        (ended("a", "b", "b", tokens=50), "repeated"),
        (ended("a", "The answer is 4."), "answer"),
        (ended("The answer is 4.", "a"), None),
        (ended("The answer is 4", ended="budget"), "budget"),
        (ended("The answer is 4. And now", ended="budget"), "answer"),
        (ended("a", ended="end"), "end"),
        (ended("a", in_thought=True, ended="closed"), "closed"),
        (ended("The answer is 4.", in_thought=True), None),
        (ended("a", ended="context"), "context"),
    ],
)
def test_why_thinking_ends(made, why):
    assert made == why


def test_shares_and_handovers():
    assert handovers([]) == 0
    assert handovers(["small", "small", "large", "small"]) == 2
    assert large_share([]) is None
    assert large_share([("small", 30), ("large", 10)]) == 0.25
