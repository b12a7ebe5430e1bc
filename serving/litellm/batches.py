"""`BatchedModel`: a provider's model whose requests are collected and sent as batches, at half the price.

    collect    the requests of all concurrent callers, until none has come for a moment
    store      the batch with the keys of its samples, before it is submitted
    submit     within the provider's limits of requests and bytes
    poll       with backoff, until it has ended, which takes minutes to a day
    resolve    each request, as if its response had been streamed

So a search goes on round by round, all items of an evaluation together. A process that was killed finds its batches in
the run store and waits for them: nothing is submitted twice. Requests that expired or failed for a passing reason go
into the next batch; a batch that was cancelled fails the samples that have no result.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from ...core.errors import BackendError, UserError
from ...core.messages import Request
from ...core.store.protocol import BatchStore, StoredBatch, call_keys
from ..metered.model import sampled_json
from ..model import LanguageModel
from .batch_apis import BatchApi, BatchState, Json, LineResult, batch_api
from .errors import ErrorResponse, RetryPolicy, classify_error
from .limiter import ConcurrencyLimiter
from .model import LiteLLMModel
from .providers import Target, find_prices
from .requests import chat_body

T = TypeVar("T")

QUIET_S: Final = 2.0
"""Seconds without a new request after which those that were collected are submitted."""
FIRST_POLL_S: Final = 5.0
MAX_POLL_S: Final = 60.0
POLL_GROWTH: Final = 1.5
MAX_RETRIES: Final = 3
"""How often a request goes into another batch after it expired or failed for a passing reason."""
MAX_FULL_RETRIES: Final = 100
MAX_FULL_WAIT_S: Final = 900.0
"""Maximum seconds before a batch is submitted again for which the provider had no room: about a day with the above."""
_QUEUE_IS_FULL: Final = LineResult(error=ErrorResponse("too many tokens are queued in batches", 429))
FRAME_BYTES: Final = 64
"""Upper bound on the bytes around the requests of a batch."""
MAX_CONCURRENT_REQUESTS: Final = 1_000_000


@dataclass(frozen=True)
class BatchTiming:
    """How long a queue waits.

    Attributes:
        quiet_s: Seconds without a new request before a batch is submitted.
        first_poll_s: Seconds before a batch is polled first; each wait is longer than the one before.
        max_poll_s: Maximum seconds between polls.
    """

    quiet_s: float = QUIET_S
    first_poll_s: float = FIRST_POLL_S
    max_poll_s: float = MAX_POLL_S


@dataclass(eq=False)
class _Line:
    """A request that is collected or in a batch.

    Attributes:
        keys: Keys of its samples.
        result: Its result.
    """

    id: str
    keys: tuple[str, ...]
    data: bytes
    result: asyncio.Future[LineResult]


class BatchQueue:
    """Collects requests to one model into batches, and resolves them.

    Args:
        api: The provider's batch API.
        target: The model.
        store: Where batches are remembered.
        scope: What the batches belong to; those of the same scope are found again.
        report: Called with what happens to batches, for the user.
    """

    def __init__(
        self,
        api: BatchApi,
        target: Target,
        store: BatchStore,
        scope: str,
        report: Callable[[str], None],
        timing: BatchTiming | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.api = api
        self._target, self._store, self._scope, self._report = target, store, scope, report
        self._timing, self._draw = timing or BatchTiming(), draw
        self._retrying = RetryPolicy(max_retries=10, max_seconds=math.inf, max_wait_s=self._timing.max_poll_s)
        self._waiting: list[_Line] = []
        self._arrived = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._collector: asyncio.Task[None] | None = None
        self._batches: dict[str, StoredBatch] = {}
        self._places: dict[str, tuple[str, str]] = {}
        """Batch and request of each sample."""
        self._results: dict[str, asyncio.Future[dict[str, LineResult]]] = {}
        self._delivered: set[tuple[str, str]] = set()
        self._loading: asyncio.Future[None] | None = None

    async def request(self, keys: tuple[str, ...], body: Mapping[str, Any]) -> tuple[Json, tuple[int, ...]]:
        """The provider's response with some samples, and their positions in it.

        Args:
            keys: Keys of the samples.
            body: Arguments of `litellm.acompletion` for them.

        Raises:
            ErrorResponse: The request failed.
            BackendError: Its batch was cancelled or refused.
            UserError: It alone is too large for a batch.
        """
        await self._load()
        earlier = await self._earlier(keys)
        if earlier is not None:
            return earlier
        line_id = hashlib.sha256("\n".join((*keys, uuid.uuid4().hex)).encode()).hexdigest()[:32]
        data = self.api.encode(line_id, body)
        if FRAME_BYTES + len(data) > self.api.max_bytes:
            raise UserError(
                f"a request of {len(data):,} bytes does not fit into a batch of {self.api.max_bytes:,}",
                hint="leave out --batch",
            )
        line = _Line(line_id, keys, data, asyncio.get_running_loop().create_future())
        self._waiting.append(line)
        self._arrived.set()
        if self._collector is None or self._collector.done():
            self._collector = self._start(self._collect())
        try:
            result = await line.result
        except asyncio.CancelledError:
            if line in self._waiting:
                self._waiting.remove(line)
            raise
        return self._response(result), tuple(range(len(keys)))

    async def aclose(self) -> None:
        """Stop waiting; batches in flight go on at the provider, and are found again."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.api.aclose()

    # -- batches of earlier processes

    async def _load(self) -> None:
        """Read the batches of the scope, once."""
        if self._loading is None:
            self._loading = self._start(self._read())
        await asyncio.shield(self._loading)

    async def _read(self) -> None:
        stored = [batch for batch in await self._store.list_batches(self._scope) if batch.scope == self._scope]
        for batch in stored:
            self._batches[batch.name] = batch
        for batch in stored:
            if batch.status == "submitting" and await self._settle(batch) is None:
                # not deleted: another process that is submitting it just now still updates it
                await self._update(batch, status="ended")
        for batch in self._batches.values():
            for line_id, keys in batch.lines.items() if batch.provider_id else ():
                self._places.update(dict.fromkeys(keys, (batch.name, line_id)))
        running = sum(batch.status == "submitted" for batch in self._batches.values())
        if running:
            self._report(f"batches of this evaluation that are in flight already: {running}")

    async def _settle(self, batch: StoredBatch) -> StoredBatch | None:
        """Find out whether a batch was submitted whose submission was interrupted; None if it was not."""
        known = frozenset(one.provider_id for one in self._batches.values() if one.provider_id)
        found = await self._patiently(lambda: self.api.find(batch, known))
        return None if found is None else await self._update(batch, provider_id=found, status="submitted")

    async def _earlier(self, keys: tuple[str, ...]) -> tuple[Json, tuple[int, ...]] | None:
        """The response in an earlier batch of the scope; None if no batch has the samples, or their request failed."""
        place = self._places.get(keys[0])
        if place is None or place in self._delivered or any(self._places.get(key) != place for key in keys):
            return None
        name, line_id = place
        batch = self._batches[name]
        results = await asyncio.shield(self._followed(batch))
        self._delivered.add(place)
        result = results.get(line_id)
        if result is None or result.response is None:
            return None
        line = batch.lines[line_id]
        return result.response, tuple(line.index(key) for key in keys)

    # -- submitting

    async def _collect(self) -> None:
        """Submit what was collected whenever no request has come for a moment."""
        while self._waiting:
            try:
                async with asyncio.timeout(self._timing.quiet_s):
                    while True:
                        self._arrived.clear()
                        await self._arrived.wait()
            except TimeoutError:
                pass
            lines, self._waiting = self._waiting, []
            for part in self._parts(lines):
                self._start(self._serve(part))

    def _parts(self, lines: Sequence[_Line]) -> Iterator[list[_Line]]:
        """Lines split into batches within the provider's limits."""
        part: list[_Line] = []
        size = FRAME_BYTES
        for line in lines:
            if part and (len(part) == self.api.max_requests or size + len(line.data) + 1 > self.api.max_bytes):
                yield part
                part, size = [], FRAME_BYTES
            part.append(line)
            size += len(line.data) + 1
        if part:
            yield part

    async def _serve(self, lines: list[_Line]) -> None:
        """Submit a batch and resolve its lines."""
        try:
            await self._serve_once(lines)
        except Exception as e:  # noqa: BLE001 (every caller gets it, and classifies it)
            for line in lines:
                if not line.result.done():
                    line.result.set_exception(e)

    async def _serve_once(self, lines: list[_Line]) -> None:
        for attempt in range(MAX_FULL_RETRIES + 1):
            batch = await self._submit(lines)
            results = await asyncio.shield(self._followed(batch))
            if attempt == MAX_FULL_RETRIES or results.get(lines[0].id) is not _QUEUE_IS_FULL:
                break
            await asyncio.sleep(min(MAX_FULL_WAIT_S, self._timing.max_poll_s * 2.0**attempt))
        self._results.pop(batch.name, None)  # read again, should another caller want what none has waited for
        unwanted = 0
        for line in lines:
            if line.result.done():
                unwanted += 1
                continue
            self._delivered.add((batch.name, line.id))
            missing = ErrorResponse("the batch ended without a result for the request", 504)
            line.result.set_result(results.get(line.id) or LineResult(error=missing))
        if unwanted:
            self._report(f"batch {batch.provider_id}: {unwanted:,} responses are paid, and no longer wanted")

    async def _submit(self, lines: Sequence[_Line]) -> StoredBatch:
        batch = StoredBatch(
            name=f"reason-{uuid.uuid4().hex[:20]}",
            scope=self._scope,
            created=time.time(),
            lines={line.id: line.keys for line in lines},
        )
        await self._store.add_batch(batch)
        self._batches[batch.name] = batch
        retries = 0
        while not batch.provider_id:
            try:
                provider_id = await self.api.submit(batch.name, [line.data for line in lines])
            except Exception as e:
                wait = self._retrying.wait(classify_error(e, self._target), retries, 0.0, self._draw)
                if wait is None:
                    await self._store.delete_batch(batch.name)
                    del self._batches[batch.name]
                    raise
                batch = await self._settle(batch) or batch
                if not batch.provider_id:
                    retries += 1
                    await asyncio.sleep(wait)
            else:
                batch = await self._update(batch, provider_id=provider_id, status="submitted")
        for line in lines:
            self._places.update(dict.fromkeys(line.keys, (batch.name, line.id)))
        self._report(f"batch {batch.provider_id}: {len(lines):,} requests submitted to {self._target.endpoint}")
        return batch

    async def _update(self, batch: StoredBatch, **changes: Any) -> StoredBatch:
        changed = batch.model_copy(update=changes)
        await self._store.update_batch(changed)
        self._batches[batch.name] = changed
        return changed

    # -- results

    def _followed(self, batch: StoredBatch) -> asyncio.Future[dict[str, LineResult]]:
        """The results of a batch, which is polled once for all."""
        if batch.name not in self._results:
            self._results[batch.name] = self._start(self._follow(batch))
        return self._results[batch.name]

    async def _follow(self, batch: StoredBatch) -> dict[str, LineResult]:
        wait = self._timing.first_poll_s
        is_known = batch.status in ("ended", "cancelled")
        while True:
            if not is_known:
                await asyncio.sleep(wait * (0.75 + 0.5 * self._draw()))
            state = await self._patiently(lambda: self.api.state(batch.provider_id))
            if state.status != "running":
                break
            is_known = False
            wait = min(self._timing.max_poll_s, wait * POLL_GROWTH)
        results = await self._results_of(batch, state)
        if batch.status == "submitted":
            await self._update(batch, status="ended")
        failed = sum(results[line].response is None for line in batch.lines if line in results)
        missing = len(batch.lines) - len(results)
        what = f"; {failed + missing:,} without a response" if failed + missing else ""
        self._report(f"batch {batch.provider_id}: {state.status}, {len(batch.lines):,} requests{what}")
        return results

    async def _results_of(self, batch: StoredBatch, state: BatchState) -> dict[str, LineResult]:
        if state.status == "failed":
            if state.is_full:
                return dict.fromkeys(batch.lines, _QUEUE_IS_FULL)
            error = BackendError(f"{self._target.endpoint} refused the batch {batch.provider_id}: {state.error}")
            return dict.fromkeys(batch.lines, LineResult(error=error))
        results = await self._patiently(lambda: self.api.results(state))
        if state.status == "cancelled":
            return {**dict.fromkeys(batch.lines, LineResult(is_cancelled=True)), **results}
        return results

    def _response(self, result: LineResult) -> Json:
        if result.is_cancelled:
            raise BackendError(f"{self._target.endpoint}: the batch was cancelled before the request was served")
        if result.error is not None:
            raise result.error
        assert result.response is not None
        return result.response

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """The result of a call that is repeated while it fails for a passing reason.

        Raises:
            ReasonError: It failed finally.
        """
        retries = 0
        while True:
            try:
                return await call()
            except Exception as e:
                fault = classify_error(e, self._target)
                wait = self._retrying.wait(fault, retries, 0.0, self._draw)
                if wait is None:
                    raise fault.error from e
            retries += 1
            await asyncio.sleep(wait)

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Response:
    """A response out of a batch, as a stream of one chunk.

    Attributes:
        waited_s: Seconds from the request to the response.
    """

    def __init__(self, work: Callable[[], Awaitable[Json]]) -> None:
        self._work = work
        self.waited_s = 0.0

    async def __aenter__(self) -> AsyncIterator[list[Json]]:
        began = time.monotonic()
        chunk = await self._work()
        self.waited_s = time.monotonic() - began

        async def chunks() -> AsyncIterator[list[Json]]:
            yield [chunk]

        return chunks()

    async def __aexit__(self, *exc: object) -> None:
        return None


class BatchedModel(LiteLLMModel):
    """A model whose requests go into batches.

    Its samples are those of the model itself, and so is its identity: the run store does not tell them apart.

    Args:
        model: The model, which is closed with this one.
        queue: Its batches.
        draw: As in `LiteLLMModel`.
    """

    def __init__(self, model: LiteLLMModel, queue: BatchQueue, draw: Callable[[], float] = random.random) -> None:
        prices, _ = find_prices(model.target, batch=True)
        priced = {"usd_per_prompt_token": prices.prompt, "usd_per_completion_token": prices.completion}
        can = model.capabilities.model_copy(update=priced)
        limiter = ConcurrencyLimiter(MAX_CONCURRENT_REQUESTS)
        super().__init__(model.target, model.wire, can, model.traits, prices, limiter, model.identity, draw)
        self._queue = queue
        self._prefixes = None  # the requests of a batch are served in no order, so none reads what another has written
        retries = min(MAX_RETRIES, model.target.settings.max_retries)
        self._retrying = RetryPolicy(max_retries=retries, max_seconds=math.inf, max_wait_s=1.0)

    async def _send(self, request: Request, run: tuple[int, ...], report: str, marks: Sequence[int] = ()) -> Any:
        body = chat_body(request, run, self.target, self._can, self.traits, report)
        keys = tuple(call_keys(self.identity, sampled_json(request), request.sampling.seed, run))

        async def chunk() -> Json:
            response, positions = await self._queue.request(keys, body)
            return self._queue.api.event(response, body, positions)

        return _Response(chunk)

    async def aclose(self) -> None:
        """Stop waiting; batches in flight go on at the provider."""
        await super().aclose()
        await self._queue.aclose()


def batched(
    model: LanguageModel,
    store: BatchStore,
    scope: str,
    report: Callable[[str], None],
    timing: BatchTiming | None = None,
) -> LanguageModel | None:
    """A model whose requests go into batches; None if its provider has no batch API, or if it has several endpoints.

    Args:
        store: Where the batches are remembered.
        scope: What they belong to; a later process with the same scope finds them again.
        report: Called with what happens to them, for the user.
    """
    if type(model) is not LiteLLMModel:
        return None
    api = batch_api(model.target)
    if api is None:
        return None
    return BatchedModel(model, BatchQueue(api, model.target, store, f"{scope}/{model.name}", report, timing))


async def cancel_batches(store: BatchStore, scope: str, target_of: Callable[[str], Target]) -> int:
    """Cancel the batches of a scope that are in flight; returns their number.

    Args:
        target_of: The target of a model string.
    """
    cancelled = 0
    for batch in await store.list_batches(f"{scope}/"):
        if batch.status not in ("submitting", "submitted"):
            continue
        target = target_of(batch.scope.removeprefix(f"{scope}/"))
        api = batch_api(target)
        assert api is not None
        try:
            batch_id = batch.provider_id or await api.find(batch, ())
            if batch_id is not None:
                await api.cancel(batch_id)
                cancelled += 1
        except Exception as e:
            raise classify_error(e, target).error from e
        finally:
            await api.aclose()
        if batch_id is None:
            await store.delete_batch(batch.name)
        else:
            await store.update_batch(batch.model_copy(update={"provider_id": batch_id, "status": "cancelled"}))
    return cancelled
