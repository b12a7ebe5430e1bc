"""`RecordedCalls`: what lies between a strategy and a model of any kind: the budget, the run store and the trace.

    reserve    hold the maximum cost of the call, or refuse it
    look up    responses in the run store are not computed again, and are charged as they were
    start      emit `call.started`
    compute    the missing responses, within the run's time limit
    store      each new response
    charge     the ledger; emit `call.finished` and `budget.charged`

`RecordedCalls.answer` does all of it for independent requests: scores, distributions, rewards, verdicts, passages.
Sampling, embedding and worker steps have another shape and use its parts: `call` (start and charge), `time_limit`,
`shown_errors`, `shown` and `record`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, JsonValue

from ...core.budget import CostBound, LimitKind
from ...core.clock import monotonic
from ...core.concurrency import paced
from ...core.errors import BudgetExceeded, ReasonError
from ...core.events import BudgetCharged, CallFinished, CallStarted
from ...core.messages import Completion, Usage
from ...core.run import Run
from ...core.store.records import NewCall, call_key
from ..rewards.model import StepScores
from .replay import NotRecorded

ResponseT = TypeVar("ResponseT")
ModelT = TypeVar("ModelT", bound=BaseModel)
FallibleT = TypeVar("FallibleT", Completion, StepScores)

JsonObject = dict[str, JsonValue]


@dataclass(frozen=True)
class ResponseCodec(Generic[ResponseT]):
    """How responses are stored and charged.

    Attributes:
        dump: A response as JSON.
        load: A response from JSON.
        usage: Tokens and money that a response is charged as, also where it came from the store.
        reward_calls: Passes of a reward model or classifier that it is charged as.
        is_ok: Whether it is a response; a failed one is returned, but neither stored nor charged.
        failure: The failed response for an error, where a replay misses a response that the recorded run did not have
            either; None raises the error instead.
    """

    dump: Callable[[ResponseT], JsonObject]
    load: Callable[[JsonObject], ResponseT]
    usage: Callable[[ResponseT], Usage] = lambda response: Usage()
    reward_calls: Callable[[ResponseT], int] = lambda response: 0
    is_ok: Callable[[ResponseT], bool] = lambda response: True
    failure: Callable[[ReasonError], ResponseT] | None = None


@dataclass
class CallInFlight:
    """A call between its start and its end; its fields are charged at the end."""

    number: int
    usage: Usage = field(default_factory=Usage)
    calls: int = 0
    replayed_calls: int = 0
    replayed_tokens: int = 0
    reward_calls: int = 0
    failed: int = 0


class RecordedCalls:
    """The calls of one model in one role of one run."""

    def __init__(self, run: Run, role: str, model: str, identity: str) -> None:
        self.run, self.role, self.model, self.identity = run, role, model, identity

    async def answer(
        self,
        operation: str,
        requests: Sequence[JsonObject],
        compute: Callable[[list[int]], Awaitable[Sequence[ResponseT]]],
        codec: ResponseCodec[ResponseT],
        *,
        cost: CostBound = CostBound(),  # noqa: B008 (frozen)
        samples: int | None = None,
        on_responses: Callable[[CallInFlight, list[ResponseT], int], None] | None = None,
    ) -> list[ResponseT]:
        """Respond to each request, from the store or else by one computation.

        Equal requests are computed once, and their tokens and money charged once; passes of reward models count each.

        Args:
            requests: What decides each response, as JSON.
            compute: Computes the responses to the requests at the given positions, in order.
            codec: How responses are stored and charged.
            cost: Maximum cost of the call; `cost.calls` model calls are charged if it succeeds.
            samples: Number of samples or passes in the trace; None is the number of requests.
            on_responses: Called before the call is charged, also after an error, with the call, its responses and how
                many of them came from the store.

        Raises:
            BudgetExceeded: The call does not fit the budget, the run's time is over, or the user wants the answer now.
        """
        run = self.run
        with run.ledger.reserve(cost, even_closed=run.conclusion is not None) as release:
            keys = [call_key(self.identity, request, None, 0) async for request in paced(requests)]
            stored = await run.lookup_calls(keys)
            responses = {key: codec.load(call.response) async for key, call in paced(stored.items())}
            missing: dict[str, int] = {}
            for position, key in enumerate(keys):
                if key not in responses:
                    missing.setdefault(key, position)
            if missing:
                run.require_open()
            replayed = sum(key in responses for key in keys)
            num_samples = len(keys) if samples is None else samples
            async with self.call(
                operation, release, requests=len(keys), samples=num_samples, replayed=replayed
            ) as call:
                computed: dict[str, ResponseT] = {}
                try:
                    if missing:
                        async with self.time_limit():
                            new_responses = await self._compute(
                                list(missing.values()), compute, codec, has_stored=bool(responses)
                            )
                            computed = dict(zip(missing, new_responses, strict=True))
                    call.calls, call.replayed_calls = cost.calls, 0 if missing else cost.calls
                finally:
                    records = [
                        self.record(key, requests[missing[key]], codec.dump(response))
                        async for key, response in paced(computed.items())
                        if codec.is_ok(response)
                    ]
                    await run.save_calls(records)
                    responses |= computed
                    results = [responses[key] for key in keys if key in responses]
                    good = [response for response in results if codec.is_ok(response)]
                    # equal requests have one response, whose tokens and money are charged once
                    distinct = [responses[key] for key in dict.fromkeys(keys) if key in responses]
                    call.usage = Usage.total(codec.usage(response) for response in distinct if codec.is_ok(response))
                    call.reward_calls = sum(map(codec.reward_calls, good))
                    call.failed = len(keys) - len(good)
                    if on_responses is not None:
                        on_responses(call, results, replayed)
        return results

    async def _compute(
        self,
        missing: list[int],
        compute: Callable[[list[int]], Awaitable[Sequence[ResponseT]]],
        codec: ResponseCodec[ResponseT],
        *,
        has_stored: bool,
    ) -> Sequence[ResponseT]:
        try:
            return await compute(missing)
        except (BudgetExceeded, NotRecorded) as error:
            # a replay: the recorded run had no responses to these either, and continued with the others of the call
            continued = error.run_finished if isinstance(error, NotRecorded) else has_stored
            if codec.failure is None or not continued:
                raise
            return [codec.failure(error) for _ in missing]

    # -- parts

    @asynccontextmanager
    async def call(
        self, operation: str, release: Callable[[], None], *, requests: int, samples: int, **traced: Any
    ) -> AsyncIterator[CallInFlight]:
        """A call that is started when the block is entered, and charged when it is left, for whatever reason."""
        run = self.run
        if run.writer.has_pending_calls:  # nothing that was paid for is lost while another call is made
            await run.writer.flush()
        call, began = self.start(operation, requests=requests, samples=samples, **traced), monotonic()
        with self.shown_errors():
            try:
                yield call
            finally:
                seconds = monotonic() - began
                self.charge(call, working_s=max(0.0, seconds - call.usage.waited_s))
                release()
                self.emit_finished(call, seconds)
                self.emit_charged(call, tokens=call.usage.completion_tokens, calls=call.calls)
                await run.save()

    def start(self, operation: str, **traced: Any) -> CallInFlight:
        """Emit `call.started`."""
        fields = {"replayed": 0, **traced}
        event = CallStarted(role=self.role, model=self.model, operation=operation, **fields)
        return CallInFlight(self.run.emit(event))

    def charge(self, call: CallInFlight, *, working_s: float) -> None:
        """Charge the ledger with the fields of a call."""
        self.run.ledger.charge(
            self.role,
            self.model,
            call.usage,
            calls=call.calls,
            reward_calls=call.reward_calls,
            replayed_calls=call.replayed_calls,
            replayed_tokens=call.replayed_tokens,
            working_s=working_s,
        )

    def emit_finished(self, call: CallInFlight, seconds: float) -> None:
        """Emit `call.finished`."""
        event = CallFinished(
            role=self.role,
            model=self.model,
            seconds=seconds,
            tokens=call.usage.completion_tokens,
            thinking_tokens=call.usage.thinking_tokens,
            prompt_tokens=call.usage.prompt_tokens,
            cached_tokens=call.usage.cached_tokens,
            failed=call.failed,
        )
        self.run.emit(event, parent=call.number)

    def emit_charged(self, call: CallInFlight, *, tokens: int, calls: int) -> None:
        """Emit `budget.charged`: what was charged for the call, and the totals of all models of the run.

        More than the budget, which a server that ignores the limit of a request costs, is reported.
        """
        budget, total = self.run.config.budget, self.run.ledger.usage()
        event = BudgetCharged(
            role=self.role,
            model=self.model,
            tokens=tokens,
            calls=calls,
            reward_calls=call.reward_calls,
            total_tokens=total.completion_tokens,
            total_thinking_tokens=total.thinking_tokens,
            total_prompt_tokens=total.prompt_tokens,
            total_calls=total.model_calls,
            total_usd=total.cost_usd,
            total_reward_calls=total.reward_calls,
            limits=budget.model_dump(exclude_none=True),
        )
        self.run.emit(event, parent=call.number)
        limits: tuple[tuple[LimitKind, float | None, float | None], ...] = (
            ("tokens", budget.tokens, total.completion_tokens),
            ("usd", budget.usd, total.cost_usd),
        )
        for kind, limit, spent in limits:
            if limit is not None and spent is not None and spent > limit * (1 + 1e-9):
                self.run.record_limit(self.run.ledger.exceeded(kind))
                self.run.degrade(
                    f"{self.model} exceeded the limit of its request: {spent:g} of {limit:g} {kind} are spent"
                )

    @asynccontextmanager
    async def time_limit(self) -> AsyncIterator[None]:
        """Cancel the block when the run's time is over, or when the user wants the answer now.

        Raises:
            BudgetExceeded: It was cancelled.
        """
        ledger, loop = self.run.ledger, asyncio.get_running_loop()
        try:
            async with asyncio.timeout(ledger.remaining_seconds()) as timeout:
                with self.run.on_conclude(lambda: timeout.reschedule(loop.time())):
                    yield
        except TimeoutError:
            if not timeout.expired():
                raise
            raise ledger.exceeded("user" if ledger.is_closed else "seconds") from None

    @contextmanager
    def shown_errors(self) -> Iterator[None]:
        """Raise the block's errors as the run gets to know them (`Run.shown_error`)."""
        try:
            yield
        except ReasonError as e:
            shown = self.run.shown_error(e, self.role)
            if shown is e:
                raise
            raise shown from e

    def shown(self, response: FallibleT) -> FallibleT:
        """The response, with its failure as the run gets to know it (`Run.shown_failure`)."""
        if response.failure is None:
            return response
        return response.model_copy(update={"failure": self.run.shown_failure(response.failure, self.role)})

    def record(
        self, key: str, request: JsonObject, response: JsonObject | Completion, *, truncated: bool = False
    ) -> NewCall:
        """A response as the run store keeps it (see `StoredCall`)."""
        return NewCall(key, self.role, self.model, request, response, truncated)
