"""`VllmWorkerGroup`: workers on one cache in vLLM (experimental).

Each worker is a session of vLLM's engine: a request that stays, with all that it has computed, and takes the tokens of
one pass after another. A session drops the token that was sampled last unless it is part of the next input, which is
how a pass is defined.

What limits groups is kept here, since an error in the engine's processes would end the engine: rows of vLLM's batch
(`BatchSlots`). Their sessions' tokens are in vLLM's cache too, so that its size bounds what is kept outside of it.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from ...core.concurrency import shielded
from ...core.errors import BackendError, BackendUnavailable, UserError
from ...core.messages import LogitsProcessorSpec, Usage
from ..local.config import ContextLimits
from ..local.tokenizer import TextAssembler, Tokenizer
from ..worker_group import GroupStep, ViewLengths, WorkerGroupConfig, WorkerToken, WorkerUsage, header_ids, input_ids
from .generation import stream_outputs
from .options import KEY, derived_seed
from .processor_chain import ProcessorRequest
from .shared_cache import PassCounts, RequestKind, WorkerRequest

log = logging.getLogger("reason.vllm")


class BatchSlots:
    """Rows of vLLM's batch, which groups use as long as they live.

    They are allocated to complete groups: two groups with half of their rows each would wait for ever.

    Args:
        total: Number of rows; all but one may be used, so that ordinary requests continue.
    """

    def __init__(self, total: int) -> None:
        self._max_slots = max(1, total - 1)
        self._free = self._max_slots
        self._changed = asyncio.Condition()

    async def acquire(self, count: int) -> None:
        """Wait for so many, and acquire them.

        Raises:
            UserError: There are not so many.
        """
        if count > self._max_slots:
            raise UserError(
                f"{count} workers need as many rows of the engine's batch, of which they may have {self._max_slots}",
                hint="use fewer workers, or increase the setting vllm.engine.max_num_seqs",
            )
        async with self._changed:
            await self._changed.wait_for(lambda: self._free >= count)
            self._free -= count

    async def release(self, count: int) -> None:
        """Give back rows."""
        async with self._changed:
            self._free += count
            self._changed.notify_all()


@dataclass(frozen=True)
class WorkerGroupHost:
    """What the workers need of their model.

    Attributes:
        run: Runs work concurrently that ends with the model and with each other's failure; translates vLLM's errors.
        limits: What fits the engine.
        slots: Rows of its batch.
    """

    engine: Callable[[], Any]
    run: Callable[[Sequence[Coroutine[Any, Any, Any]]], Awaitable[list[Any]]]
    tokenizer: Tokenizer
    eos: frozenset[int]
    limits: ContextLimits
    slots: BatchSlots


async def start_worker_group(config: WorkerGroupConfig, host: WorkerGroupHost) -> VllmWorkerGroup:
    """Start a group (see `SupportsWorkers.start_workers`)."""
    prompt_ids = host.tokenizer.prompt_ids(config.prompt, "none")
    host.limits.check_token_ids(prompt_ids)
    others, own = header_ids(config, host.tokenizer.encode)
    num_header = len(others) + len(own)
    host.limits.check_length(len(prompt_ids) + num_header + config.num_workers, "prompt and headers")
    lengths = ViewLengths(config.layout, len(prompt_ids), num_header, (0,) * config.num_workers)
    group = VllmWorkerGroup(config, lengths, (len(prompt_ids), len(others), len(own)), host)
    await host.slots.acquire(config.num_workers)
    try:
        await group.prefill(prompt_ids, others, own)
    except BaseException:
        await shielded(group.aclose())
        raise
    return group


class VllmWorkerGroup:
    """Workers of one group, which releases the batch slots that were acquired for it.

    Attributes:
        counts: Passes in which they saw one another, and in which not; known once they are closed.
    """

    def __init__(
        self, config: WorkerGroupConfig, lengths: ViewLengths, sizes: tuple[int, int, int], host: WorkerGroupHost
    ) -> None:
        self._config, self._lengths, self._sizes, self._host = config, lengths, sizes, host
        self._name = f"workers-{uuid.uuid4().hex}"
        self._sessions = [_Session(host.engine(), f"{self._name}-{w}", self._params) for w in range(config.num_workers)]
        banned = host.tokenizer.tokens_containing(config.banned_texts, host.limits.vocab_size)
        self._processors = (LogitsProcessorSpec(name="forbid_tokens", args={"ids": banned}),) if banned else ()
        self._usage = WorkerUsage(config.num_workers, lengths.history + lengths.headers)
        self._texts: list[TextAssembler | None] = [None] * config.num_workers
        self._num_passes = 0
        self._closed = False
        self._lock = asyncio.Lock()
        self.counts = PassCounts()

    @property
    def num_workers(self) -> int:
        """Number of workers."""
        return self._config.num_workers

    @property
    def usage(self) -> Usage:
        return self._usage.usage

    async def prefill(self, prompt_ids: Sequence[int], others: Sequence[int], own: Sequence[int]) -> None:
        """Have the prompt and the headers computed."""
        # The first one leaves the prompt's full blocks in the cache for those that follow.
        headers = [self._prefill_header(kind, ids) for kind, ids in (("others", others), ("own", own)) if ids]
        await self._host.run([self._sessions[0].read(prompt_ids, self._request("prompt", 0)), *headers])
        rest = range(1, self.num_workers)
        await self._host.run([self._sessions[w].read(prompt_ids, self._request("prompt", w)) for w in rest])

    async def advance(self, step: GroupStep) -> list[WorkerToken | None]:
        inputs = input_ids(step, self._config, self._host.tokenizer.encode, self._host.limits.check_token_ids)
        async with self._lock:
            if self._closed:
                raise BackendUnavailable("these workers are closed", hint="start others")
            try:
                # One token less than the context: vLLM needs one for the sampled one.
                counts = [len(ids) for ids in inputs]
                lengths = self._lengths.after(counts, step.moves, self._host.limits.max_tokens - 1)
                tokens = await self._pass(step, inputs)
            except BaseException:
                # How far the engine got is not known here.
                await shielded(self._close())
                raise
            self._lengths = lengths
        return tokens

    async def aclose(self) -> None:
        """Free their memory; idempotent."""
        async with self._lock:
            await self._close()

    async def _pass(self, step: GroupStep, inputs: Sequence[Sequence[int]]) -> list[WorkerToken | None]:
        self._num_passes += 1
        active = tuple(worker for worker, ids in enumerate(inputs) if ids)
        requests = {w: self._request("pass", w, active, step.moves) for w in active}
        outputs = await self._host.run([self._sessions[w].read(inputs[w], requests[w]) for w in active])
        tokens: list[WorkerToken | None] = [None] * self.num_workers
        for worker, output in zip(active, outputs, strict=True):
            tokens[worker] = self._token(worker, inputs[worker], output.outputs[0])
        return tokens

    def _token(self, worker: int, ids: Sequence[int], completion: Any) -> WorkerToken:
        """The token that a worker has sampled."""
        if not completion.token_ids:
            raise BackendError(f"workers cannot continue: {completion.stop_reason or completion.finish_reason}")
        token = completion.token_ids[-1]
        text, is_continued = self._texts[worker], list(ids) == [self._usage.last[worker]]
        self._usage.add(worker, ids, token)
        if text is None or not is_continued:  # other input than its last token
            text = self._texts[worker] = TextAssembler(self._host.tokenizer, ids, (), shows_tags=True)
        is_eos = token in self._host.eos
        piece = "" if is_eos else text.push(token)
        logprob = completion.logprobs[-1][token].logprob
        return WorkerToken(token=token, logprob=logprob, text=piece, is_eos=is_eos, num_read=len(ids))

    async def _prefill_header(self, kind: Any, ids: Sequence[int]) -> None:
        """A header is prefilled by itself, as if nothing preceded it."""
        name = f"{self._name}-{kind}"
        params = self._params(self._request(kind, 0))
        async with aclosing(stream_outputs(self._host.engine(), ids, params, name, salt=name)) as outputs:
            async for _ in outputs:
                pass

    def _request(
        self, kind: RequestKind, worker: int, active: tuple[int, ...] = (), moves: tuple[int, ...] = ()
    ) -> WorkerRequest:
        return WorkerRequest(
            group=self._name,
            kind=kind,
            num_workers=self.num_workers,
            layout=self._config.layout,
            worker=worker,
            pass_number=self._num_passes,
            active=active,
            moves=moves,
            sizes=self._sizes,
        )

    def _params(self, request: WorkerRequest | None) -> Any:
        """VLLM's `SamplingParams` of a worker request; without one, those of a session itself."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        config = self._config
        extra_args: dict[str, Any] = {} if request is None else request.arguments()
        if request is not None and request.kind == "pass" and self._processors:
            processors = ProcessorRequest(
                sample=request.worker, logits_processors=self._processors, eos=tuple(sorted(self._host.eos))
            )
            extra_args[KEY] = processors.model_dump(mode="json")
        worker, pass_number = (0, 0) if request is None else (request.worker, request.pass_number)
        return SamplingParams(
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            # Each pass has its own: vLLM may restart a generator with every input of a session.
            seed=derived_seed(config.seed, worker, pass_number) if config.temperature > 0 else None,
            max_tokens=1,
            ignore_eos=True,
            logprobs=0,
            detokenize=False,
            extra_args=extra_args,
            output_kind=RequestOutputKind.DELTA,
        )

    async def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            try:
                for session in self._sessions:
                    await session.aclose()
            finally:
                await self._host.slots.release(self.num_workers)
        finally:  # also where that was cancelled: a closed group is never closed again
            await self._forget()

    async def _forget(self) -> None:
        """Have the engine's processes forget the group, and fetch its counts."""
        try:
            engine = self._host.engine()
        except BackendUnavailable:
            return  # the engine has ended, and their memory is free
        [counts] = await self._host.run([engine.collective_rpc("reason_close_workers", args=(self._name,))])
        self.counts = PassCounts(*counts[0])
        if self.counts.skipped:
            log.warning("workers of %s did not see one another in %d passes", self._name, self.counts.skipped)


class _Session:
    """A request of the engine that stays, and receives one input after another."""

    def __init__(self, engine: Any, name: str, params: Callable[[WorkerRequest | None], Any]) -> None:
        self._engine, self._name, self._params = engine, name, params
        self._inputs: asyncio.Queue[Any] = asyncio.Queue(maxsize=1)
        self._outputs: Any = None

    async def read(self, ids: Sequence[int], request: WorkerRequest) -> Any:
        """Read tokens, and sample one; returns vLLM's output."""
        from vllm.engine.protocol import StreamingInput
        from vllm.inputs import TokensPrompt

        prompt = TokensPrompt(prompt_token_ids=list(ids), cache_salt=request.group)
        await self._inputs.put(StreamingInput(prompt, self._params(request)))
        if self._outputs is None:
            self._outputs = self._engine.generate(self._input_stream(), self._params(None), self._name)
        return await anext(self._outputs)

    async def aclose(self) -> None:
        """End the request."""
        if self._outputs is not None:
            await self._outputs.aclose()

    async def _input_stream(self) -> AsyncIterator[Any]:
        while True:
            yield await self._inputs.get()
