"""`VllmWorkers`: workers on one cache in vLLM behind the `WorkerGroup` protocol (experimental).

Each worker is a session of vLLM's engine: a request that stays, with all that it has computed, and takes the tokens of
one pass after another. A session drops the token that was drawn last unless it is given to read: which is how a pass
is meant.

`Seats`: rows of vLLM's batch, which groups of workers take for as long as they live.

`Quota`: memory for the keys and values that groups of workers keep beside vLLM's own cache.

It is counted where groups are led, from what their workers read: an error in the engine's processes would end the
engine.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from ...core.errors import BackendError, BackendUnavailable, UserError
from ...core.messages import LogitsProcessorSpec, Usage
from ...core.unbroken import shielded
from ..local.config import Bounds
from ..local.prefix_cache import OutOfCache
from ..local.shared_cache import first_capacity, grown
from ..local.tokenizer import TextAssembler, Tokenizer
from ..worker_group import Drawn, Lengths, Opening, Pass, Tally, header_tokens, tokens_of
from .generation import outputs_of
from .options import KEY, sample_seed
from .processor_chain import Order
from .shared_cache import Counts, Part


class Seats:
    """Rows that are handed out to whole groups: two of which each has half of its own would wait for ever.

    Args:
        total: Rows there are; one less is handed out, so that ordinary requests go on beside the workers.
    """

    def __init__(self, total: int) -> None:
        self._most = max(1, total - 1)
        self._free = self._most
        self._changed = asyncio.Condition()

    async def take(self, count: int) -> None:
        """Wait for so many, and take them.

        Raises:
            UserError: There are not so many.
        """
        if count > self._most:
            raise UserError(
                f"{count} workers need as many rows of the engine's batch, of which they may have {self._most}",
                hint="fewer workers, or a greater setting vllm.max_num_seqs",
            )
        async with self._changed:
            await self._changed.wait_for(lambda: self._free >= count)
            self._free -= count

    async def give_back(self, count: int) -> None:
        """Give back what was taken."""
        async with self._changed:
            self._free += count
            self._changed.notify_all()


@dataclass(frozen=True)
class Extent:
    """A block's size.

    Attributes:
        tokens: Tokens in it.
        columns: Columns that there is room for.
    """

    tokens: int
    columns: int

    @classmethod
    def of(cls, tokens: int) -> Extent:
        """That of a new block."""
        return cls(tokens, first_capacity(tokens))

    def with_more(self, tokens: int) -> Extent:
        """That of the block once it holds so many more; they come at once."""
        return Extent(self.tokens + tokens, grown(self.columns, self.tokens + tokens))

    def emptied(self) -> Extent:
        """That of the block without its tokens."""
        return replace(self, tokens=0)


@dataclass(frozen=True)
class Extents:
    """Sizes of a group's blocks, as `Groups` makes them in each process of the engine.

    Attributes:
        history: The prompt, and what was moved behind it.
        headers: The two headers.
        steps: What each worker has written and was not moved.
    """

    history: Extent
    headers: tuple[Extent, Extent]
    steps: tuple[Extent, ...]

    @classmethod
    def of(cls, prompt: int, others: int, own: int, workers: int) -> Extents:
        """Those of a new group, by the tokens of its prompt and headers."""
        headers = Extent.of(others), Extent.of(own)
        return cls(Extent.of(prompt), headers, tuple(Extent.of(0) for _ in range(workers)))

    @property
    def columns(self) -> int:
        """Columns of all blocks."""
        return sum(extent.columns for extent in (self.history, *self.headers, *self.steps))

    def after(self, read: Sequence[int], moves: Sequence[int]) -> Extents:
        """Those behind a pass.

        Args:
            read: Tokens that each worker reads.
            moves: Workers whose text joins the history before it, in this order.
        """
        history, steps = self.history, list(self.steps)
        for worker in moves:
            history, steps[worker] = history.with_more(steps[worker].tokens), steps[worker].emptied()
        return replace(self, history=history, steps=tuple(s.with_more(n) for s, n in zip(steps, read, strict=True)))


class Quota:
    """Columns that are handed out to groups.

    Args:
        most: Bytes that all groups may take in a process of the engine.
        column: Bytes of a column there.
    """

    def __init__(self, most: int, column: int) -> None:
        self._most, self._column = most, column
        self._taken = 0

    @property
    def nbytes(self) -> int:
        """Bytes that are taken."""
        return self._taken * self._column

    def take(self, columns: int) -> None:
        """Take columns.

        Raises:
            OutOfCache: There are not so many.
        """
        wanted = (self._taken + columns) * self._column
        if wanted > self._most:
            raise OutOfCache(
                f"workers on one cache would keep {wanted:,} bytes of keys and values beside vLLM's own; they may keep "
                f"{self._most:,}",
                hint="fewer or shorter workers at a time, or a greater setting vllm.shared_bytes",
            )
        self._taken += columns

    def give_back(self, columns: int) -> None:
        """Give back what was taken."""
        self._taken -= columns


def column_bytes(vllm_config: Any) -> int:
    """Bytes of a token's keys and values in all layers that one process of the engine has, the most of them.

    Args:
        vllm_config: The engine's `VllmConfig`.
    """
    model, parallel = vllm_config.model_config, vllm_config.parallel_config
    layers = -(-model.get_total_num_hidden_layers() // parallel.pipeline_parallel_size)
    return int(2 * layers * model.get_num_kv_heads(parallel) * model.get_head_size() * model.dtype.itemsize)


log = logging.getLogger("reason.vllm")


@dataclass(frozen=True)
class Host:
    """What the workers need of their model.

    Attributes:
        engine: Gives vLLM's `AsyncLLM`, or raises if it is closed.
        run: Runs work side by side that ends with the model and with each other's failure; tells vLLM's errors as ours.
        tokenizer: The model's.
        eos: Tokens that end a text.
        bounds: What fits the engine.
        seats: Rows of its batch.
        quota: Memory that groups may take beside its cache.
    """

    engine: Callable[[], Any]
    run: Callable[[Sequence[Coroutine[Any, Any, Any]]], Awaitable[list[Any]]]
    tokenizer: Tokenizer
    eos: frozenset[int]
    bounds: Bounds
    seats: Seats
    quota: Quota


async def open_workers(opening: Opening, host: Host) -> VllmWorkers:
    """Begin a group (see `SharesCache.open_workers`)."""
    prompt = host.tokenizer.prompt_ids(opening.prompt)
    host.bounds.check_ids(prompt)
    others, own = header_tokens(opening, host.tokenizer.encode)
    host.bounds.check_length(len(prompt) + len(others) + len(own) + opening.workers, "prompt and headers")
    lengths = Lengths(opening.layout, len(prompt), len(others) + len(own), (0,) * opening.workers)
    extents = Extents.of(len(prompt), len(others), len(own), opening.workers)
    group = VllmWorkers(opening, lengths, extents, host)
    await host.seats.take(opening.workers)
    try:
        await group.begin(prompt, others, own)
    except BaseException:
        await shielded(group.aclose())
        raise
    return group


class VllmWorkers:
    """Workers of one group, which gives back the seats that were taken for it.

    Args:
        opening: How they begin.
        lengths: Of the prompt and the headers.
        extents: Of the group's blocks.
        host: Their model.

    Attributes:
        counts: Passes in which they saw one another, and in which not; known once they are closed.
    """

    def __init__(self, opening: Opening, lengths: Lengths, extents: Extents, host: Host) -> None:
        self._opening, self._lengths, self._host = opening, lengths, host
        self._extents, self._taken = extents, 0
        self._sizes = extents.history.tokens, extents.headers[0].tokens, extents.headers[1].tokens
        self._name = f"workers-{uuid.uuid4().hex}"
        self._sessions = [_Session(host.engine(), f"{self._name}-{w}", self._params) for w in range(opening.workers)]
        banned = host.tokenizer.holding(opening.banned, host.bounds.vocab)
        self._hooks = (LogitsProcessorSpec(name="forbid_tokens", args={"ids": banned}),) if banned else ()
        self._tally = Tally(opening.workers, lengths.history + lengths.headers)
        self._texts: list[TextAssembler | None] = [None] * opening.workers
        self._turns = 0
        self._closed = False
        self._turn = asyncio.Lock()
        self.counts = Counts()

    @property
    def workers(self) -> int:
        """How many there are."""
        return self._opening.workers

    @property
    def usage(self) -> Usage:
        """Tokens that they have read beside their own, and drawn."""
        return self._tally.usage

    async def begin(self, prompt: Sequence[int], others: Sequence[int], own: Sequence[int]) -> None:
        """Have the prompt and the headers computed.

        Raises:
            OutOfCache: There is no memory for what is kept of them.
        """
        self._take_room(self._extents)
        # The first one leaves the prompt's whole blocks in the cache for those that follow.
        alone = [self._header(kind, ids) for kind, ids in (("others", others), ("own", own)) if ids]
        await self._host.run([self._sessions[0].read(prompt, self._part("prompt", 0)), *alone])
        rest = range(1, self.workers)
        await self._host.run([self._sessions[w].read(prompt, self._part("prompt", w)) for w in rest])

    async def advance(self, step: Pass) -> list[Drawn | None]:
        """One pass (see `WorkerGroup.advance`)."""
        read = tokens_of(step, self._opening, self._host.tokenizer.encode, self._host.bounds.check_ids)
        async with self._turn:
            if self._closed:
                raise BackendUnavailable("these workers are closed", hint="open others")
            try:
                # One token less than the context: vLLM wants room for the one that is drawn.
                counts = [len(ids) for ids in read]
                lengths = self._lengths.after(counts, step.moves, self._host.bounds.tokens - 1)
                self._take_room(self._extents.after(counts, step.moves))
                drawn = await self._pass(step, read)
            except BaseException:
                # How far the engine got is not known here.
                await shielded(self._close())
                raise
            self._lengths = lengths
        return drawn

    async def aclose(self) -> None:
        """Free what they hold; idempotent."""
        async with self._turn:
            await self._close()

    def _take_room(self, extents: Extents) -> None:
        """Take the memory that the blocks will need."""
        more = extents.columns - self._taken
        self._host.quota.take(more)
        self._extents, self._taken = extents, self._taken + more

    async def _pass(self, step: Pass, read: Sequence[Sequence[int]]) -> list[Drawn | None]:
        self._turns += 1
        reading = tuple(worker for worker, ids in enumerate(read) if ids)
        parts = {w: self._part("pass", w, reading, step.moves) for w in reading}
        outputs = await self._host.run([self._sessions[w].read(read[w], parts[w]) for w in reading])
        drawn: list[Drawn | None] = [None] * self.workers
        for worker, output in zip(reading, outputs, strict=True):
            drawn[worker] = self._take(worker, read[worker], output.outputs[0])
        return drawn

    def _take(self, worker: int, ids: Sequence[int], completion: Any) -> Drawn:
        """What a worker draws."""
        if not completion.token_ids:
            raise BackendError(f"workers cannot go on: {completion.stop_reason or completion.finish_reason}")
        token = completion.token_ids[-1]
        text, went_on = self._texts[worker], list(ids) == [self._tally.last[worker]]
        self._tally.take(worker, ids, token)
        if text is None or not went_on:  # it was given something to read
            text = self._texts[worker] = TextAssembler(self._host.tokenizer, ids, ())
        ends = token in self._host.eos
        piece = "" if ends else text.push(token)
        return Drawn(token=token, logprob=completion.logprobs[-1][token].logprob, text=piece, ends=ends, read=len(ids))

    async def _header(self, kind: str, ids: Sequence[int]) -> None:
        """A header is read by itself, as if nothing stood before it."""
        name = f"{self._name}-{kind}"
        params = self._params(self._part(kind, 0))
        async with aclosing(outputs_of(self._host.engine(), ids, params, name, salt=name)) as outputs:
            async for _ in outputs:
                pass

    def _part(self, kind: Any, worker: int, reading: tuple[int, ...] = (), moves: tuple[int, ...] = ()) -> Part:
        return Part(
            group=self._name,
            kind=kind,
            workers=self.workers,
            layout=self._opening.layout,
            worker=worker,
            turn=self._turns,
            reading=reading,
            moves=moves,
            sizes=self._sizes,
        )

    def _params(self, part: Part | None) -> Any:
        """The `SamplingParams` of what is read for a part; without one, those of a session as such."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        opening = self._opening
        extra: dict[str, Any] = {} if part is None else part.arguments()
        if part is not None and part.kind == "pass" and self._hooks:
            order = Order(sample=part.worker, hooks=self._hooks, eos=tuple(sorted(self._host.eos)))
            extra[KEY] = order.model_dump(mode="json")
        worker, turn = (0, 0) if part is None else (part.worker, part.turn)
        return SamplingParams(
            temperature=opening.temperature,
            top_p=opening.top_p,
            top_k=opening.top_k,
            # Each pass has its own: vLLM may begin a generator anew with every piece of a session.
            seed=sample_seed(opening.seed, worker, turn) if opening.temperature > 0 else None,
            max_tokens=1,
            ignore_eos=True,
            logprobs=0,
            detokenize=False,
            extra_args=extra,
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
                await self._host.seats.give_back(self.workers)
        finally:  # also where that was cancelled: nobody comes back to a group that is closed
            try:
                await self._forget()
            finally:
                self._host.quota.give_back(self._taken)

    async def _forget(self) -> None:
        """Have the engine's processes forget the group, and learn how its passes went."""
        try:
            engine = self._host.engine()
        except BackendUnavailable:
            return  # it is gone, and with it what they held
        [told] = await self._host.run([engine.collective_rpc("reason_close_workers", args=(self._name,))])
        self.counts = Counts(*told[0])
        if self.counts.skipped:
            log.warning("workers of %s did not see one another in %d passes", self._name, self.counts.skipped)


class _Session:
    """A request of the engine that stays, and takes one piece after another.

    Args:
        engine: vLLM's `AsyncLLM`.
        name: A name that no other request has; what it computes is reused under its group's name alone.
        params: Makes `SamplingParams`.
    """

    def __init__(self, engine: Any, name: str, params: Callable[[Part | None], Any]) -> None:
        self._engine, self._name, self._params = engine, name, params
        self._pieces: asyncio.Queue[Any] = asyncio.Queue(maxsize=1)
        self._outputs: Any = None

    async def read(self, ids: Sequence[int], part: Part) -> Any:
        """Read tokens, and draw one: vLLM's output."""
        from vllm.engine.protocol import StreamingInput
        from vllm.inputs import TokensPrompt

        prompt = TokensPrompt(prompt_token_ids=list(ids), cache_salt=part.group)
        await self._pieces.put(StreamingInput(prompt, self._params(part)))
        if self._outputs is None:
            self._outputs = self._engine.generate(self._inputs(), self._params(None), self._name)
        return await anext(self._outputs)

    async def aclose(self) -> None:
        """End the request."""
        if self._outputs is not None:
            await self._outputs.aclose()

    async def _inputs(self) -> AsyncIterator[Any]:
        while True:
            yield await self._pieces.get()
