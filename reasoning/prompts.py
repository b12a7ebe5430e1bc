"""How a question is put to a model.

Texts only. They are part of a run's requests and so of its store keys: changing one makes old samples unfindable for
new runs, and leaves old runs as they were.

Texts shortened from their middle until a prompt that holds them fits a model's context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import JsonValue

from ..core.messages import TOOL_CHOICE_AUTO, Message, Prompt, canonical_calls
from ..core.run import Run
from ..core.types import AnswerKind, Question
from ..serving.metered.decisions import load_decision, save_decision
from ..serving.metered.model import MeteredModel

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

ANSWER_TRIGGERS = {
    "choice": "Therefore, the letter of the right choice is (",
    "number": "Therefore, the answer (a number) is",
    "math": "Therefore, the answer is \\boxed{",
    "yes_no": "Therefore, the answer (yes or no) is",
}
"""Second prompt of two-stage zero-shot chain of thought, by kind of answer (Kojima et al. 2022, Appendix A.5)."""


def question_prompt(question: Question, instruction: str = "", *, system: str = "", prefix: str = "") -> Prompt:
    """The question with its documents and choices, and an instruction behind it; the conversation stands before it.

        system      the conversation's system turns, and behind them the strategy's own system text
        …           its other turns, as they were
        user        documents, question, choices, instruction
        …           what the question has led to since (`ScoredClaim.since`)

    The system turns of a conversation are one message at the head of the prompt, in their order, since few chat
    templates take others. Tools that are offered come with the prompt.

    Args:
        question: What is asked.
        instruction: What the model is to do with it; may be empty.
        system: The strategy's system text; where there is none in the conversation either, it is left to the model's
            chat template.
        prefix: Beginning of the reply.
    """
    asked = _asked(question, instruction)
    if not (question.conversation or question.needs_tools):
        return Prompt.user(asked, system=system, prefix=prefix)
    told = system_text(question, system)
    head = (Message(role="system", content=told),) if told else ()
    turns = (turn for turn in question.conversation if turn.role != "system")
    since = (turn for turn in question.continuation if turn.role != "system")
    tools = question.offered_tools
    return Prompt(
        messages=(*head, *turns, Message(role="user", content=asked), *since),
        prefix=prefix,
        tools=tools,
        tool_choice=question.tool_choice if tools else TOOL_CHOICE_AUTO,
    )


def system_text(question: Question, system: str = "") -> str:
    """The system text of a prompt: what the conversation's system turns say, then the strategy's own text."""
    turns = (*question.conversation, *question.continuation)
    return "\n\n".join(text for text in (*(t.content for t in turns if t.role == "system"), system) if text)


def question_text(question: Question, asked: str | None = None) -> str:
    """The question as one text, for what takes no turns: reward models, raw prompts.

    Args:
        question: What is asked.
        asked: How it is put; None is with its documents and choices. Without a conversation, nothing else is told.
    """
    told = _asked(question, "") if asked is None else asked
    before, since = conversation_text(question), _told(question.continuation)
    return "\n\n".join(part for part in (before, f"User: {told}", since) if part) if before or since else told


def conversation_text(question: Question) -> str:
    """The turns before the question as one text, a paragraph each, its speaker in front; empty if there are none."""
    return _told(question.conversation)


def _told(turns: Sequence[Message]) -> str:
    return "\n\n".join(f"{turn.role.capitalize()}: {_said(turn)}" for turn in turns)


def _said(turn: Message) -> str:
    parts = [turn.content, canonical_calls(turn.tool_calls) if turn.tool_calls else ""]
    return "\n".join(part for part in parts if part)


def _asked(question: Question, instruction: str) -> str:
    parts = [f"Document «{d.name}»:\n{d.text}" for d in question.documents]
    parts.append(question.text)
    if question.choices:
        parts.append("\n".join(f"{letter}) {c}" for letter, c in zip(LETTERS, question.choices, strict=False)))
    if instruction:
        parts.append(instruction)
    return "\n\n".join(parts)


def requested_kind(question: Question) -> AnswerKind:
    """The kind of answer that is asked for: a question with choices wants one of them, whatever else it says."""
    return "choice" if question.choices else question.kind


def step_by_step_instruction(question: Question) -> str:
    """The trigger of zero-shot chain of thought, with the form of the answer where the kind asks for one.

    Differs: Kojima et al. (2022) ask for the answer in a second prompt; this asks for it at the end of the chain.
    """
    kind = requested_kind(question)
    form = {
        "choice": 'and end with "The answer is" and the letter of the right choice.',
        "number": 'and end with "The answer is" and the number.',
        "math": "and put the final answer within \\boxed{}.",
        "yes_no": 'and end with "The answer is" and yes or no.',
    }.get(kind, "and state the answer at the end.")
    if question.offered_tools:
        return f"Call the tools that this needs. If it needs none, let's work it out step by step {form}"
    return f"Let's work this out step by step {form}"


def answer_trigger(question: Question) -> str:
    """What is put behind a chain of thought to get the answer out of it."""
    kind = requested_kind(question)
    return ANSWER_TRIGGERS.get(kind, "Therefore, the answer is")


def steps_instruction(question: Question) -> str:
    """What asks for short steps with a blank line between them, so that a search can go on from each of them.

    Source: the form that step-level search and its reward models expect (Beeching, Tunstall, Rush 2024; Puri et al.
    2025); the words are ours.
    """
    return (
        "Solve this in short numbered steps, with a blank line between one step and the next. "
        f"End with a last step {last_step_form(question)}."
    )


def lines_instruction(question: Question) -> str:
    """What asks for short steps of a line each, for models that leave no blank lines where they are asked to."""
    return f"Solve this in short numbered steps, one line each. End with a last line {last_step_form(question)}."


def last_step_form(question: Question) -> str:
    """What the last step of a solution in steps is to look like."""
    kind = requested_kind(question)
    return {
        "choice": '"The answer is" and the letter of the right choice',
        "number": '"The answer is" and the number',
        "math": "that puts the final answer within \\boxed{}",
        "yes_no": '"The answer is" and yes or no',
    }.get(kind, '"The answer is" and the answer')


GAP = " […] "
MIN_KEPT_CHARS = 40
"""Fewest characters that a shortened text keeps."""


def truncate_middle(text: str, most: int) -> str:
    """A text of at most `most` characters: the longer one's beginning and end, a mark between the two.

    Args:
        text: The text.
        most: Most characters, at least those of the mark.
    """
    if len(text) <= most:
        return text
    kept = most - len(GAP)
    end = kept // 2
    return text[: kept - end] + GAP + (text[-end:] if end else "")


async def fit_prompt(
    model: MeteredModel,
    run: Run,
    make: Callable[[Sequence[str]], Prompt],
    texts: Sequence[str],
    reply_tokens: int,
) -> tuple[Prompt | None, int | None]:
    """The prompt that holds the texts, all of them shortened to the same length if it would not fit otherwise.

    What had to be shortened is noted in the run store, since a replay has no model that counts tokens. Where nobody can
    count, nothing is shortened.

    Args:
        model: Who reads the prompt.
        run: The run.
        make: Makes the prompt of the texts.
        texts: The texts.
        reply_tokens: Tokens that the reply takes.

    Returns:
        The prompt, None if it does not fit with the shortest texts either; and the most characters of a text that were
        kept, None if all are whole.
    """
    whole, limit = make(texts), model.capabilities.context_tokens
    if limit is None or not texts:
        return whole, None

    def fits(prompt: Prompt) -> bool | None:
        tokens = model.count_tokens(prompt)
        return None if tokens is None else tokens + reply_tokens <= limit

    what: dict[str, JsonValue] = {"fit": whole.model_dump(mode="json"), "reply_tokens": reply_tokens}
    found = fits(whole)
    if found is None:
        kept = (await load_decision(run, model, what) or {}).get("kept")
        if not isinstance(kept, int):
            return whole, None
        return (_with(make, texts, kept), kept) if kept else (None, None)
    if found:
        return whole, None
    # the most characters that fit, by bisection: `low` fits, `high` does not
    low, high = 0, max(map(len, texts))
    if fits(_with(make, texts, MIN_KEPT_CHARS)):
        low = MIN_KEPT_CHARS
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(_with(make, texts, middle)) else (low, middle)
    await save_decision(run, model, what, {"kept": low})
    return (_with(make, texts, low), low) if low else (None, None)


def _with(make: Callable[[Sequence[str]], Prompt], texts: Sequence[str], most: int) -> Prompt:
    return make([truncate_middle(text, most) for text in texts])
