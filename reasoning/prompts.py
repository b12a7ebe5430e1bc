"""How a question is put to a model.

Texts only. They are part of a run's requests and so of its store keys: changing one makes old samples unfindable for
new runs, and leaves old runs as they were.
"""

from __future__ import annotations

from ..core.messages import Prompt
from ..core.question import AnswerKind, Question

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

THEREFORE = {
    "choice": "Therefore, the letter of the right choice is (",
    "number": "Therefore, the answer (a number) is",
    "math": "Therefore, the answer is \\boxed{",
    "yes_no": "Therefore, the answer (yes or no) is",
}
"""Second prompt of two-stage zero-shot chain of thought, by kind of answer (Kojima et al. 2022, Appendix A.5)."""


def ask(question: Question, instruction: str = "", *, system: str = "", prefix: str = "") -> Prompt:
    """The question with its documents and choices, and an instruction behind it.

    Args:
        question: What is asked.
        instruction: What the model is to do with it; may be empty.
        system: System message; empty leaves it to the model's chat template.
        prefix: Beginning of the reply.
    """
    parts = [f"Document «{d.name}»:\n{d.text}" for d in question.documents]
    parts.append(question.text)
    if question.choices:
        parts.append("\n".join(f"{letter}) {c}" for letter, c in zip(LETTERS, question.choices, strict=False)))
    if instruction:
        parts.append(instruction)
    return Prompt.user("\n\n".join(parts), system=system, prefix=prefix)


def asked_kind(question: Question) -> AnswerKind:
    """The kind of answer that is asked for: a question with choices wants one of them, whatever else it says."""
    return "choice" if question.choices else question.kind


def step_by_step(question: Question) -> str:
    """The trigger of zero-shot chain of thought, with the form of the answer where the kind asks for one.

    Differs: Kojima et al. (2022) ask for the answer in a second prompt; this asks for it at the end of the chain.
    """
    kind = asked_kind(question)
    form = {
        "choice": 'and end with "The answer is" and the letter of the right choice.',
        "number": 'and end with "The answer is" and the number.',
        "math": "and put the final answer within \\boxed{}.",
        "yes_no": 'and end with "The answer is" and yes or no.',
    }.get(kind, "and state the answer at the end.")
    return f"Let's work this out step by step {form}"


def therefore(question: Question) -> str:
    """What is put behind a chain of thought to get the answer out of it."""
    kind = asked_kind(question)
    return THEREFORE.get(kind, "Therefore, the answer is")


def in_steps(question: Question) -> str:
    """What asks for short steps with a blank line between them, so that a search can go on from each of them.

    Source: the form that step-level search and its reward models expect (Beeching, Tunstall, Rush 2024; Puri et al.
    2025); the words are ours.
    """
    return (
        "Solve this in short numbered steps, with a blank line between one step and the next. "
        f"End with a last step {last_step(question)}."
    )


def in_lines(question: Question) -> str:
    """What asks for short steps of a line each, for models that leave no blank lines where they are asked to."""
    return f"Solve this in short numbered steps, one line each. End with a last line {last_step(question)}."


def last_step(question: Question) -> str:
    """What the last step of a solution in steps is to look like."""
    kind = asked_kind(question)
    return {
        "choice": '"The answer is" and the letter of the right choice',
        "number": '"The answer is" and the number',
        "math": "that puts the final answer within \\boxed{}",
        "yes_no": '"The answer is" and yes or no',
    }.get(kind, '"The answer is" and the answer')
