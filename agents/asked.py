"""What was asked, checked: a question before a run begins, a stored run's configuration before it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from ..core.errors import DataError, UserError
from ..core.question import MAX_CONVERSATION_CHARS, MAX_QUESTION_CHARS, Document, Question
from ..core.run import RunConfig
from ..core.store import RunRecord
from ..serving.model import LanguageModel
from ..serving.rewards import RewardModel


def check_question(
    question: str | Question, choices: Sequence[str] = (), documents: Sequence[Document] = ()
) -> Question:
    """A question that can be asked.

    Raises:
        UserError: It is empty, too long with its conversation, or its choices are no choice.
    """
    text = question.text if isinstance(question, Question) else question
    if not text.strip():
        raise UserError("the question is empty", hint="give a question")
    if len(text) > MAX_QUESTION_CHARS:
        raise UserError(
            f"the question has {len(text):,} characters, more than {MAX_QUESTION_CHARS:,}",
            hint="put long texts into files and give them with --context (documents= in Python)",
        )
    if isinstance(question, Question) and not choices and not documents:
        asked = question
    else:
        base = question if isinstance(question, Question) else Question(text=text)
        asked = base.model_copy(
            update={"choices": tuple(choices) or base.choices, "documents": tuple(documents) or base.documents}
        )
    if asked.choices and (len(asked.choices) < 2 or any(not c.strip() for c in asked.choices)):
        raise UserError("a multiple-choice question needs at least two choices, none of them empty")
    if len(asked.choices) > 26:
        raise UserError(f"{len(asked.choices)} choices are more than there are letters", hint="at most 26")
    size = _conversation_chars(asked)
    if size > MAX_CONVERSATION_CHARS:
        raise UserError(
            f"the conversation and its tools have {size:,} characters, more than {MAX_CONVERSATION_CHARS:,}",
            hint="leave the oldest turns away",
        )
    return asked


def _conversation_chars(question: Question) -> int:
    turns = (*question.conversation, *question.since)
    said = sum(len(turn.content) + sum(len(c.name) + len(c.arguments) for c in turn.tool_calls) for turn in turns)
    return said + sum(len(tool.model_dump_json()) for tool in question.tools)


def read_config(record: RunRecord) -> RunConfig:
    """How a stored run was configured.

    Raises:
        DataError: It was written by a version of `reason` that this one does not understand.
    """
    try:
        return RunConfig.model_validate(record.config)
    except ValidationError as e:
        raise DataError(f"run {record.id} was made by another version of reason", hint="ask the question anew") from e


def refuse_changed(record: RunRecord, models: Mapping[str, LanguageModel | RewardModel]) -> None:
    """Refuse to go on with other models than those that a run began with.

    Args:
        record: The run.
        models: Its models by role.

    Raises:
        UserError: One is another than it was.
    """
    for role, model in models.items():
        known = record.identities.get(role)
        if isinstance(known, dict) and known.get("identity") != model.identity:
            raise UserError(
                f"model {model.name} is not the one that run {record.id} began with", hint="ask the question anew"
            )
