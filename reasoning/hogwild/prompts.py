"""Prompt texts of the workers. They are part of the requests and so of the run store's keys."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.messages import Prompt
from ...core.types import AnswerKind, Question
from ..prompts import question_prompt, requested_kind

NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo")
"""Names of the workers, in order."""

PAST = "## Finished steps of everybody\n\n"
"""Header of the common history, after the prompt."""

OTHERS = "## Unfinished steps of the others\n\n"
"""Header before the unfinished steps of the others."""

OWN = "...\n\n## My own unfinished step\n\n"
"""Header before the worker's own unfinished step; the ellipsis marks the others' text as unfinished."""

UNFINISHED = " ..."
"""Ellipsis after an unfinished step in the transcript."""

CHECK = "Before I go on: is this already done, or being done, by somebody else? Yes or no: "
"""The redundancy check; the next word is the verdict."""

BOX = "The final answer is \\boxed{"
"""Beginning of the answer after a thought."""

OUT_OF_TIME = f"There is no time left to think, so here is the final answer at once.\n\n{BOX}"
"""The finisher: completed with the answer."""

_ADVICE = (
    "Agree on a plan first; if two plans collide, the one of {first} counts.",
    "Split the work: parts of the problem, different methods, or solving and checking.",
    "Say in a few words what you are about to do, so that nobody does it as well.",
    "Read what the others are writing. If you notice that you do what somebody else does, stop at once and do "
    "something else.",
    "Talk to one another: ask, answer, correct mistakes, use results.",
    "Give a line up when it has become useless.",
)

_FORM: dict[AnswerKind, str] = {
    "choice": "the letter of the right choice",
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
        return f"You are {names[0]}, a careful thinker who writes down every step."
    advice = "\n".join(f"- {line.format(first=names[0])}" for line in _ADVICE)
    return (
        f"{_listed(names)} solve one problem together, at the same time. Each of them is an assistant that writes "
        "short steps, with a blank line behind each, and sees what all others write while they write it. The text has "
        "three parts: finished steps of everybody, in the order in which they were finished; then the unfinished steps "
        "of the others, which grow while you read them; and last your own unfinished step, which you go on with.\n\n"
        f"{advice}"
    )


def _task(question: Question, names: Sequence[str]) -> str:
    kind = requested_kind(question)
    answer = _FORM.get(kind, "the final answer")
    who = "Whoever has it puts" if len(names) > 1 else "At the end, put"
    return f"Solve this in short steps, with a blank line behind each. {who} {answer} within \\boxed{{}}."


def step_prefix(name: str, number: int) -> str:
    """Prefix of a step: the worker's name and the step's number, from 1."""
    return f"**{name}, step {number}:** "


def opener(worker: int, names: Sequence[str]) -> str:
    """Beginning of a worker's first step: the first worker proposes a plan, the others greet."""
    if len(names) == 1:
        return ""
    others = _listed([name for name in names if name != names[worker]])
    return f"Hi, {others}! Let us split the work. I propose that" if worker == 0 else f"Hi, {others}!"


def step_request(name: str, number: int, steps: Sequence[str]) -> str:
    """Request for one step, for models without response prefixes.

    Args:
        number: Number of the requested step, from 1.
        steps: The finished steps of all workers, with their prefixes.
    """
    board = "\n\n".join(steps) or "(none yet)"
    return (
        f"Finished steps of everybody:\n\n{board}\n\nYou are {name}. Write your step {number} now, that step alone "
        "and no step of anybody else. If it has the final answer, put that within \\boxed{}."
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
