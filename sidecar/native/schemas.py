"""Request and response bodies of the native API."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ModelWrapValidatorHandler,
    StringConstraints,
    ValidationError,
    model_validator,
)

from ...agents.planner import GIVEN, given_text
from ...agents.verification import MAX_ANSWER_CHARS
from ...core.budget import Budget
from ...core.messages import ApprovalMode, Effort
from ...core.run import read_config
from ...core.store.records import ListedRun, RunRecord, RunStatus
from ...core.store.run_list import MAX_KEY_CHARS, MAX_PAIRS, MAX_VALUE_CHARS
from ...core.types import MAX_QUESTION_CHARS, MAX_TESTS, Answer, AnswerKind, PendingToolCall
from ..errors import public_stored_error
from ..policy import without_paths

MAX_DOCUMENTS = 64
MAX_DOCUMENT_CHARS = 1_000_000
MAX_NAMES = 16
MAX_FIELDS = 100
MAX_FAULTS = 100
"""Maximum number of faults of a body that are told apart; to list 100,000 takes half a second."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Names = Annotated[tuple[Name, ...], Field(max_length=MAX_NAMES)]
ID_PATTERN = r"^[A-Za-z0-9._:-]+$"
ConversationId = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=ID_PATTERN)]
Values = Annotated[dict[Name, JsonValue], Field(max_length=MAX_FIELDS)]
Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=MAX_KEY_CHARS)],
        Annotated[str, StringConstraints(max_length=MAX_VALUE_CHARS)],
    ],
    Field(max_length=MAX_PAIRS),
]
"""Key-value pairs of a caller, with the limits of OpenAI's API."""


class FewFaults(BaseModel):
    """Base class of models with a bounded number of faults."""

    @model_validator(mode="wrap")
    @classmethod
    def _few_faults(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as e:
            if e.error_count() > MAX_FAULTS:
                raise ValueError(f"{e.error_count():,} fields are unknown or invalid") from None
            raise


class RequestBody(FewFaults):
    """Base class of request bodies; unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DocumentIn(RequestBody):
    """A document: context for an answer, or evidence for a verification.

    Attributes:
        name: Name of the document, used in citations.
        text: The content. Treated as data; instructions in it are not followed.
    """

    name: Name
    text: Annotated[str, StringConstraints(max_length=MAX_DOCUMENT_CHARS)]


Documents = Annotated[tuple[DocumentIn, ...], Field(max_length=MAX_DOCUMENTS)]


class CodeTestIn(RequestBody):
    """A test of an answer that is Python code.

    Attributes:
        name: What reports call it.
        code: Source that is run after the answer's code and fails by an exception; or examples as in a docstring, if it
            begins with `>>>`.
    """

    name: Name
    code: Annotated[str, StringConstraints(min_length=1, max_length=MAX_QUESTION_CHARS)]


CodeTests = Annotated[tuple[CodeTestIn, ...], Field(max_length=MAX_TESTS)]


class ConversationIn(RequestBody):
    """A conversation that a question belongs to.

    Attributes:
        id: Its ID, which its first question chooses.
        budget: Limits of all its questions together; None are those of its question before.
    """

    id: ConversationId
    budget: Budget | None = None


class AskBody(RequestBody):
    """A question and the configuration of its run. Omitted fields default to the server's settings.

    Attributes:
        question: The question.
        choices: Options of a multiple-choice question; the answer is a letter.
        documents: Context for the answer.
        kind: Kind of the expected answer.
        tests: Tests of an answer that is Python code; the model is not shown them.
        metadata: Up to 16 pairs of texts, of 64 and 512 characters; returned with the run.
        model: A model name listed by `GET /v1/models`.
        strategy: The strategy, unless the model name determines it.
        parameters: Parameters of the strategy; override the settings.
        small_model: The model for small steps.
        judge_model: The judge model.
        jurors: The models of the jury, one per juror.
        verify: The verifiers.
        verify_parameters: Parameters by verifier.
        repairs: Maximum number of times that an answer is returned to the strategy after a failed verification.
        require_verified: Whether an answer that the verifiers do not support is an error.
        budget: Limits of the run; the server's limits apply as well.
        effort: How much models that think do so before they answer; None is each model's default.
        thinking_tokens: Maximum number of tokens of each thought.
        seed: Seed of the run, for reproducible sampling.
        tools: Tools that the model may call and the server executes, of those that the server offers.
        approve: Which of their calls need an approval: "never" none, "guard" changes that the user's words do not name
            once a result has been read, "writes" all that change something, "all". Not fewer than the server requires,
            which is "writes" unless it is set.
        check_writes: Whether calls that change something are executed only if the judge model quotes words of the user
            that ask for them. The server's setting applies as well.
        policy: A policy of which it has to quote words that allow them too; only if the server has none.
        trajectories: Number of loops over the tools that the run is made by, of which one is chosen.
        select: The rule that chooses: "race", "ended-fewest-calls", "agreement", "judge" or "tests".
        conversation: The conversation whose next question it is, or its ID. The model sees the messages before, and
            has the tools of the question before unless `tools` names others.
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
    tests: CodeTests = ()
    metadata: Metadata = Field(default_factory=dict)
    model: Name | None = None
    strategy: Name | None = None
    parameters: Values = Field(default_factory=dict)
    small_model: Name | None = None
    judge_model: Name | None = None
    jurors: Names | None = None
    verify: Names | None = None
    verify_parameters: Annotated[dict[Name, Values], Field(max_length=MAX_NAMES)] = Field(default_factory=dict)
    repairs: Annotated[int, Field(ge=0, le=10)] | None = None
    require_verified: bool | None = None
    budget: Budget = Budget()
    effort: Effort | None = None
    thinking_tokens: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    tools: Names | None = None
    approve: ApprovalMode | None = None
    check_writes: bool = False
    policy: Annotated[str, StringConstraints(min_length=1, max_length=MAX_QUESTION_CHARS)] | None = None
    trajectories: Annotated[int, Field(ge=1)] | None = None
    select: Name | None = None
    conversation: ConversationId | ConversationIn | None = None


class ReasonBody(AskBody):
    """A question with a synchronous or streamed response.

    Attributes:
        stream: Whether to stream the run's events instead of returning only the answer.
        text: With `stream`, whether to include generated text as it is produced.
    """

    stream: bool = False
    text: bool = False


class DecisionIn(RequestBody):
    """A decision about a tool call.

    Attributes:
        type: "approve", "edit" (with other arguments) or "reject"; of an interrupted call, "done" if it took effect,
            else "failed".
        arguments: With "edit", the new arguments.
        reason: Shown to the model with a rejection.
    """

    type: Literal["approve", "edit", "reject", "done", "failed"]
    arguments: dict[str, JsonValue] | None = None
    reason: Annotated[str, StringConstraints(max_length=2_000)] = ""

    @model_validator(mode="after")
    def _edits_have_arguments(self) -> Self:
        if (self.type == "edit") != (self.arguments is not None):
            raise ValueError("the decision edit needs arguments, and no other takes any")
        return self


class DecisionsBody(RequestBody):
    """Decisions about the tool calls that a run waits for.

    Attributes:
        decisions: By the ids of the calls.
        resume: Whether the run continues once all of them are decided.
    """

    decisions: Annotated[dict[Name, DecisionIn], Field(min_length=1, max_length=MAX_FIELDS)]
    resume: bool = True


class VerifyBody(RequestBody):
    """A text to verify claim by claim.

    Attributes:
        text: The text. Treated as data; instructions in it are not followed.
        question: The question that the text answers; helps to resolve references in it.
        documents: Evidence, in addition to the server's own.
        verifiers: The verifiers; empty means those of the settings, or `davinci`.
        parameters: Parameters by verifier.
        model: The language model, for a verifier that uses one.
        jurors: The models of the jury, for a verifier that uses one.
        budget: Limits of the run; the server's limits apply as well.
        programs_only: Verify without any document: claims that no program can check are "not enough evidence".
        tests: Tests of a text that is Python code, for the verifier `execution`.
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
    tests: CodeTests = ()


class ResponseBody(BaseModel):
    """Base class of response bodies; unknown fields are ignored, so that older clients accept newer servers."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")


class ErrorObject(ResponseBody):
    """An error.

    Attributes:
        message: A one-line message.
        type: The error type, as in OpenAI's API.
        param: The invalid field of the request.
        code: A machine-readable code.
    """

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(ResponseBody):
    """The body of an error response."""

    error: ErrorObject


class RunSummary(ResponseBody):
    """Summary of a run.

    Attributes:
        id: The run's ID.
        status: "queued", "running", "waiting" (for decisions about tool calls), "finished", "interrupted" or "failed".
        created: Creation time, in seconds since the epoch.
        updated: Time of the last update, in seconds since the epoch.
        background: Whether another process continues the run if its process ends.
        cancelling: Whether cancellation was requested and the run has not stopped yet.
        concluding: Whether the answer was requested and the run has not ended yet.
        question: The question; for a verification, the question that the text answers. In a list, its first 200
            characters.
        strategy: The strategy; "given" for a verification.
        models: Models by role.
        metadata: The pairs of the request; in a list, only texts.
        answer: The extracted answer, of a multiple-choice question the option's text and letter, `21 (A)`; None until
            there is one. In a list, its first 200 characters.
        stopped: Why the answer was final: "done", "budget", "user", "abstained", "loop", "waiting", "cancelled" or
            "error"; None until the run has ended.
        tokens: Number of generated tokens, those of thoughts included; None until the run has ended.
        thinking_tokens: Number of them that are thoughts; None until the run has ended.
        cost_usd: Cost in US dollars; None until the run has ended, or if a price is unknown.
        seconds: Wall-clock time; None until the run has ended.
    """

    id: str
    status: RunStatus
    created: float
    updated: float
    background: bool
    cancelling: bool
    concluding: bool = False
    question: str
    strategy: str
    models: dict[str, str]
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    answer: str | None = None
    stopped: str | None = None
    tokens: int | None = None
    thinking_tokens: int | None = None
    cost_usd: float | None = None
    seconds: float | None = None


class RunError(ResponseBody):
    """The error that a run ended with."""

    code: str
    message: str


class RunDetail(RunSummary):
    """Details of a run.

    Attributes:
        parameters: All parameters of the strategy.
        verify: The verifiers.
        budget: Limits of the run.
        effort: How much the models think before they answer; None is each model's default.
        max_thinking_tokens: Maximum number of tokens of each thought; None is the effort's.
        seed: Seed of the run.
        text: The verified text; None unless the run is a verification.
        result: The full answer; partial if the run was stopped.
        error: The error, if the run failed.
        pending: The tool calls that the run waits for.
        conversation: ID of its conversation; empty without one.
    """

    parameters: dict[str, JsonValue]
    verify: tuple[str, ...]
    budget: Budget
    effort: Effort | None = None
    max_thinking_tokens: int | None = None
    seed: int
    text: str | None = None
    result: Answer | None = None
    error: RunError | None = None
    pending: tuple[PendingToolCall, ...] = ()
    conversation: str = ""


class RunPage(ResponseBody):
    """A page of runs, in the form of OpenAI's lists.

    Attributes:
        data: The runs.
        has_more: Whether there is another page.
        last_id: Value of `after` for the next page; None if this one is empty.
    """

    object: Literal["list"] = "list"
    data: tuple[RunSummary, ...]
    has_more: bool
    last_id: str | None = None


class ConversationTurn(RunSummary):
    """A question of a conversation, with its complete answer.

    Attributes:
        text: Complete text of the answer; None until there is one.
    """

    text: str | None = None


class ConversationDetail(ResponseBody):
    """A conversation.

    Attributes:
        budget: Limits of all its questions together.
        data: Its questions, the oldest first.
    """

    id: str
    object: Literal["conversation"] = "conversation"
    budget: Budget | None = None
    data: tuple[ConversationTurn, ...]


class DeletedRun(ResponseBody):
    """A run that was deleted."""

    id: str
    object: Literal["run"] = "run"
    deleted: Literal[True] = True


class RegisteredKind(ResponseBody):
    """A strategy or a verifier.

    Attributes:
        name: Name of the strategy or verifier.
        summary: One-line description.
        stability: "stable", "beta" or "experimental".
        paper: The paper that it implements.
        confidence: What the confidence of a strategy's answers means; empty for a verifier.
        roles: Roles of the models that it uses.
        parameters: JSON schema of its parameters.
    """

    name: str
    summary: str
    stability: str
    paper: str
    confidence: str = ""
    roles: tuple[str, ...]
    parameters: dict[str, JsonValue]


class RegisteredKinds(ResponseBody):
    """The available strategies or verifiers."""

    data: tuple[RegisteredKind, ...]


class HealthStatus(ResponseBody):
    """Liveness of the process."""

    status: Literal["ok"] = "ok"


class Readiness(ResponseBody):
    """Readiness of the process.

    Attributes:
        ready: Whether the process accepts runs.
        draining: Whether the process is shutting down.
        store: "ok" or "unreachable".
        models: State of each offered model: "open" if loaded, or "at first use" if the first request loads it.
        in_flight: Number of running and waiting runs in this process.
    """

    ready: bool
    draining: bool
    store: Literal["ok", "unreachable"]
    models: dict[str, Literal["open", "at first use"]]
    in_flight: int


def summary_of(run: ListedRun) -> RunSummary:
    """The summary of a stored run, from the short values that the store keeps beside its configuration."""
    return RunSummary.model_construct(**_summary(run))


def turn_of(record: RunRecord) -> ConversationTurn:
    """Convert a stored run to a question of its conversation."""
    answer = None if record.answer is None else Answer.model_validate(record.answer)
    whole = {
        "question": read_config(record).question.text.strip(),
        "answer": None if answer is None else answer.shown_answer,
        "text": None if answer is None else answer.text,
    }
    return ConversationTurn.model_construct(**{**_summary(record), **whole})


def detail_of(record: RunRecord, pending: tuple[PendingToolCall, ...] = ()) -> RunDetail:
    """Convert a stored run to its details, without parameters that name files on the server."""
    config = read_config(record)
    answer = None if record.answer is None else Answer.model_validate(record.answer)
    is_given = config.strategy == GIVEN
    whole = {
        "question": config.question.text.strip(),
        "metadata": config.question.metadata,
        "answer": None if answer is None else answer.shown_answer,
        "parameters": {} if is_given else without_paths(config.parameters),
        "verify": config.verify,
        "budget": config.budget,
        "effort": config.effort,
        "max_thinking_tokens": config.thinking_tokens,
        "seed": config.seed,
        "text": given_text(config.parameters) if is_given else None,
        "result": answer,
        "pending": pending,
        "conversation": config.conversation,
        "error": None if record.error is None else RunError.model_validate(public_stored_error(record.error)),
    }
    return RunDetail.model_construct(**{**_summary(record), **whole})


def _summary(run: ListedRun) -> dict[str, Any]:
    return {
        "id": run.id,
        # an interrupted background run waits for another process
        "status": "queued" if run.status == "interrupted" and is_active(run) else run.status,
        "created": run.created,
        "updated": run.updated,
        "background": run.background,
        "cancelling": run.cancel_requested and run.status in ("queued", "running"),
        "concluding": run.answer_requested and is_active(run),
        "question": run.question,
        "strategy": run.strategy,
        "models": run.models,
        "metadata": run.metadata,
        "answer": run.answer_text,
        "stopped": run.stopped,
        "tokens": run.tokens,
        "thinking_tokens": run.thinking_tokens,
        "cost_usd": run.cost_usd,
        "seconds": run.seconds,
    }


def is_active(record: ListedRun) -> bool:
    """Whether a run is queued or running, or a background run of a killed process, which another process adopts."""
    if record.status in ("queued", "running"):
        return True
    return record.background and record.status == "interrupted" and record.owner is not None
