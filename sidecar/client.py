"""`SidecarClient` and `AsyncSidecarClient`: the native API from Python, with the types and errors of the SDK.

    with SidecarClient("http://127.0.0.1:8080") as client:
        answer = client.ask("What is 17 * 23?", strategy="self-consistency", parameters={"n": 8})

It needs nothing of the server's own libraries.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel

from ..agents.verify_text import TextVerification
from ..core.answer import Answer
from ..core.errors import Cancelled, ReasonError
from ..core.events import EventFields
from ..core.question import Document
from ..core.store import RunStatus
from . import client_calls as calls
from .client_calls import ADDRESS, RECONNECTS, TIMEOUT_S, Call, EventReader, Following
from .error_objects import error_from
from .native.replies import Kind, Kinds, Readiness, RunDetail, RunPage

M = TypeVar("M", bound=BaseModel)
Given = Sequence[Document | Mapping[str, str]]


class AsyncSidecarClient:
    """A client of `reason serve` for asynchronous programs; an asynchronous context manager.

    Options of questions are the fields of `sidecar.native.requests.AskBody`, of verifications those of `VerifyBody`:
    model, strategy, parameters, verify, budget, seed and the like.

    Args:
        base_url: The server's address.
        api_key: The key; None is the environment variable `REASON_API_KEY`.
        timeout_s: Longest silence of a reply, in seconds.
        reconnects: How often in a row a stream of events may end without a new event, before that is an error.
        transport: How requests are sent, instead of over the network.

    Raises:
        UserError: The address is none.
    """

    def __init__(
        self,
        base_url: str = ADDRESS,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        reconnects: int = RECONNECTS,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = base_url
        self._reconnects = reconnects
        self._http = httpx.AsyncClient(**calls.options_of(base_url, api_key, timeout_s), transport=transport)

    async def ask(
        self, question: str, *, documents: Given = (), idempotency_key: str | None = None, **options: Any
    ) -> Answer:
        """Answer a question. Cancelling the task cancels the run, unless it has an idempotency key.

        Args:
            question: The question.
            documents: Texts that the answer may rest on.
            idempotency_key: A name of the request: sent again, it gets the same run, and nothing is paid twice.
            options: See the class.

        Raises:
            ReasonError: As `Reasoner.aask`; and what a server refuses: `KeyRefused`, `ServerBusy`, `LimitReached`, …
        """
        body = calls.ask_body(question, documents, options)
        return await self._get(Call("POST", "/v1/reason", body, headers=calls.named(idempotency_key)), Answer)

    async def stream(
        self, question: str, *, documents: Given = (), text: bool = False, **options: Any
    ) -> AsyncGenerator[EventFields, None]:
        """Answer a question and tell everything that happens; the last event carries the answer.

        A connection that breaks is made anew, and each event comes once. Leaving the loop early cancels the run.

        Args:
            question: The question.
            documents: Texts that the answer may rest on.
            text: Whether to tell text as it is generated.
            options: See the class.

        Raises:
            ReasonError: What ended the run, after its events.
        """
        run = await self.start(question, documents=documents, **options)
        left = True
        try:
            async for event in self.events(run.id, text=text):
                yield event
            left = False
        finally:
            if left:
                await self.cancel(run.id)
        await self.result(run.id)

    async def verify(
        self, text: str, *, documents: Given = (), idempotency_key: str | None = None, **options: Any
    ) -> TextVerification:
        """Check a text that something else wrote.

        Args:
            text: The text.
            documents: Texts that it is checked against, beside the server's own evidence.
            idempotency_key: See `ask`.
            options: See the class.

        Raises:
            ReasonError: As `averify_text`, and what a server refuses.
        """
        body = calls.verify_body(text, documents, options)
        return await self._get(Call("POST", "/v1/verify", body, headers=calls.named(idempotency_key)), TextVerification)

    async def start(
        self, question: str, *, documents: Given = (), idempotency_key: str | None = None, **options: Any
    ) -> RunDetail:
        """Start a run that goes on by itself, whatever becomes of this client or of the server's process."""
        body = calls.ask_body(question, documents, options)
        return await self._get(Call("POST", "/v1/runs", body, headers=calls.named(idempotency_key)), RunDetail)

    async def get(self, run_id: str) -> RunDetail:
        """A run, with its answer as far as it is.

        Raises:
            UnknownName: There is none of that name.
        """
        return await self._get(Call("GET", calls.run_path(run_id)), RunDetail)

    async def list(self, limit: int = 20, *, before: str | None = None, status: RunStatus | None = None) -> RunPage:
        """The newest runs, newest first; `next` of the page is what `before` is for those that follow."""
        return await self._get(calls.pages(limit, before, status), RunPage)

    async def cancel(self, run_id: str) -> RunDetail:
        """Stop a run; what it has so far is saved. One that has ended stays as it is."""
        return await self._get(Call("DELETE", calls.run_path(run_id)), RunDetail)

    async def resume(self, run_id: str) -> RunDetail:
        """Go on with a run that was interrupted or failed; what it has paid for is not paid again.

        Raises:
            RunConflict: It is finished, or another process works on it.
        """
        return await self._get(Call("POST", f"{calls.run_path(run_id)}/resume"), RunDetail)

    async def events(self, run_id: str, *, after: int = 0, text: bool = False) -> AsyncGenerator[EventFields, None]:
        """A run's events until its last, each once, in order. A connection that breaks is made anew.

        Args:
            run_id: The run.
            after: Number of the last event that is known.
            text: Whether to tell text as it is generated, from now on.

        Raises:
            ReasonError: There is no such run, or the server cannot be reached again.
        """
        place = Following(after, self._reconnects)
        while True:
            broken: ReasonError | None = None
            reader = EventReader()
            try:
                async with self._http.stream(**place.call(run_id, text).arguments()) as response:
                    if not response.is_success:
                        await response.aread()
                    calls.refuse(response)
                    async for line in response.aiter_lines():
                        event = reader.take(line)
                        if event is not None:
                            place.took(event)
                            yield event
                if place.ended:
                    return
            except httpx.HTTPError as e:
                broken = calls.unreachable(e, self.base_url)
            except ReasonError as e:
                broken = e
            await asyncio.sleep(place.again(broken))

    async def wait(self, run_id: str, *, timeout_s: float | None = None) -> Answer:
        """A run's answer, waited for.

        Args:
            run_id: The run.
            timeout_s: Longest wait, in seconds; the run goes on.

        Raises:
            TimeoutError: It did not end in time.
            ReasonError: What ended it; `Cancelled` with the partial answer if it was stopped.
        """
        async with asyncio.timeout(timeout_s):
            async for _ in self.events(run_id):
                pass
        return await self.result(run_id)

    async def result(self, run_id: str) -> Answer:
        """The answer of a run that has ended; raises as `wait`."""
        return _result(await self.get(run_id))

    async def strategies(self) -> tuple[Kind, ...]:
        """The strategies, each with a JSON schema of its parameters."""
        return (await self._get(Call("GET", "/v1/strategies"), Kinds)).data

    async def verifiers(self) -> tuple[Kind, ...]:
        """The verifiers likewise."""
        return (await self._get(Call("GET", "/v1/verifiers"), Kinds)).data

    async def ready(self) -> Readiness:
        """Whether the server takes runs, and if not, why."""
        return calls.readiness(await self._send(Call("GET", "/readyz")))

    async def aclose(self) -> None:
        """Close the connections; idempotent."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncSidecarClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _get(self, call: Call, kind: type[M]) -> M:
        return calls.read(await self._send(call), kind)

    async def _send(self, call: Call) -> httpx.Response:
        try:
            return await self._http.request(**call.arguments())
        except httpx.HTTPError as e:
            raise calls.unreachable(e, self.base_url) from e


class SidecarClient:
    """The same for programs that are not asynchronous; a context manager. May be used by several threads.

    Args:
        base_url: See `AsyncSidecarClient`.
        api_key: Likewise.
        timeout_s: Likewise.
        reconnects: Likewise.
        transport: Likewise.

    Raises:
        UserError: The address is none.
    """

    def __init__(
        self,
        base_url: str = ADDRESS,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        reconnects: int = RECONNECTS,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.base_url = base_url
        self._reconnects = reconnects
        self._http = httpx.Client(**calls.options_of(base_url, api_key, timeout_s), transport=transport)

    def ask(
        self, question: str, *, documents: Given = (), idempotency_key: str | None = None, **options: Any
    ) -> Answer:
        """See `AsyncSidecarClient.ask`."""
        body = calls.ask_body(question, documents, options)
        return self._get(Call("POST", "/v1/reason", body, headers=calls.named(idempotency_key)), Answer)

    def stream(
        self, question: str, *, documents: Given = (), text: bool = False, **options: Any
    ) -> Generator[EventFields, None, None]:
        """See `AsyncSidecarClient.stream`."""
        run = self.start(question, documents=documents, **options)
        left = True
        try:
            yield from self.events(run.id, text=text)
            left = False
        finally:
            if left:
                self.cancel(run.id)
        self.result(run.id)

    def verify(
        self, text: str, *, documents: Given = (), idempotency_key: str | None = None, **options: Any
    ) -> TextVerification:
        """See `AsyncSidecarClient.verify`."""
        body = calls.verify_body(text, documents, options)
        return self._get(Call("POST", "/v1/verify", body, headers=calls.named(idempotency_key)), TextVerification)

    def start(
        self, question: str, *, documents: Given = (), idempotency_key: str | None = None, **options: Any
    ) -> RunDetail:
        """See `AsyncSidecarClient.start`."""
        body = calls.ask_body(question, documents, options)
        return self._get(Call("POST", "/v1/runs", body, headers=calls.named(idempotency_key)), RunDetail)

    def get(self, run_id: str) -> RunDetail:
        """See `AsyncSidecarClient.get`."""
        return self._get(Call("GET", calls.run_path(run_id)), RunDetail)

    def list(self, limit: int = 20, *, before: str | None = None, status: RunStatus | None = None) -> RunPage:
        """See `AsyncSidecarClient.list`."""
        return self._get(calls.pages(limit, before, status), RunPage)

    def cancel(self, run_id: str) -> RunDetail:
        """See `AsyncSidecarClient.cancel`."""
        return self._get(Call("DELETE", calls.run_path(run_id)), RunDetail)

    def resume(self, run_id: str) -> RunDetail:
        """See `AsyncSidecarClient.resume`."""
        return self._get(Call("POST", f"{calls.run_path(run_id)}/resume"), RunDetail)

    def events(self, run_id: str, *, after: int = 0, text: bool = False) -> Generator[EventFields, None, None]:
        """See `AsyncSidecarClient.events`."""
        place = Following(after, self._reconnects)
        while True:
            broken: ReasonError | None = None
            reader = EventReader()
            try:
                with self._http.stream(**place.call(run_id, text).arguments()) as response:
                    if not response.is_success:
                        response.read()
                    calls.refuse(response)
                    for line in response.iter_lines():
                        event = reader.take(line)
                        if event is not None:
                            place.took(event)
                            yield event
                if place.ended:
                    return
            except httpx.HTTPError as e:
                broken = calls.unreachable(e, self.base_url)
            except ReasonError as e:
                broken = e
            time.sleep(place.again(broken))

    def wait(self, run_id: str, *, timeout_s: float | None = None) -> Answer:
        """See `AsyncSidecarClient.wait`; the run is looked at every quarter of a second."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            detail = self.get(run_id)
            if detail.status not in ("queued", "running"):
                return _result(detail)
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"run {run_id} did not end within {timeout_s:g} s")
            time.sleep(0.25 if end is None else min(0.25, max(0.0, end - time.monotonic())))

    def result(self, run_id: str) -> Answer:
        """See `AsyncSidecarClient.result`."""
        return _result(self.get(run_id))

    def strategies(self) -> tuple[Kind, ...]:
        """See `AsyncSidecarClient.strategies`."""
        return self._get(Call("GET", "/v1/strategies"), Kinds).data

    def verifiers(self) -> tuple[Kind, ...]:
        """See `AsyncSidecarClient.verifiers`."""
        return self._get(Call("GET", "/v1/verifiers"), Kinds).data

    def ready(self) -> Readiness:
        """See `AsyncSidecarClient.ready`."""
        return calls.readiness(self._send(Call("GET", "/readyz")))

    def close(self) -> None:
        """Close the connections; idempotent."""
        self._http.close()

    def __enter__(self) -> SidecarClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _get(self, call: Call, kind: type[M]) -> M:
        return calls.read(self._send(call), kind)

    def _send(self, call: Call) -> httpx.Response:
        try:
            return self._http.request(**call.arguments())
        except httpx.HTTPError as e:
            raise calls.unreachable(e, self.base_url) from e


def _result(run: RunDetail) -> Answer:
    """The answer of a run that has ended.

    Raises:
        ReasonError: What ended it.
    """
    if run.status == "failed":
        told = {} if run.error is None else {"code": run.error.code, "message": run.error.message}
        raise error_from(told, partial=run.result)
    if run.status == "interrupted" or run.result is None:
        raise Cancelled("the run was stopped before its end", partial=run.result)
    return run.result
