"""Replies of the native API. Server and client share them; an answer itself is `core.answer.Answer`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from ...agents.asked import read_config
from ...agents.given import GIVEN, given_text
from ...core.answer import Answer
from ...core.budget import Budget
from ...core.run import RunConfig
from ...core.store import RunRecord, RunStatus
from ..error_objects import shown_error
from ..offered import without_places
from ..stored_run import goes_on


class Reply(BaseModel):
    """The body of a reply; a client of an older version passes over what it does not know."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")


class ErrorObject(Reply):
    """What went wrong.

    Attributes:
        message: One line.
        type: Its kind, as OpenAI's API calls them.
        param: Field of the request at fault.
        code: For programs.
    """

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorReply(Reply):
    """Every error."""

    error: ErrorObject


class RunSummary(Reply):
    """A run in a list.

    Attributes:
        id: Its name.
        status: "queued", "running", "finished", "interrupted" or "failed".
        created: When it was made, seconds since the epoch.
        updated: When it was last written.
        background: Whether it goes on when the process that works on it ends.
        cancelling: Whether it was told to stop and has not stopped yet.
        question: What is asked, or of a verification, what the text answers.
        strategy: The strategy; "given" of a verification.
        models: Model by role.
        answer: The extracted answer, once there is one.
        tokens: Generated tokens, once it has ended.
        cost_usd: US dollars likewise; None if a price is unknown.
    """

    id: str
    status: RunStatus
    created: float
    updated: float
    background: bool
    cancelling: bool
    question: str
    strategy: str
    models: dict[str, str]
    answer: str | None = None
    tokens: int | None = None
    cost_usd: float | None = None


class RunError(Reply):
    """What a run ended with."""

    code: str
    message: str


class RunDetail(RunSummary):
    """A run.

    Attributes:
        parameters: The strategy's, complete.
        verify: The verifiers.
        budget: Its limits.
        seed: Its seed.
        metadata: As it was given.
        text: Of a verification, the text that is checked.
        result: The answer, whole; partial if the run was stopped.
        error: What it ended with, if it failed.
    """

    parameters: dict[str, JsonValue]
    verify: tuple[str, ...]
    budget: Budget
    seed: int
    metadata: dict[str, JsonValue]
    text: str | None = None
    result: Answer | None = None
    error: RunError | None = None


class RunPage(Reply):
    """Some runs, newest first.

    Attributes:
        runs: The runs.
        next: What `before` is for those that follow; None if there are none.
    """

    runs: tuple[RunSummary, ...]
    next: str | None = None


class Kind(Reply):
    """A strategy or a verifier.

    Attributes:
        name: Its name.
        summary: What it does.
        stability: "stable", "beta" or "experimental".
        paper: Where it comes from.
        roles: The roles whose models it uses.
        parameters: JSON schema of its parameters.
    """

    name: str
    summary: str
    stability: str
    paper: str
    roles: tuple[str, ...]
    parameters: dict[str, JsonValue]


class Kinds(Reply):
    """All strategies, or all verifiers."""

    data: tuple[Kind, ...]


class Health(Reply):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(Reply):
    """Whether the process takes runs, and if not, why.

    Attributes:
        ready: Whether it does.
        draining: Whether it is about to stop.
        store: "ok" or "unreachable".
        models: Those that are open, or can be opened at the first request.
        in_flight: Runs under way or waiting here.
    """

    ready: bool
    draining: bool
    store: Literal["ok", "unreachable"]
    models: dict[str, Literal["open", "at first use"]]
    in_flight: int


def summary_of(record: RunRecord) -> RunSummary:
    """A stored run, in short."""
    return RunSummary.model_validate(_summary(record, read_config(record), _answer(record)))


def detail_of(record: RunRecord) -> RunDetail:
    """A stored run. What of its configuration tells of the server's own files is left out."""
    config, answer = read_config(record), _answer(record)
    given = config.strategy == GIVEN
    return RunDetail.model_validate(
        {
            **_summary(record, config, answer),
            "parameters": {} if given else without_places(config.parameters),
            "verify": config.verify,
            "budget": config.budget,
            "seed": config.seed,
            "metadata": config.question.metadata,
            "text": given_text(config.parameters) if given else None,
            "result": answer,
            "error": None if record.error is None else shown_error(record.error),
        }
    )


def _answer(record: RunRecord) -> Answer | None:
    return None if record.answer is None else Answer.model_validate(record.answer)


def _summary(record: RunRecord, config: RunConfig, answer: Answer | None) -> dict[str, object]:
    return {
        "id": record.id,
        # one in the background whose process was killed waits for the next
        "status": "queued" if record.status == "interrupted" and goes_on(record) else record.status,
        "created": record.created,
        "updated": record.updated,
        "background": record.background,
        "cancelling": record.cancel_requested and record.status in ("queued", "running"),
        "question": config.question.text.strip(),
        "strategy": config.strategy,
        "models": config.models,
        "answer": None if answer is None else answer.answer,
        "tokens": None if answer is None else answer.usage.completion_tokens,
        "cost_usd": None if answer is None else answer.usage.cost_usd,
    }
