"""What workers are told. Texts only, all our own; they are part of a run's requests and so of its store keys."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.messages import Prompt
from ...core.question import AnswerKind, Question
from ..prompts import ask, asked_kind

NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo")
"""What the workers call themselves, in order."""

PAST = "## Finished steps of everybody\n\n"
"""Behind the prompt: what the common history begins with."""

OTHERS = "## Unfinished steps of the others\n\n"
"""Before what the others are writing."""

OWN = "...\n\n## My own unfinished step\n\n"
"""Before what one is writing oneself; the dots say that the others go on."""

UNFINISHED = " ..."
"""Behind a step that was cut off, where the transcript is put together."""

CHECK = "Before I go on: is this already done, or being done, by somebody else? Yes or no: "
"""A question to oneself, so that the next word is the verdict."""

OUT_OF_TIME = "There is no time left to think, so here is the final answer at once.\n\nThe final answer is \\boxed{"
"""Begins the answer where none was found in time."""

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


def names_of(workers: int) -> tuple[str, ...]:
    """The first so many names."""
    return NAMES[:workers]


def opening_prompt(question: Question, names: Sequence[str]) -> Prompt:
    """What all workers read first: who they are, how they see one another, what they are to do, and the question."""
    return ask(question, _task(question, names), system=told_to_all(names), prefix=PAST)


def told_to_all(names: Sequence[str]) -> str:
    """The system text: who they are, and how they see one another."""
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
    kind = asked_kind(question)
    answer = _FORM.get(kind, "the final answer")
    who = "Whoever has it puts" if len(names) > 1 else "At the end, put"
    return f"Solve this in short steps, with a blank line behind each. {who} {answer} within \\boxed{{}}."


def step_prefix(name: str, number: int) -> str:
    """Who writes, and which of their steps it is, from 1."""
    return f"**{name}, step {number}:** "


def opener(worker: int, names: Sequence[str]) -> str:
    """How a worker's first step begins: the first one proposes a plan, the others greet."""
    if len(names) == 1:
        return ""
    others = _listed([name for name in names if name != names[worker]])
    return f"Hi, {others}! Let us split the work. I propose that" if worker == 0 else f"Hi, {others}!"


def next_step(name: str, number: int, steps: Sequence[str]) -> str:
    """What asks a model that takes no beginning of a reply for one step of a worker.

    Args:
        name: Who is to write.
        number: Which of their steps it is, from 1.
        steps: The finished steps, with their prefixes.
    """
    board = "\n\n".join(steps) or "(none yet)"
    return (
        f"Finished steps of everybody:\n\n{board}\n\nYou are {name}. Write your step {number} now, that step alone "
        "and no step of anybody else. If it has the final answer, put that within \\boxed{}."
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
