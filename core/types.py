"""From the question to the answer: `Question`, `Candidate`, `Solution`, `Verification`, `Answer`.

`Answer` is the user's result; its JSON is what `reason ask --json` prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, StringConstraints, computed_field, field_validator, model_validator

from .messages import (
    TOOL_CHOICE_AUTO,
    TOOL_CHOICE_NONE,
    Attachment,
    Effect,
    EncodedOnce,
    Frozen,
    Message,
    Thought,
    Tool,
    ToolCall,
    ToolChoice,
    validate_tool_choice,
)

MAX_QUESTION_CHARS = 200_000
"""Maximum length of a question, in characters; a longer input belongs into `documents`."""

MAX_CONVERSATION_CHARS = 1_000_000
"""Maximum length of the conversation around a question, in characters, tools and tool calls included."""

MAX_TESTS = 200
"""Maximum number of tests of a question."""

AnswerKind = Literal["auto", "choice", "number", "math", "yes_no", "code", "text"]
Stopped = Literal["done", "budget", "user", "abstained", "loop", "waiting", "cancelled", "error"]
"""Why a run ended: it was done, a limit of its budget, the user wanted the answer now, its samples did not agree on
what to change, its turns only repeated themselves, it waits for decisions about tool calls, cancelled, an error."""
Verdict = Literal["supported", "refuted", "not_enough_evidence", "disputed", "unchecked", "unparsed"]
Probability = Annotated[float, Field(ge=0, le=1)]


class Document(Frozen):
    """A text that comes with a question; `name` is its source, for example a file name."""

    name: str
    text: str


class CodeTest(Frozen):
    """A test of an answer that is Python code.

    Attributes:
        name: What reports call it.
        code: Source that is run after the answer's code and fails by an exception; or examples as in a docstring, if it
            begins with `>>>`.
    """

    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    code: Annotated[str, StringConstraints(min_length=1, max_length=MAX_QUESTION_CHARS)]


class Question(Frozen):
    """A question with everything that comes with it.

    Attributes:
        choices: The options of a multiple-choice question, in the order shown; the answer is a letter.
        documents: Texts that the answer may use.
        kind: Kind of the answer: "auto" lets the extractor decide ("choice" if there are choices).
        metadata: Returned to the caller; no strategy reads it.
        conversation: Messages before the question. System messages are at the head of every prompt, followed by the
            strategy's own system message (`reasoning.prompts`).
        continuation: Messages after the question: the tool calls that it led to, and their results. Only a strategy
            that takes tools can answer such a question.
        tools: Tools that the model may call. Only a strategy that takes tools (`Strategy.takes_tools`) can answer a
            question with tools, unless the choice is "none".
        tool_choice: "auto", "none", "required", or the name of the tool to call.
        answer_schema: JSON Schema of the answer. After the strategy's own answer the main model writes it as JSON,
            under a grammar where it has them, otherwise by a prompt; it is validated and requested again if it is
            invalid.
        attachments: Images and PDFs that belong to the question.
        tests: Tests of an answer that is code; the kind is then "code". The model is not shown them.
    """

    text: Annotated[str, StringConstraints(min_length=1)]
    choices: tuple[str, ...] = ()
    documents: tuple[Document, ...] = ()
    kind: AnswerKind = "auto"
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    # empty fields are in no dump: digests of questions without them do not depend on them
    conversation: tuple[Message, ...] = Field(default=(), exclude_if=lambda value: not value)
    continuation: tuple[Message, ...] = Field(default=(), exclude_if=lambda value: not value)
    tools: tuple[Tool, ...] = Field(default=(), exclude_if=lambda value: not value)
    tool_choice: ToolChoice = Field(default=TOOL_CHOICE_AUTO, exclude_if=lambda value: value == TOOL_CHOICE_AUTO)
    answer_schema: dict[str, JsonValue] | None = Field(default=None, exclude_if=lambda value: value is None)
    tests: Annotated[tuple[CodeTest, ...], Field(max_length=MAX_TESTS)] = Field(
        default=(), exclude_if=lambda value: not value
    )
    attachments: tuple[Attachment, ...] = Field(default=(), exclude_if=lambda value: not value)

    @model_validator(mode="after")
    def _messages_and_tools_are_consistent(self) -> Self:
        if self.tools or self.tool_choice != TOOL_CHOICE_AUTO:
            validate_tool_choice(self.tools, self.tool_choice)
        if self.continuation and self.continuation[0].role != "assistant":
            raise ValueError("the continuation of a question must begin with a message of the assistant")
        return self

    @property
    def all_attachments(self) -> tuple[Attachment, ...]:
        """Those of the question and of the messages around it."""
        messages = (*self.conversation, *self.continuation)
        return (*(a for message in messages for a in message.attachments), *self.attachments)

    @property
    def with_references(self) -> Question:
        """It without the contents of its attachments."""
        if not any(attachment.data for attachment in self.all_attachments):
            return self

        def without(message: Message) -> Message:
            return message.model_copy(update={"attachments": tuple(a.reference for a in message.attachments)})

        return self.model_copy(
            update={
                "attachments": tuple(a.reference for a in self.attachments),
                "conversation": tuple(map(without, self.conversation)),
                "continuation": tuple(map(without, self.continuation)),
            }
        )

    def option(self, letter: str | None) -> str | None:
        """The text of the choice that has a letter; None if none has it."""
        index = ord(letter) - ord("A") if letter is not None and len(letter) == 1 else -1
        return self.choices[index] if 0 <= index < len(self.choices) else None

    @property
    def offered_tools(self) -> tuple[Tool, ...]:
        """The tools that a model is shown."""
        return () if self.tool_choice == TOOL_CHOICE_NONE else self.tools

    @property
    def needs_tools(self) -> bool:
        """Whether only a strategy that takes tools can answer it."""
        return bool(self.offered_tools or self.continuation)


class Evidence(Frozen):
    """A span of a text that a verdict or an answer rests on.

    Attributes:
        source: Name of the document.
        start: First character within the document; None if unknown.
        end: One past the last character.
    """

    source: str
    text: str
    start: int | None = None
    end: int | None = None


def merge_evidence(evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """The evidence, each sentence once: equal and overlapping spans of a source become one, where the first was."""
    merged: list[Evidence] = []
    for span in evidence:
        overlapping = [other for other in merged if _union(other, span) is not None]
        for other in overlapping:
            span = _union(other, span) or span
        position = merged.index(overlapping[0]) if overlapping else len(merged)
        merged = [other for other in merged if other not in overlapping]
        merged.insert(position, span)
    return tuple(merged)


def _union(a: Evidence, b: Evidence) -> Evidence | None:
    """Two spans of a source as one; None if they do not overlap, or if that is unknown."""
    if a == b:
        return a
    if a.source != b.source:
        return None
    if a.start is None or b.start is None:
        if b.text in a.text:
            return a
        return b if a.text in b.text else None
    first, second = (a, b) if (a.start, -len(a.text)) <= (b.start, -len(b.text)) else (b, a)
    offset = (second.start or 0) - (first.start or 0)
    overlap = first.text[offset:]
    if not overlap or not (second.text.startswith(overlap) or overlap.startswith(second.text)):
        return None
    text = first.text + second.text[len(overlap) :]
    return Evidence(source=a.source, text=text, start=first.start, end=(first.start or 0) + len(text))


class Step(Frozen):
    """One step of a chain of reasoning.

    Attributes:
        model: The model that generated it, if a strategy uses several.
        scores: Named scores; each documents its range where it is computed.
    """

    text: str
    model: str = ""
    scores: dict[str, float] = Field(default_factory=dict)


class Candidate(Frozen):
    """One complete attempt at an answer.

    Attributes:
        answer: The answer extracted from it; None if there is none.
        steps: The text split into steps; empty if the strategy does not work in steps.
        score: The strategy's ranking score, with the strategy's range; None if it does not rank.
        logprob: Summed raw log-probability of the text, in nats; None if unknown.
        tokens: Generated tokens, those of the thought included.
        thought: What the model thought before the text; empty if it did not, or if it is hidden.
        thinking_tokens: Tokens of the thought.
        finish_reason: How its generation ended; "thinking" if it was cut while the model thought.
        citations: Evidence as numbered in its text, from 1; empty if the strategy uses no knowledge.
        tool_calls: Tools to be called. The answer is then their canonical text (`canonical_calls`), by which equal
            calls vote as equal answers.
        thought_blocks: The provider's form of the thought before the calls (`Thought.blocks`); empty without calls.
    """

    text: str
    answer: str | None = None
    steps: tuple[Step, ...] = ()
    score: float | None = None
    logprob: float | None = None
    tokens: int = 0
    thought: str = Field(default="", exclude_if=lambda value: not value)
    thinking_tokens: int = Field(default=0, exclude_if=lambda value: not value)
    finish_reason: str = "stop"
    citations: tuple[Evidence, ...] = ()
    tool_calls: tuple[ToolCall, ...] = Field(default=(), exclude_if=lambda value: not value)
    thought_blocks: tuple[dict[str, JsonValue], ...] = Field(default=(), exclude_if=lambda value: not value)

    @property
    def message(self) -> Message:
        """It as a message of the assistant."""
        return _as_message(self)


class Solution(Frozen):
    """The result of a strategy.

    Attributes:
        chosen: Index of the chosen candidate; None if there is none.
        candidates: All attempts, in order of creation.
        confidence: How sure the strategy is of its choice, as it declares (`Strategy.confidence`); not calibrated. None
            if it has no number for it.
        stopped: Why the strategy ended: "done", "budget", "user", "cancelled" or "error".
        notes: Details for readers of the trace (vote counts, rounds, …).
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


AgreementLabel = Literal["consistent", "uncertain", "contradicted"]


class Agreement(Frozen):
    """How far the jurors agree with a claim. Agreement is no evidence, and never part of a verdict.

    Attributes:
        label: What the jury as a whole says of it.
        support: Jurors whose answers state the claim.
        contradict: Jurors whose answers contradict it.
        silent: Jurors whose answers do neither.
    """

    label: AgreementLabel
    support: int = Field(ge=0)
    contradict: int = Field(ge=0)
    silent: int = Field(ge=0)

    @property
    def text(self) -> str:
        """In words: `2 of 3 jurors agree, 1 disagrees (not evidence)`."""
        jurors = self.support + self.contradict + self.silent
        if not self.support and not self.contradict:
            return "no juror mentions it (not evidence)"
        agree = f"{self.support} of {jurors} {'juror' if jurors == 1 else 'jurors'} agree{'s' if jurors == 1 else ''}"
        others = f", {self.contradict} disagree{'s' if self.contradict == 1 else ''}" if self.contradict else ""
        return f"{agree}{others} (not evidence)"


class CheckedClaim(Frozen):
    """One claim with its verdict. A decisive verdict without an evidence span cannot be constructed.

    Attributes:
        text: The claim, self-contained.
        confidence: Calibrated probability that the verdict is right; with `lean`, that the evidence decides the claim
            as `lean` says. None if nothing was judged, and of a disputed claim.
        lean: What the evidence suggests with a probability below the threshold; only of `not_enough_evidence`.
        needed: The threshold, the probability that `lean` needs to be the verdict; None without `lean`.
        evidence: The spans that show the verdict, or come closest to deciding the claim. Equal and overlapping spans
            are merged.
        note: Why the verdict is not more certain, or what a program computed; empty if there is nothing to add.
        start: First character of the claim within the answer; None if unknown.
        end: One past the last character.
        probs: Calibrated probabilities that the evidence supports, refutes, does neither; None if nothing was judged.
        origins: Parts of the run that it came from, by name, as far as they were attributed.
        agreement: How far jurors agree with it, which is no evidence; None without a jury.
    """

    text: str
    verdict: Verdict
    confidence: Probability | None = None
    lean: Literal["supported", "refuted"] | None = None
    needed: Probability | None = None
    evidence: tuple[Evidence, ...] = ()
    note: str = ""
    start: int | None = None
    end: int | None = None
    probs: tuple[Probability, Probability, Probability] | None = None
    origins: tuple[str, ...] = ()
    agreement: Agreement | None = Field(default=None, exclude_if=lambda value: value is None)

    @field_validator("evidence")
    @classmethod
    def _each_sentence_once(cls, evidence: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
        return merge_evidence(evidence)

    @model_validator(mode="after")
    def _decisive_needs_evidence(self) -> Self:
        if self.verdict in ("supported", "refuted") and not self.evidence:
            raise ValueError(f"a verdict {self.verdict!r} needs at least one evidence span")
        return self

    @model_validator(mode="after")
    def _lean_is_below_its_threshold(self) -> Self:
        if self.lean is None and self.needed is None:
            return self
        if self.lean is None or self.needed is None or self.confidence is None or self.confidence > self.needed:
            raise ValueError(
                f"lean={self.lean!r} needs a confidence and a threshold above it, got confidence={self.confidence} and "
                f"needed={self.needed}"
            )
        if self.verdict != "not_enough_evidence":
            raise ValueError(f"only a claim without enough evidence has a lean, got {self.verdict!r}")
        return self


class ClaimCounts(Frozen):
    """Numbers of claims.

    Attributes:
        supported: Claims that the evidence states.
        refuted: Claims that it contradicts.
        open: All others: not enough evidence, disputed, unchecked, unparsed.
    """

    supported: int = 0
    refuted: int = 0
    open: int = 0

    @property
    def total(self) -> int:
        """All claims."""
        return self.supported + self.refuted + self.open


def least_support(claims: Sequence[CheckedClaim]) -> float | None:
    """The lowest probability that the evidence supports a claim; None if a claim has no evidence, or without claims."""
    supports = [None if claim.probs is None or not claim.evidence else claim.probs[0] for claim in claims]
    known = [support for support in supports if support is not None]
    return min(known) if known and len(known) == len(supports) else None


def count_claims(claims: Sequence[CheckedClaim]) -> ClaimCounts:
    """The claims by what is known of them."""
    supported = sum(claim.verdict == "supported" for claim in claims)
    refuted = sum(claim.verdict == "refuted" for claim in claims)
    return ClaimCounts(supported=supported, refuted=refuted, open=len(claims) - supported - refuted)


class Verification(Frozen):
    """The verifiers' result for an answer.

    Attributes:
        verdict: Over the complete answer; "unchecked" if no verifier ran.
        support: Lowest probability, over the claims of the answer, that the evidence supports the claim. None if a
            claim was not judged against any evidence, or there are none: nothing found is not improbable. It is not
            P(the answer is right), and never replaces a strategy's confidence.
        claims: The claims, in order of the answer.
    """

    verdict: Verdict = "unchecked"
    support: Probability | None = None
    claims: tuple[CheckedClaim, ...] = ()
    verifiers: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _counts_follow_from_claims(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {name: value for name, value in data.items() if name != "counts"}
        return data

    @computed_field  # type: ignore[prop-decorator]
    @property
    def counts(self) -> ClaimCounts:
        """Claims of the answer: supported, refuted, open. In JSON too, where it is ignored on input."""
        return count_claims(self.claims)


class RoleUsage(Frozen):
    """Usage of one model in one role.

    Attributes:
        cached_tokens: Part of `prompt_tokens` that was read from a cache.
        cache_write_tokens: Part of `prompt_tokens` that a provider wrote to its cache at a price of their own.
        thinking_tokens: Part of `completion_tokens` that are thoughts.
        replayed_calls: Part of `model_calls` answered by the run store, not paid again.
        replayed_tokens: Part of `completion_tokens` answered by the run store.
        lost_tokens: Generated tokens of samples that an interruption discarded. Those of earlier processes of a resumed
            run are no part of `completion_tokens`.
        working_s: Seconds the model worked; queues and rate limits are in `waited_s`.
    """

    model: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = Field(default=0, exclude_if=lambda value: value == 0)
    completion_tokens: int = 0
    thinking_tokens: int = 0
    model_calls: int = 0
    reward_calls: int = 0
    replayed_calls: int = 0
    replayed_tokens: int = 0
    lost_tokens: int = Field(default=0, exclude_if=lambda value: value == 0)
    cost_usd: float | None = 0.0
    working_s: float = 0.0
    waited_s: float = 0.0


class RunUsage(Frozen):
    """Usage of a complete run: every sample, discarded branches and verifiers included.

    Attributes:
        model_calls: Requests sent to a model; a request for n samples is one call.
        lost_tokens: Generated tokens of samples that interruptions discarded, where the backend streams them.
        cost_usd: US dollars; None if a price is unknown. Models that run locally cost 0.
        wall_seconds: Seconds from start to end, waiting included.
        turns: Model turns of a run that executes tools.
        tool_calls: Executed tool calls.
        by_role: Usage by "role:model".
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = Field(default=0, exclude_if=lambda value: value == 0)
    completion_tokens: int = 0
    thinking_tokens: int = 0
    model_calls: int = 0
    reward_calls: int = 0
    replayed_calls: int = 0
    replayed_tokens: int = 0
    lost_tokens: int = Field(default=0, exclude_if=lambda value: value == 0)
    cost_usd: float | None = 0.0
    wall_seconds: float = 0.0
    turns: int = Field(default=0, exclude_if=lambda value: value == 0)
    tool_calls: int = Field(default=0, exclude_if=lambda value: value == 0)
    by_role: dict[str, RoleUsage] = Field(default_factory=dict)


class AnswerCandidate(Frozen):
    """A candidate as part of an `Answer`; its fields are those of `Candidate`."""

    text: str
    answer: str | None
    score: float | None
    logprob: float | None
    tokens: int
    thinking_tokens: int = 0
    thought: str = ""
    finish_reason: str = "stop"
    tool_calls: tuple[ToolCall, ...] = Field(default=(), exclude_if=lambda value: not value)


def shown_answer(answer: str | None, option: str | None) -> str | None:
    """An answer as people read it, from the fields of an `Answer`."""
    return answer if answer is None or option is None else f"{option} ({answer})"


class WriteCheck(Frozen):
    """Whether a call that changes something was asked for, and whether a policy allows it.

    Attributes:
        request: The words of the user that ask for it.
        policy: The words of the policy that allow it; empty without a policy.
        fault: Why it is not executed; empty if it passed.
    """

    request: str = ""
    policy: str = ""
    fault: str = ""


class PendingToolCall(Frozen):
    """A tool call that a run waits for.

    Attributes:
        id: ID of the call, which a decision names.
        arguments: As the model wrote them.
        question: "approval": whether it may be executed; "outcome": whether an interrupted call took effect; "result":
            what the caller's execution returned.
        note: Why it needs an approval, or what it changes; empty if there is nothing to add.
        write_check: Its check, in a run with `check_writes`.
    """

    id: str
    tool: str
    arguments: str
    effect: Effect
    question: Literal["approval", "outcome", "result"]
    note: str = Field(default="", exclude_if=lambda value: not value)
    write_check: WriteCheck | None = Field(default=None, exclude_if=lambda value: value is None)


def _as_message(turn: Candidate | Answer) -> Message:
    has_thought = bool(turn.thought or turn.thought_blocks)
    thought = Thought(text=turn.thought, blocks=turn.thought_blocks) if has_thought else None
    return Message(role="assistant", content=turn.text, tool_calls=turn.tool_calls, thought=thought)


class Answer(EncodedOnce):
    """The result of a run.

    Attributes:
        answer: The extracted answer; None if there is none. Of a multiple-choice question the letter of an option.
        option: Text of that option; None if the question has no choices or the answer names none.
        text: The chosen candidate's complete text, without its thought.
        thought: What the model thought before the text; empty if it did not, or if the provider hides it.
        strategy: Name of the strategy.
        model: Name of the main model.
        confidence: The strategy's own, whose meaning `reason strategies show NAME` states; None if it has none. Neither
            calibrated nor changed by a verification, whose number is `verification.support`.
        stopped: Why the run ended: "done", "budget", "user" (who wanted the answer now), "abstained" (its samples did
            not agree on what to change, and the text asks the user), "loop" (its turns only repeated themselves),
            "waiting" (for `pending`), "cancelled" or "error".
        stopped_by: The limit of the budget that ended a run of `stopped` "budget": "tokens", "calls", …; else None.
        based_on: Of an answer that the user wanted before the run was done, what it rests on; else empty.
        candidates: All attempts.
        verification: None if no verifier ran.
        run_id: Name of the run in the store: `reason runs show RUN`.
        seed: The seed of the run; the same seed gives the same answer.
        degraded: What could not be done as the method says, and what was done instead.
        calibrated_confidence: `confidence` through the run's calibration map: the frequency of right answers among
            those of this confidence. None without a confidence or a map that applies to the answer.
        calibration: Name, method and dataset of the run's map; empty without one that applies to the answer.
        citations: Evidence as numbered in the text, from 1; empty if no knowledge was used.
        selected_strategy: Short description of the strategy that answered, if `strategy` chooses among others.
        tool_calls: Tools that the caller has to call before the question can be answered, in order; `answer` is then
            their canonical text, and is not verified.
        thought_blocks: The provider's form of the thought before the calls, which `message` has.
        messages: Of a run that executes tools, all messages after the question.
        pending: The tool calls that a run of `stopped` "waiting" waits for.
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
    option: str | None = None
    stopped_by: str | None = None
    thought: str = Field(default="", exclude_if=lambda value: not value)
    based_on: str = Field(default="", exclude_if=lambda value: not value)
    tool_calls: tuple[ToolCall, ...] = Field(default=(), exclude_if=lambda value: not value)
    thought_blocks: tuple[dict[str, JsonValue], ...] = Field(default=(), exclude_if=lambda value: not value)
    messages: tuple[Message, ...] = Field(default=(), exclude_if=lambda value: not value)
    pending: tuple[PendingToolCall, ...] = Field(default=(), exclude_if=lambda value: not value)

    @property
    def message(self) -> Message:
        """It as a message: in `Question.continuation` it comes before the results of its tool calls."""
        return _as_message(self)

    @property
    def shown_answer(self) -> str | None:
        """The answer as people read it: of a multiple-choice question the option and its letter, `21 (A)`."""
        return shown_answer(self.answer, self.option)
