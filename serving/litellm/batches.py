"""`BatchedModel`: a model of OpenAI's whose requests are collected and sent as batches, at half the price.

    collect    the requests of all concurrent callers, until none has come for a moment
    store      the batch with the keys of its samples, before it is submitted
    submit     within the provider's limits of requests and bytes
    poll       with backoff, until it has ended, which takes minutes to a day
    resolve    each request, as if its response had been streamed

So a search proceeds round by round, all items of an evaluation together. A process that was killed finds its batches in
the run store and waits for them: nothing is submitted twice. Requests that expired or failed for a passing reason go
into the next batch; a batch that was cancelled fails the samples that have no result.

Source: OpenAI's Batch API (`/v1/files` with a JSONL file of requests, `/v1/batches`).
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from pydantic_core import from_json, to_json

from ...core.errors import BackendError, UserError
from ...core.messages import Request
from ...core.store.protocol import BatchStore, StoredBatch, call_keys
from ..metered.model import sampled_json
from ..model import LanguageModel
from .errors import ErrorResponse, RetryPolicy, classify_error
from .limiter import ConcurrencyLimiter
from .model import LiteLLMModel
from .providers import Target, find_prices
from .requests import chat_body, openai_body
from .transport import HttpClient

T = TypeVar("T")
Json = dict[str, Any]
LineResult = Json | Exception
"""The response to a request of a batch, or why it has none."""

BATCH_PROVIDERS: Final = ("openai",)
"""Providers whose batch APIs are known here."""
MAX_REQUESTS, MAX_BYTES = 50_000, 200_000_000
"""OpenAI's limits of one batch."""
POLL_GROWTH: Final = 1.5
MAX_RETRIES: Final = 3
"""How often a request goes into another batch after it expired or failed for a passing reason."""
MAX_FULL_RETRIES: Final = 100
MAX_FULL_WAIT_S: Final = 900.0
"""Maximum seconds before a batch is submitted again for which the provider had no room: about a day with the above."""
MAX_CONCURRENT_REQUESTS: Final = 1_000_000
CLOCK_SKEW_S: Final = 120.0
"""Maximum difference between our clock and the provider's when a batch is looked for by its time."""
MAX_PAGES: Final = 20


class QueueFull(ErrorResponse):
    """The provider had no room for a batch: too many tokens are queued."""


@dataclass(frozen=True)
class BatchTiming:
    """How long a queue waits.

    Attributes:
        quiet_s: Seconds without a new request before a batch is submitted.
        first_poll_s: Seconds before a batch is polled first; each wait is longer than the one before.
        max_poll_s: Maximum seconds between polls.
    """

    quiet_s: float = 2.0
    first_poll_s: float = 5.0
    max_poll_s: float = 60.0


class BatchApi:
    """OpenAI's batches over HTTP. Raises what `HttpClient` raises."""

    def __init__(self, target: Target) -> None:
        self.client = HttpClient(target)

    async def submit(self, name: str, lines: Sequence[bytes]) -> str:
        """Submit a batch; returns its id."""
        boundary = secrets.token_hex(16)
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'.encode(),
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}.jsonl"\r\n'.encode(),
            b"Content-Type: application/jsonl\r\n\r\n",
            b"\n".join(lines),
            f"\r\n--{boundary}--\r\n".encode(),
        ]
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        file = await self.client.post_json("/files", b"".join(parts), kind)
        order = {
            "input_file_id": file["id"],
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"reason_batch": name},
        }
        batch = await self.client.post_json("/batches", order)
        return str(batch["id"])

    async def find(self, batch: StoredBatch) -> str | None:
        """The id of a batch whose submission may have been interrupted; None if the provider does not have it."""
        after = ""
        for _ in range(MAX_PAGES):  # the newest first
            page = await self.client.get_json("/batches?limit=100" + (f"&after={after}" if after else ""))
            for entry in page.get("data") or ():
                after = entry["id"]
                if (entry.get("metadata") or {}).get("reason_batch") == batch.name:
                    return str(after)
                if entry["created_at"] < batch.created - CLOCK_SKEW_S:
                    return None
            if not page.get("has_more"):
                return None
        return None

    async def state(self, batch_id: str) -> Json:
        """The batch, with its `status`."""
        state: Json = await self.client.get_json(f"/batches/{batch_id}")
        return state

    async def results(self, state: Json) -> dict[str, LineResult]:
        """The results of a batch that has ended, by the ids of its requests."""
        results: dict[str, LineResult] = {}
        for name in ("output_file_id", "error_file_id"):
            if state.get(name):
                data = await self.client.get_bytes(f"/files/{state[name]}/content")
                lines = [from_json(line) for line in data.splitlines() if line.strip()]
                results |= {line["custom_id"]: _line_result(line) for line in lines}
        return results

    async def cancel(self, batch_id: str) -> None:
        """Cancel a batch: what is done has results and is paid, the rest is not served."""
        await self.client.post_json(f"/batches/{batch_id}/cancel", {})


def _line_result(line: Json) -> LineResult:
    if error := line.get("error"):
        if error.get("code") == "batch_cancelled":
            return BackendError("the batch was cancelled before the request was served")
        if error.get("code") == "batch_expired":
            return ErrorResponse("the batch expired before the request was served", 504)
        return ErrorResponse(str(error.get("message")), 500, body=error)
    response = line["response"]
    body: Json = response["body"]
    if response.get("status_code") == 200:
        return body
    fault = body.get("error")
    fault = fault if isinstance(fault, dict) else {"message": str(fault or body)}
    return ErrorResponse(str(fault.get("message")), int(response.get("status_code") or 500), body=fault)


class _Line(NamedTuple):
    """A request that is collected or in a batch, with the keys of its samples."""

    id: str
    keys: tuple[str, ...]
    data: bytes
    result: asyncio.Future[Json]


class BatchQueue:
    """Collects requests to one model into batches, and resolves them.

    Args:
        target: The model.
        store: Where batches are remembered.
        scope: What the batches belong to; those of the same scope are found again.
        report: Called with what happens to batches, for the user.
    """

    def __init__(
        self, target: Target, store: BatchStore, scope: str, report: Callable[[str], None], timing: BatchTiming
    ) -> None:
        self.api = BatchApi(target)
        self._target, self._store, self._scope, self._report, self._timing = target, store, scope, report, timing
        self._retrying = RetryPolicy(max_retries=10, max_seconds=math.inf, max_wait_s=timing.max_poll_s)
        self._waiting: list[_Line] = []
        self._arrived = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._collector: asyncio.Task[None] | None = None
        self._locations: dict[str, tuple[StoredBatch, str]] = {}
        """Batch and request of each sample."""
        self._results: dict[str, asyncio.Future[dict[str, LineResult]]] = {}
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
        if self._loading is None:
            self._loading = self._start(self._load())
        await asyncio.shield(self._loading)
        earlier = await self._earlier(keys)
        if earlier is not None:
            return earlier
        line_id = hashlib.sha256("\n".join((*keys, uuid.uuid4().hex)).encode()).hexdigest()[:32]
        envelope = {"custom_id": line_id, "method": "POST", "url": "/v1/chat/completions"}
        data = to_json({**envelope, "body": openai_body(body, self._target)})
        if len(data) > MAX_BYTES:
            raise UserError(
                f"a request of {len(data):,} bytes does not fit into a batch of {MAX_BYTES:,}", hint="leave out --batch"
            )
        line = _Line(line_id, keys, data, asyncio.get_running_loop().create_future())
        self._waiting.append(line)
        self._arrived.set()
        if self._collector is None or self._collector.done():
            self._collector = self._start(self._collect())
        try:
            return await line.result, tuple(range(len(keys)))
        except asyncio.CancelledError:
            if line in self._waiting:
                self._waiting.remove(line)
            raise

    async def aclose(self) -> None:
        """Stop waiting; batches in flight continue at the provider, and are found again."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.api.client.aclose()

    # -- batches of earlier processes

    async def _load(self) -> None:
        """Read the batches of the scope."""
        running = 0
        for batch in await self._store.list_batches(self._scope):
            if batch.scope != self._scope:
                continue
            if batch.status == "submitting":
                # if it is not found, another process that is submitting it just now still updates it
                batch = await self._find(batch) or await self._update(batch, status="ended")
            if batch.provider_id:
                self._locate(batch)
            running += batch.status == "submitted"
        if running:
            self._report(f"batches of this evaluation that are in flight already: {running}")

    def _locate(self, batch: StoredBatch) -> None:
        for line_id, keys in batch.lines.items():
            self._locations.update(dict.fromkeys(keys, (batch, line_id)))

    async def _find(self, batch: StoredBatch) -> StoredBatch | None:
        """Find out whether a batch was submitted whose submission was interrupted; None if it was not."""
        found = await self._patiently(lambda: self.api.find(batch))
        return None if found is None else await self._update(batch, provider_id=found, status="submitted")

    async def _earlier(self, keys: tuple[str, ...]) -> tuple[Json, tuple[int, ...]] | None:
        """The response in an earlier batch of the scope; None if no batch has the samples, or their request failed."""
        location = self._locations.get(keys[0])
        if location is None or any(self._locations.get(key) != location for key in keys):
            return None
        batch, line_id = location
        result = (await asyncio.shield(self._followed(batch))).get(line_id)
        if not isinstance(result, dict):
            return None
        return result, tuple(batch.lines[line_id].index(key) for key in keys)

    # -- submitting

    async def _collect(self) -> None:
        """Submit what was collected whenever no request has come for a moment."""
        while self._waiting:
            try:
                while True:
                    self._arrived.clear()
                    await asyncio.wait_for(self._arrived.wait(), self._timing.quiet_s)
            except TimeoutError:
                pass
            lines, self._waiting = self._waiting, []
            for part in _parts(lines):
                self._start(self._serve(part))

    async def _serve(self, lines: list[_Line]) -> None:
        """Submit a batch and resolve its lines."""
        missing: Exception = ErrorResponse("the batch ended without a result for the request", 504)
        try:
            results = await self._served(lines)
        except Exception as e:  # noqa: BLE001 (every caller gets it, and classifies it)
            results, missing = {}, e
        for line in lines:
            result = results.get(line.id, missing)
            if line.result.done():
                continue
            if isinstance(result, Exception):
                line.result.set_exception(result)
            else:
                line.result.set_result(result)

    async def _served(self, lines: list[_Line]) -> dict[str, LineResult]:
        for attempt in range(MAX_FULL_RETRIES + 1):
            batch = await self._submit(lines)
            results = await asyncio.shield(self._followed(batch))
            if attempt == MAX_FULL_RETRIES or not isinstance(results.get(lines[0].id), QueueFull):
                break
            await asyncio.sleep(min(MAX_FULL_WAIT_S, self._timing.max_poll_s * 2.0**attempt))
        if unwanted := sum(line.result.done() for line in lines):
            self._report(f"batch {batch.provider_id}: {unwanted:,} responses are paid, and no longer wanted")
        return results

    async def _submit(self, lines: Sequence[_Line]) -> StoredBatch:
        batch = StoredBatch(
            name=f"reason-{uuid.uuid4().hex[:20]}",
            scope=self._scope,
            created=time.time(),
            lines={line.id: line.keys for line in lines},
        )
        await self._store.add_batch(batch)
        retries = 0
        while not batch.provider_id:
            try:
                provider_id = await self.api.submit(batch.name, [line.data for line in lines])
            except Exception as e:
                wait = self._retrying.wait(classify_error(e, self._target), retries, 0.0, random.random)
                if wait is None:
                    await self._store.delete_batch(batch.name)
                    raise
                batch = await self._find(batch) or batch
                if not batch.provider_id:
                    retries += 1
                    await asyncio.sleep(wait)
            else:  # if the store fails, the batch is not deleted from it: a later process finds it at the provider
                batch = await self._update(batch, provider_id=provider_id, status="submitted")
        self._locate(batch)
        self._report(f"batch {batch.provider_id}: {len(lines):,} requests submitted to {self._target.endpoint}")
        return batch

    async def _update(self, batch: StoredBatch, **changes: Any) -> StoredBatch:
        changed = batch.model_copy(update=changes)
        await self._store.update_batch(changed)
        return changed

    # -- results

    def _followed(self, batch: StoredBatch) -> asyncio.Future[dict[str, LineResult]]:
        """The results of a batch, which is polled once for all."""
        if batch.name not in self._results:
            self._results[batch.name] = self._start(self._follow(batch))
        return self._results[batch.name]

    async def _follow(self, batch: StoredBatch) -> dict[str, LineResult]:
        wait = 0.0 if batch.status in ("ended", "cancelled") else self._timing.first_poll_s
        while True:
            await asyncio.sleep(wait * (0.75 + 0.5 * random.random()))  # noqa: S311 (jitter)
            state = await self._patiently(lambda: self.api.state(batch.provider_id))
            status = state.get("status")
            if status in ("completed", "expired", "cancelled", "failed"):
                break
            wait = min(self._timing.max_poll_s, max(wait, self._timing.first_poll_s) * POLL_GROWTH)
        if batch.status == "submitted":
            await self._update(batch, status="ended")
        if status == "failed":
            errors = (state.get("errors") or {}).get("data") or []
            error: Exception = QueueFull("too many tokens are queued in batches", 429)
            if not any(error.get("code") == "token_limit_exceeded" for error in errors):
                reason = "; ".join(str(error.get("message")) for error in errors[:3]) or "the provider gave no reason"
                error = BackendError(f"{self._target.endpoint} refused the batch {batch.provider_id}: {reason}")
            return dict.fromkeys(batch.lines, error)
        results = await self._patiently(lambda: self.api.results(state))
        if status == "cancelled":
            cancelled = BackendError("the batch was cancelled before the request was served")
            results = {**dict.fromkeys(batch.lines, cancelled), **results}
        failed = sum(not isinstance(results.get(line), dict) for line in batch.lines)
        what = f"; {failed:,} without a response" if failed else ""
        self._report(f"batch {batch.provider_id}: {status}, {len(batch.lines):,} requests{what}")
        return results

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """The result of a call that is repeated while it fails for a passing reason."""
        retries = 0
        while True:
            try:
                return await call()
            except Exception as e:
                fault = classify_error(e, self._target)
                wait = self._retrying.wait(fault, retries, 0.0, random.random)
                if wait is None:
                    raise fault.error from e
            retries += 1
            await asyncio.sleep(wait)

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _parts(lines: Sequence[_Line]) -> Iterator[list[_Line]]:
    """Lines split into batches within the provider's limits."""
    part: list[_Line] = []
    size = 0
    for line in lines:
        if part and (len(part) == MAX_REQUESTS or size + len(line.data) + 1 > MAX_BYTES):
            yield part
            part, size = [], 0
        part.append(line)
        size += len(line.data) + 1
    if part:
        yield part


class _Response:
    """A response out of a batch, as a stream of one chunk; `waited_s` are the seconds from request to response."""

    def __init__(self, work: Awaitable[Json]) -> None:
        self._work = work
        self.waited_s = 0.0

    async def __aenter__(self) -> AsyncIterator[list[Json]]:
        began = time.monotonic()
        chunk = await self._work
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
    """

    def __init__(self, model: LiteLLMModel, queue: BatchQueue) -> None:
        prices, _ = find_prices(model.target, batch=True)
        priced = {"usd_per_prompt_token": prices.prompt, "usd_per_completion_token": prices.completion}
        can = model.capabilities.model_copy(update=priced)
        limiter = ConcurrencyLimiter(MAX_CONCURRENT_REQUESTS)
        super().__init__(model.target, model.wire, can, model.traits, prices, limiter, model.identity)
        self._queue = queue
        retries = min(MAX_RETRIES, model.target.settings.max_retries)
        self._retrying = RetryPolicy(max_retries=retries, max_seconds=math.inf, max_wait_s=1.0)

    async def _send(self, request: Request, run: tuple[int, ...], report: str, marks: Sequence[int] = ()) -> Any:
        body = chat_body(request, run, self.target, self._can, self.traits, report)
        keys = tuple(call_keys(self.identity, sampled_json(request), request.sampling.seed, run))

        async def chunk() -> Json:
            response, positions = await self._queue.request(keys, body)
            return _chunk(response, positions)

        return _Response(chunk())

    async def aclose(self) -> None:
        """Stop waiting; batches in flight continue at the provider."""
        await super().aclose()
        await self._queue.aclose()


def _chunk(response: Json, positions: Sequence[int]) -> Json:
    """A complete response of chat as one chunk of a stream, with the samples at some positions, in order."""
    choices = {choice["index"]: choice for choice in response["choices"]}
    shown = [
        {**choices[position], "index": i, "delta": choices[position]["message"]}
        for i, position in enumerate(positions)
        if position in choices
    ]
    # samples that were stored before are paid, and so is the prompt
    return {"choices": shown, "usage": response.get("usage") if len(shown) == len(choices) else None}


def batched(
    model: LanguageModel,
    store: BatchStore,
    scope: str,
    report: Callable[[str], None],
    timing: BatchTiming = BatchTiming(),
) -> LanguageModel | None:
    """A model whose requests go into batches; None if its provider has no batch API, or if it has several endpoints.

    Args:
        store: Where the batches are remembered.
        scope: What they belong to; a later process with the same scope finds them again.
        report: Called with what happens to them, for the user.
    """
    if type(model) is not LiteLLMModel or model.target.provider not in BATCH_PROVIDERS:
        return None
    return BatchedModel(model, BatchQueue(model.target, store, f"{scope}/{model.name}", report, timing))


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
        api = BatchApi(target)
        try:
            batch_id = batch.provider_id or await api.find(batch)
            if batch_id:
                await api.cancel(batch_id)
                cancelled += 1
        except Exception as e:
            raise classify_error(e, target).error from e
        finally:
            await api.client.aclose()
        if batch_id:
            await store.update_batch(batch.model_copy(update={"provider_id": batch_id, "status": "cancelled"}))
        else:
            await store.delete_batch(batch.name)
    return cancelled
