"""`KnowledgeClient`: queries the knowledge sources of a run concurrently, with a timeout, the run store and the trace.

A source that fails never ends a search: a query without a response in time has no snippets. Responses and failures are
in the run store, so that a resumed run repeats no query, and a replay reproduces the run without any.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import JsonValue

from ....core.budget import CostBound, LimitKind
from ....core.concurrency import gather
from ....core.errors import (
    BackendError,
    BackendTimeout,
    BudgetExceeded,
    InvalidResponse,
    ReasonError,
    StoreError,
    UserError,
)
from ....core.events import StrategyNote
from ....core.messages import Frozen
from ....core.run import Run
from ....core.store.records import call_key
from ....serving.metered.calls import RecordedCalls
from ....serving.metered.replay import ReplayStub
from ...knowledge import KnowledgeSource, Snippet
from ..rank_fusion import fuse_rankings

ROLE = "knowledge"
"""Role of knowledge sources in the run store."""

TIMEOUT_S = 10.0
MAX_CONCURRENT = 16

_GRACE_S = 1.0
"""Seconds that a cancelled query may take to stop before it is abandoned."""


class SourcedSnippet(Snippet):
    """A snippet with the name and the kind of its source; of several sources with the same text, the first.

    Attributes:
        source_name: Name of the knowledge source.
        source_kind: Its kind.
    """

    source_name: str
    source_kind: str


@runtime_checkable
class MeteredSource(Protocol):
    """A knowledge source that calls models, which are charged to the run."""

    def metered(self, run: Run) -> KnowledgeSource:
        """The source as the run uses it."""


class KnowledgeResponse(Frozen):
    """The result of one query, as stored in the run store.

    Attributes:
        snippets: The snippets, best first.
        failed: "error" or "timeout"; empty for a response.
        code: The error's code, or its class.
        message: The error in one line.
    """

    snippets: tuple[Snippet, ...] = ()
    failed: Literal["", "error", "timeout"] = ""
    code: str = ""
    message: str = ""


@dataclass(frozen=True)
class _RunSource:
    """A source as this run queries it; if `is_own`, its `BudgetExceeded` and `StoreError` are the run's own."""

    source: KnowledgeSource
    is_own: bool


@dataclass
class _Query:
    """A query of one source, and its response."""

    source: _RunSource
    text: str
    k: int
    context: str
    response: KnowledgeResponse | None = None

    @property
    def request(self) -> dict[str, JsonValue]:
        return {"knowledge": self.text, "k": self.k, "context": self.context}


class KnowledgeClient:
    """Queries the knowledge sources of a run.

    Args:
        sources: The sources, not closed by this object. Without any, every query has no snippets.
        run: The run.
        timeout_s: Maximum seconds for one query of one source.

    Attributes:
        errors: Queries that a source failed; one that the store answers again counts once.
        timeouts: Queries that timed out, counted likewise.
        repeats: Snippets dropped because the same response already had their text, counted likewise.

    Raises:
        UserError: The timeout is not positive, or the run cannot pay for a model that a source uses.
    """

    def __init__(self, sources: Sequence[KnowledgeSource], run: Run, *, timeout_s: float = TIMEOUT_S) -> None:
        if not timeout_s > 0:
            raise UserError(f"timeout_s must be positive, got {timeout_s}")
        self.errors = 0
        self.timeouts = 0
        self.repeats = 0
        self._run = run
        self._timeout_s = timeout_s
        self._sources = [_run_source(source, run) for source in sources]
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)
        self._counted: set[str] = set()
        self._reported: set[tuple[str, str]] = set()

    async def query(self, queries: Sequence[str], k: int, contexts: Sequence[str] = ()) -> list[list[SourcedSnippet]]:
        """Send every query to every source concurrently.

        Args:
            queries: The queries. A blank one is not sent, and equal ones are sent once.
            k: Maximum snippets for a query.
            contexts: Context of each query, or none.

        Returns:
            Up to `k` snippets for each query, best first, equal texts once. Several sources are merged by
            reciprocal-rank fusion, whose value is the score; a single source keeps its own scores.

        Raises:
            BudgetExceeded: The run's time is over, or a model of a source met a limit of the run.
            StoreError: The run store failed, or a replay needs what was not recorded.
            UserError: `k` or the number of contexts is wrong.
        """
        if k < 1:
            raise UserError(f"k must be at least 1, got {k}")
        if contexts and len(contexts) != len(queries):
            raise UserError(f"{len(queries)} queries have {len(contexts)} contexts", hint="give one for each, or none")
        distinct: dict[str, _Query] = {}
        table: list[list[_Query]] = []
        for i, query in enumerate(queries):
            keyed = self._queries(query, k, contexts[i] if contexts else "") if query.strip() else {}
            table.append([distinct.setdefault(key, one) for key, one in keyed.items()])
        if distinct:
            await self._answer(distinct)
        return [self._merge(row, k) for row in table]

    def _queries(self, text: str, k: int, context: str) -> dict[str, _Query]:
        """One query of each source, by its key in the run store."""
        # the text of a model may contain what the store cannot write
        arguments = valid_text(text, len(text)), k, valid_text(context, len(context))
        queries = [_Query(source, *arguments) for source in self._sources]
        return {call_key(query.source.source.identity, query.request, None, 0): query for query in queries}

    async def _answer(self, queries: dict[str, _Query]) -> None:
        """Set the response of each query."""
        run = self._run
        for key, call in (await run.lookup_calls(list(queries))).items():
            queries[key].response = KnowledgeResponse.model_validate(call.response)
        pending = {key: query for key, query in queries.items() if query.response is None}
        with run.ledger.reserve(CostBound()):  # refuses when the time is over
            try:
                async with RecordedCalls(run, ROLE, "", "").time_limit():
                    await gather([self._send_one(key, query) for key, query in pending.items()])
            finally:
                await run.save()
        num_snippets = 0
        for key, query in queries.items():
            assert query.response is not None
            num_snippets += len(query.response.snippets)
            if key in pending or key not in self._counted:
                self._counted.add(key)
                self._count(query, query.response)
        data: dict[str, JsonValue] = {"queries": len(queries), "replayed": len(queries) - len(pending)}
        self._note("knowledge.queried", {**data, "snippets": num_snippets})

    async def _send_one(self, key: str, query: _Query) -> None:
        async with self._slots:
            response = query.response = await self._send(query)
        if self._run.recording:
            calls = RecordedCalls(self._run, ROLE, query.source.source.name, query.source.source.identity)
            # a failure belongs to this run: other runs query again
            record = calls.record(key, query.request, response.model_dump(mode="json"), truncated=bool(response.failed))
            self._run.writer.add_calls([record])

    async def _send(self, query: _Query) -> KnowledgeResponse:
        """Query one source; its failure is a response."""
        run_source = query.source

        async def snippets() -> list[Snippet]:
            return await run_source.source.query(query.text, query.k, query.context)

        task = asyncio.create_task(snippets())
        task.add_done_callback(_retrieve_exception)
        try:
            await asyncio.wait((task,), timeout=self._timeout_s)
        finally:
            is_late = not task.done()
            if is_late:  # one that ignores the cancellation continues, and its result is dropped
                task.cancel()
                await asyncio.wait((task,), timeout=_GRACE_S)
        if is_late:
            return self._timed_out()
        if task.cancelled():
            return KnowledgeResponse(failed="error", code="cancelled", message="the source cancelled its own task")
        error = task.exception()
        if error is None:
            return _response(task.result())
        if not isinstance(error, Exception) or (run_source.is_own and isinstance(error, BudgetExceeded | StoreError)):
            raise error
        known = error if isinstance(error, ReasonError) else BackendError(str(error))
        message = _one_line(str(self._run.shown_error(known, ROLE)))
        if isinstance(error, TimeoutError | BackendTimeout):
            return self._timed_out(message)
        code = error.code if isinstance(error, ReasonError) else type(error).__name__
        return KnowledgeResponse(failed="error", code=code, message=message)

    def _count(self, query: _Query, response: KnowledgeResponse) -> None:
        """Count a response, and report a failure: in full once for each source and error code."""
        name = query.source.source.name
        self.repeats += len(response.snippets) - len({_collapse_whitespace(s.text) for s in response.snippets})
        if not response.failed:
            return
        if response.failed == "timeout":
            self.timeouts += 1
        else:
            self.errors += 1
        if (name, response.code) not in self._reported:
            self._reported.add((name, response.code))
            data: dict[str, JsonValue] = {"source": name, "query": _one_line(query.text)}
            error: dict[str, JsonValue] = {
                "failed": response.failed,
                "code": response.code,
                "message": response.message,
            }
            self._note("knowledge.failed", data | error)
        self._run.degrade(f"{name} did not answer every query; the search continued without its snippets")

    def _note(self, name: str, data: dict[str, JsonValue]) -> None:
        self._run.emit(StrategyNote(strategy=self._run.config.strategy, name=name, data=data))

    def _merge(self, row: Sequence[_Query], k: int) -> list[SourcedSnippet]:
        """The snippets of one query, best first."""
        by_text: dict[str, SourcedSnippet] = {}
        rankings: list[list[str]] = []
        for query in row:
            response, source = query.response, query.source.source
            assert response is not None
            rankings.append([_collapse_whitespace(s.text) for s in response.snippets])
            for text, snippet in zip(rankings[-1], response.snippets, strict=True):
                if text not in by_text:
                    by_text[text] = SourcedSnippet(
                        **snippet.model_dump(), source_name=source.name, source_kind=source.kind
                    )
        if len(rankings) < 2:
            return list(by_text.values())[:k]
        return [by_text[text].model_copy(update={"score": score}) for text, score in fuse_rankings(rankings)[:k]]

    def _timed_out(self, message: str = "") -> KnowledgeResponse:
        message = _one_line(message) or f"no response within {self._timeout_s:g} seconds"
        return KnowledgeResponse(failed="timeout", code=BackendTimeout.code, message=message)


def _retrieve_exception(task: asyncio.Task[list[Snippet]]) -> None:
    if not task.cancelled():
        task.exception()  # so that the event loop does not report that of an abandoned query


def _run_source(source: KnowledgeSource, run: Run) -> _RunSource:
    if isinstance(source, MeteredSource):
        return _RunSource(source.metered(run), is_own=True)
    return _RunSource(source, is_own=isinstance(source, RecordedSource))


def _response(result: object) -> KnowledgeResponse:
    """The validated response of a source."""
    if not isinstance(result, list | tuple) or not all(isinstance(s, Snippet) for s in result):
        return KnowledgeResponse(
            failed="error",
            code="invalid_response",
            message="the source did not return a list of snippets",
        )
    return KnowledgeResponse(snippets=tuple(valid_snippets(result)))


def _collapse_whitespace(text: str) -> str:
    """The text with runs of whitespace collapsed."""
    return " ".join(text.split())


def _one_line(text: str, max_chars: int = 300) -> str:
    return _collapse_whitespace(valid_text(text, 4 * max_chars))[:max_chars]


# -- replay


class RecordedSource(ReplayStub):
    """Replaces a knowledge source in a replay.

    Failures are recorded too, so a finished run sends it no query.
    """

    def __init__(self, name: str, kind: str, identity: str, *, limit: LimitKind | None = None) -> None:
        super().__init__(name, identity, limit=limit)
        self.kind = kind

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """Raise `not_recorded`."""
        raise self.not_recorded("a query")


def source_description(source: KnowledgeSource) -> dict[str, JsonValue]:
    """Description of a source, stored with a run, from which `recorded_source` creates its replacement."""
    return {"name": source.name, "kind": source.kind, "identity": source.identity}


def recorded_source(description: Mapping[str, JsonValue], *, limit: LimitKind | None = None) -> KnowledgeSource:
    """The replacement of a source in the replay of a stored run.

    Args:
        description: The `source_description` of the source.
        limit: The limit that may have ended the recorded run (see `ReplayStub`).
    """
    name, kind, identity = (str(description[field]) for field in ("name", "kind", "identity"))
    return RecordedSource(name, kind, identity, limit=limit)


# -- snippets of foreign code

MAX_SNIPPETS = 100
"""Snippets of one response that are read."""
MAX_CHARS = 20_000
"""Characters of a snippet; longer texts are cut."""
MAX_SOURCE_CHARS = 1000


def valid_snippets(snippets: Sequence[Snippet]) -> list[Snippet]:
    """Snippets that can be stored and shown: limited number and size, valid Unicode, not empty, finite scores."""
    valid: list[Snippet] = []
    for snippet in snippets[:MAX_SNIPPETS]:
        text = valid_text(snippet.text, MAX_CHARS)
        if text.strip():
            score = snippet.score if math.isfinite(snippet.score) else 0.0
            source = valid_text(snippet.source_id, MAX_SOURCE_CHARS)
            valid.append(Snippet(text=text, source_id=source, score=score))
    return valid


def valid_text(text: str, max_chars: int) -> str:
    """The beginning of a text without lone surrogates, which neither files nor databases accept."""
    return text[:max_chars].encode("utf-8", "replace").decode()


def parse_snippets(response: Any, source_name: str) -> list[Snippet]:
    """Snippets in the response of foreign code.

    Args:
        response: A list, or an object whose field `snippets` is one. Its members: a `Snippet`; a text; a pair of text
            and source; an object with `text` and optionally `source_id` and `score`.
        source_name: The source of snippets that name none, and the name in errors.

    Raises:
        InvalidResponse: It has another form.
    """
    if isinstance(response, dict) and "snippets" in response:
        response = response["snippets"]
    if response is None:
        return []
    if isinstance(response, str | bytes | dict) or not hasattr(response, "__iter__"):
        raise _invalid(source_name, f"expected a list of snippets, got {type(response).__name__}")
    return valid_snippets([_parse(one, source_name) for _, one in zip(range(MAX_SNIPPETS), response, strict=False)])


def _parse(member: Any, source_name: str) -> Snippet:
    if isinstance(member, Snippet):
        return member
    if isinstance(member, str):
        return Snippet(text=member, source_id=source_name)
    if isinstance(member, tuple | list) and len(member) == 2 and all(isinstance(part, str) for part in member):
        return Snippet(text=member[0], source_id=member[1])
    if not isinstance(member, dict):
        raise _invalid(source_name, f"a snippet is {type(member).__name__}")
    text, source, score = member.get("text"), member.get("source_id"), member.get("score")
    if not isinstance(text, str):
        raise _invalid(source_name, "a snippet has no text")
    if source is not None and not isinstance(source, str | int):
        raise _invalid(source_name, f"the source_id of a snippet is {type(source).__name__}")
    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
        raise _invalid(source_name, f"the score of a snippet is {type(score).__name__}")
    try:
        value = 0.0 if score is None else float(score)
    except OverflowError:
        value = 0.0
    return Snippet(text=text, source_id=source_name if source in (None, "") else str(source), score=value)


def _invalid(source_name: str, reason: str) -> InvalidResponse:
    return InvalidResponse(
        f"{source_name}: {reason}",
        hint='the expected response is {"snippets": [{"text": "…", "source_id": "…", "score": 0.5}, …]}',
    )
