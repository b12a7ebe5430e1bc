"""SpecReason: a small model drafts each step; a large one scores it with a digit, and rewrites it if the digit is low.

    draft = the small model's step
    digit = the large model's score of it, 0 to 9
    keep the draft if digit >= accept, else have the large model write the step

Source: Pan et al. 2025, "SpecReason", arXiv:2504.07891. The wording of the scoring prompt is ours. Differs: a draft
that the run's budget cut short is neither scored nor kept.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, JsonValue

from ..core.budget import CostBound
from ..core.errors import BudgetExceeded, ReasonError
from ..core.messages import Completion, Message, Prompt, Request
from ..core.run import Run
from ..core.stability import Stability
from ..core.types import Question, Solution
from ..reasoning.strategy import Models, Thinking
from ..serving.model import Feature
from ..serving.quick_calls import quick_params
from .stepwise import ModelClient, RoutingContext, RoutingDecision, StepDraft, StepwiseConfig, StepwiseSolver
from .transcript import Writer

TOP_LOGPROBS: Final = 10
"""Number of most likely tokens that are searched for digits."""

DIGITS: Final = "0123456789"
SCORE_PROMPT: Final = (
    "Look at the last step of the solution above, and at nothing behind it. How right and useful is it? Reply with a "
    "single digit: 9 if it is surely right and brings the solution on, 5 if you cannot tell, 0 if it is surely wrong."
)
SCORE_PREFIX: Final = "Digit for the last step: ["
"""Start of the scoring response, so that its next token is the digit."""


class SpecReason:
    """`specreason`: the small model's steps, where the large one scores them as right.

    Requests: two for a step that is kept, three for one that is rewritten; and the answer, as in `glimprouter`. A score
    without a readable digit rejects the step. Of models that think, the steps are those of the thought; the digit is
    given without thinking.
    """

    name: ClassVar[str] = "specreason"
    summary: ClassVar[str] = "a small model drafts each step, a large one scores it and rewrites it if the score is low"
    paper: ClassVar[str] = "Pan et al. 2025, arXiv:2504.07891"
    confidence: ClassVar[str] = "It has none: the digits are scores of single steps."
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "small")
    thinking: ClassVar[Thinking] = "thought"

    class Config(StepwiseConfig):
        """Parameters of `specreason`."""

        accept: Annotated[
            float, Field(ge=0, le=10, description="minimum digit of a draft that is kept; 10 keeps none")
        ] = 7
        score: Annotated[
            Literal["greedy", "mean"],
            Field(description="the most likely digit, or the mean of all listed digits weighted by probability"),
        ] = "greedy"

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`."""
        context = RoutingContext(self.config, question, models, run, frozenset(("large", "small")))
        answer_writer: Writer | None = None if self.config.answer == "writer" else "large"
        return await StepwiseSolver(context, _ScorePolicy(context, self.config), answer_writer).solve()


class _ScorePolicy:
    """The large model scores the small one's steps."""

    def __init__(self, context: RoutingContext, config: SpecReason.Config) -> None:
        self._context, self._config = context, config
        self._rejected = self._unreadable = 0
        large = context.clients["large"].model
        self._top_logprobs = min(TOP_LOGPROBS, large.quick_capabilities.top_logprobs)
        if not self._top_logprobs and config.score == "mean":
            context.run.degrade(f"score=greedy: {large.name} has no top log-probabilities")

    async def next_step(self, index: int) -> RoutingDecision:
        context, accounting = self._context, self._context.accounting
        draft = await context.generators["small"].write()
        if not draft.text.strip():
            return RoutingDecision(draft, "small", "empty")
        try:
            if draft.ended == "budget":  # a draft that cannot be scored is not kept
                raise context.run.ledger.exceeded(context.run.ledger.exhausted or "tokens")
            score = await self._score(draft)
        except ReasonError:
            accounting.set_purpose("discarded", draft.entries)
            raise
        if score is not None and score >= self._config.accept:
            return RoutingDecision(draft, "small", "accepted", score=score)
        accounting.set_purpose("discarded", draft.entries)
        self._rejected += 1
        self._unreadable += score is None
        why = "no readable digit" if score is None else "rejected"
        return RoutingDecision(await context.generators["large"].write(), "large", why, score=score)

    async def _score(self, draft: StepDraft) -> float | None:
        """The large model's digit for a draft; None if there is no readable one.

        Raises:
            BudgetExceeded: The budget or the context has no room for the request.
        """
        context, client = self._context, self._context.clients["large"]
        written = context.transcript.tokens + draft.tokens
        if client.context_room(1, written) < 1:
            raise BudgetExceeded("tokens", written, written)
        client.budget.require(CostBound(tokens=1, calls=1))
        top = self._top_logprobs
        sampling = quick_params(client.model, max_tokens=1, top_logprobs=top, logprobs=top > 0)
        request = Request(prompt=self._prompt(client, draft.text), sampling=sampling, is_attempt=False)
        ((_, (completion,)),) = await client.send("score", [request])
        if completion.finish_reason in ("cancelled", "budget"):  # also in a replay
            raise context.run.ledger.exceeded("seconds")
        return read_score(completion, mean=self._config.score == "mean")

    def _prompt(self, client: ModelClient, step: str) -> Prompt:
        """The question, the steps with the draft as the assistant's turn, and the request for a score."""
        response = self._context.transcript.context + step
        messages = (
            *client.base.messages,
            Message(role="assistant", content=response),
            Message(role="user", content=SCORE_PROMPT),
        )
        prefix = SCORE_PREFIX if client.model.capabilities.prefix else ""
        return Prompt(messages=messages, prefix=prefix)

    def notes(self) -> dict[str, JsonValue]:
        return {
            "policy": "judged",
            "accept": self._config.accept,
            "score": self._config.score,
            "rejected": self._rejected,
            "unreadable": self._unreadable,
        }


def read_score(completion: Completion, *, mean: bool) -> float | None:
    """The digit of a scoring response.

    Args:
        completion: One token, perhaps with the most likely ones, of which those that are no digit do not count.
        mean: Whether to average all listed digits by their renormalised probabilities; else the most likely one counts.

    Returns:
        A number from 0 to 9; None without a digit.
    """
    top = next(iter(completion.answer_top_logprobs), ())
    digits = [(int(t.token.strip()), t.logprob) for t in top if is_digit(t.token) and t.logprob > -math.inf]
    if not digits:
        text = completion.text.strip()
        return float(text[0]) if text and text[0] in DIGITS else None
    best = max(logprob for _, logprob in digits)
    if not mean:
        return float(next(digit for digit, logprob in digits if logprob == best))
    weights = [math.exp(logprob - best) for _, logprob in digits]
    return math.fsum(d * w for (d, _), w in zip(digits, weights, strict=True)) / math.fsum(weights)


def is_digit(token: str) -> bool:
    """Whether a token is one digit, with or without white space around it."""
    text = token.strip()
    return len(text) == 1 and text in DIGITS
