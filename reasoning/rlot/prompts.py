"""Prompts about steps, subtasks, plans, assessments and the final answer.

They follow the problem and its numbered steps, the instruction last, so that all prompts of a trajectory share a
prefix. The texts are part of the requests and so of the run store's keys.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...core.types import Question
from ..coat.prompts import closing
from .blocks import Block

GENERIC_SUBTASK = "Work out what the problem asks for."
"""The subtask if a completion lists none."""
GENERIC_PLAN = "Do what is needed next in the most direct way."
"""The plan if a completion lists none."""
SCORES_BEGIN = '{"A1":'
"""Prefix of a completion with scores."""

DESCRIPTIONS = {
    Block.REASON: "Write the next step.",
    Block.DECOMPOSE: "Break the remaining work into subtasks and solve them one by one.",
    Block.DEBATE: "Compare several plans for the next step and follow the best one.",
    Block.REFINE: "Check the last step and improve it.",
    Block.TERMINATE: "Give the final answer.",
}
"""Description of each block for a model that chooses among them."""


def label(number: int) -> str:
    """Prefix of a step."""
    return f"Step {number}:"


def improved(number: int) -> str:
    """Prefix of a refined step."""
    return f"Step {number}, improved:"


def result(number: int) -> str:
    """Prefix of a subtask's result."""
    return f"Result of subtask {number}:"


def one_step(number: int) -> str:
    """Request for one further step."""
    return (
        f"Write only step {number}, the next step toward the answer, in one to three sentences. If it reaches the "
        "answer, say so."
    )


def split(maximum: int) -> str:
    """Request for up to `maximum` subtasks."""
    return (
        f"Break the remaining work into at most {maximum} subtasks whose results together solve the problem. Do not "
        "solve them or do any calculations. Write a numbered list with one short line per subtask."
    )


def subtasks(tasks: Sequence[str], results: Sequence[str]) -> list[str]:
    """The subtasks and the results so far, as parts of a prompt."""
    listed = "\n".join(f"{i}. {task}" for i, task in enumerate(tasks, 1))
    return [f"Subtasks:\n{listed}", *(f"{result(i)} {text}" for i, text in enumerate(results, 1))]


def solve_subtask(number: int, task: str) -> str:
    """Request for the result of one subtask."""
    return (
        f"Solve only subtask {number}: {task}\nUse the results above. Do not break it down further. Answer in one "
        "to three sentences, ending with the result."
    )


def summarise(number: int) -> str:
    """Request for the step that summarizes the subtasks."""
    return (
        f"Write step {number}: a short summary of the results above, in one to four sentences, keeping the key "
        "reasoning and all results. Do not add anything new."
    )


def plan(number: int, plans: int) -> str:
    """Request for `plans` plans for step `number`."""
    return (
        f"Propose {plans} different plans for step {number}, the next step. Do not carry them out. Write a numbered "
        "list with one sentence per plan."
    )


def planned(plans: Sequence[str]) -> str:
    """The plans, as part of a prompt."""
    return "Plans:\n" + "\n".join(f"{i}. {text}" for i, text in enumerate(plans, 1))


COMPARE = (
    "Compare the plans. Which one is most promising? Start with its number, then give the reason in one sentence. "
    "Do not carry it out."
)


def follow(number: int, chosen: int, text: str) -> str:
    """Request for one step along a plan."""
    return (
        f"Follow plan {chosen}: {text}\nWrite only step {number}, the next step along this plan, in one to three "
        "sentences. If it reaches the answer, say so."
    )


def refine(number: int) -> str:
    """Request for a better version of a step."""
    return (
        f"Check step {number}. Is anything in it wrong or unclear? Rewrite step {number} so that it is correct and "
        "clear, and write nothing else. Do not continue to the next step."
    )


def assess(*, has_steps: bool) -> str:
    """Request for the seven scores.

    Args:
        has_steps: Whether there are steps; otherwise the bare problem is assessed.
    """
    subject = "the last step" if has_steps else "the current state of the work: no step has been written yet"
    return (
        f"Assess {subject}. Score each statement: 3 = true, 2 = unsure, 1 = false, 0 = does not apply.\n"
        "A1: It follows correctly from the problem.\n"
        "A2: It is clear enough to build on.\n"
        "A3: Its calculations are correct.\n"
        "B1: The remaining work is complex.\n"
        "B2: There are other ways to solve it.\n"
        "C1: The final answer is close.\n"
        "C2: Everything it needs is known.\n"
        'Reply only with JSON, one digit from 0 to 3 for each name: {"A1": digit, "A2": digit, "A3": digit, '
        '"B1": digit, "B2": digit, "C1": digit, "C2": digit}'
    )


FINISHED = "Is the problem still unsolved, or solved? Reply with one word: no if it is unsolved, yes if it is solved."
"""The finish check. Asked directly, small models say yes whatever the steps are."""


def answer(question: Question, *, has_steps: bool) -> str:
    """Request for the final answer."""
    source = (
        "Give the final answer that the steps above lead to" if has_steps else "Give the final answer to the problem"
    )
    return f"{source}, in one sentence {closing(question)}."


def choose(blocks: Sequence[Block]) -> str:
    """Request for the next block; the blocks are numbered, since letters may be options of the problem."""
    listed = "\n".join(f"{i}. {DESCRIPTIONS[block]}" for i, block in enumerate(blocks, 1))
    return f"What is the best thing to do next?\n{listed}\nReply with one number only."
