"""`Answering`: the runs of one request, from their start to what they come to, told piece by piece."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from fastapi import FastAPI

from ...core.answer import RunUsage
from ...core.errors import ReasonError
from ...core.events import EventFields, TextDelta
from ...core.run import RunConfig
from ...core.together import together
from ..callers import Caller
from ..desk import RunDesk
from ..error_objects import shown_event
from ..live_run import AnyRun, LiveRun
from .asking import Asked
from .outcome import Outcome, outcome_of
from .said_text import SaidText, in_pieces
from .telling import Telling, whole_thoughts
from .thoughts import Piece, ThoughtSplitter

LATE = "thoughts were sent as content: {} begins them in its prompt, which was not known yet"


@dataclass(frozen=True)
class Told:
    """Something to be told of one of the runs.

    Attributes:
        index: Which one.
        run_id: Its name.
        pieces: Thoughts and content.
        event: The event that they are of, where events are wanted.
        ended: What it came to; nothing more follows of it then.
    """

    index: int
    run_id: str
    pieces: tuple[Piece, ...] = ()
    event: EventFields | None = None
    ended: Ended | None = None


@dataclass(frozen=True)
class Ended:
    """What one of the runs came to.

    Attributes:
        run_id: Its name; empty where it was not even accepted.
        outcome: What it came to; None if it failed.
        error: What failed it.
        thoughts: All of its thoughts.
        spent: What it has cost, if it failed.
        late: Whether thoughts of it were told as content.
    """

    run_id: str
    outcome: Outcome | None = None
    error: ReasonError | None = None
    thoughts: str = ""
    spent: RunUsage = field(default_factory=RunUsage)
    late: bool = False


Tell = Callable[[Told], Awaitable[None]]


class Answering:
    """Answers one request.

    Args:
        app: Has the desk, and remembers which models begin their texts inside a thought.
        caller: Who asks.
        asked: What is asked.
        idempotency: The caller's name for the request; None is none.
        digest: Hash of the request.
    """

    def __init__(
        self, app: FastAPI, caller: Caller, asked: Asked, *, idempotency: str | None = None, digest: str = ""
    ) -> None:
        self.asked = asked
        self._desk: RunDesk = app.state.desk
        self._caller = caller
        self._idempotency, self._digest = idempotency, digest
        self._opening = opening_models(app)

    async def all(self, tell: Tell | None = None) -> list[Ended]:
        """Every run to its end, in order.

        Args:
            tell: Told of what happens meanwhile, and of each end; None waits.

        Raises:
            ReasonError: None came to anything; what failed the first.
        """
        ended = await together([self._one(i, tell) for i in range(len(self.asked.configs))])
        if (error := ended[0].error) is not None and all(e.outcome is None for e in ended):
            raise error
        return ended

    async def _one(self, index: int, tell: Tell | None) -> Ended:
        """One run to its end. What fails it is no more than noted: the others of the request go on."""
        run_id = ""
        try:
            run = await self._start(index, text=tell is not None)
            run_id = run.id
            async with run.held():
                ended = await self._follow(index, run, tell)
        except ReasonError as e:
            return Ended(run_id, error=e, spent=await self._spent(run_id))
        if tell is not None:
            await tell(Told(index, run_id, ended=ended))
        return ended

    async def _start(self, index: int, *, text: bool) -> AnyRun:
        key = self._idempotency
        return await self._desk.start(
            self.asked.configs[index],
            self._caller,
            idempotency=key if key is None or index == 0 else f"{key}\x1f{index}",  # which no caller can send
            digest=self._digest,
            text=text,
        )

    async def _follow(self, index: int, run: AnyRun, tell: Tell | None) -> Ended:
        config, said = run.config, SaidText(self.asked.stop)
        # of a run that was begun by another request, text was missed
        after = 0 if isinstance(run, LiveRun) else math.inf
        opened = _main(config) in self._opening
        telling = Telling(config, said, opened=opened, after=after)
        told: list[Piece] = []
        async with aclosing(run.events(text=tell is not None)) as events:
            async for event in events:
                pieces = telling.take(event)
                if tell is None:
                    told += pieces
                    continue
                # text is told as pieces
                told_too = self.asked.stream_events and not isinstance(event, TextDelta)
                shown = shown_event(event) if told_too else None
                if pieces or shown is not None:
                    await tell(Told(index, run.id, tuple(pieces), shown))
        answer = await run.result()
        if telling.late or _begins_inside_a_thought(answer.text):
            self._opening.add(_main(config))
        last = telling.finish()
        outcome = outcome_of(answer, self.asked, telling)
        if tell is not None:
            left = said.finish(outcome.content, late=telling.late)
            if last:
                await tell(Told(index, run.id, tuple(last)))
            for text in in_pieces(left):
                await tell(Told(index, run.id, (Piece("content", text),)))
        return Ended(run.id, outcome, thoughts=whole_thoughts([*told, *last]), late=telling.late)

    async def _spent(self, run_id: str) -> RunUsage:
        """What a run that failed has cost."""
        if not run_id:
            return RunUsage()
        try:
            record = await self._desk.record(run_id, self._caller)
        except ReasonError:  # the store may be what failed
            return RunUsage()
        return RunUsage() if record.answer is None else RunUsage.model_validate(record.answer["usage"])


def opening_models(app: FastAPI) -> set[str]:
    """The models whose prompts begin a thought, so that the end of it alone is in their texts: as far as was seen."""
    known: set[str] | None = getattr(app.state, "opening_models", None)
    if known is None:
        known = app.state.opening_models = set()
    return known


def _main(config: RunConfig) -> str:
    return config.models.get("main", "")


def _begins_inside_a_thought(text: str) -> bool:
    splitter = ThoughtSplitter()
    splitter.feed(text)
    return splitter.late
