"""Prompts: how a question is presented to a model, and how a prompt is cut to the model's context.

The texts are part of a run's requests and so of its store keys: a new run does not find samples of another wording.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import JsonValue

from ..core.messages import TOOL_CHOICE_AUTO, Message, Prompt, SamplingParams, canonical_calls
from ..core.run import Run
from ..core.types import AnswerKind, Question
from ..serving.metered.model import MeteredModel, load_decision, save_decision

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

ANSWER_TRIGGERS = {
    "choice": "Therefore, the letter of the correct choice is (",
    "number": "Therefore, the answer (a number) is",
    "math": "Therefore, the answer is \\boxed{",
    "yes_no": "Therefore, the answer (yes or no) is",
    "code": "Therefore, the complete code is:\n\n```python\n",
}
"""Second prompt of two-stage zero-shot chain of thought, by kind of answer (Kojima et al. 2022, Appendix A.5)."""


def question_prompt(question: Question, instruction: str = "", *, system: str = "", prefix: str = "") -> Prompt:
    """The prompt of a question.

        system      the conversation's system messages, then the strategy's own system text
        …           the conversation's other messages
        user        documents, question, choices, instruction
        …           the messages after the question (`Question.continuation`)

    The system messages of a conversation become one message at the beginning of the prompt, in their order, since few
    chat templates accept others. Offered tools are part of the prompt.

    Args:
        instruction: What the model is to do with it; may be empty.
        system: The strategy's system text; without any system text the model's chat template decides.
        prefix: Prefix of the completion.
    """
    text = _user_text(question, instruction)
    if not (question.conversation or question.needs_tools):
        return Prompt.user(text, system=system, prefix=prefix)
    system = system_text(question, system)
    head = (Message(role="system", content=system),) if system else ()
    before = (message for message in question.conversation if message.role != "system")
    after = (message for message in question.continuation if message.role != "system")
    tools = question.offered_tools
    return Prompt(
        messages=(*head, *before, Message(role="user", content=text), *after),
        prefix=prefix,
        tools=tools,
        tool_choice=question.tool_choice if tools else TOOL_CHOICE_AUTO,
    )


def system_text(question: Question, system: str = "") -> str:
    """The system text of a prompt: the conversation's system messages, then the strategy's own text."""
    messages = (*question.conversation, *question.continuation)
    return "\n\n".join(text for text in (*(m.content for m in messages if m.role == "system"), system) if text)


def question_text(question: Question, text: str | None = None) -> str:
    """The question and its conversation as one text, for models without messages: reward models, raw prompts.

    Args:
        text: Its wording; None is with documents and choices. Without a conversation, the result is this text.
    """
    text = _user_text(question, "") if text is None else text
    before, after = conversation_text(question), _transcript(question.continuation)
    if not (before or after):
        return text
    return "\n\n".join(part for part in (before, f"User: {text}", after) if part)


def conversation_text(question: Question) -> str:
    """The messages before the question as one text, a paragraph each, with the role; empty if there are none."""
    return _transcript(question.conversation)


def _transcript(messages: Sequence[Message]) -> str:
    return "\n\n".join(f"{message.role.capitalize()}: {_message_text(message)}" for message in messages)


def _message_text(message: Message) -> str:
    parts = [message.content, canonical_calls(message.tool_calls) if message.tool_calls else ""]
    return "\n".join(part for part in parts if part)


def _user_text(question: Question, instruction: str) -> str:
    parts = [f"Document «{d.name}»:\n{d.text}" for d in question.documents]
    parts.append(question.text)
    if question.choices:
        parts.append("\n".join(f"{letter}) {c}" for letter, c in zip(LETTERS, question.choices, strict=False)))
    if instruction:
        parts.append(instruction)
    return "\n\n".join(parts)


def requested_kind(question: Question) -> AnswerKind:
    """The kind of answer to prompt for: "choice" for a question with choices, "code" with tests, else its own."""
    if question.choices:
        return "choice"
    return "code" if question.tests and question.kind == "auto" else question.kind


def step_by_step_instruction(question: Question) -> str:
    """The trigger of zero-shot chain of thought, with the form of the answer if the kind has one.

    Differs: Kojima et al. (2022) prompt for the answer separately; this requests it at the end of the chain.
    """
    kind = requested_kind(question)
    form = {
        "choice": 'then end with "The answer is" followed by the letter of the correct choice.',
        "number": 'then end with "The answer is" followed by the number.',
        "math": "then put the final answer in \\boxed{}.",
        "yes_no": 'then end with "The answer is" followed by yes or no.',
        "code": "then give the complete Python code in one fenced code block.",
    }.get(kind, "then state the answer at the end.")
    if question.offered_tools:
        return f"Call the tools you need. If you need none, work it out step by step, {form}"
    return f"Let's work this out step by step, {form}"


def answer_trigger(question: Question) -> str:
    """The text that is appended to a chain of thought to obtain the answer."""
    return ANSWER_TRIGGERS.get(requested_kind(question), "Therefore, the answer is")


def steps_instruction(question: Question) -> str:
    """Instruction for short steps with blank lines between them, so that a search can continue each of them.

    Source: the form that step-level search and its reward models expect (Beeching, Tunstall, Rush 2024; Puri et al.
    2025); the wording is ours.
    """
    return (
        "Solve this in short, numbered steps separated by blank lines. "
        f"End with a final step {last_step_form(question)}."
    )


def lines_instruction(question: Question) -> str:
    """Instruction for short steps of one line each, for models that do not follow `steps_instruction`."""
    return f"Solve this in short, numbered steps, one per line. End with a final line {last_step_form(question)}."


def last_step_form(question: Question) -> str:
    """The form of the last step of a solution in steps."""
    kind = requested_kind(question)
    return {
        "choice": 'that says "The answer is" followed by the letter of the correct choice',
        "number": 'that says "The answer is" followed by the number',
        "math": "that puts the final answer in \\boxed{}",
        "yes_no": 'that says "The answer is" followed by yes or no',
        "code": "that gives the complete Python code in one fenced code block",
    }.get(kind, 'that says "The answer is" followed by the answer')


GAP = " […] "
MIN_KEPT_CHARS = 40
"""Minimum length of a shortened text."""


def truncate_middle(text: str, max_chars: int) -> str:
    """A text of at most `max_chars` characters: the beginning and the end of a longer one, with `GAP` between.

    Args:
        max_chars: Maximum length, at least that of `GAP`.
    """
    if len(text) <= max_chars:
        return text
    kept = max_chars - len(GAP)
    end = kept // 2
    return text[: kept - end] + GAP + (text[-end:] if end else "")


async def fit_prompt(
    model: MeteredModel,
    run: Run,
    make_prompt: Callable[[Sequence[str]], Prompt],
    texts: Sequence[str],
    sampling: SamplingParams,
) -> tuple[Prompt | None, int | None]:
    """The prompt that contains the texts, all of them truncated to the same length if it would not fit otherwise.

    The truncation is recorded in the run store, since a replay has no model that counts tokens. If tokens cannot be
    counted, nothing is truncated.

    Args:
        model: The model of the prompt.
        make_prompt: Makes the prompt of the texts.
        sampling: Sampling parameters of the completion, whose tokens are left free, and those of its thought as far as
            that takes at most half of the context.

    Returns:
        The prompt, None if it does not fit with the shortest texts either; and the maximum length of the texts, None if
        none was truncated.
    """
    prompt, limit = make_prompt(texts), model.capabilities.context_tokens
    if limit is None or not texts:
        return prompt, None
    thought = min(model.max_sample_tokens(prompt, sampling) - sampling.max_tokens, limit // 2)
    reserved = sampling.max_tokens + thought

    def fits(prompt: Prompt) -> bool | None:
        tokens = model.count_tokens(prompt)
        return None if tokens is None else tokens + reserved <= limit

    key: dict[str, JsonValue] = {"fit": prompt.model_dump(mode="json"), "completion_tokens": reserved}
    fits_untruncated = fits(prompt)
    if fits_untruncated is None:
        max_chars = (await load_decision(run, model, key) or {}).get("max_chars")
        if not isinstance(max_chars, int):
            return prompt, None
        return (_truncated(make_prompt, texts, max_chars), max_chars) if max_chars else (None, None)
    if fits_untruncated:
        return prompt, None
    # the largest length that fits, by bisection: `low` fits, `high` does not
    low, high = 0, max(map(len, texts))
    if fits(_truncated(make_prompt, texts, MIN_KEPT_CHARS)):
        low = MIN_KEPT_CHARS
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(_truncated(make_prompt, texts, middle)) else (low, middle)
    await save_decision(run, model, key, {"max_chars": low})
    return (_truncated(make_prompt, texts, low), low) if low else (None, None)


def _truncated(make_prompt: Callable[[Sequence[str]], Prompt], texts: Sequence[str], max_chars: int) -> Prompt:
    return make_prompt([truncate_middle(text, max_chars) for text in texts])
