"""`StepLoop`: a chain of thought whose steps two models write, from the question to the answer.

    repeat   the author decides who writes the next step, and has it written
    until    the thinking has ended (`step_rules`)
    the answer is asked for behind the steps (`concluding`)

Source: the main loop of Zeng et al. 2026, "GlimpRouter", arXiv:2601.05110, and the scaffold that it shares with
SpecReason (Pan et al. 2025, arXiv:2504.07891).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from pydantic import Field, JsonValue

from ..core.answer import Solution, Stopped
from ..core.errors import BackendError, LimitExceeded, StoreError
from ..core.events import CandidateFound, StepRouted, StrategyNote
from ..core.messages import Completion
from ..core.question import Question
from ..core.run import Run
from ..reasoning.prompts import ask, in_lines, in_steps
from ..reasoning.strategy import Models, Parameters
from ..serving.metered import MeteredModel
from .allowance import Allowance
from .concluding import CONCLUDE_TOKENS, Conclusion
from .pen import Pen
from .routed import Books, notes_of
from .step_rules import LINE, SEPARATOR, Ended, RoutedStep, Transcript, Writer
from .step_writer import Draft, StepWriter, Writing
from .thresholds import EntropyKind

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
        form = in_lines(question) if lines else in_steps(question)
        prompt = ask(question, form, system=parameters.system)
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
            self._run.emit(CandidateFound(index=0, answer=solution.best.answer))
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
