"""Lists of runs: the short columns that a list reads instead of the configuration, and the query of a list."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, JsonValue

from ..types import Answer, shown_answer
from .group_commit import Row
from .records import MAX_SEARCHED_RUNS, ListedRun, RunSort, RunStatus

MAX_SHOWN_CHARS = 200
"""Maximum length of a question or an answer in a list; a longer one ends with an ellipsis."""
MAX_SEARCHED_CHARS = 2000
"""Characters of a question, from its beginning, that a search looks at."""
MAX_PAIRS, MAX_KEY_CHARS, MAX_VALUE_CHARS = 16, 64, 512
"""Limits of the metadata in a list, those of OpenAI's API: pairs, and the length of keys and values."""
MAX_MODELS = 64

QUESTION_COLUMNS = "strategy, model, models, question, metadata, search"
"""What a run's configuration gives, in the order of `question_columns`."""
ANSWER_COLUMNS = "answer_text, stopped, tokens, thinking_tokens, cost_usd, seconds"
"""What its answer gives, in the order of `answer_columns`."""
_SORT_COLUMNS: Mapping[RunSort, str] = {
    "created": "created",
    "cost": "cost_usd",
    "tokens": "tokens",
    "seconds": "seconds",
}


def question_columns(run_id: str, config: BaseModel | Mapping[str, JsonValue]) -> Row:
    """The values of `QUESTION_COLUMNS` of a run's configuration."""
    if isinstance(config, BaseModel):
        config = config.model_dump(include={"strategy": True, "models": True, "question": {"text", "metadata"}})
    question = _object(config.get("question"))
    text = _text(question.get("text")).strip()
    metadata = _object(question.get("metadata"))
    # a request in another API's format keeps its caller's pairs one level deeper
    pairs = _pairs(_object(metadata.get("metadata")) or metadata, MAX_PAIRS)
    models = _pairs(_object(config.get("models")), MAX_MODELS)
    searched = (_text(run_id), text[:MAX_SEARCHED_CHARS], *pairs, *pairs.values())
    return (
        _text(config.get("strategy")),
        models.get("main", ""),
        _pairs_json(models),
        _shown(text),
        _pairs_json(pairs),
        "\n".join(searched).casefold(),
    )


def answer_columns(answer: Answer | Mapping[str, JsonValue] | None) -> Row:
    """The values of `ANSWER_COLUMNS` of an answer."""
    if answer is None:
        return (None,) * 6
    if isinstance(answer, Answer):
        used = answer.usage
        shown = answer.shown_answer
        text = None if shown is None else _shown(_text(shown))
        return text, answer.stopped, used.completion_tokens, used.thinking_tokens, used.cost_usd, used.wall_seconds
    usage = _object(answer.get("usage"))
    letter, option = answer.get("answer"), answer.get("option")
    shown = shown_answer(None if letter is None else _text(letter), None if option is None else _text(option))
    return (
        None if shown is None else _shown(shown),
        _text(answer.get("stopped")) or None,
        *(_number(usage.get(name)) for name in ("completion_tokens", "thinking_tokens", "cost_usd", "wall_seconds")),
    )


@dataclass(frozen=True)
class RunQuery:
    """The query of `RunStore.list_runs`; None and empty texts select all runs."""

    tenant: str | None
    status: RunStatus | None
    strategy: str | None
    model: str | None
    search: str
    tag: tuple[str, str] | None
    sort: RunSort
    ascending: bool

    @property
    def sort_key(self) -> str:
        """The expression that sorts; runs without a value come last."""
        if self.sort == "created":
            return "created"
        missing = "1e300" if self.ascending else "-1"
        return f"CAST(COALESCE({_SORT_COLUMNS[self.sort]}, {missing}) AS DOUBLE PRECISION)"

    def find(self, run_id: str) -> tuple[str, list[Any]]:
        """The statement that gives sort key and id of a run."""
        conditions, values = self._of_tenant()
        return f"SELECT {self.sort_key}, id FROM runs {_where([*conditions, 'id = ?'])}", [*values, run_id]  # noqa: S608

    def select(self, columns: str, position: Sequence[Any] | None, limit: int) -> tuple[str, list[Any]]:
        """The statement of a page.

        A search reads the short columns of `MAX_SEARCHED_RUNS` runs at most. In the order of creation these are the
        runs from the position on; otherwise, the newest ones.
        """
        direction, comparison = ("ASC", ">") if self.ascending else ("DESC", "<")
        after = ([f"({self.sort_key}, id) {comparison} (?, ?)"], list(position)) if position is not None else ([], [])
        tenant, filters = self._of_tenant(), self._filters()
        if self.sort == "created":
            inner, outer, window_direction = _both(tenant, after), filters, direction
        else:
            inner, outer, window_direction = tenant, _both(filters, after), "DESC"
        order = f"ORDER BY {self.sort_key} {direction}, id {direction} LIMIT ?"
        if self.sort == "created" and not filters[0]:
            return f"SELECT {columns}, {self.sort_key} FROM runs {_where(inner[0])}{order}", [*inner[1], limit]  # noqa: S608
        window = (
            f"SELECT {_WINDOW_COLUMNS} FROM runs {_where(inner[0])}"  # noqa: S608
            f"ORDER BY created {window_direction}, id {window_direction} LIMIT {MAX_SEARCHED_RUNS}"
        )
        return (
            f"SELECT {columns}, {self.sort_key} FROM ({window}) AS runs {_where(outer[0])}{order}",  # noqa: S608
            [*inner[1], *outer[1], limit],
        )

    def _of_tenant(self) -> tuple[list[str], list[Any]]:
        return ([], []) if self.tenant is None else (["tenant = ?"], [self.tenant])

    def _filters(self) -> tuple[list[str], list[Any]]:
        conditions: list[str] = []
        values: list[Any] = []
        if self.status is not None:
            # a run recorded as running counts as interrupted if its process is gone
            stored = ("queued", "running", "interrupted") if self.status == "interrupted" else (self.status,)
            conditions.append(f"status IN ({','.join('?' * len(stored))})")
            values += stored
        for column, value in (("strategy", self.strategy), ("model", self.model)):
            if value is not None:
                conditions.append(f"{column} = ?")
                values.append(_text(value))
        # a text changes without another one exactly if it contains it; LIKE would need escapes, and databases differ
        if self.search:
            conditions.append("REPLACE(search, ?, '') <> search")
            values.append(_text(self.search).casefold())
        if self.tag is not None:
            conditions.append("REPLACE(metadata, ?, '') <> metadata")
            values.append(_pair_json(*self.tag))
        return conditions, values


LISTED_COLUMNS = ", ".join(ListedRun.model_fields)
"""The columns of a `ListedRun`, in the order of its fields."""
_WINDOW_COLUMNS = f"{LISTED_COLUMNS}, model, search"


def _both(first: tuple[list[str], list[Any]], second: tuple[list[str], list[Any]]) -> tuple[list[str], list[Any]]:
    return [*first[0], *second[0]], [*first[1], *second[1]]


def _where(conditions: list[str]) -> str:
    return f"WHERE {' AND '.join(conditions)} " if conditions else ""


def _object(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _text(value: JsonValue) -> str:
    """Text that every database takes: without NUL and lone surrogates, which JSON could escape."""
    return str(value or "").replace("\0", " ").encode("utf-8", "replace").decode()


def _shown(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"


def _number(value: JsonValue) -> float | None:
    return value if isinstance(value, int | float) else None


def _pairs(values: Mapping[str, JsonValue], max_pairs: int) -> dict[str, str]:
    """The pairs of text; longer ones than the limits are left out."""
    pairs = {
        _text(key): _text(value)
        for key, value in values.items()
        if isinstance(value, str) and len(key) <= MAX_KEY_CHARS and len(value) <= MAX_VALUE_CHARS
    }
    return dict(list(pairs.items())[:max_pairs])


def _pairs_json(pairs: Mapping[str, str]) -> str:
    """The pairs as a JSON object, in which `_pair_json` occurs for its pairs alone."""
    return "{" + ",".join(_pair_json(key, value) for key, value in pairs.items()) + "}"


def _pair_json(key: str, value: str) -> str:
    return f"{json.dumps(_text(key))}:{json.dumps(_text(value))}"
