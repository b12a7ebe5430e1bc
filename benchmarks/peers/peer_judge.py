"""The judge for all peers that take one: the model itself, asked whether the last step is right.

It makes the request of `reason`'s own judge (`JudgeReward`): problem, the steps as the model's turn, the question; one
token is generated, and the score is the probability of yes against no among the words that the server returns. A
missing word has the probability of the least likely returned one, an upper bound (`reason` scores the word instead).
Only the standard library: it runs where a peer does.
"""

from __future__ import annotations

import asyncio
import json
import math
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

QUESTION = "Is the last step right? Answer Yes or No."
TOP = 20


@dataclass(frozen=True)
class Judge:
    """The model as a judge.

    Attributes:
        base_url: Where it is served, ending in `/v1`.
        model: How it is called there.
    """

    base_url: str
    model: str

    async def score(self, problem: str, solution: str) -> float:
        """How likely the judge calls the last step of a solution right, in [0, 1]."""
        return await asyncio.to_thread(self.score_now, problem, solution)

    async def score_all(self, problem: str, solutions: Sequence[str]) -> list[float]:
        """The same of several at once."""
        return list(await asyncio.gather(*(self.score(problem, solution) for solution in solutions)))

    def score_now(self, problem: str, solution: str) -> float:
        """The same, blocking."""
        turns = [("user", problem), ("assistant", solution), ("user", QUESTION)]
        messages = [{"role": role, "content": content} for role, content in turns]
        body = {"model": self.model, "messages": messages, "max_tokens": 1, "temperature": 0.0}
        body |= {"logprobs": True, "top_logprobs": TOP}
        return probability(post(f"{self.base_url}/chat/completions", body))


def probability(reply: dict[str, Any]) -> float:
    """Probability of yes against no as a response's first word."""
    shown: dict[str, float] = {}
    for one in reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
        shown.setdefault(one["token"].strip(), one["logprob"])  # the most likely of its spellings
    least = min(shown.values())
    odds = shown.get("Yes", least) - shown.get("No", least)
    return 1.0 / (1.0 + math.exp(-odds)) if odds >= 0 else math.exp(odds) / (1.0 + math.exp(odds))


def post(url: str, body: dict[str, Any], seconds: float = 1800.0) -> dict[str, Any]:
    """The JSON that a page answers to JSON with."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=seconds) as reply:
        values: dict[str, Any] = json.load(reply)
    return values
