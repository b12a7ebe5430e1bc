"""What is said to the model about steps, subtasks, plans, assessments and the final answer.

Texts only, all of them ours. They stand behind the problem and its numbered steps, the request last, so that all
prompts of one trajectory begin alike. They are part of requests and so of store keys: changing one makes old replies
unfindable for new runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...core.types import Question
from ..coat.prompts import closing
from .blocks import Block

GENERIC_SUBTASK = "Work out what the problem asks for."
"""The only subtask where a reply lists none."""
GENERIC_PLAN = "Do what is needed next, in the most direct way."
"""The only plan where a reply lists none."""
SCORES_BEGIN = '{"A1":'
"""How a reply with scores begins."""

DO = {
    Block.REASON: "Write the next step.",
    Block.DECOMPOSE: "Split what is left into subtasks and solve them one by one.",
    Block.DEBATE: "Compare several plans for the next step and follow the best.",
    Block.REFINE: "Check the last step and improve it.",
    Block.TERMINATE: "Give the final answer.",
}
"""What each block does, for a model that chooses among them."""


def label(number: int) -> str:
    """How a step begins."""
    return f"Step {number}:"


def improved(number: int) -> str:
    """How a step that is written anew begins."""
    return f"Step {number}, improved:"


def result(number: int) -> str:
    """How the result of a subtask begins."""
    return f"Result of subtask {number}:"


def one_step(number: int) -> str:
    """What asks for one further step."""
    return (
        f"Write step {number} and nothing else: the one next step towards the answer, in one to three sentences. "
        "If it reaches the answer, it says so."
    )


def split(most: int) -> str:
    """What asks for subtasks.

    Args:
        most: Most of them.
    """
    return (
        f"Split what is left to do into at most {most} subtasks whose results together solve the problem. Do not solve "
        "them and do not calculate. Write a numbered list with one short line for each subtask."
    )


def subtasks(tasks: Sequence[str], results: Sequence[str]) -> list[str]:
    """The subtasks and the results so far, as parts of a prompt.

    Args:
        tasks: All subtasks.
        results: Results of the first ones.
    """
    listed = "\n".join(f"{i}. {task}" for i, task in enumerate(tasks, 1))
    return [f"Subtasks:\n{listed}", *(f"{result(i)} {text}" for i, text in enumerate(results, 1))]


def solve_subtask(number: int, task: str) -> str:
    """What asks for the result of one subtask."""
    return (
        f"Solve subtask {number} and no other: {task}\nUse the results above. Do not split it any further. Answer in "
        "one to three sentences that end with its result."
    )


def summarise(number: int) -> str:
    """What asks for the step that the subtasks come to."""
    return (
        f"Write step {number}: a short summary of the results above, in one to four sentences, that keeps the key "
        "reasoning and all results. Add nothing new."
    )


def plan(number: int, plans: int) -> str:
    """What asks for plans.

    Args:
        number: Number of the step that they are for.
        plans: How many.
    """
    return (
        f"Propose {plans} different plans for step {number}, the next step. Do not carry them out. Write a numbered "
        "list with one sentence for each plan."
    )


def planned(plans: Sequence[str]) -> str:
    """The plans, as part of a prompt."""
    return "Plans:\n" + "\n".join(f"{i}. {text}" for i, text in enumerate(plans, 1))


COMPARE = (
    "Compare the plans. Which one is the most promising? Begin with its number, then give the reason in one sentence. "
    "Do not carry it out."
)


def follow(number: int, chosen: int, text: str) -> str:
    """What asks for one step along a plan."""
    return (
        f"Follow plan {chosen}: {text}\nWrite step {number} and nothing else: the one next step along this plan, in "
        "one to three sentences. If it reaches the answer, it says so."
    )


def refine(number: int) -> str:
    """What asks for a better version of a step."""
    return (
        f"Check step {number}. Is anything in it wrong or unclear? Write step {number} again, correct and clearer, and "
        "nothing else. Do not go on to the next step."
    )


def assess(*, begun: bool) -> str:
    """What asks for the seven scores.

    Args:
        begun: Whether there are steps; otherwise the bare problem is assessed.
    """
    what = "the last step" if begun else "where the work stands: no step is written yet"
    return (
        f"Judge {what}. Score each statement: 3 true, 2 unsure, 1 false, 0 does not apply.\n"
        "A1: It follows correctly from the problem.\n"
        "A2: It is clear enough to build on.\n"
        "A3: Its calculations are correct.\n"
        "B1: What is left to do is complex.\n"
        "B2: There are other ways to do it.\n"
        "C1: The final answer is near.\n"
        "C2: Everything that it needs is known.\n"
        'Reply with JSON alone, one digit from 0 to 3 for each name: {"A1": digit, "A2": digit, "A3": digit, '
        '"B1": digit, "B2": digit, "C1": digit, "C2": digit}'
    )


FINISHED = "Is the problem not yet solved, or solved? Reply with one word: no if it is not yet solved, yes if it is."
"""What asks whether the steps hold the final answer; put plainly, small models say yes whatever the steps are."""


def answer(question: Question, *, begun: bool) -> str:
    """What asks for the final answer.

    Args:
        question: The problem.
        begun: Whether there are steps.
    """
    source = "Give the final answer that the steps above lead to" if begun else "Give the final answer to the problem"
    return f"{source}, in one sentence {closing(question)}."


def choose(blocks: Sequence[Block]) -> str:
    """What asks which block comes next; they are numbered from 1, as letters may be the problem's own."""
    listed = "\n".join(f"{i}. {DO[block]}" for i, block in enumerate(blocks, 1))
    return f"What is best to do next?\n{listed}\nReply with one number alone."
