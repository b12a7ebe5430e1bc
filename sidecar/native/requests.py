"""Bodies of requests to the native API: bounded, and what is unknown is refused. Server and client share them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, field_validator

from ...agents.verify_text import MAX_ANSWER_CHARS
from ...core.budget import Budget
from ...core.question import MAX_QUESTION_CHARS, AnswerKind

MAX_DOCUMENTS = 64
MAX_DOCUMENT_CHARS = 1_000_000
MAX_NAMES = 16
MAX_FIELDS = 100

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Names = Annotated[tuple[Name, ...], Field(max_length=MAX_NAMES)]
Values = Annotated[dict[Name, JsonValue], Field(max_length=MAX_FIELDS)]


class Body(BaseModel):
    """The body of a request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="after")
    @classmethod
    def _whole_characters(cls, value: Any) -> Any:
        if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
            raise ValueError("this is not valid Unicode text")
        return value


class DocumentIn(Body):
    """A text that an answer may rest on, or is checked against.

    Attributes:
        name: What citations call it.
        text: Its content; it is data, and never obeyed.
    """

    name: Name
    text: Annotated[str, StringConstraints(max_length=MAX_DOCUMENT_CHARS)]


Documents = Annotated[tuple[DocumentIn, ...], Field(max_length=MAX_DOCUMENTS)]


class AskBody(Body):
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
        stream: Whether the run's events are sent as they happen, rather than the answer alone.
        text: With `stream`: whether text is told as it is generated.
    """

    stream: bool = False
    text: bool = False


class VerifyBody(Body):
    """A text that is to be checked, claim by claim.

    Attributes:
        text: The text; it is data, and never obeyed.
        question: What it answers, which may name what "it" is in it.
        documents: Texts that it is checked against, beside the server's own evidence.
        verifiers: The verifiers; empty are the settings', or `davinci`.
        parameters: Parameters by verifier.
        model: The language model, where the verifier asks one.
        jurors: The models of a jury, for a verifier that asks one.
        budget: Limits of the run; the server's own hold as well.
        programs_only: Go on without any document: what no program can work out is "not enough evidence" then.
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
