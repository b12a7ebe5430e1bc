"""The backend contract on a pool that records everything, and on one that records answers and tokens alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from reason.core.messages import Prompt
from reason.serving.recorded.model import RecordedModel
from reason.serving.recorded.pool import PoolSample
from support.backend_contract import *  # noqa: F403
from support.backend_contract import Probe
from support.recorded_pools import model_of, sample

COLOURS = ("red", "blue", "green", "black", "white", "brown", "pink", "grey", "gold", "teal", "plum", "lime")
QUESTIONS = {"q1": "Name a colour.", "q2": "What is the colour of the sky?", "q3": "Which colour has grass?"}


def complete(question_id: str, number: int) -> PoolSample:
    """A sample with all fields, from 8 to 19 tokens long."""
    tokens = 8 + number
    text = f"{question_id}, let me think {'well ' * number}so it is {COLOURS[number]}."
    logprobs = tuple(-(i + 1) / (tokens + number) for i in range(tokens))
    return sample(
        question_id,
        number,
        COLOURS[number],
        question=QUESTIONS[question_id],
        text=text,
        completion_tokens=tokens,
        prompt_tokens=7,
        token_logprobs=logprobs,
        finish_reason="stop",
        usd=tokens / 1000,
    )


def bare(question_id: str, number: int) -> PoolSample:
    """A sample of an API that shows neither text nor log-probabilities."""
    return sample(
        question_id,
        number,
        f"{question_id} {COLOURS[number]}",
        question=QUESTIONS[question_id],
        completion_tokens=3 + number % 9,
        prompt_tokens=7,
        finish_reason="stop",
    )


@pytest.fixture(params=[complete, bare], ids=["everything", "answers and tokens"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> RecordedModel:
    return model_of(tmp_path, (request.param(q, number) for q in QUESTIONS for number in range(len(COLOURS))))


@pytest.fixture
def probe(backend: RecordedModel) -> Probe:
    first, second, third = map(Prompt.user, QUESTIONS.values())
    return Probe(
        prompt=first,
        others=(second, third),
        too_long=None,
        under_way=lambda: backend.num_in_flight,
        tolerance=1e-9,
    )
