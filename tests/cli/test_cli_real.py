"""The command on the default model: the examples of the README."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cli_json import printed_answer

Process = Callable[..., subprocess.Popen[str]]
pytestmark = [pytest.mark.real, pytest.mark.nightly]  # `.ci/run` asks the first question itself, by the README


@pytest.fixture
def real(process: Process, smollm2_files: Any) -> Process:
    """Starts the command with the user's own cache of models."""
    cache: Path = smollm2_files.directory.parents[1]

    def start(*arguments: str) -> subprocess.Popen[str]:
        return process(*arguments, REASON_CACHE_DIR=str(cache))

    return start


def test_the_capital_of_france(real):
    child = real("ask", "What is the capital of France?", "--json")
    out, err = child.communicate(timeout=300)
    payload = [line for line in err.splitlines() if not re.match(r"\d+ s: ", line)]  # a slow machine tells its progress
    assert (child.returncode, payload) == (0, [])
    answer = printed_answer(out)
    assert answer.answer == "Paris"
    assert answer.model == "local/smollm2-135m"


def test_votes_in_one_batch_and_the_same_seed_the_same_text(real):
    flags = ["--strategy", "self-consistency", "--set", "n=8", "--set", "max_tokens=60", "--seed", "11", "--json"]
    answers = []
    for _ in range(2):
        out, _ = real("ask", "What is the capital of France?", *flags).communicate(timeout=300)
        answers.append(printed_answer(out))
    first, second = answers
    assert first.usage.model_calls == 1
    assert len(first.candidates) == 8
    assert first.confidence is not None
    votes = first.confidence * 8
    assert votes == int(votes) >= sum(c.answer == first.answer for c in first.candidates) >= 1
    assert first.confidence == max(c.score for c in first.candidates if c.score is not None)
    assert first.candidates == second.candidates
