"""`LocalWorkers`: workers of the embedded engine behind the `WorkerGroup` protocol."""

from __future__ import annotations

import asyncio

from ....core.errors import BackendUnavailable
from ....core.messages import HookCall, Usage
from ...hooks import make_hooks
from ...worker_feeds import Tally, header_tokens, tokens_of
from ...workers import Drawn, Opening, Pass
from ..bounds import Bounds
from ..calls import Call, Calls
from ..model import Decoder
from ..text import Tokenizer
from .block import first_capacity
from .gang import Gang, Step
from .worker_tasks import CloseTask, OpenTask, PassTask
from .workspace import Workspace


async def open_workers(
    opening: Opening, decoder: Decoder, calls: Calls, tokenizer: Tokenizer, eos: frozenset[int], bounds: Bounds
) -> LocalWorkers:
    """Begin a group (see `SharesCache.open_workers`)."""
    prompt = tokenizer.prompt_ids(opening.prompt)
    bounds.check_ids(prompt)
    others, own = header_tokens(opening, tokenizer.encode)
    bounds.check_length(len(prompt) + len(others) + len(own) + opening.workers, "prompt and headers")
    banned = tokenizer.holding(opening.banned, bounds.vocab)
    hooks = make_hooks([HookCall(name="forbid_tokens", args={"ids": banned})], bounds.model) if banned else []
    blocks = [prompt, *(header for header in (others, own) if header), *[[] for _ in range(opening.workers)]]
    columns = sum(first_capacity(len(ids)) for ids in blocks)
    made: list[Gang] = []

    def make() -> Gang:
        gang = Gang(
            Workspace(decoder),
            opening,
            prompt,
            others,
            own,
            tokenizer=tokenizer,
            eos=eos,
            hooks=hooks,
            context=bounds.tokens,
            lent=columns,
        )
        made.append(gang)  # here, since whoever is cancelled hears nothing any more
        return gang

    def hear(gang: Gang) -> None:
        call.finish()

    call = Call(hear)
    call.tasks.append(OpenTask(make=make, columns=columns, told=call.tell, failed=call.tell))
    try:
        await calls.run(call)
    except BaseException:
        calls.leave([CloseTask(gang) for gang in made])
        raise
    return LocalWorkers(made[0], opening, len(prompt) + len(others) + len(own), calls, tokenizer, bounds)


class LocalWorkers:
    """Workers of one group, as its caller sees them.

    Args:
        gang: They themselves, on the engine's thread.
        opening: How they began.
        prompt_tokens: Tokens of the prompt and the headers.
        calls: The way to that thread.
        tokenizer: The model's.
        bounds: What tokens there are.
    """

    def __init__(
        self, gang: Gang, opening: Opening, prompt_tokens: int, calls: Calls, tokenizer: Tokenizer, bounds: Bounds
    ) -> None:
        self._gang: Gang | None = gang
        self._opening, self._calls, self._tokenizer, self._bounds = opening, calls, tokenizer, bounds
        self._tally = Tally(opening.workers, prompt_tokens)
        self._turn = asyncio.Lock()

    @property
    def workers(self) -> int:
        """How many there are."""
        return self._opening.workers

    @property
    def usage(self) -> Usage:
        """Tokens that they have read beside their own, and drawn."""
        return self._tally.usage

    async def advance(self, step: Pass) -> list[Drawn | None]:
        """One pass (see `WorkerGroup.advance`)."""
        read = tokens_of(step, self._opening, self._tokenizer.encode, self._bounds.check_ids)
        async with self._turn:
            if self._gang is None:
                raise BackendUnavailable("these workers are closed", hint="open others")
            drawn: list[Drawn | None] = []

            def hear(told: list[Drawn | None]) -> None:
                drawn.extend(told)
                call.finish()

            call = Call(hear)
            call.tasks.append(PassTask(gang=self._gang, step=Step(read, step.moves), told=call.tell, failed=call.tell))
            try:
                await self._calls.run(call)
            except BaseException:
                # Whether the pass was run is not known here, nor how far it got.
                self._close()
                raise
        for worker, (ids, token) in enumerate(zip(read, drawn, strict=True)):
            if token is not None:
                self._tally.take(worker, ids, token.token)
        return drawn

    async def aclose(self) -> None:
        """Free what they hold; idempotent."""
        async with self._turn:
            self._close()

    def _close(self) -> None:
        gang, self._gang = self._gang, None
        if gang is not None:
            self._calls.leave([CloseTask(gang)])
