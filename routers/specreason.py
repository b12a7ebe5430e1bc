"""SpecReason: a small model drafts each step, a large one gives it a digit, and writes it anew if the digit is too low.

    draft = the small model's step
    digit = the large model's judgement of it, 0 to 9
    keep the draft if digit >= accept, else have the large model write the step

Source: Pan et al. 2025, "SpecReason", arXiv:2504.07891. The words of the judgement are ours. Differs: a draft that the
run's budget cut short is not judged and not kept.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue

from ..core.errors import LimitExceeded, ReasonError
from ..core.messages import Completion, Message, Prompt, Request, SamplingParams
from ..core.run import Run
from ..core.types import Question, Solution
from ..reasoning.strategy import Models, Stability
from ..serving.model import Feature
from .stepwise import Draft, Pen, Scene, StepLoop, StepLoopParameters, Turn
from .transcript import Writer

SHOWN = 10
"""Likely tokens that are looked at for digits."""
DIGITS = "0123456789"
JUDGE = (
    "Look at the last step of the solution above, and at nothing behind it. How right and useful is it? Reply with a "
    "single digit: 9 if it is surely right and brings the solution on, 5 if you cannot tell, 0 if it is surely wrong."
)
JUDGEMENT_BEGINS = "Digit for the last step: ["
"""How the judgement begins, so that its next token is the digit."""


class SpecReason:
    """`specreason`: the small model's steps, where the large one finds them right.

    Requests: two for a step that is kept, three for one that is written anew; and the answer, as in `glimprouter`. A
    judgement in which no digit can be read is none in favour: the step is written anew.
    """

    name: ClassVar[str] = "specreason"
    summary: ClassVar[str] = "a small model drafts each step, a large one judges it and writes it anew if it is poor"
    paper: ClassVar[str] = "Pan et al. 2025, arXiv:2504.07891"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "small")

    class Config(StepLoopParameters):
        """Parameters of `specreason`."""

        accept: Annotated[
            float, Field(ge=0, le=10, description="least digit of a draft that is kept; 10 keeps none")
        ] = 7
        score: Annotated[
            Literal["greedy", "mean"],
            Field(description="the likeliest digit, or the mean of all likely ones, each with its probability"),
        ] = "greedy"

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`."""
        scene = Scene(self.config, question, models, run, frozenset(("large", "small")))
        answers: Writer | None = None if self.config.answer == "writer" else "large"
        return await StepLoop(scene, _ByJudgement(scene, self.config), answers).solve()


class _ByJudgement:
    """The large model judges the small one's steps."""

    def __init__(self, scene: Scene, config: SpecReason.Config) -> None:
        self._scene, self._config = scene, config
        self._rejected, self._unreadable = 0, 0
        shown = scene.pens["large"].model.capabilities.top_logprobs
        self._shown = min(SHOWN, shown)
        if not shown and config.score == "mean":
            scene.run.degrade(f"score=greedy: {scene.pens['large'].model.name} shows no likely tokens")

    async def next(self, index: int) -> Turn:
        """See `Author.next`."""
        scene, books = self._scene, self._scene.books
        draft = await scene.writers["small"].write()
        if not draft.text.strip():
            return Turn(draft, "small", "nothing was written")
        try:
            if draft.ended == "budget":  # what the large model has not seen is not kept
                raise scene.run.ledger.refuse(scene.run.ledger.exhausted or "tokens")
            score = await self._judge(draft)
        except ReasonError:
            books.book_as("discarded", draft.entries)
            raise
        if score is not None and score >= self._config.accept:
            return Turn(draft, "small", "accepted", score=score)
        books.book_as("discarded", draft.entries)
        self._rejected += 1
        self._unreadable += score is None
        why = "no digit could be read" if score is None else "rejected"
        return Turn(await scene.writers["large"].write(), "large", why, score=score)

    async def _judge(self, draft: Draft) -> float | None:
        """The large model's digit for a draft; None if none can be read.

        Raises:
            LimitExceeded: The budget or the context has no room for the judgement.
        """
        scene, pen = self._scene, self._scene.pens["large"]
        written = scene.transcript.tokens + draft.tokens
        if pen.room(1, written) < 1:
            raise LimitExceeded("tokens", written, written)
        scene.allowance.tokens(1)
        sampling = SamplingParams(temperature=0.0, max_tokens=1, top_logprobs=self._shown, logprobs=self._shown > 0)
        request = Request(prompt=self._asked(pen, draft.text), sampling=sampling)
        ((_, (reply,)),) = await pen.ask("score", [request])
        if reply.finish_reason in ("cancelled", "budget"):  # likewise when it is replayed
            raise scene.run.ledger.refuse("seconds")
        return read_score(reply, mean=self._config.score == "mean")

    def _asked(self, pen: Pen, step: str) -> Prompt:
        """The question, the steps with the draft as a reply, and what is wanted of it."""
        said = self._scene.transcript.context + step
        turns = (
            *pen.base.messages,
            Message(role="assistant", content=self._scene.opening + said),
            Message(role="user", content=JUDGE),
        )
        begins = JUDGEMENT_BEGINS if pen.model.capabilities.prefix else ""
        return Prompt(messages=turns, prefix=begins)

    def notes(self) -> dict[str, JsonValue]:
        """See `Author.notes`."""
        return {
            "policy": "judged",
            "accept": self._config.accept,
            "score": self._config.score,
            "rejected": self._rejected,
            "unreadable": self._unreadable,
        }


def read_score(reply: Completion, *, mean: bool) -> float | None:
    """The digit that a judgement gives.

    Args:
        reply: One token, perhaps with the likeliest ones in its place, of which those that are no digit do not count.
        mean: Whether all digits count, each with its probability made to sum to 1 with the others'; else the likeliest.

    Returns:
        A number from 0 to 9; None if no digit is among them.
    """
    top = reply.top_logprobs[0] if reply.top_logprobs else ()
    digits = [(int(t.token.strip()), t.logprob) for t in top if is_digit(t.token) and t.logprob > -math.inf]
    if not digits:
        text = reply.text.strip()
        return float(text[0]) if text and text[0] in DIGITS else None
    best = max(logprob for _, logprob in digits)
    if not mean:
        return float(next(digit for digit, logprob in digits if logprob == best))
    weights = [math.exp(logprob - best) for _, logprob in digits]
    return math.fsum(d * w for (d, _), w in zip(digits, weights, strict=True)) / math.fsum(weights)


def is_digit(token: str) -> bool:
    """Whether a token is one digit, with or without blanks around it."""
    text = token.strip()
    return len(text) == 1 and text in DIGITS
