"""Bodies of requests and responses of the native API; server and client share them. Unknown fields are rejected."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, field_validator

from ...agents.planner import GIVEN, given_text
from ...agents.verification import MAX_ANSWER_CHARS
from ...core.budget import Budget
from ...core.run import RunConfig, read_config
from ...core.store.protocol import RunRecord, RunStatus
from ...core.types import MAX_QUESTION_CHARS, Answer, AnswerKind
from ..error_objects import stored_error_object
from ..policy import without_paths

MAX_DOCUMENTS = 64
MAX_DOCUMENT_CHARS = 1_000_000
MAX_NAMES = 16
MAX_FIELDS = 100

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Names = Annotated[tuple[Name, ...], Field(max_length=MAX_NAMES)]
Values = Annotated[dict[Name, JsonValue], Field(max_length=MAX_FIELDS)]


class RequestBody(BaseModel):
    """The body of a request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="after")
    @classmethod
    def _whole_characters(cls, value: Any) -> Any:
        if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
            raise ValueError("this is not valid Unicode text")
        return value


class DocumentIn(RequestBody):
    """A text that an answer may rest on, or is checked against.

    Attributes:
        name: What citations call it.
        text: Its content; it is data, and never obeyed.
    """

    name: Name
    text: Annotated[str, StringConstraints(max_length=MAX_DOCUMENT_CHARS)]


Documents = Annotated[tuple[DocumentIn, ...], Field(max_length=MAX_DOCUMENTS)]


class AskBody(RequestBody):
    """A question, and how it is to be answered. What is left out is as the server's settings have it.

    Attributes:
        question: The question.
        choices: Options of a multiple-choice question; the answer is a letter.
        documents: Texts that the answer may rest on.
        kind: What the answer is.
        metadata: Comes back with the run.
        model: A name of `GET /v1/models`.
        strategy: The strategy, where the model's name has none.
        parameters: Parameters of the strategy that differ from the settings.
        small_model: The model for small steps.
        judge_model: The model that judges.
        jurors: The models of a jury.
        chair_model: The model that makes one answer of the jurors'.
        verify: The verifiers.
        verify_parameters: Parameters by verifier.
        repairs: How often an answer that did not pass goes back to the strategy.
        require_verified: Whether an answer that the verifiers do not support is an error.
        budget: Limits of the run; the server's own hold as well.
        seed: The same seed gives the same answer.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"question": "What is 17 * 23?"},
                {
                    "question": "When was the bridge opened?",
                    "documents": [{"name": "town.txt", "text": "The bridge was opened in 1932."}],
                    "strategy": "self-consistency",
                    "parameters": {"n": 8},
                    "verify": ["davinci"],
                    "budget": {"tokens": 4000, "seconds": 60},
                    "seed": 7,
                },
            ]
        }
    )

    question: Annotated[str, StringConstraints(min_length=1, max_length=MAX_QUESTION_CHARS)]
    choices: Annotated[
        tuple[Annotated[str, StringConstraints(min_length=1, max_length=10_000)], ...], Field(max_length=26)
    ] = ()
    documents: Documents = ()
    kind: AnswerKind = "auto"
    metadata: Annotated[dict[Name, Annotated[str, StringConstraints(max_length=1000)]], Field(max_length=MAX_NAMES)] = (
        Field(default_factory=dict)
    )
    model: Name | None = None
    strategy: Name | None = None
    parameters: Values = Field(default_factory=dict)
    small_model: Name | None = None
    judge_model: Name | None = None
    jurors: Names | None = None
    chair_model: Name | None = None
    verify: Names | None = None
    verify_parameters: Annotated[dict[Name, Values], Field(max_length=MAX_NAMES)] = Field(default_factory=dict)
    repairs: Annotated[int, Field(ge=0, le=10)] | None = None
    require_verified: bool | None = None
    budget: Budget = Budget()
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


class ReasonBody(AskBody):
    """A question whose answer is waited for.

    Attributes:
        stream: Whether the run's events are sent as they happen, rather than the answer only.
        text: With `stream`: whether text is reported as it is generated.
    """

    stream: bool = False
    text: bool = False


class VerifyBody(RequestBody):
    """A text that is to be checked, claim by claim.

    Attributes:
        text: The text; it is data, and never obeyed.
        question: What it answers, which may name what "it" is in it.
        documents: Texts that it is checked against, next to the server's own evidence.
        verifiers: The verifiers; empty are the settings', or `davinci`.
        parameters: Parameters by verifier.
        model: The language model, where the verifier asks one.
        jurors: The models of a jury, for a verifier that asks one.
        budget: Limits of the run; the server's own hold as well.
        programs_only: Continue without any document: what no program can work out is "not enough evidence" then.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "text": "The bridge was opened in 1932 and is 300 m long.",
                    "documents": [{"name": "town.txt", "text": "The bridge was opened in 1932."}],
                }
            ]
        }
    )

    text: Annotated[str, StringConstraints(min_length=1, max_length=MAX_ANSWER_CHARS)]
    question: Annotated[str, StringConstraints(max_length=MAX_QUESTION_CHARS)] = ""
    documents: Documents = ()
    verifiers: Names = ()
    parameters: Annotated[dict[Name, Values], Field(max_length=MAX_NAMES)] = Field(default_factory=dict)
    model: Name | None = None
    jurors: Names | None = None
    budget: Budget = Budget()
    programs_only: bool = False


class ResponseBody(BaseModel):
    """The body of a response; a client of an older version passes over what it does not know."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")


class ErrorObject(ResponseBody):
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


class ErrorBody(ResponseBody):
    """Every error."""

    error: ErrorObject


class RunSummary(ResponseBody):
    """A run in a list.

    Attributes:
        id: Its name.
        status: "queued", "running", "finished", "interrupted" or "failed".
        created: When it was made, seconds since the epoch.
        updated: When it was last written.
        background: Whether it continues when the process that works on it ends.
        cancelling: Whether it was reported to stop and has not stopped yet.
        question: What is queried, or of a verification, what the text answers.
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


class RunError(ResponseBody):
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
        result: The answer, complete; partial if the run was stopped.
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


class RunPage(ResponseBody):
    """Some runs, newest first.

    Attributes:
        runs: The runs.
        next: What `before` is for those that follow; None if there are none.
    """

    runs: tuple[RunSummary, ...]
    next: str | None = None


class RegisteredKind(ResponseBody):
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


class RegisteredKinds(ResponseBody):
    """All strategies, or all verifiers."""

    data: tuple[RegisteredKind, ...]


class HealthStatus(ResponseBody):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(ResponseBody):
    """Whether the process takes runs, and if not, why.

    Attributes:
        ready: Whether it does.
        draining: Whether it is about to stop.
        store: "ok" or "unreachable".
        models: Those that are open, or can be opened at the first request.
        in_flight: Runs in flight or waiting here.
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
    """A stored run. What of its configuration reports of the server's own files is left out."""
    config, answer = read_config(record), _answer(record)
    is_given = config.strategy == GIVEN
    return RunDetail.model_validate(
        {
            **_summary(record, config, answer),
            "parameters": {} if is_given else without_paths(config.parameters),
            "verify": config.verify,
            "budget": config.budget,
            "seed": config.seed,
            "metadata": config.question.metadata,
            "text": given_text(config.parameters) if is_given else None,
            "result": answer,
            "error": None if record.error is None else stored_error_object(record.error),
        }
    )


def _answer(record: RunRecord) -> Answer | None:
    return None if record.answer is None else Answer.model_validate(record.answer)


def _summary(record: RunRecord, config: RunConfig, answer: Answer | None) -> dict[str, object]:
    return {
        "id": record.id,
        # one in the background whose process was killed waits for the next
        "status": "queued" if record.status == "interrupted" and is_active(record) else record.status,
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


def is_active(record: RunRecord) -> bool:
    """Whether a run is in flight, or will be taken up: one in the background whose process was killed is."""
    if record.status in ("queued", "running"):
        return True
    return record.background and record.status == "interrupted" and record.owner is not None
