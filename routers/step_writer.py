"""`StepWriter`: has one model write one step, however many requests that takes.

A step ends at a blank line that lies in no fenced code and no displayed formula. A reply that reaches its most tokens
before that goes on with the same writer, without a separator and without another look at who should write: a boundary
in the middle of a sentence would be planted there otherwise.

Source: Zeng et al. 2026, "GlimpRouter", arXiv:2601.05110, for a step up to the blank line. Differs: their program joins
a step that was cut by its most tokens as if it had ended, and cuts in the middle of code.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..core.errors import LimitExceeded, ReasonError
from ..core.messages import Completion, Request, Sampling
from ..core.run import Run
from ..reasoning.open_regions import first_boundary, is_open
from .pen import Booked, Pen
from .step_rules import LINE, StepEnd, Transcript


@dataclass(frozen=True)
class Writing:
    """How steps are written.

    Attributes:
        temperature: Sampling temperature; 0 is greedy.
        top_p: Nucleus mass.
        max_step_tokens: Most tokens of one request.
        thinking_tokens: Most tokens of all steps.
        whole_tokens: Most tokens of the step where it is the whole reply, with no separator; None where it is not.
    """

    temperature: float
    top_p: float
    max_step_tokens: int
    thinking_tokens: int
    whole_tokens: int | None = None

    @property
    def whole(self) -> bool:
        """Whether the step is the whole reply."""
        return self.whole_tokens is not None

    @property
    def most(self) -> int:
        """Most tokens of one request."""
        return self.max_step_tokens if self.whole_tokens is None else self.whole_tokens


@dataclass
class Draft:
    """A step while it is written.

    Attributes:
        text: What there is of it.
        skipped: The blank line before it, where steps are lines.
        tokens: Its generated tokens.
        spent: The same with at least one for each request, so that any step ends.
        entries: Its entries in the books.
        ended: What ended it; None while it goes on.
    """

    text: str = ""
    skipped: str = ""
    tokens: int = 0
    spent: int = 0
    entries: list[int] = field(default_factory=list)
    ended: StepEnd | None = None


class StepWriter:
    """Writes steps with one model.

    Args:
        pen: The model.
        run: The run.
        transcript: The steps so far.
        writing: How steps are written.
    """

    def __init__(self, pen: Pen, run: Run, transcript: Transcript, writing: Writing) -> None:
        self.pen, self.writing = pen, writing
        self._run, self._transcript = run, transcript

    def request(self, text: str = "", *, written: int = 0, calls: int = 1, beside: int = 0) -> Request | None:
        """What asks for a step, or for more of it; None if the model's context has no room for it.

        Args:
            text: What there is of the step.
            written: Its tokens.
            calls: Requests that go with it, itself among them.
            beside: Tokens of the others.

        Raises:
            LimitExceeded: The budget does not cover it.
        """
        prompt = self.pen.prompt_after(self._transcript.context + text)
        room = self.pen.room(self.writing.most, self._transcript.tokens + written)
        if room < 1:
            return None
        sampling = Sampling(
            temperature=self.writing.temperature,
            top_p=self.writing.top_p,
            max_tokens=self.pen.allowance.tokens(room, calls=calls, beside=beside),
            stop=() if self.writing.whole else (self._transcript.separator,),
            seed=self.pen.steps.seed(prompt),
            logprobs=False,
        )
        return Request(prompt=prompt, sampling=sampling, samples=self.pen.steps.take(prompt, 1))

    async def write(self, first: Booked | None = None, request: Request | None = None) -> Draft:
        """Write a step; one that is empty is written once more, with the prompt's next sample.

        Args:
            first: What there is of it already: the sample of a `request`, booked as a step.
            request: What asks for it, made before; None makes it.

        Raises:
            LimitExceeded: The budget covers nothing of it.
            BackendError: The model failed.
        """
        draft = await self._write(first, request)
        if draft.ended == "empty":
            self.pen.books.book_as("discarded", draft.entries)
            draft = await self._write(None, None)
        return draft

    async def _write(self, first: Booked | None, request: Request | None) -> Draft:
        draft, booked = Draft(), first
        while draft.ended is None:
            if booked is None:
                booked = await self._piece(draft, None if draft.entries else request)
            if booked is not None:
                number, (completion,) = booked
                draft.entries.append(number)
                self._take(draft, completion)
            booked = None
        return draft

    async def _piece(self, draft: Draft, request: Request | None) -> Booked | None:
        """The next piece of a step; None if there is none, and the step ends with what there is of it."""
        try:
            request = request or self.request(draft.skipped + draft.text, written=draft.tokens)
            if request is None:
                draft.ended = "context"
                return None
            (booked,) = await self.pen.ask("step", [request], written=self._transcript.tokens + draft.tokens)
        except LimitExceeded as e:
            if not draft.entries:
                raise
            self._run.note_limit(e)
            draft.ended = "budget"
            return None
        except ReasonError:
            self.pen.books.book_as("discarded", draft.entries)
            raise
        return booked

    def _take(self, draft: Draft, completion: Completion) -> None:
        """Put a piece behind what there is of the step, and see whether that ends it."""
        used = completion.usage.completion_tokens
        draft.text = (draft.text + completion.text).lstrip("\n")
        draft.tokens += used
        draft.spent += max(1, used)
        draft.ended = self._end(draft, completion)
        if not draft.text.strip() and draft.ended == "separator":
            draft.text, draft.ended = "", "empty"
            if self._transcript.separator == LINE and not draft.skipped:
                draft.skipped, draft.ended = LINE, None  # a model that leaves blank lines between its lines goes on

    def _end(self, draft: Draft, completion: Completion) -> StepEnd | None:
        reason, before = completion.finish_reason, self._transcript.context
        tag = self._transcript.close_tag
        if not self.writing.whole:
            if tag and tag in draft.text:
                return "closed"
            at = first_boundary(draft.text, self._transcript.separator, before)
            if at is not None:
                draft.text = draft.text[:at]
                return "separator"
        if reason in ("cancelled", "budget"):
            return "budget"
        if self.writing.whole and reason == "length":
            return "budget" if self._spent() else "tokens"
        if (
            reason == "stop"
            and (self.writing.whole or completion.stopped_by != self._transcript.separator)
            and self._ends(completion)
        ):
            return "end"
        if reason == "stop" and (not completion.text or not is_open(before + draft.text)):
            return "separator"
        if self._transcript.spent + draft.spent >= self.writing.thinking_tokens:
            return "tokens"
        if reason == "stop":
            draft.text += self._transcript.separator
        return None

    def _spent(self) -> bool:
        """Whether the run's budget has no tokens left for steps; the trace is told."""
        ledger = self._run.ledger
        spent = ledger.left("tokens") - self.pen.allowance.kept_tokens < 1
        if spent:
            self._run.note_limit(ledger.refuse("tokens"))
        return spent

    def _ends(self, completion: Completion) -> bool:
        """Whether the text ended with this piece; where the backend does not tell, only the step is taken to have."""
        if completion.stopped_by is None and not self.writing.whole:
            self._run.degrade(
                f"{self.pen.model.name} does not tell the end of a step from the end of the text; "
                "a step that states no answer was taken for one that goes on"
            )
            return False
        return True
