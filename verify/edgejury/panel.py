"""`Panel`: several jurors asked at once, none of whom can hold up the others.

Requests to one and the same model go as one batch, those to different models side by side. A stage ends when everybody
has replied, or at its deadline; a round of it when as many have replied as make a quorum. Who is not done by then is
cancelled, and charged for what it used. Who failed is noted in the run store beside the replies, so that a replay, with
neither a clock nor a model, takes the same way.

`Round`: requests to several models at once, each model's as one batch, and what became of every one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, cast

from pydantic import JsonValue

from ...core.budget import LimitKind
from ...core.concurrency import gather
from ...core.errors import (
    BackendError,
    BackendTimeout,
    CapabilityMissing,
    ContextTooLong,
    InvalidResponse,
    LimitExceeded,
    StoreError,
)
from ...core.events import JuryStageEnded, StageFinished, StageStarted
from ...core.messages import Chunk, Completion, Request, Usage
from ...core.run import Run
from ...core.types import RunUsage
from ...serving.metered.decisions import load_decision, save_decision
from ...serving.metered.model import MeteredModel, sampled_json
from .types import Stage, StageCost

LATE = "it was not done in time"


@dataclass(frozen=True)
class Ask:
    """One request to one juror.

    Attributes:
        who: The juror; no other request of the same round has its number.
        model: Whom to ask.
        request: What; of one sample.
    """

    who: int
    model: MeteredModel
    request: Request

    @property
    def named(self) -> JsonValue:
        """What names it in the run store."""
        return [self.who, self.model.identity, list(self.request.indices), sampled_json(self.request)]

    def with_most_tokens(self, most: float) -> Ask:
        """The same with a bound on what is generated; unchanged by one that it keeps anyway."""
        sampling = self.request.sampling
        if not 1 <= most < sampling.max_tokens:
            return self
        sampling = sampling.model_copy(update={"max_tokens": int(most)})
        return replace(self, request=self.request.model_copy(update={"sampling": sampling}))

    def without_stops(self) -> Ask:
        """The same for a model that takes no stop strings."""
        sampling = self.request.sampling.model_copy(update={"stop": ()})
        return replace(self, request=self.request.model_copy(update={"sampling": sampling}))


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        who: Whose it is.
        completion: The sample, as far as it got; None if there is none.
        latency_ms: Milliseconds from the stage's beginning to its end.
        failure: Why it does not count; empty if it does.
    """

    who: int
    completion: Completion | None
    latency_ms: float
    failure: str = ""

    @property
    def ok(self) -> bool:
        """Whether it counts; what it says may be nothing."""
        return not self.failure

    @property
    def text(self) -> str:
        """What was said; empty if it does not count."""
        return self.completion.text if self.completion is not None and self.ok else ""

    @property
    def tokens(self) -> int:
        """Generated tokens, also of a reply that does not count."""
        return 0 if self.completion is None else self.completion.usage.completion_tokens


@dataclass
class Round:
    """One round.

    Args:
        run: The run that pays.
        over: Set when nobody is waited for any more.
        bounded: Those whose replies the token budget bounds.
        heard: Told of each that replies with something.
        elapsed_s: Seconds since the stage began.
        noted: What became of it before, if the run had got that far (see `to_note`).

    Attributes:
        limited: Whether a budget kept somebody from being asked, or cut a reply short.
        error: The first error of a model.
    """

    run: Run
    over: asyncio.Event
    bounded: frozenset[int]
    heard: Callable[[int], None]
    elapsed_s: Callable[[], float]
    noted: dict[str, JsonValue] | None = None
    limited: bool = False
    error: BackendError | None = None
    _made: dict[int, Completion] = field(default_factory=dict)
    _at_s: dict[int, float] = field(default_factory=dict)
    _failed: dict[int, str] = field(default_factory=dict)
    _limits: list[str] = field(default_factory=list)
    _unrepeated: dict[int, int] = field(default_factory=dict)
    """Calls that were charged and that a replay, which knows how they end, does not make."""
    _lost: dict[int, Usage] = field(default_factory=dict)
    """What samples used that failed: the store has none of them."""
    _without_stops: set[str] = field(default_factory=set)
    """Models, by identity, that take no stop strings."""

    async def go(self, asks: Sequence[Ask]) -> list[Reply]:
        """Ask all, and take what comes until it is over.

        Returns:
            A reply each, in order.
        """
        if self.noted is not None:
            self._take_over(asks, self.noted)
        groups: dict[int, list[Ask]] = {}
        for ask in asks:
            if ask.who not in self._failed:
                groups.setdefault(id(ask.model), []).append(ask)
        await gather([self._put(group) for group in groups.values()])
        return [self._reply(ask.who) for ask in asks]

    def to_note(self) -> dict[str, JsonValue]:
        """What the run store needs beside the replies, for the same to come out again."""
        return {
            "failed": {str(who): why for who, why in self._failed.items()},
            "limits": [*self._limits],
            "unrepeated": {str(who): calls for who, calls in self._unrepeated.items()},
            "lost": {str(who): usage.model_dump(mode="json") for who, usage in self._lost.items()},
            "without_stops": [*sorted(self._without_stops)],
        }

    async def _put(self, asks: Sequence[Ask]) -> None:
        """Ask one model."""
        model = asks[0].model
        if self.over.is_set() and self.noted is None:
            self._fail(asks, LATE)
            return
        sent = [ask.without_stops() for ask in asks] if model.identity in self._without_stops else asks

        def hear(chunk: Chunk) -> None:
            if chunk.completion is not None:
                self._take(asks[chunk.request].who, chunk.completion)

        try:
            made = await model.generate([ask.request for ask in sent], hear, enough=self.over)
        except LimitExceeded as e:
            self.run.note_limit(e)
            self.limited = True
            self._limits.append(e.kind)
            self._fail(asks, e.message)
        except CapabilityMissing as e:
            if e.feature != "stop" or model.identity in self._without_stops:
                raise
            self._without_stops.add(model.identity)
            self._not_repeated(asks)
            await self._put(asks)
        except ContextTooLong as e:
            self._not_repeated(asks)
            if len(asks) > 1:  # one that is too long takes no other along
                await gather([self._put([ask]) for ask in asks])
            else:
                self._fail(asks, e.message)
        except BackendError as e:
            self.error = self.error or e
            self._not_repeated(asks)
            self._fail(asks, e.message)
        except StoreError as e:
            if self.run.recording:
                raise
            self._fail(asks, e.message)  # a replay of a run that was ended in the midst of this
        else:
            for ask, (completion,) in zip(asks, made, strict=True):
                self._take(ask.who, completion)
                self.limited = self.limited or completion.finish_reason == "budget"

    def _take(self, who: int, completion: Completion) -> None:
        self._at_s.setdefault(who, self.elapsed_s())
        self._made[who] = completion
        if completion.failure is not None:
            if who not in self._failed:
                self._failed[who] = completion.failure.message
                self._unrepeated[who] = self._unrepeated.get(who, 0) + 1
                self._lost[who] = completion.usage
            return
        if completion.finish_reason == "length" and who in self.bounded:
            self.limited = True
        if completion.finish_reason != "cancelled" and completion.text.strip():
            self.heard(who)

    def _fail(self, asks: Iterable[Ask], why: str) -> None:
        for ask in asks:
            if ask.who not in self._made:
                self._failed[ask.who] = why
                self._at_s[ask.who] = self.elapsed_s()

    def _not_repeated(self, asks: Iterable[Ask]) -> None:
        for ask in asks:
            if ask.who not in self._made:
                self._unrepeated[ask.who] = self._unrepeated.get(ask.who, 0) + 1

    def _take_over(self, asks: Sequence[Ask], noted: dict[str, JsonValue]) -> None:
        """What the store says became of the round: who failed is not asked again."""
        failed, calls, lost = (_by_name(noted.get(name)) for name in ("failed", "unrepeated", "lost"))
        limits, without = noted.get("limits"), noted.get("without_stops")
        for ask in asks:
            name = str(ask.who)
            if name in failed:
                self._fail([ask], str(failed[name]))
            count, usage = calls.get(name, 0), lost.get(name)
            if isinstance(count, int) and count:
                self.run.ledger.charge(
                    ask.model.role,
                    ask.model.name,
                    Usage() if usage is None else Usage.model_validate(usage),
                    calls=count,
                    replayed_calls=count,
                )
        if isinstance(without, list):
            self._without_stops.update(map(str, without))
        for kind in limits if isinstance(limits, list) else ():
            self.limited = True
            self.run.note_limit(self.run.ledger.refuse(cast(LimitKind, kind)))

    def _reply(self, who: int) -> Reply:
        completion = self._made.get(who)
        failure = self._failed.get(who, "")
        if not failure and (completion is None or completion.finish_reason == "cancelled"):
            failure = LATE
        return Reply(who, completion, 1000 * self._at_s.get(who, self.elapsed_s()), failure)


def _by_name(noted: JsonValue) -> dict[str, JsonValue]:
    return noted if isinstance(noted, dict) else {}


Needed = Literal["somebody", "nobody"]


class Panel:
    """One stage of a jury, from its beginning to its end.

    Args:
        run: The run that pays.
        stage: Which.
        deadline_s: Seconds after which nobody is waited for any more; None waits for all.
        quorum: Replies of a round that are enough; None is all.

    Attributes:
        limited: Whether a budget kept somebody from being asked, or cut a reply short.
        cost: What the stage cost, once it has ended.
    """

    def __init__(self, run: Run, stage: Stage, *, deadline_s: float | None = None, quorum: int | None = None) -> None:
        self.limited = False
        self.cost = StageCost(stage=stage)
        self._run, self._stage = run, stage
        self._deadline_s, self._quorum = deadline_s, quorum
        self._late = False
        self._enough = asyncio.Event()
        self._asked: set[int] = set()
        self._replied: set[int] = set()
        self._before, self._began_s = run.ledger.usage(), run.ledger.elapsed_s

    @contextmanager
    def sitting(self) -> Iterator[None]:
        """The stage: what happens in it belongs under its event, and its deadline runs, but not in a replay."""
        run, name = self._run, f"jury: {self._stage}"
        number = run.emit(StageStarted(stage=name))
        timer = None
        if self._deadline_s is not None and run.recording:  # in a replay the store tells what was late
            timer = asyncio.get_running_loop().call_later(self._deadline_s, self._end)
        try:
            with run.under(number):
                yield
                self.cost = self._costs()
                cost = self.cost.model_dump(mode="json")
                asked, replied = len(self._asked), len(self._replied)
                run.emit(JuryStageEnded(stage=self._stage, asked=asked, replied=replied, report=cost))
        finally:
            if timer is not None:
                timer.cancel()
            run.emit(StageFinished(stage=name, seconds=self._elapsed_s()), parent=number)

    @property
    def over(self) -> bool:
        """Whether its deadline is, so that nobody is asked any more."""
        return self._late

    async def ask(self, asks: Sequence[Ask], *, needs: Needed = "nobody") -> list[Reply]:
        """Ask, and wait as long as the stage allows.

        A token budget that does not cover all requests is shared out equally, whatever model is asked first.

        Args:
            asks: Whom and what.
            needs: Whether somebody must reply.

        Returns:
            A reply each, in order, also of those that failed or were late.

        Raises:
            BackendError: Somebody must reply and nobody did, and no budget is the reason.
        """
        if not asks:
            return []
        run = self._run
        self._asked |= {ask.who for ask in asks}
        share = run.ledger.left("tokens") / len(asks)
        fitted = [ask.with_most_tokens(share) for ask in asks]
        bounded = frozenset(a.who for a, b in zip(asks, fitted, strict=True) if a is not b)
        what: dict[str, JsonValue] = {"jury": self._stage, "asks": [ask.named for ask in fitted]}
        noted = await load_decision(run, asks[0].model, what)
        self._enough = asyncio.Event()
        if self._late:
            self._enough.set()
        heard: set[int] = set()

        def hear(who: int) -> None:
            heard.add(who)
            if self._quorum is not None and len(heard) >= self._quorum:
                self._enough.set()

        round_ = Round(run, self._enough, bounded, hear, self._elapsed_s, noted)
        replies = await round_.go(fitted)
        if bounded and round_.limited and run.ledger.exhausted is None:
            run.note_limit(run.ledger.refuse("tokens"))
        self._replied |= heard
        self.limited = self.limited or round_.limited
        if needs == "somebody" and not round_.limited and not any(reply.ok for reply in replies):
            failure = replies[0].failure
            late = all(reply.failure == LATE for reply in replies)
            raise round_.error or (BackendTimeout if late else InvalidResponse)(f"no juror gave an opinion: {failure}")
        if noted is None:
            await save_decision(run, asks[0].model, what, {**round_.to_note(), "late": self._late})
        elif noted.get("late") is True:
            self._end()
        return replies

    def _end(self) -> None:
        self._late = True
        self._enough.set()

    def _elapsed_s(self) -> float:
        return max(0.0, self._run.ledger.elapsed_s - self._began_s)

    def _costs(self) -> StageCost:
        before, now = self._before, self._run.ledger.usage()
        return StageCost(
            stage=self._stage,
            calls=now.model_calls - before.model_calls,
            prompt_tokens=now.prompt_tokens - before.prompt_tokens,
            completion_tokens=now.completion_tokens - before.completion_tokens,
            latency_ms=1000 * self._elapsed_s(),
            cost_usd=_spent(before, now),
        )


def _spent(before: RunUsage, now: RunUsage) -> float | None:
    if before.cost_usd is None or now.cost_usd is None:
        return None
    return max(0.0, now.cost_usd - before.cost_usd)
