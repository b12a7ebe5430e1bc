"""A runner's input (`Job`) and output. Only the standard library: it runs where a peer does.

A runner reads one `Job` from its input, has its peer answer every question, and writes a line of JSON for each answer
and one at the end. CPU time is that of the runner's own process from the first counted question to the last, without
start and import.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

THREADS = 128
"""Blocking calls at once; by default there would be four more than processors, and peers would wait for one another."""


@dataclass(frozen=True)
class MarkedQuestion:
    """One question: its name, its text, and the text with the proxy's mark before it (see `peers_proxy`)."""

    id: str
    text: str
    marked: str
    mark: str


@dataclass(frozen=True)
class Job:
    """What to run.

    Attributes:
        base_url: Where the peer sends its calls of the model, ending in `/v1`; where the runner is a client of the
            peer's own server, that server's.
        model: How the model is called there.
        method: One of the names of `peers_methods.METHODS`.
        size: Approximate number of solutions of text for a question.
        questions: The questions.
        system: The system message of every call.
        chain: What follows a question where complete solutions are sampled.
        steps: The same where solutions are sampled step by step.
        temperature: Of every sample, where the peer lets it be chosen.
        top_p: Likewise.
        max_tokens: Maximum number of tokens of a complete solution.
        step_tokens: Maximum number of tokens of a step.
        concurrency: Questions in flight at once.
        warm: So many questions at the beginning are not counted.
    """

    base_url: str
    model: str
    method: str
    size: int
    questions: tuple[MarkedQuestion, ...]
    system: str
    chain: str
    steps: str
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 400
    step_tokens: int = 160
    concurrency: int = 8
    warm: int = 0

    def chain_prompt(self, requests: MarkedQuestion) -> str:
        """What a user would write to have the question solved at a stretch; marked."""
        return f"{requests.marked}\n\n{self.chain}"

    def step_prompt(self, requests: MarkedQuestion) -> str:
        """What a user would write to have it solved in steps; marked."""
        return f"{requests.marked}\n\n{self.steps}"


def as_json(job: Job) -> str:
    """A job as one line."""
    return json.dumps(asdict(job))


def from_json(text: str) -> Job:
    """A job of `answer_as_json`."""
    values: dict[str, Any] = json.loads(text)
    return Job(**{**values, "questions": tuple(MarkedQuestion(**args) for args in values["questions"])})


Solve = Callable[[MarkedQuestion], Awaitable[str]]
"""Answers a question: gives the text of the solution that the peer chose."""


async def work(job: Job, solve: Solve, write: Callable[[dict[str, Any]], None]) -> None:
    """Have all questions answered, `concurrency` at once; a failure is reported as an error and stops nothing."""
    for args in job.questions[: job.warm]:
        await solve(args)
    turns = asyncio.Semaphore(job.concurrency)
    counted = job.questions[job.warm :]

    async def one(args: MarkedQuestion) -> None:
        async with turns:
            began = time.perf_counter()
            try:
                text, error = await solve(args), ""
            except Exception as e:  # noqa: BLE001 (a peer may raise anything; the table counts it)
                text, error = "", f"{type(e).__name__}: {e}"[:500]
            write({"id": args.id, "text": text, "error": error, "seconds": time.perf_counter() - began})

    began, worked = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one(args) for args in counted))
    write({"seconds": time.perf_counter() - began, "cpu": time.process_time() - worked, "questions": len(counted)})


def tell_line(values: dict[str, Any]) -> None:
    """Write a line of JSON."""
    print(json.dumps(values), flush=True)


def run(make: Callable[[Job], Awaitable[Solve]]) -> None:
    """A runner's main program."""
    job = from_json(sys.stdin.readline())

    async def all_of_it() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        await work(job, await make(job), tell_line)

    asyncio.run(all_of_it())
