"""Prompt texts of the workers. They are part of the requests and so of the run store's keys."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.messages import Prompt
from ...core.types import AnswerKind, Question
from ..prompts import question_prompt, requested_kind

NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo")
"""Names of the workers, in order."""

PAST = "## Finished steps from all workers\n\n"
"""Header of the common history, after the prompt."""

OTHERS = "## Steps the other workers are writing\n\n"
"""Header before the unfinished steps of the others."""

OWN = "...\n\n## The step I am writing\n\n"
"""Header before the worker's own unfinished step; the ellipsis marks the others' text as unfinished."""

UNFINISHED = " ..."
"""Ellipsis after an unfinished step in the transcript."""

CHECK = "Quick check: has someone else already done this, or are they doing it now? Yes or no: "
"""The redundancy check; the next word is the verdict."""

BOX = "The final answer is \\boxed{"
"""Beginning of the answer after a thought."""

OUT_OF_TIME = f"I am out of time, so I have to give the final answer now.\n\n{BOX}"
"""The finisher: completed with the answer."""

_ADVICE = (
    "Agree on a plan first. If two plans conflict, follow {first}'s.",
    "Divide the work: take different parts of the problem, try different methods, or have one solve and another check.",
    "Say briefly what you are about to do, so that no one else does the same thing.",
    "Read what the others are writing. If you notice that you are duplicating someone's work, stop right away and do "
    "something else.",
    "Talk to each other: ask and answer questions, correct mistakes, and use each other's results.",
    "Drop an approach that isn't working.",
)

_FORM: dict[AnswerKind, str] = {
    "choice": "the letter of the correct choice",
    "number": "the number",
    "math": "the final answer",
    "yes_no": "yes or no",
}


def worker_names(workers: int) -> tuple[str, ...]:
    """Names of the first `workers` workers."""
    return NAMES[:workers]


def shared_prompt(question: Question, names: Sequence[str]) -> Prompt:
    """The prompt that all workers share: the system text, the question and the task."""
    return question_prompt(question, _task(question, names), system=system_prompt(names), prefix=PAST)


def system_prompt(names: Sequence[str]) -> str:
    """Who the workers are, how they see one another, and advice on working together."""
    if len(names) == 1:
        return f"You are {names[0]}. You think carefully and write down every step."
    advice = "\n".join(f"- {line.format(first=names[0])}" for line in _ADVICE)
    return (
        f"{_listed(names)} are assistants solving a problem together, at the same time. Each writes short steps, each "
        "followed by a blank line, and sees what the others are writing as they write it. The text has three parts: "
        "the finished steps of all workers, in the order they were completed; then the steps the others are still "
        "writing, which grow as you read them; and finally the step you are writing, which you continue.\n\n"
        f"{advice}"
    )


def _task(question: Question, names: Sequence[str]) -> str:
    kind = requested_kind(question)
    answer = _FORM.get(kind, "the final answer")
    who = "Whoever finds it first should put" if len(names) > 1 else "At the end, put"
    return f"Solve this in short steps, each followed by a blank line. {who} {answer} in \\boxed{{}}."


def step_prefix(name: str, number: int) -> str:
    """Prefix of a step: the worker's name and the step's number, from 1."""
    return f"**{name}, step {number}:** "


def opener(worker: int, names: Sequence[str]) -> str:
    """Beginning of a worker's first step: the first worker proposes a plan, the others greet."""
    if len(names) == 1:
        return ""
    others = _listed([name for name in names if name != names[worker]])
    return f"Hi, {others}! Let's divide the work. I suggest that" if worker == 0 else f"Hi, {others}!"


def step_request(name: str, number: int, steps: Sequence[str]) -> str:
    """Request for one step, for models without response prefixes.

    Args:
        number: Number of the requested step, from 1.
        steps: The finished steps of all workers, with their prefixes.
    """
    board = "\n\n".join(steps) or "(none yet)"
    return (
        f"Finished steps from all workers:\n\n{board}\n\nYou are {name}. Write your step {number} now: only that step, "
        "and no one else's. If it contains the final answer, put the answer in \\boxed{}."
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
