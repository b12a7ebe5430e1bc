"""`Outcome`: what one run comes to in OpenAI's terms: content, thoughts, calls, finish reason, tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ...core.answer import Answer
from ...core.tools import ToolCall
from .asking import Asked
from .said_text import until_stop
from .telling import Telling
from .thoughts import split_thoughts

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True)
class Outcome:
    """What one run comes to.

    Attributes:
        answer: The run's answer.
        content: The text of the chosen candidate, without thoughts, up to the first stop string.
        calls: The tools to be called.
        finish_reason: "tool_calls", "length" where a limit ended the text or the run, else "stop".
        content_tokens: Tokens of `content` and `calls` among all that the run generated.
    """

    answer: Answer
    content: str
    calls: tuple[ToolCall, ...]
    finish_reason: FinishReason
    content_tokens: int


def outcome_of(answer: Answer, asked: Asked, telling: Telling) -> Outcome:
    """What an answer comes to.

    Args:
        answer: The run's answer.
        asked: What was asked for.
        telling: Has taken the run's events.
    """
    thoughts, text = split_thoughts(answer.text)
    content = until_stop(text, asked.stop)
    calls = answer.tool_calls[:1] if asked.one_call else answer.tool_calls
    tokens, ended = _chosen(answer, telling)
    apart_tokens, apart_chars = telling.apart.get(answer.text, (0, 0))
    said = _said_tokens(
        tokens,
        shown=len(content) if thoughts or content != text else len(answer.text),
        written=len(answer.text),
        apart_tokens=apart_tokens,
        apart_chars=apart_chars,
    )
    return Outcome(
        answer=answer,
        content=content,
        calls=calls,
        finish_reason=_finish_reason(answer, calls, ended, stopped=content != text),
        content_tokens=min(said, answer.usage.completion_tokens),
    )


def _chosen(answer: Answer, telling: Telling) -> tuple[int, str]:
    """Tokens of the chosen candidate, and how its generation ended."""
    for found in telling.solutions:
        if found.text == answer.text and found.tool_calls == answer.tool_calls:
            return found.tokens, found.finish_reason
    for shown in answer.candidates:
        if shown.text == answer.text:
            return shown.tokens, "stop"
    return 0, "stop"


def _said_tokens(tokens: int, *, shown: int, written: int, apart_tokens: int, apart_chars: int) -> int:
    """Tokens of the returned content among those of its candidate.

    They are all of the candidate's where it has no thoughts and nothing was cut off; the rest where the backend counts
    thoughts; and else as large a part as the content is of the text, in characters.
    """
    said = tokens - apart_tokens
    whole = written if apart_tokens else written + apart_chars
    return max(0, said if whole == shown else round(said * shown / max(1, whole)))


def _finish_reason(answer: Answer, calls: tuple[ToolCall, ...], ended: str, *, stopped: bool) -> FinishReason:
    if calls:
        return "tool_calls"
    if stopped:
        return "stop"
    return "length" if answer.stopped == "budget" or ended in ("length", "budget") else "stop"


def calls_json(calls: tuple[ToolCall, ...], *, numbered: bool = False) -> list[Mapping[str, object]]:
    """Tool calls in OpenAI's form; in a stream each with its number."""
    return [{**({"index": i} if numbered else {}), **call.as_openai()} for i, call in enumerate(calls)]
