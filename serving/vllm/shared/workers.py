"""`VllmWorkers`: workers on one cache in vLLM behind the `WorkerGroup` protocol (experimental).

Each worker is a session of vLLM's engine: a request that stays, with all that it has computed, and takes the tokens of
one pass after another. A session drops the token that was drawn last unless it is given to read: which is how a pass
is meant.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from ....core.errors import BackendError, BackendUnavailable
from ....core.messages import HookCall, Usage
from ....core.unbroken import to_its_end
from ...local.bounds import Bounds
from ...local.text import TextAssembler, Tokenizer
from ...worker_feeds import Lengths, Tally, header_tokens, tokens_of
from ...workers import Drawn, Opening, Pass
from ..chain import Order
from ..options import KEY, sample_seed
from ..sample import outputs_of
from .groups import Counts
from .part import Part
from .quota import Extents, Quota
from .seats import Seats

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
        await to_its_end(group.aclose())
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
        self._hooks = (HookCall(name="forbid_tokens", args={"ids": banned}),) if banned else ()
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
                await to_its_end(self._close())
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
