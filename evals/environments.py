"""Evaluation of agents: environments with tools, a user and a score; pass@1, pass^k and cost.

A task is tried several times. Each trial is an episode of its own and one conversation (`Reasoner.conversation`) with
the reasoner's budget. Trials are independent, so a resumed evaluation repeats the unfinished ones from their start:
what their tools had changed is lost with the process.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol, cast

from ..agents.conversation import Conversation
from ..agents.loop.tool import ExecutableTool
from ..agents.reasoner import Reasoner
from ..core.concurrency import gather
from ..core.errors import DataError, ReasonError, UserError
from ..core.messages import Frozen
from ..core.types import Answer
from ..tools.factory import imported
from .runner import FATAL_ERRORS

MAX_USER_TURNS = 100
"""Messages of a simulated user after which a trial ends."""
PASSED = 1.0
"""Score from which on a trial has passed."""


class Episode(Protocol):
    """One trial's state: the tools that read and change it, and the user who asks.

    Attributes:
        system: System message; empty is none.
        tools: The agent's tools. Their writes need no approval. State that can be copied is a `World` of theirs.
    """

    system: str
    tools: Sequence[ExecutableTool]

    async def next_user(self, answer: Answer | None) -> str | None:
        """The user's next message, after the answer to the one before; None ends the trial."""

    async def score(self, conversation: Conversation) -> float:
        """From 0 to 1, by the state and the conversation; 1 has passed."""


class Environment(Protocol):
    """A source of tasks.

    Attributes:
        tasks: Names of the tasks.
    """

    tasks: Sequence[str]

    async def reset(self, task: str) -> Episode:
        """A new episode in the task's initial state."""


class Trial(Frozen):
    """One attempt at a task.

    Attributes:
        score: From 0 to 1; 0 if the trial failed.
        stopped: Why the last answer ended.
        runs: Names of its runs in the run store.
        cost_usd: US dollars; None if a price is unknown.
        error: Message of the error that ended it; empty if none did.
    """

    task: str
    trial: int
    score: float
    stopped: str = ""
    runs: tuple[str, ...] = ()
    tokens: int = 0
    turns: int = 0
    tool_calls: int = 0
    cost_usd: float | None = 0.0
    seconds: float = 0.0
    error: str = ""


class EnvironmentSummary(Frozen):
    """Result of an evaluation.

    Attributes:
        pass_at_1: Mean share of passed trials of a task.
        pass_hat: By k, the probability that k trials of a task all pass, averaged over tasks (Yao 2024, tau-bench, 3):
            C(passed, k) / C(trials, k).
        mean_score: Mean score of a trial.
        usd_per_trial: US dollars; None if a price is unknown.
    """

    tasks: int
    trials: int
    pass_at_1: float
    pass_hat: dict[int, float]
    mean_score: float
    tokens_per_trial: float
    turns_per_trial: float
    tool_calls_per_trial: float
    usd_per_trial: float | None
    errors: int


def load_environment(name: str) -> Environment:
    """The environment that `MODULE:NAME` names: an object, or a class or function that makes one.

    Raises:
        UserError: There is none, or it is no environment.
    """
    value: Any = imported(name)
    environment = value() if callable(value) else value
    if not (hasattr(environment, "tasks") and hasattr(environment, "reset")):
        raise UserError(f"{name} has no `tasks` and `reset`", hint="see reason.evals.environments.Environment")
    return cast(Environment, environment)


def read_trials(path: Path) -> list[Trial]:
    """The trials of a file; its last line may be incomplete.

    Raises:
        DataError: It cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [Trial.model_validate_json(line) for line in lines if line.endswith("\n")]
    except (OSError, ValueError) as e:
        raise DataError(f"{path} has no trials: {str(e).splitlines()[0]}", hint="choose another --out") from e


async def evaluate_environment(
    reasoner: Reasoner,
    environment: Environment,
    *,
    name: str,
    tasks: Sequence[str] | None = None,
    trials: int = 1,
    concurrency: int = 1,
    done: Sequence[Trial] = (),
    write: Callable[[Trial], None] = lambda _: None,
) -> list[Trial]:
    """Try every task several times.

    Args:
        name: Name of the evaluation, from which the seeds are derived.
        tasks: Its tasks; None is all of the environment.
        trials: Trials of each task.
        concurrency: Trials at once.
        done: Trials of an evaluation that is resumed.
        write: Called with each finished trial.

    Returns:
        All trials, in the order of the tasks.

    Raises:
        ReasonError: An error that the next trial would have as well.
    """
    tasks = environment.tasks if tasks is None else tasks
    if not tasks:
        raise DataError("the environment has no tasks", hint="list their names in its attribute `tasks`")
    finished = {(trial.task, trial.trial): trial for trial in done}
    keys = [(task, number) for task in tasks for number in range(trials)]
    waiting = iter([key for key in keys if key not in finished])

    async def work(waiting: Iterator[tuple[str, int]]) -> None:
        for key in waiting:
            finished[key] = await run_trial(reasoner, environment, *key, name=name)
            write(finished[key])

    await gather(work(waiting) for _ in range(min(concurrency, len(keys))))
    return [finished[key] for key in keys]


async def run_trial(reasoner: Reasoner, environment: Environment, task: str, number: int, *, name: str) -> Trial:
    """Try a task once, in a new episode."""
    seed = int(hashlib.sha256(f"{name}\0{task}\0{number}".encode()).hexdigest()[:8], 16)
    answers: list[Answer] = []
    runs: tuple[str, ...] = ()
    score, error = 0.0, ""
    try:
        episode = await environment.reset(task)
        conversation = reasoner.conversation(
            tools=episode.tools, system=episode.system, approve="never", budget=reasoner.settings.budget
        )
        async with conversation as chat:
            for _ in range(MAX_USER_TURNS):
                text = await episode.next_user(answers[-1] if answers else None)
                if text is None:
                    break
                answers.append(await chat.ask(text, seed=seed))
            runs = chat.runs
            score = await episode.score(chat)
    except FATAL_ERRORS:
        raise
    except ReasonError as e:
        error = e.message
    costs = [answer.usage.cost_usd for answer in answers]
    return Trial(
        task=task,
        trial=number,
        score=score,
        stopped=answers[-1].stopped if answers else "",
        runs=runs,
        tokens=sum(answer.usage.completion_tokens for answer in answers),
        turns=sum(answer.usage.turns for answer in answers),
        tool_calls=sum(answer.usage.tool_calls for answer in answers),
        cost_usd=None if None in costs else math.fsum(cost or 0.0 for cost in costs),
        seconds=math.fsum(answer.usage.wall_seconds for answer in answers),
        error=error,
    )


def summarize(trials: Sequence[Trial]) -> EnvironmentSummary:
    """The result of trials; tasks may have different numbers of them, of which the smallest bounds k."""
    by_task: dict[str, list[bool]] = defaultdict(list)
    for trial in trials:
        by_task[trial.task].append(trial.score >= PASSED)
    count = len(trials)
    costs = [trial.cost_usd for trial in trials]
    return EnvironmentSummary(
        tasks=len(by_task),
        trials=count,
        pass_at_1=fmean([sum(passed) / len(passed) for passed in by_task.values()]),
        pass_hat={
            k: fmean([math.comb(sum(passed), k) / math.comb(len(passed), k) for passed in by_task.values()])
            for k in range(1, min(map(len, by_task.values())) + 1)
        },
        mean_score=fmean([trial.score for trial in trials]),
        tokens_per_trial=fmean([trial.tokens for trial in trials]),
        turns_per_trial=fmean([trial.turns for trial in trials]),
        tool_calls_per_trial=fmean([trial.tool_calls for trial in trials]),
        usd_per_trial=None if None in costs else fmean([cost or 0.0 for cost in costs]),
        errors=sum(bool(trial.error) for trial in trials),
    )
