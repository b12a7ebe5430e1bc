"""`Gang`: workers of one group on the engine's thread.

Workers on the engine's thread: beginning a group, a pass of it, and its end.

Each of them is a step of its own: none is batched with what else the engine does.

`LocalWorkers`: workers of the embedded engine behind the `WorkerGroup` protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...core.errors import BackendUnavailable, ReasonError
from ...core.messages import LogitsProcessorSpec, SamplingParams, Usage
from ..logits_processors import Hook, make_hooks
from ..worker_group import Drawn, Lengths, Opening, Pass, Tally, header_tokens, tokens_of
from .config import Bounds
from .engine_thread import Call, Calls
from .model import Decoder
from .prefix_cache import Prefixes
from .sampler import Sampler, pick
from .shared_cache import Block, Feed, Workspace, first_capacity, grown
from .tokenizer import TextAssembler, Tokenizer


@dataclass(frozen=True)
class Step:
    """One pass, in tokens.

    Attributes:
        feeds: What each worker reads; one without tokens stands still.
        moves: Workers whose text joins the history before it.
    """

    feeds: Sequence[Sequence[int]]
    moves: Sequence[int]


class Gang:
    """Workers of one group: their blocks, views and generators. Lives on the engine's thread.

    Args:
        workspace: Empty.
        opening: How they begin.
        prompt: Tokens of the prompt.
        others: Tokens of the header before the others' texts; none where they are not seen.
        own: Tokens of the header before one's own; likewise.
        tokenizer: Decodes.
        eos: Tokens that end a text.
        hooks: Hooks on what workers draw, by name.
        context: Most tokens that a worker may see.
        lent: Columns that were taken for it before.

    Attributes:
        workspace: As given.
        lent: Columns that are taken for it.
    """

    def __init__(
        self,
        workspace: Workspace,
        opening: Opening,
        prompt: Sequence[int],
        others: Sequence[int],
        own: Sequence[int],
        *,
        tokenizer: Tokenizer,
        eos: frozenset[int],
        hooks: Sequence[tuple[str, Hook]],
        context: int,
        lent: int,
    ) -> None:
        self.workspace = workspace
        self._tokenizer, self._eos, self._context = tokenizer, eos, context
        self.lent = lent
        self._history = workspace.open(prompt)
        before, behind = ((workspace.open(ids),) if ids else () for ids in (others, own))
        self._steps = [workspace.open() for _ in range(opening.workers)]
        self._lengths = Lengths(opening.layout, len(prompt), len(others) + len(own), (0,) * opening.workers)
        self._views: list[tuple[Block, ...]] = []
        for mine in self._steps:
            rest = tuple(step for step in self._steps if step is not mine)
            shown = () if opening.layout == "interleaved" else (*before, *rest, *behind)
            self._views.append((self._history, *shown, mine))
        sampling = SamplingParams(
            temperature=opening.temperature, top_p=opening.top_p, top_k=opening.top_k, seed=opening.seed
        )
        self._samplers = [Sampler(sampling, worker, hooks, prompt, eos) for worker in range(opening.workers)]
        self._texts = [TextAssembler(tokenizer, prompt, ()) for _ in self._steps]

    def growth(self, step: Step) -> int:
        """Columns by which the blocks will grow for a pass."""
        more = 0
        capacity, length = self._history.capacity, len(self._history)
        for worker in step.moves:
            length += len(self._steps[worker])
            more += grown(capacity, length) - capacity
            capacity = grown(capacity, length)
        for worker, (block, ids) in enumerate(zip(self._steps, step.feeds, strict=True)):
            length = len(ids) + (0 if worker in step.moves else len(block))
            more += grown(block.capacity, length) - block.capacity
        return more

    def close(self) -> int:
        """Forget everything.

        Returns:
            Columns that were taken for it and are free now; none if it was closed before.
        """
        lent, self.lent = self.lent, 0
        self.workspace.clear()
        self._views, self._steps = [], []
        return lent

    def check_length(self, step: Step) -> None:
        """See whether everybody's view stays within the context.

        Raises:
            ContextTooLong: Somebody's does not.
        """
        self._after(step)

    def _after(self, step: Step) -> Lengths:
        return self._lengths.after([len(ids) for ids in step.feeds], step.moves, self._context)

    def run(self, step: Step) -> list[Drawn | None]:
        """Move what is finished, run the pass, and draw."""
        self._lengths = self._after(step)
        for worker in step.moves:
            self.workspace.move(self._steps[worker], self._history)
        reading = [worker for worker, ids in enumerate(step.feeds) if ids]
        logits = self.workspace.run([Feed(self._views[w], step.feeds[w]) for w in reading])
        picked = pick(logits, [self._samplers[w] for w in reading], [0] * len(reading))
        drawn: list[Drawn | None] = [None] * len(self._steps)
        for worker, choice in zip(reading, picked, strict=True):
            if isinstance(choice, Exception):
                raise choice
            ids = step.feeds[worker]
            if len(ids) > 1 or list(ids) != self._samplers[worker].generated[-2:-1]:
                self._texts[worker] = TextAssembler(self._tokenizer, ids, ())  # it was given something to read
            ends = choice.token in self._eos
            text = "" if ends else self._texts[worker].push(choice.token)
            drawn[worker] = Drawn(token=choice.token, logprob=choice.logprob, text=text, ends=ends, read=len(ids))
        return drawn


@dataclass(eq=False)
class OpenTask:
    """Begins a group.

    Attributes:
        make: Makes it.
        columns: Columns that it takes.
        told: Takes the group, whose columns are the taker's to give back.
        failed: Takes the error.
    """

    make: Callable[[], Gang]
    columns: int
    told: Callable[[Gang], None]
    failed: Callable[[ReasonError], None]
    cancelled: bool = False

    def run(self, prefixes: Prefixes) -> None:
        """Take room and begin."""
        prefixes.lend(self.columns)
        try:
            gang = self.make()
        except BaseException:
            prefixes.lend(-self.columns)
            raise
        if self.cancelled:
            prefixes.lend(-gang.close())
        self.told(gang)

    def fail(self, error: ReasonError) -> None:
        """There is no group."""
        self.failed(error)


@dataclass(eq=False)
class PassTask:
    """One pass of a group.

    Attributes:
        gang: The group.
        step: What it reads.
        told: Takes what was drawn.
        failed: Takes the error.
    """

    gang: Gang
    step: Step
    told: Callable[[list[Drawn | None]], None]
    failed: Callable[[ReasonError], None]
    cancelled: bool = False

    def run(self, prefixes: Prefixes) -> None:
        """Take room and run it."""
        self.gang.check_length(self.step)
        more = self.gang.growth(self.step)
        prefixes.lend(more)
        self.gang.lent += more
        self.told(self.gang.run(self.step))

    def fail(self, error: ReasonError) -> None:
        """Nothing was drawn."""
        self.failed(error)


@dataclass(eq=False)
class CloseTask:
    """Gives back the room of a group, which nobody uses any more."""

    gang: Gang
    cancelled: bool = False

    def run(self, prefixes: Prefixes) -> None:
        """Give it back, once."""
        prefixes.lend(-self.gang.close())

    def fail(self, error: ReasonError) -> None:
        """Nobody waits for it."""


async def open_workers(
    opening: Opening, decoder: Decoder, calls: Calls, tokenizer: Tokenizer, eos: frozenset[int], bounds: Bounds
) -> LocalWorkers:
    """Begin a group (see `SharesCache.open_workers`)."""
    prompt = tokenizer.prompt_ids(opening.prompt)
    bounds.check_ids(prompt)
    others, own = header_tokens(opening, tokenizer.encode)
    bounds.check_length(len(prompt) + len(others) + len(own) + opening.workers, "prompt and headers")
    banned = tokenizer.holding(opening.banned, bounds.vocab)
    hooks = (
        make_hooks([LogitsProcessorSpec(name="forbid_tokens", args={"ids": banned})], bounds.model) if banned else []
    )
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
