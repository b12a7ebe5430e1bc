"""`ScoredClaim`: what is to be answered, with everything that came with it.

From a candidate to the answer: `Step`, `Candidate`, `Solution`, `Verification`, `Answer`.

`Answer` is what the user gets; its JSON is what `reason ask --json` prints.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, StringConstraints, model_validator

from .messages import (
    TOOL_CHOICE_AUTO,
    TOOL_CHOICE_NONE,
    Frozen,
    Message,
    Tool,
    ToolCall,
    ToolChoice,
    validate_tool_choice,
)

MAX_QUESTION_CHARS = 200_000
"""Longest question taken, in characters: beyond it the input is a file, and belongs into `documents`."""

MAX_CONVERSATION_CHARS = 1_000_000
"""Longest conversation taken beside the question, in characters, its tools and calls included."""

AnswerKind = Literal["auto", "choice", "number", "math", "yes_no", "text"]


class Document(Frozen):
    """A text that came with the question.

    Attributes:
        name: Where it came from, for example a file name.
        text: Its content.
    """

    name: str
    text: str


class Question(Frozen):
    """What is to be answered.

    Attributes:
        text: The question.
        choices: The options of a multiple-choice question, in the order shown; the answer is a letter.
        documents: Texts the answer may rest on.
        kind: What the answer is: "auto" lets the extractor decide ("choice" wherever there are choices).
        metadata: Anything the caller wants back; no strategy reads it.
        conversation: Turns before the question. Those of the system stand at the head of every prompt, with whatever a
            strategy has to say there itself behind them (`reasoning.prompts.opening`).
        continuation: Turns behind the question, where what is asked for is how to go on: the calls that it led to and what the
            tools gave. Only a strategy that takes tools can be asked so.
        tools: What the model may ask to be called. A strategy either takes tools (`Strategy.takes_tools`) or cannot be
            asked with them. With the choice "none" they are shown to nobody.
        tool_choice: "auto", "none", "required", or the name of the tool that is to be called.
    """

    text: Annotated[str, StringConstraints(min_length=1)]
    choices: tuple[str, ...] = ()
    documents: tuple[Document, ...] = ()
    kind: AnswerKind = "auto"
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    # what is empty is in no dump: digests of questions that have nothing of it stay as they were
    conversation: tuple[Message, ...] = Field(default=(), exclude_if=lambda value: not value)
    continuation: tuple[Message, ...] = Field(default=(), exclude_if=lambda value: not value)
    tools: tuple[Tool, ...] = Field(default=(), exclude_if=lambda value: not value)
    tool_choice: ToolChoice = Field(default=TOOL_CHOICE_AUTO, exclude_if=lambda value: value == TOOL_CHOICE_AUTO)

    @model_validator(mode="after")
    def _turns_and_tools_fit(self) -> Self:
        if self.tools or self.tool_choice != TOOL_CHOICE_AUTO:
            validate_tool_choice(self.tools, self.tool_choice)
        if self.continuation and self.continuation[0].role != "assistant":
            raise ValueError("what follows the question begins with a turn of the assistant")
        return self

    @property
    def offered_tools(self) -> tuple[Tool, ...]:
        """The tools that a model is shown."""
        return () if self.tool_choice == TOOL_CHOICE_NONE else self.tools

    @property
    def needs_tools(self) -> bool:
        """Whether only a strategy that takes tools can be asked."""
        return bool(self.offered_tools or self.continuation)


Stopped = Literal["done", "budget", "cancelled", "error"]
Verdict = Literal["supported", "refuted", "not_enough_evidence", "disputed", "unchecked", "unparsed"]
Probability = Annotated[float, Field(ge=0, le=1)]


class Evidence(Frozen):
    """A span of a text that a verdict or an answer rests on.

    Attributes:
        source: Name of the document.
        text: The span.
        start: First character within the document; None if unknown.
        end: One past the last character.
    """

    source: str
    text: str
    start: int | None = None
    end: int | None = None


class Step(Frozen):
    """One step of a chain of reasoning.

    Attributes:
        text: The step.
        model: Who wrote it, where a strategy uses several models.
        scores: Named scores; each states its range where it is made.
    """

    text: str
    model: str = ""
    scores: dict[str, float] = Field(default_factory=dict)


class Candidate(Frozen):
    """One complete attempt.

    Attributes:
        text: What the model wrote.
        answer: The answer extracted from it; None if none was found.
        steps: The text cut into steps; empty where a strategy does not work in steps.
        score: The strategy's ranking score; None if it does not rank. The range is the strategy's.
        logprob: Summed raw log-probability of the text, in nats; None if unknown.
        tokens: Generated tokens.
        finish_reason: How its generation ended.
        citations: What it rests on, as its text numbers it, from 1; empty where a strategy brings no knowledge in.
        tool_calls: Tools that it asks to be called. Its answer is then their canonical text (`tools.canonical`), by
            which equal calls vote as equal answers.
    """

    text: str
    answer: str | None = None
    steps: tuple[Step, ...] = ()
    score: float | None = None
    logprob: float | None = None
    tokens: int = 0
    finish_reason: str = "stop"
    citations: tuple[Evidence, ...] = ()
    tool_calls: tuple[ToolCall, ...] = Field(default=(), exclude_if=lambda value: not value)


class Solution(Frozen):
    """What a strategy returns.

    Attributes:
        chosen: Position of the chosen candidate; None if there is none.
        candidates: All attempts, in order of creation.
        confidence: The strategy's own estimate of P(correct); None if it makes none. Not calibrated.
        stopped: Why the strategy ended: "done", "budget", "cancelled" or "error".
        notes: What a reader of the trace may want to know (vote counts, rounds, …).
    """

    chosen: int | None
    candidates: tuple[Candidate, ...] = ()
    confidence: Probability | None = None
    stopped: Stopped = "done"
    notes: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _chosen_exists(self) -> Self:
        if self.chosen is not None and not 0 <= self.chosen < len(self.candidates):
            raise ValueError(f"chosen={self.chosen} is not one of {len(self.candidates)} candidates")
        return self

    @property
    def best(self) -> Candidate | None:
        """The chosen candidate."""
        return None if self.chosen is None else self.candidates[self.chosen]


class CheckedClaim(Frozen):
    """One claim of the answer and what became of it.

    A decisive verdict needs evidence: without a span it cannot be constructed.

    Attributes:
        text: The claim, self-contained.
        verdict: What is stood by.
        confidence: Calibrated probability of the likeliest label; None if nothing was judged.
        evidence: The spans that decide.
        note: Why the verdict is no surer, or what a program worked out; empty where there is nothing to say.
        start: First character of the part of the answer's text that says it; None if unknown.
        end: One past the last character.
        probs: Calibrated probabilities that the evidence supports, refutes, says nothing of it; None likewise.
        origins: Parts of the run that it came from, by name, as far as that was looked for.
    """

    text: str
    verdict: Verdict
    confidence: Probability | None = None
    evidence: tuple[Evidence, ...] = ()
    note: str = ""
    start: int | None = None
    end: int | None = None
    probs: tuple[Probability, Probability, Probability] | None = None
    origins: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _decisive_needs_evidence(self) -> Self:
        if self.verdict in ("supported", "refuted") and not self.evidence:
            raise ValueError(f"a verdict {self.verdict!r} needs at least one evidence span")
        return self


class Verification(Frozen):
    """What the verifiers say of an answer.

    Attributes:
        verdict: Over the whole answer; "unchecked" if no verifier ran.
        confidence: Calibrated P(the answer is right); None if no verifier gives one.
        claims: The claims, in order of the answer.
        verifiers: Names of the verifiers that ran.
    """

    verdict: Verdict = "unchecked"
    confidence: Probability | None = None
    claims: tuple[CheckedClaim, ...] = ()
    verifiers: tuple[str, ...] = ()


class RoleUsage(Frozen):
    """What one model in one role has cost.

    Attributes:
        replayed_calls: Part of `model_calls` answered by the run store, not paid again.
        replayed_tokens: Part of `completion_tokens` answered by the run store.
        working_s: Seconds the model worked; queues and rate limits are in `waited_s`.
    """

    model: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    model_calls: int = 0
    reward_calls: int = 0
    replayed_calls: int = 0
    replayed_tokens: int = 0
    cost_usd: float | None = 0.0
    working_s: float = 0.0
    waited_s: float = 0.0


class RunUsage(Frozen):
    """What the whole run has cost: every sample, discarded branches and verifiers included.

    Attributes:
        model_calls: Requests sent to a model; a request for n samples is one call.
        cost_usd: US dollars; None if a price is unknown. Models that run here cost 0.
        wall_seconds: Seconds from start to end, waiting included.
        by_role: The same by "role:model".
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    model_calls: int = 0
    reward_calls: int = 0
    replayed_calls: int = 0
    replayed_tokens: int = 0
    cost_usd: float | None = 0.0
    wall_seconds: float = 0.0
    by_role: dict[str, RoleUsage] = Field(default_factory=dict)


class AnswerCandidate(Frozen):
    """A candidate as the user sees it."""

    text: str
    answer: str | None
    score: float | None
    logprob: float | None
    tokens: int
    tool_calls: tuple[ToolCall, ...] = Field(default=(), exclude_if=lambda value: not value)


class Answer(Frozen):
    """What the user gets.

    Attributes:
        answer: The extracted answer; None if none was found.
        text: The chosen candidate's whole text.
        strategy: Name of the strategy that made it.
        model: Name of the main model.
        confidence: Verification's if there is one, else the strategy's; None if neither makes one. As it was stated.
        stopped: Why the run ended: "done", "budget", "cancelled" or "error".
        candidates: All attempts.
        verification: What the verifiers say; None if none ran.
        usage: What it cost.
        run_id: Name of the run in the store: `reason runs show RUN`.
        seed: The seed used; the same seed gives the same answer.
        degraded: What could not be done as the method says, and what was done instead.
        calibrated_confidence: What the run's calibration map makes of `confidence`; None without a map or a confidence.
        calibration: The map: its name, method and dataset; empty if the run had none.
        citations: What the answer rests on, as its text numbers it, from 1; empty where no knowledge was brought in.
        selected_strategy: Which strategy answered, in a few words, where `strategy` chooses among others; else empty.
        tool_calls: Tools that the caller is to call before the question can be answered, in order; `answer` is then
            their canonical text, and no verifier looks at it. Empty where the question is answered.
    """

    answer: str | None
    text: str
    strategy: str
    model: str
    confidence: Probability | None
    stopped: Stopped
    candidates: tuple[AnswerCandidate, ...]
    verification: Verification | None
    usage: RunUsage
    run_id: str
    seed: int
    degraded: tuple[str, ...] = ()
    calibrated_confidence: Probability | None = None
    calibration: str = ""
    citations: tuple[Evidence, ...] = ()
    selected_strategy: str = ""
    tool_calls: tuple[ToolCall, ...] = Field(default=(), exclude_if=lambda value: not value)
