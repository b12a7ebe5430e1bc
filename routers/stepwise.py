"""`StepLoop`: a chain of thought whose steps two models write, from the question to the answer.

    repeat   the author decides who writes the next step, and has it written
    until    the thinking has ended (`step_rules`)
    the answer is asked for behind the steps (`concluding`)

Source: the main loop of Zeng et al. 2026, "GlimpRouter", arXiv:2601.05110, and the scaffold that it shares with
SpecReason (Pan et al. 2025, arXiv:2504.07891).

What steps may spend, so that the answer can still be asked for behind them.

`Pen`: one of the two models, as it writes: sends its requests, books what they cost, and keeps to the allowance.

`StepWriter`: has one model write one step, however many requests that takes.

A step ends at a blank line that lies in no fenced code and no displayed formula. A reply that reaches its most tokens
before that goes on with the same writer, without a separator and without another look at who should write: a boundary
in the middle of a sentence would be planted there otherwise.

Source: Zeng et al. 2026, "GlimpRouter", arXiv:2601.05110, for a step up to the blank line. Differs: their program joins
a step that was cut by its most tokens as if it had ended, and cuts in the middle of code.

`Conclusion`: the answer behind the steps.

A model that thinks between tags goes on behind the closing tag. Any other is asked for the answer in a few tokens,
unless the steps state it and were written by who is to give it.

Source: Zeng et al. 2026, "GlimpRouter", arXiv:2601.05110, for thoughts: the steps up to the closing tag, the tag again,
and the large model goes on. Kojima et al. 2022, arXiv:2205.11916, for the words behind steps without tags.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Annotated, Literal, Protocol

from pydantic import Field, JsonValue

from ..core.errors import BackendError, CapabilityMissing, InvalidResponse, LimitExceeded, ReasonError, StoreError
from ..core.events import CandidateAdded, StepRouted, StrategyNote
from ..core.messages import Completion, FinishReason, Prompt, Request, SamplingParams
from ..core.run import Run
from ..core.types import Candidate, Question, Solution, Step, Stopped
from ..reasoning.answer_time import AnswerTime
from ..reasoning.candidates import read_candidate
from ..reasoning.continuations import ContinuationRequests
from ..reasoning.prompts import answer_trigger, lines_instruction, question_prompt, steps_instruction
from ..reasoning.segmentation import find_boundary, is_inside_block
from ..reasoning.strategy import Models, Parameters
from ..serving.metered.model import MeteredModel
from ..serving.model import Listener
from .router_files import EntropyKind
from .transcript import CUT, LINE, SEPARATOR, Books, Ended, Purpose, RoutedStep, StepEnd, Transcript, Writer, notes_of

ANSWER_CALLS = 1


class Allowance:
    """A run's budget, less what is kept for the answer.

    Args:
        run: The run.
        answer_tokens: Most tokens of the answer; of a small budget a quarter is kept instead.

    Attributes:
        time: The same of its time.
        kept_tokens: Tokens kept for the answer.
    """

    def __init__(self, run: Run, answer_tokens: int) -> None:
        limit = run.ledger.budget.tokens
        self._run = run
        self.time = AnswerTime(run)
        self.kept_tokens = 0 if limit is None else min(answer_tokens, limit // 4)

    def tokens(self, wanted: int, *, calls: int = 1, beside: int = 0) -> int:
        """The most tokens that a request may have.

        Args:
            wanted: As many would be wanted.
            calls: Requests that go together.
            beside: Tokens of the others of them.

        Raises:
            LimitExceeded: There are no calls or tokens left for it.
        """
        ledger = self._run.ledger
        if ledger.left("calls") < calls + ANSWER_CALLS:
            raise ledger.refuse("calls")
        left = ledger.left("tokens") - self.kept_tokens - beside
        if left < 1:
            raise ledger.refuse("tokens")
        return wanted if left >= wanted else int(left)

    def covers_together(self, most: int, others: int) -> bool:
        """Whether a request of `most` tokens and `others` samples of one token may be sent as one call.

        A call's samples share the budget equally, so that a nearly spent one would cut the long sample short; and where
        dollars are limited, nothing is generated that may be thrown away.
        """
        ledger = self._run.ledger
        enough_calls = ledger.left("calls") >= 2 + ANSWER_CALLS
        return enough_calls and ledger.budget.usd is None and ledger.left("tokens") >= most * (1 + others)


Booked = tuple[int, list[Completion]]
"""The samples of a request, and their entry in the books."""

CONTEXT_SLACK = 64
"""Tokens of the context that are left alone: what a text comes to in a model's tokens is an estimate."""


class Pen:
    """One model within one run.

    Its samples of a prompt are its own: where both roles are played by one model, the two draw from different streams.

    Args:
        writer: Which of the two it is.
        model: The model.
        prompt: The question, perhaps with the beginning of every reply.
        run: The run that pays.
        books: Where its tokens are booked.
        allowance: What may be spent on anything but the answer.
    """

    def __init__(
        self, writer: Writer, model: MeteredModel, prompt: Prompt, run: Run, books: Books, allowance: Allowance
    ) -> None:
        self.writer, self.model, self.base = writer, model, prompt
        self.books, self.allowance = books, allowance
        self.steps = ContinuationRequests(model, prompt, run, f"step.{writer}")
        self.probes = ContinuationRequests(model, prompt, run, f"probe.{writer}")
        self._run = run
        self._stops = True
        self._prompt_tokens, self._written = 0, 0

    def prompt_after(self, context: str) -> Prompt:
        """The prompt that asks for what follows this beginning of the reply, which is given as text.

        Raises:
            CapabilityMissing: The model cannot be given the beginning of its reply.
        """
        prompt = self.steps.prompt_after(context, None)
        if prompt.prefix and not self.model.capabilities.prefix:
            raise CapabilityMissing("prefix", self.model.name)
        return prompt

    def room(self, wanted: int, written: int) -> int:
        """Tokens that its context has for a request, as far as that is known: `wanted` or fewer, 0 if there is none.

        What a prompt comes to is estimated from the last one that the model was given, and from what was written since;
        a replay, which has no tokenizer, estimates the same.

        Args:
            wanted: As many would be wanted.
            written: Tokens of the reply so far, whoever wrote them.
        """
        context = self.model.capabilities.context_tokens
        if context is None or not self._prompt_tokens:
            return wanted
        since = max(0, written - self._written)
        return max(0, min(wanted, context - self._prompt_tokens - since - since // 4 - CONTEXT_SLACK))

    async def ask(
        self,
        purpose: Purpose,
        requests: Sequence[Request],
        *,
        written: int = 0,
        listener: Listener | None = None,
        enough: asyncio.Event | None = None,
        last: bool = False,
    ) -> list[Booked]:
        """Send requests as one call; they are cut where the time for the answer begins, unless they are the answer.

        Args:
            purpose: What they are for, in the books; the first of two is always a probe.
            requests: The requests.
            written: Tokens of the reply that they follow.
            listener: Hears of what is generated.
            enough: Cuts them off.
            last: Whether this is the answer.

        Raises:
            LimitExceeded: The budget does not cover them, or the time for steps is over.
            BadReply: A sample failed.
            BackendError: The model failed altogether.
        """
        ledger = self._run.ledger
        began = ledger.elapsed_s
        with nullcontext(enough) if last else self.allowance.time.cutting(enough) as cut:
            made = await self._send([self._without_stops(r) for r in requests], listener, cut)
        self.allowance.time.took(ledger.elapsed_s - began)
        booked: list[Booked] = []
        for i, (request, completions) in enumerate(zip(requests, made, strict=True)):
            what: Purpose = "probe" if len(requests) > 1 and i == 0 else purpose
            booked.append((self.books.enter(self.writer, what, completions), completions))
            tokens = completions[0].usage.prompt_tokens
            if tokens and request.prompt.messages == self.base.messages:
                self._prompt_tokens, self._written = tokens, written
        for completion in (c for completions in made for c in completions):
            if completion.failure is not None:
                self.books.book_as("discarded", [n for n, _ in booked if self.books.entries[n].purpose == "step"])
                raise InvalidResponse(f"{self.model.name} gave no sample: {completion.failure.message}")
        return booked

    async def _send(
        self, requests: Sequence[Request], listener: Listener | None, enough: asyncio.Event | None
    ) -> list[list[Completion]]:
        try:
            return await self.model.generate(requests, listener, enough=enough)
        except CapabilityMissing as e:
            if e.feature != "stop" or not self._stops:
                raise
        self._stops = False
        self._run.degrade(
            f"{self.model.name} takes no stop strings; its steps were cut at the separator after they were made"
        )
        return await self.model.generate([self._without_stops(r) for r in requests], listener, enough=enough)

    def _without_stops(self, request: Request) -> Request:
        if self._stops or not request.sampling.stop:
            return request
        return request.model_copy(update={"sampling": request.sampling.model_copy(update={"stop": ()})})


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
        sampling = SamplingParams(
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
            at = find_boundary(draft.text, self._transcript.separator, before)
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
        if reason == "stop" and (not completion.text or not is_inside_block(before + draft.text)):
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


CONCLUDE_TOKENS = 32
"""Most tokens of an answer behind steps without tags."""


class Conclusion:
    """The answer to one question.

    Args:
        transcript: The steps.
        question: What is answered.
        pens: The models.
        opening: What stands before the steps in the reply.
        temperature: Sampling temperature of an answer behind thoughts; behind steps without tags it is greedy.
        top_p: Nucleus mass of it.
        answer_tokens: Most tokens of it.
    """

    def __init__(
        self,
        transcript: Transcript,
        question: Question,
        pens: Mapping[Writer, Pen],
        *,
        opening: str,
        temperature: float,
        top_p: float,
        answer_tokens: int,
    ) -> None:
        self._transcript, self._question, self._pens = transcript, question, pens
        self._opening, self._temperature, self._top_p = opening, temperature, top_p
        self._answer_tokens = answer_tokens

    @property
    def stated(self) -> bool:
        """Whether the last step states the answer; never where thoughts are apart from it."""
        transcript = self._transcript
        return bool(transcript.steps) and not transcript.close_tag and transcript.states_answer(self._question)

    async def ask(self, writer: Writer) -> Completion:
        """Have a model answer; the text that comes back begins with the steps.

        Args:
            writer: Which one.

        Raises:
            LimitExceeded: Neither budget nor context have room for it.
            BackendError: The model failed.
        """
        pen, tag, transcript = self._pens[writer], self._transcript.close_tag, self._transcript
        if tag:
            thoughts = transcript.thoughts
            before = f"{thoughts}{'' if not thoughts or thoughts.endswith(chr(10)) else chr(10)}{tag}{SEPARATOR}"
        else:
            before = "".join([transcript.context, answer_trigger(self._question)])
        prompt = pen.prompt_after(before)
        most = pen.room(self._answer_tokens if tag else CONCLUDE_TOKENS, transcript.tokens)
        if most < 1:
            raise LimitExceeded("tokens", transcript.tokens, transcript.tokens)
        sampling = SamplingParams(
            temperature=self._temperature if tag else 0.0,
            top_p=self._top_p if tag else 1.0,
            max_tokens=most,
            stop=() if tag else ("\n",),
            seed=pen.steps.seed(prompt),
            logprobs=False,
        )
        ((_, (reply,)),) = await pen.ask(
            "answer", [Request(prompt=prompt, sampling=sampling)], written=transcript.tokens, last=True
        )
        said = reply.text if tag else reply.text.partition("\n")[0]
        whole = before + said if tag or said.strip() else transcript.joined
        return reply.model_copy(update={"text": self._opening + whole})

    def candidate(self, reply: Completion | None) -> Candidate | None:
        """The steps with the answer behind them, or with what they state themselves; None if there is nothing.

        Args:
            reply: The answer, as `ask` gave it.
        """
        steps = self._transcript.steps
        if reply is None and not steps:
            return None
        whole = self._unanswered() if reply is None else reply
        read = read_candidate(whole.model_copy(update={"logprobs": None}), self._question)
        return read.model_copy(
            update={
                "steps": tuple(
                    Step(
                        text=step.text,
                        model=self._pens[step.writer].model.name,
                        scores={
                            name: value
                            for name, value in (("entropy", step.entropy), ("score", step.score))
                            if value is not None
                        },
                    )
                    for step in steps
                ),
                "tokens": self._transcript.tokens + (0 if reply is None else reply.usage.completion_tokens),
            }
        )

    def _unanswered(self) -> Completion:
        ended = self._transcript.steps[-1].ended
        reason: FinishReason = "budget" if ended == "budget" else "length" if ended in CUT else "stop"
        return Completion(text=self._opening + self._transcript.joined, finish_reason=reason)


STEP_FAILED = "a step could not be written; the answer was asked for without it"
ANSWER_FAILED = "the answer could not be asked for; it was read from the steps"


class StepLoopParameters(Parameters):
    """Parameters of every strategy whose steps two models write."""

    steps: Annotated[
        Literal["paragraphs", "lines"],
        Field(description="what a step is: up to a blank line, or a single line, for models that leave no blank lines"),
    ] = "paragraphs"
    temperature: Annotated[float, Field(ge=0, le=100, description="sampling temperature of steps; 0 is greedy")] = 0.6
    top_p: Annotated[float, Field(gt=0, le=1, description="nucleus mass of steps")] = 0.95
    max_step_tokens: Annotated[
        int, Field(ge=1, description="most tokens of one request; a longer step goes on with the same writer")
    ] = 512
    thinking_tokens: Annotated[int, Field(ge=1, description="most tokens of all steps together")] = 8192
    think: Annotated[
        bool, Field(description="whether the models think between tags before they answer, as reasoning models do")
    ] = False
    open_tag: Annotated[
        str, Field(description="what opens the thinking; empty where the model's chat template has it already")
    ] = "<think>\n"
    close_tag: Annotated[str, Field(min_length=1, description="what closes the thinking")] = "</think>"
    answer: Annotated[
        Literal["large", "writer"],
        Field(description="who gives the answer: the large model, or the last step's writer"),
    ] = "large"
    answer_tokens: Annotated[int, Field(ge=1, description="most tokens of the answer behind thoughts")] = 2048
    granularity: Annotated[
        Literal["step", "problem"],
        Field(description="what is routed; whole problems also where a model cannot go on from a given beginning"),
    ] = "step"
    system: Annotated[str, Field(description="system message; empty leaves it to the model")] = ""


@dataclass(frozen=True)
class Turn:
    """What came of one turn of the loop.

    Attributes:
        draft: The step that was kept.
        writer: Who wrote it.
        why: What decided that.
        entropy: Entropy of the first token, in nats; None if nobody looked.
        mass: Probability of the tokens that it is of.
        threshold: What it was compared with.
        kind: What kind of entropy it is; empty without one.
        score: What the large model gave a step of the small one.
    """

    draft: Draft
    writer: Writer
    why: str
    entropy: float | None = None
    mass: float | None = None
    threshold: float | None = None
    kind: EntropyKind | Literal[""] = ""
    score: float | None = None


class Author(Protocol):
    """Decides who writes the next step, and has it written."""

    async def next(self, index: int) -> Turn:
        """Take the next turn.

        Args:
            index: Number of the step, from 0.

        Raises:
            LimitExceeded: The budget does not cover a step.
            BackendError: A model failed.
        """

    def notes(self) -> dict[str, JsonValue]:
        """What a reader may want to know of it."""


class Scene:
    """The two models, the steps so far and the books of one run.

    Args:
        parameters: How steps are written.
        question: What is answered.
        models: The models; "main" is the large one.
        run: The run.
        needed: Who may be asked for steps.
    """

    def __init__(
        self, parameters: StepLoopParameters, question: Question, models: Models, run: Run, needed: frozenset[Writer]
    ) -> None:
        self.parameters, self.question, self.run = parameters, question, run
        by_writer: dict[Writer, MeteredModel] = {"large": models.main, "small": models.small}
        if models.small is models.main and len(needed) > 1:
            run.degrade("no small model was given: the main model wrote the steps of both (--small-model names one)")
        unable = sorted(by_writer[w].name for w in needed if not by_writer[w].capabilities.prefix)
        self.whole = bool(unable) or parameters.granularity == "problem"
        if unable and parameters.granularity == "step":
            why = f"{unable[0]} cannot go on from a given beginning"
            run.degrade(f"granularity=problem: {why}; whole replies were routed")
        self.books = Books()
        self.allowance = Allowance(run, parameters.answer_tokens if parameters.think else CONCLUDE_TOKENS)
        lines = parameters.steps == "lines"
        close_tag = parameters.close_tag if parameters.think else ""
        self.transcript = Transcript(close_tag=close_tag, separator=LINE if lines else SEPARATOR)
        writing = Writing(
            temperature=parameters.temperature,
            top_p=parameters.top_p,
            max_step_tokens=parameters.max_step_tokens,
            thinking_tokens=parameters.thinking_tokens,
            whole_tokens=self._whole_tokens([by_writer[w].capabilities.context_tokens for w in sorted(needed)]),
        )
        form = lines_instruction(question) if lines else steps_instruction(question)
        prompt = question_prompt(question, form, system=parameters.system)
        self.opening = parameters.open_tag if parameters.think and not unable else ""
        self.pens: dict[Writer, Pen] = {}
        self.writers: dict[Writer, StepWriter] = {}
        for writer, model in by_writer.items():
            pen = Pen(writer, model, prompt.with_prefix(self.opening), run, self.books, self.allowance)
            self.pens[writer] = pen
            self.writers[writer] = StepWriter(pen, run, self.transcript, writing)

    def _whole_tokens(self, contexts: list[int | None]) -> int | None:
        """Most tokens of a whole reply, which half of a context is left for; None where steps are routed."""
        most = [self.parameters.thinking_tokens, *(context // 2 for context in contexts if context is not None)]
        return min(most) if self.whole else None


class StepLoop:
    """One chain of thought.

    Args:
        scene: The models and the run.
        author: Who decides.
        answers: Who gives the answer; None is the last step's writer.
        default: Who gives it where no step was written and nobody is said to.
    """

    def __init__(self, scene: Scene, author: Author, answers: Writer | None, default: Writer = "small") -> None:
        self._scene, self._author = scene, author
        self._answers, self._default = answers, default
        self._run = scene.run
        self._conclusion = Conclusion(
            scene.transcript,
            scene.question,
            scene.pens,
            opening=scene.opening,
            temperature=scene.parameters.temperature,
            top_p=scene.parameters.top_p,
            answer_tokens=scene.parameters.answer_tokens,
        )

    async def solve(self) -> Solution:
        """Think, then answer.

        Raises:
            BackendError: A model failed before there was a step.
        """
        ended = await self._think()
        return await self._answer(ended)

    # -- steps

    async def _think(self) -> Ended:
        scene, run = self._scene, self._run
        ended: Ended | None = None
        while ended is None:
            try:
                turn = await self._author.next(len(scene.transcript.steps))
            except LimitExceeded as e:
                run.note_limit(e)
                return "budget"
            except (BackendError, StoreError) as e:
                if not scene.transcript.steps or (isinstance(e, StoreError) and run.recording):
                    raise
                self._fail(STEP_FAILED, e)  # a replay finds nothing stored where the run had a failure
                return "failed"
            ended = self._take(turn)
        return ended

    def _take(self, turn: Turn) -> Ended | None:
        """Put a step behind the others, tell of it, and see whether that ends the thinking."""
        scene, draft, transcript = self._scene, turn.draft, self._scene.transcript
        assert draft.ended is not None
        if not draft.text.strip():
            scene.books.book_as("discarded", draft.entries)
            return "empty" if draft.ended == "separator" else draft.ended
        transcript.steps.append(
            RoutedStep(
                text=draft.text,
                writer=turn.writer,
                tokens=draft.tokens,
                ended=draft.ended,
                entropy=turn.entropy,
                mass=turn.mass,
                score=turn.score,
            )
        )
        self._run.emit(
            StepRouted(
                index=len(transcript.steps) - 1,
                role="main" if turn.writer == "large" else "small",
                model=scene.pens[turn.writer].model.name,
                entropy=turn.entropy,
                threshold=turn.threshold,
                kind=turn.kind,
                tokens=draft.tokens,
                why=turn.why,
                score=turn.score,
            )
        )
        ended = transcript.ended(scene.question, scene.parameters.thinking_tokens)
        if scene.whole:
            ended = ended if ended in ("budget", "tokens", "context") else "whole"
        self._run.offer(self._solution(None, ended, stopped="cancelled"))
        return ended

    # -- the answer

    async def _answer(self, ended: Ended) -> Solution:
        scene, run = self._scene, self._run
        steps = scene.transcript.steps
        by = self._answers or (steps[-1].writer if steps else self._default)
        if scene.whole or (self._conclusion.stated and by == steps[-1].writer):
            return self._found(self._solution(None, ended))
        try:
            reply = await self._conclusion.ask(by)
        except LimitExceeded as e:
            run.note_limit(e)
            return self._found(self._solution(None, ended, stopped="budget"))
        except (BackendError, StoreError) as e:
            if not steps or (isinstance(e, StoreError) and run.recording):
                raise
            self._fail(ANSWER_FAILED, e)
            return self._found(self._solution(None, ended, stopped="error"))
        return self._found(self._solution(reply, ended))

    def _found(self, solution: Solution) -> Solution:
        if solution.best is not None:
            self._run.emit(CandidateAdded(index=0, answer=solution.best.answer))
        return solution

    def _solution(self, reply: Completion | None, ended: Ended | None, stopped: Stopped | None = None) -> Solution:
        """What there is: the steps with the answer behind them, or the steps alone."""
        scene = self._scene
        candidate = self._conclusion.candidate(reply)
        spent = ended == "budget" or (reply is not None and reply.finish_reason == "budget")
        notes: dict[str, JsonValue] = {
            "granularity": "problem" if scene.whole else "step",
            **self._author.notes(),
            "ended": ended,
            **notes_of(scene.transcript.steps),
            **scene.books.notes(),
        }
        return Solution(
            chosen=None if candidate is None else 0,
            candidates=() if candidate is None else (candidate,),
            stopped=stopped or ("budget" if spent else "done"),
            notes=notes,
        )

    def _fail(self, what: str, error: BackendError | StoreError) -> None:
        self._run.degrade(what)
        data: dict[str, JsonValue] = {"code": error.code, "message": error.message}
        self._run.emit(StrategyNote(strategy=self._run.config.strategy, name="step.failed", data=data))
