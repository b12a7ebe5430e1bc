"""The short columns that a list of runs reads instead of configuration and answer."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import BaseModel, JsonValue

from ..types import Answer, shown_answer
from .group_commit import Row
from .records import ListedRun

MAX_SHOWN_CHARS = 200
"""Maximum length of a question or an answer in a list; a longer one ends with an ellipsis."""
MAX_SEARCHED_CHARS = 2000
"""Characters of a question, from its beginning, that a search looks at."""
MAX_PAIRS, MAX_KEY_CHARS, MAX_VALUE_CHARS = 16, 64, 512
"""Limits of the metadata in a list, those of OpenAI's API: pairs, and the length of keys and values."""
MAX_MODELS = 64

QUESTION_COLUMNS = "strategy, model, models, question, metadata, search, conversation"
"""What a run's configuration gives, in the order of `question_columns`."""
ANSWER_COLUMNS = "answer_text, stopped, tokens, thinking_tokens, cost_usd, seconds"
"""What its answer gives, in the order of `answer_columns`."""


def question_columns(run_id: str, config: BaseModel | Mapping[str, JsonValue]) -> Row:
    """The values of `QUESTION_COLUMNS` of a run's configuration."""
    if isinstance(config, BaseModel):
        config = config.model_dump(
            include={"strategy": True, "models": True, "conversation": True, "question": {"text", "metadata"}}
        )
    question = _object(config.get("question"))
    text = plain_text(question.get("text")).strip()
    metadata = _object(question.get("metadata"))
    # a request in another API's format keeps its caller's pairs one level deeper
    pairs = _pairs(_object(metadata.get("metadata")) or metadata, MAX_PAIRS)
    models = _pairs(_object(config.get("models")), MAX_MODELS)
    searched = (plain_text(run_id), text[:MAX_SEARCHED_CHARS], *pairs, *pairs.values())
    return (
        plain_text(config.get("strategy")),
        models.get("main", ""),
        _pairs_json(models),
        _shown(text),
        _pairs_json(pairs),
        "\n".join(searched).casefold(),
        plain_text(config.get("conversation")),
    )


def answer_columns(answer: Answer | Mapping[str, JsonValue] | None) -> Row:
    """The values of `ANSWER_COLUMNS` of an answer."""
    if answer is None:
        return (None,) * 6
    if isinstance(answer, Answer):
        used = answer.usage
        shown = answer.shown_answer
        text = None if shown is None else _shown(plain_text(shown))
        return text, answer.stopped, used.completion_tokens, used.thinking_tokens, used.cost_usd, used.wall_seconds
    usage = _object(answer.get("usage"))
    letter, option = answer.get("answer"), answer.get("option")
    shown = shown_answer(None if letter is None else plain_text(letter), None if option is None else plain_text(option))
    return (
        None if shown is None else _shown(shown),
        plain_text(answer.get("stopped")) or None,
        *(_number(usage.get(name)) for name in ("completion_tokens", "thinking_tokens", "cost_usd", "wall_seconds")),
    )


LISTED_COLUMNS = ", ".join(ListedRun.model_fields)
"""The columns of a `ListedRun`, in the order of its fields."""


def _object(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def plain_text(value: JsonValue) -> str:
    """Text that every database takes: without NUL and lone surrogates, which JSON could escape."""
    return str(value or "").replace("\0", " ").encode("utf-8", "replace").decode()


def _shown(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"


def _number(value: JsonValue) -> float | None:
    return value if isinstance(value, int | float) else None


def _pairs(values: Mapping[str, JsonValue], max_pairs: int) -> dict[str, str]:
    """The pairs of text; longer ones than the limits are left out."""
    pairs = {
        plain_text(key): plain_text(value)
        for key, value in values.items()
        if isinstance(value, str) and len(key) <= MAX_KEY_CHARS and len(value) <= MAX_VALUE_CHARS
    }
    return dict(list(pairs.items())[:max_pairs])


def _pairs_json(pairs: Mapping[str, str]) -> str:
    """The pairs as a JSON object."""
    return "{" + ",".join(pair_json(key, value) for key, value in pairs.items()) + "}"


def pair_json(key: str, value: str) -> str:
    """A pair as the column `metadata` has it, where only the pair itself contains it."""
    return f"{json.dumps(plain_text(key))}:{json.dumps(plain_text(value))}"
