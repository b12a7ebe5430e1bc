"""What runs in a peer's environment: jobs, the judge, OptiLLM's requests and our own parameters."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from peer_job import Job, MarkedQuestion, work
from peers_compare import ALL, CHAIN, STEPS, SYSTEM
from peers_proxy import MARK
from reason.reasoning.strategy import STRATEGIES
from run_optillm import body_of
from run_reason import parameters_of

QUESTIONS = tuple(
    MarkedQuestion(f"q{i}", f"{i}?", f"{MARK.format(name=f'q{i}')}{i}?", MARK.format(name=f"q{i}")) for i in range(4)
)
JOB = Job("http://127.0.0.1:1/v1", "model", "mcts", 4, QUESTIONS, SYSTEM, CHAIN, STEPS, warm=1, concurrency=2)


async def test_failing_question_stops_nothing_and_warm_up_is_not_reported() -> None:
    reported: list[dict[str, Any]] = []
    most = under_way = 0

    async def solve(asked: MarkedQuestion) -> str:
        nonlocal most, under_way
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        if asked.id == "q2":
            raise ValueError("no answer")
        return asked.text

    await work(JOB, solve, reported.append)
    *answers, whole = reported
    assert {a["id"]: (a["text"], a["error"]) for a in answers} == {
        "q1": ("1?", ""),
        "q2": ("", "ValueError: no answer"),
        "q3": ("3?", ""),
    }
    assert whole["questions"] == 3
    assert most == JOB.concurrency


def test_optillm_gets_the_mark_in_the_system_message() -> None:
    body = body_of(JOB, QUESTIONS[0])
    assert body["messages"] == [
        {"role": "system", "content": "[[item:q0]] " + SYSTEM},
        {"role": "user", "content": f"0?\n\n{CHAIN}"},
    ]
    assert (body["optillm_approach"], body["mcts_simulations"], body["max_tokens"]) == ("mcts", 1, 400)
    assert body_of(replace(JOB, size=24), QUESTIONS[0])["mcts_simulations"] == 3
    voted = body_of(replace(JOB, method="self-consistency", temperature=0.5), QUESTIONS[0])
    assert (voted["optillm_approach"], voted["k"], voted["temperature"]) == ("majority_voting", 4, 0.5)


@pytest.mark.parametrize("method", ALL[0].offers)
@pytest.mark.parametrize("size", [1, 4])
def test_our_parameters_are_those_of_registered_strategies(method: str, size: int) -> None:
    given = parameters_of(replace(JOB, method=method, size=size))
    config = STRATEGIES.load("coat" if method == "mcts" else method).Config(**given).model_dump()
    assert {name: config[name] for name in given} == given
