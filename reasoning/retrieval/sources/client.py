"""`KnowledgeClient`: a run's brains as a strategy sees them: all asked at once, with deadline, run store and trace between.

A brain that fails never ends a search: a query that it does not answer in time, or not at all, found nothing. Replies
and failures are in the run store, so that a resumed run asks nothing twice, and a replay asks nothing and goes as the
run went.

`RecordedSource`: a brain that is not there. The run store knows its replies by its identity.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable
from weakref import WeakValueDictionary

from pydantic import JsonValue

from ....core.budget import CostBound
from ....core.concurrency import gather
from ....core.errors import BackendTimeout, LimitExceeded, ReasonError, StoreError, UserError
from ....core.events import StrategyNote
from ....core.messages import Frozen
from ....core.run import Run
from ....core.store.protocol import StoredCall, call_key
from ....serving.metered.calls import Recorder
from ....serving.metered.replay import RecordedModel
from ....serving.model import Capabilities
from ..rank_fusion import fuse_rankings
from .model import ModelSource
from .protocol import KnowledgeSource, Snippet, valid_snippets, valid_text


class NotRecorded(StoreError):
    """A replay asks for what the recorded run never got a reply to."""


class RecordedSource:
    """Stands for a brain when a stored run is shown again; the store answers before anything comes here.

    What a brain failed to answer is recorded too, so a finished run asks nothing of this object.

    Args:
        name: The string that the recorded run's brain was opened by.
        kind: Its kind.
        identity: Its identity.
        out_of_time: Whether the run had a time limit: what it has no reply to, it did not get to.
    """

    def __init__(self, name: str, kind: str, identity: str, *, out_of_time: bool = False) -> None:
        self.name, self.kind, self.identity = name, kind, identity
        self._out_of_time = out_of_time

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """Fail.

        Raises:
            NotRecorded: Always, or
            LimitExceeded: always, if the recorded run had a time limit.
        """
        error: ReasonError = NotRecorded(
            f"the store holds no reply of {self.name} to a query that this run asks",
            hint="the run was not finished, or another version of reason made it: resume it instead",
        )
        raise LimitExceeded("seconds", 0, 0) if self._out_of_time else error

    async def aclose(self) -> None:
        """Do nothing."""


def source_description(brain: KnowledgeSource) -> dict[str, JsonValue]:
    """What is kept of a brain with a run, so that `recorded_source` can stand for it."""
    about: dict[str, JsonValue] = {"name": brain.name, "kind": brain.kind, "identity": brain.identity}
    if isinstance(brain, ModelSource):
        model = brain.model
        capabilities = model.capabilities.model_dump(mode="json")
        about["model"] = {"name": model.name, "identity": model.identity, "capabilities": capabilities}
    return about


def recorded_source(known: Mapping[str, JsonValue], *, out_of_time: bool = False) -> KnowledgeSource:
    """What stands for a brain when a stored run is shown again.

    Args:
        known: What `noted` told of it.
        out_of_time: See `RecordedSource`.
    """
    model = known.get("model")
    if isinstance(model, dict):
        # the run pays for what the model said, as it did; the store answers
        capabilities = Capabilities.model_validate(model["capabilities"])
        recorded = RecordedModel(
            str(model["name"]), str(model["identity"]), capabilities, limit="seconds" if out_of_time else None
        )
        return ModelSource(recorded)
    name, kind, identity = (str(known[field]) for field in ("name", "kind", "identity"))
    return RecordedSource(name, kind, identity, out_of_time=out_of_time)


ROLE = "brain"
"""The role of brains in the run store."""

TIMEOUT_S = 10.0
MAX_CONCURRENT = 16

_GRACE_S = 1.0
"""How long a brain whose time is over may take to let go, in seconds; one that does not is left behind."""


class SourcedSnippet(Snippet):
    """A snippet, and who gave it.

    Attributes:
        brain: Name of the brain; of several that gave the same text, the first.
        kind: Its kind.
    """

    brain: str
    kind: str


@runtime_checkable
class MeteredSource(Protocol):
    """A brain that calls models, which the run it is used in pays for.

    Attributes:
        keeps_replies: Whether the meters of its models keep their replies in the run store, so that a resumed run gets
            them by asking it again, and spends what it would have spent.
    """

    keeps_replies: bool

    def in_run(self, run: Run, deadline_s: float) -> KnowledgeSource:
        """The brain as the run uses it; one that keeps replies ends a query at the deadline with `TimeoutError`."""


class KnowledgeResponse(Frozen):
    """What came of one query, as the run store has it.

    Attributes:
        snippets: What the brain found, the best first.
        failed: "error" or "timeout"; empty for an answer.
        code: The error's code, or its class.
        message: What went wrong, one line.
    """

    snippets: tuple[Snippet, ...] = ()
    failed: Literal["", "error", "timeout"] = ""
    code: str = ""
    message: str = ""


@dataclass(frozen=True)
class _Source:
    """A brain as this run asks it; `ours`: its `LimitExceeded` and `StoreError` are the run's own."""

    brain: KnowledgeSource
    keeps: bool
    ours: bool


class _Slot:
    """One query under way; whoever asks the same meanwhile waits for its reply."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.reply: KnowledgeResponse | None = None


@dataclass(frozen=True)
class _Query:
    source: _Source
    text: str
    k: int
    context: str
    slot: _Slot

    @property
    def asked(self) -> dict[str, JsonValue]:
        return {"brain": self.text, "k": self.k, "context": self.context}


class KnowledgeClient:
    """Asks a run's brains.

    Args:
        brains: The brains; not closed by this object. None at all is allowed: nothing is ever found then.
        run: The run.
        deadline_s: Longest time for one query of one brain, in seconds.
        at_once: Most queries under way at once, over all brains.

    Attributes:
        errors: Queries that a brain failed to answer; one that the store answers again counts once.
        timeouts: Queries that a brain did not answer in time, counted likewise.
        repeats: Snippets left out since the same reply had their text already, counted likewise.

    Raises:
        UserError: The deadline or the bound is not positive, or a model that a brain uses cannot be paid by the run.
    """

    def __init__(
        self,
        brains: Sequence[KnowledgeSource],
        run: Run,
        *,
        deadline_s: float = TIMEOUT_S,
        at_once: int = MAX_CONCURRENT,
    ) -> None:
        if not deadline_s > 0:
            raise UserError(f"the deadline of brains is {deadline_s} seconds", hint="give more than 0")
        if at_once < 1:
            raise UserError(f"{at_once} queries at once are none", hint="give at least 1")
        self.errors = 0
        self.timeouts = 0
        self.repeats = 0
        self._run = run
        self._deadline_s = deadline_s
        self._sources = [_source(brain, run, deadline_s) for brain in brains]
        self._at_once = asyncio.Semaphore(at_once)
        self._under_way: WeakValueDictionary[str, _Slot] = WeakValueDictionary()
        self._counted: set[str] = set()
        self._told: set[tuple[str, str]] = set()
        self._left_behind: set[asyncio.Task[list[Snippet]]] = set()

    async def ask(self, queries: Sequence[str], k: int, contexts: Sequence[str] = ()) -> list[list[SourcedSnippet]]:
        """Ask every brain every query, all at once.

        Args:
            queries: What is asked, in words. A blank one is not asked and finds nothing; equal ones are asked once.
            k: Most snippets wanted for a query.
            contexts: What is being worked on, one for each query; empty is none.

        Returns:
            Per query at most `k` snippets, the best first, equal texts once. Those of several brains are merged by
            reciprocal-rank fusion, whose value is their score then; of a single brain the scores are its own.

        Raises:
            LimitExceeded: The run's time is over, or a model that a brain uses met a limit of the run.
            StoreError: The run store failed, or a replay asks for what was not recorded.
            UserError: `k` or the number of contexts is wrong.
        """
        if k < 1:
            raise UserError(f"{k} snippets were asked for", hint="ask for at least 1")
        if contexts and len(contexts) != len(queries):
            raise UserError(f"{len(queries)} queries have {len(contexts)} contexts", hint="give one for each, or none")
        table = [
            {} if not query.strip() else self._queries(query, k, contexts[i] if contexts else "")
            for i, query in enumerate(queries)
        ]
        wanted = {key: query for row in table for key, query in row.items()}
        if wanted:
            await self._answer(wanted)
        return [self._merged(row, k) for row in table]

    def _queries(self, text: str, k: int, context: str) -> dict[str, _Query]:
        """One query of each brain, by its key in the run store."""
        made: dict[str, _Query] = {}
        for source in self._sources:
            # what the store cannot write would end the search; a model's text may have it
            query = _Query(source, valid_text(text, len(text)), k, valid_text(context, len(context)), _Slot())
            key = call_key(source.brain.identity, query.asked, None, 0)
            # the slot is held from before the store is read: a query that another task ends meanwhile is not asked anew
            shared = self._under_way.setdefault(key, query.slot)
            made[key] = _Query(source, query.text, k, query.context, shared)
        return made

    async def _answer(self, wanted: dict[str, _Query]) -> None:
        """Put a reply into the slot of each query."""
        run = self._run
        stored = await run.stored(list(wanted))
        for key, call in stored.items():
            reply, query = KnowledgeResponse.model_validate(call.reply), wanted[key]
            # a brain whose models' meters keep everything answers from there, so that the run is charged as it was
            if not query.source.keeps or reply.failed == "error":
                query.slot.reply = reply
        asked: set[str] = set()
        with run.ledger.reserve(CostBound()):  # refuses when the time is over
            try:
                async with Recorder(run.store, run.id) as recorder, asyncio.timeout(run.ledger.seconds_left()) as clock:
                    await self._fetch_all({k: q for k, q in wanted.items() if q.slot.reply is None}, asked, recorder)
            except TimeoutError:
                if not clock.expired():
                    raise
                raise run.ledger.refuse("seconds") from None
        for key, query in wanted.items():
            if key in asked or key not in self._counted:
                self._counted.add(key)
                self._count(query)
        found = sum(len(q.slot.reply.snippets) for q in wanted.values() if q.slot.reply is not None)
        self._note("brain.asked", {"queries": len(wanted), "replayed": len(wanted) - len(asked), "snippets": found})
        await run.save_events()

    async def _fetch_all(self, missing: dict[str, _Query], asked: set[str], recorder: Recorder) -> None:
        async def fetch(key: str, query: _Query) -> None:
            async with query.slot.lock:
                if query.slot.reply is not None:
                    return
                async with self._at_once:
                    reply = await self._ask(query)
                query.slot.reply = reply
                asked.add(key)
                if self._run.recording:
                    recorder.add(_call(key, query, reply))

        await gather([fetch(key, query) for key, query in missing.items()])

    async def _ask(self, query: _Query) -> KnowledgeResponse:
        """Ask one brain, and survive it."""
        source = query.source

        async def found() -> list[Snippet]:
            return await source.brain.query(query.text, query.k, query.context)

        task = asyncio.create_task(found())
        try:
            # one that keeps replies ends by itself, in such a way that its meter keeps what it was cut at
            patience = self._deadline_s + (_GRACE_S if source.keeps else 0.0)
            await asyncio.wait((task,), timeout=patience)
        finally:
            late = not task.done()
            if late:
                await self._let_go(task)
        if late:
            return self._timeout()
        if task.cancelled():
            return KnowledgeResponse(failed="error", code="cancelled", message="it cancelled itself")
        error = task.exception()
        if error is None:
            return _reply(task.result())
        if not isinstance(error, Exception) or (source.ours and isinstance(error, LimitExceeded | StoreError)):
            raise error
        if isinstance(error, TimeoutError | BackendTimeout):
            return self._timeout(str(error))
        code = error.code if isinstance(error, ReasonError) else type(error).__name__
        return KnowledgeResponse(failed="error", code=code, message=_line(str(error)))

    async def _let_go(self, task: asyncio.Task[list[Snippet]]) -> None:
        """End a query; a brain that does not let itself be cancelled goes on alone, and nobody hears it."""
        task.cancel()
        try:
            await asyncio.wait((task,), timeout=_GRACE_S)
        finally:
            if not task.done():
                self._left_behind.add(task)
                task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[list[Snippet]]) -> None:
        self._left_behind.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that the event loop does not complain

    def _count(self, query: _Query) -> None:
        """Count a reply, and tell of a failure: in full once for each brain and kind of it."""
        reply, name = query.slot.reply, query.source.brain.name
        assert reply is not None
        self.repeats += len(reply.snippets) - len({_same(s.text) for s in reply.snippets})
        if not reply.failed:
            return
        if reply.failed == "timeout":
            self.timeouts += 1
        else:
            self.errors += 1
        if (name, reply.code) not in self._told:
            self._told.add((name, reply.code))
            why: dict[str, JsonValue] = {"failed": reply.failed, "code": reply.code, "message": reply.message}
            self._note("brain.failed", {"brain": name, "query": _line(query.text), **why})
        self._run.degrade(f"{name} did not answer every query; where it did not, the search went on without it")

    def _note(self, name: str, data: dict[str, JsonValue]) -> None:
        self._run.emit(StrategyNote(strategy=self._run.config.strategy, name=name, data=data))

    def _merged(self, row: dict[str, _Query], k: int) -> list[SourcedSnippet]:
        """The snippets of one query, the best first."""
        known: dict[str, SourcedSnippet] = {}
        rankings: list[list[str]] = []
        for query in row.values():
            reply, brain = query.slot.reply, query.source.brain
            assert reply is not None
            rankings.append([_same(s.text) for s in reply.snippets])
            for snippet in reply.snippets:
                if _same(snippet.text) not in known:
                    found = SourcedSnippet(**snippet.model_dump(), brain=brain.name, kind=brain.kind)
                    known[_same(snippet.text)] = found
        if len(rankings) < 2:
            return list(known.values())[:k]
        return [known[text].model_copy(update={"score": score}) for text, score in fuse_rankings(rankings)[:k]]

    def _timeout(self, message: str = "") -> KnowledgeResponse:
        told = _line(message) or f"no answer within {self._deadline_s:g} seconds"
        return KnowledgeResponse(failed="timeout", code=BackendTimeout.code, message=told)


def _source(brain: KnowledgeSource, run: Run, deadline_s: float) -> _Source:
    if isinstance(brain, MeteredSource):
        return _Source(brain.in_run(run, deadline_s), keeps=brain.keeps_replies, ours=True)
    return _Source(brain, keeps=False, ours=isinstance(brain, RecordedSource))


def _reply(found: object) -> KnowledgeResponse:
    """A brain's answer, looked at with suspicion."""
    if not isinstance(found, list | tuple) or not all(isinstance(s, Snippet) for s in found):
        return KnowledgeResponse(
            failed="error", code="bad_reply", message="it gave something else than a list of snippets"
        )
    return KnowledgeResponse(snippets=tuple(valid_snippets(found)))


def _call(key: str, query: _Query, reply: KnowledgeResponse) -> StoredCall:
    # a failure belongs to this run: what failed today may be there tomorrow
    return StoredCall(
        key=key,
        role=ROLE,
        model=query.source.brain.name,
        request=query.asked,
        reply=reply.model_dump(mode="json"),
        cut=bool(reply.failed),
    )


def _same(text: str) -> str:
    """What is equal in texts that differ in blanks alone."""
    return " ".join(text.split())


def _line(text: str, most: int = 300) -> str:
    """The beginning of a text as one line."""
    return _same(valid_text(text, 4 * most))[:most]
