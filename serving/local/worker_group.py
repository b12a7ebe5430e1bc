"""Worker groups of the embedded engine: what runs on its thread, and `LocalWorkerGroup` for its callers.

Starting a group, a pass and the end are exclusive tasks: none is batched with what else the engine computes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...core.errors import BackendUnavailable
from ...core.messages import LogitsProcessorSpec, SamplingParams, Usage
from ..logits_processors import LogitsProcessor, make_logits_processors
from ..worker_group import GroupStep, ViewLengths, WorkerGroupConfig, WorkerToken, WorkerUsage, header_ids, input_ids
from .config import ContextLimits
from .engine_thread import CallQueue
from .model import Decoder
from .prefix_cache import PrefixCache
from .sampler import Sampler, sample_tokens
from .shared_cache import CacheBlock, SharedCache, WorkerChunk, grown_capacity, initial_capacity
from .tasks import ExclusiveTask
from .tokenizer import TextAssembler, Tokenizer


@dataclass(frozen=True)
class TokenStep:
    """One pass, in tokens.

    Attributes:
        inputs: What each worker reads; one without tokens is idle.
        moves: Workers whose text moves to the history before it.
    """

    inputs: Sequence[Sequence[int]]
    moves: Sequence[int]


class WorkerGroupState:
    """Workers of one group: their blocks, views and samplers. Lives on the engine's thread.

    Args:
        cache: Empty.
        others_header: Tokens of the header before the others' texts; none where it is not visible.
        own_header: Tokens of the header before a worker's own text; likewise.

    Attributes:
        reserved_slots: Slots that are reserved for the group now.
    """

    def __init__(
        self,
        cache: SharedCache,
        config: WorkerGroupConfig,
        prompt_ids: Sequence[int],
        others_header: Sequence[int],
        own_header: Sequence[int],
        *,
        tokenizer: Tokenizer,
        eos: frozenset[int],
        processors: Sequence[tuple[str, LogitsProcessor]],
        context_length: int,
        reserved_slots: int,
    ) -> None:
        self.cache = cache
        self._tokenizer, self._eos, self._context_length = tokenizer, eos, context_length
        self.reserved_slots = reserved_slots
        self._history = cache.add_block(prompt_ids)
        others, own = ((cache.add_block(ids),) if ids else () for ids in (others_header, own_header))
        self._blocks = [cache.add_block() for _ in range(config.num_workers)]
        num_header = len(others_header) + len(own_header)
        self._lengths = ViewLengths(config.layout, len(prompt_ids), num_header, (0,) * config.num_workers)
        self._views: list[tuple[CacheBlock, ...]] = []
        for mine in self._blocks:
            rest = tuple(block for block in self._blocks if block is not mine)
            visible = () if config.layout == "interleaved" else (*others, *rest, *own)
            self._views.append((self._history, *visible, mine))
        sampling = SamplingParams(
            temperature=config.temperature, top_p=config.top_p, top_k=config.top_k, seed=config.seed
        )
        self._samplers = [
            Sampler(sampling, worker, processors, prompt_ids, eos) for worker in range(config.num_workers)
        ]
        self._texts = [TextAssembler(tokenizer, prompt_ids, (), shows_tags=True) for _ in self._blocks]

    def growth(self, step: TokenStep) -> int:
        """Slots by which the blocks will grow for a pass."""
        more = 0
        capacity, length = self._history.capacity, len(self._history)
        for worker in step.moves:
            length += len(self._blocks[worker])
            more += grown_capacity(capacity, length) - capacity
            capacity = grown_capacity(capacity, length)
        for worker, (block, ids) in enumerate(zip(self._blocks, step.inputs, strict=True)):
            length = len(ids) + (0 if worker in step.moves else len(block))
            more += grown_capacity(block.capacity, length) - block.capacity
        return more

    def close(self) -> int:
        """Forget everything; returns the slots that were reserved, none if it was closed before."""
        reserved, self.reserved_slots = self.reserved_slots, 0
        self.cache.clear()
        self._views, self._blocks = [], []
        return reserved

    def advance(self, step: TokenStep, prefix_cache: PrefixCache) -> list[WorkerToken | None]:
        """Reserve slots, move finished texts, run the pass, and sample."""
        # raises before anything is reserved
        lengths = self._lengths.after([len(ids) for ids in step.inputs], step.moves, self._context_length)
        more = self.growth(step)
        prefix_cache.reserve_external(more)
        self.reserved_slots += more
        self._lengths = lengths
        for worker in step.moves:
            self.cache.move(self._blocks[worker], self._history)
        active = [worker for worker, ids in enumerate(step.inputs) if ids]
        logits = self.cache.forward([WorkerChunk(self._views[w], step.inputs[w]) for w in active])
        sampled = sample_tokens(logits, [self._samplers[w] for w in active], [0] * len(active))
        tokens: list[WorkerToken | None] = [None] * len(self._blocks)
        for worker, result in zip(active, sampled, strict=True):
            if isinstance(result, Exception):
                raise result
            ids = step.inputs[worker]
            if len(ids) > 1 or list(ids) != self._samplers[worker].generated[-2:-1]:  # other input than its last token
                self._texts[worker] = TextAssembler(self._tokenizer, ids, (), shows_tags=True)
            is_eos = result.token in self._eos
            text = "" if is_eos else self._texts[worker].push(result.token)
            tokens[worker] = WorkerToken(
                token=result.token, logprob=result.logprob, text=text, is_eos=is_eos, num_read=len(ids)
            )
        return tokens


def _closing(group: WorkerGroupState) -> ExclusiveTask:
    """Releases the slots of a group; nothing waits for it."""
    return ExclusiveTask(
        lambda cache, _: cache.reserve_external(-group.close()), lambda _: None, lambda _: None, always_runs=True
    )


async def start_worker_group(
    config: WorkerGroupConfig,
    decoder: Decoder,
    calls: CallQueue,
    tokenizer: Tokenizer,
    eos: frozenset[int],
    limits: ContextLimits,
) -> LocalWorkerGroup:
    """Start a group (see `SupportsWorkers.start_workers`)."""
    prompt_ids = tokenizer.prompt_ids(config.prompt, "none")
    limits.check_token_ids(prompt_ids)
    others, own = header_ids(config, tokenizer.encode)
    num_prompt = len(prompt_ids) + len(others) + len(own)
    limits.check_length(num_prompt + config.num_workers, "prompt and headers")
    banned = tokenizer.tokens_containing(config.banned_texts, limits.vocab_size)
    processors = (
        make_logits_processors([LogitsProcessorSpec(name="forbid_tokens", args={"ids": banned})], limits.model)
        if banned
        else []
    )
    blocks = [prompt_ids, *(header for header in (others, own) if header), *[[] for _ in range(config.num_workers)]]
    slots = sum(initial_capacity(len(ids)) for ids in blocks)
    created: list[WorkerGroupState] = []

    def start(prefix_cache: PrefixCache, is_cancelled: Callable[[], bool]) -> None:
        prefix_cache.reserve_external(slots)
        try:
            group = WorkerGroupState(
                SharedCache(decoder),
                config,
                prompt_ids,
                others,
                own,
                tokenizer=tokenizer,
                eos=eos,
                processors=processors,
                context_length=limits.max_tokens,
                reserved_slots=slots,
            )
        except BaseException:
            prefix_cache.reserve_external(-slots)
            raise
        created.append(group)  # here, since a cancelled call receives nothing more
        if is_cancelled():
            prefix_cache.reserve_external(-group.close())

    try:
        await calls.run_exclusive(start)
    except BaseException:
        calls.submit_detached([_closing(group) for group in created])
        raise
    return LocalWorkerGroup(created[0], config, num_prompt, calls, tokenizer, limits)


class LocalWorkerGroup:
    """Workers of the embedded engine."""

    def __init__(
        self,
        group: WorkerGroupState,
        config: WorkerGroupConfig,
        num_prompt: int,
        calls: CallQueue,
        tokenizer: Tokenizer,
        limits: ContextLimits,
    ) -> None:
        self._group: WorkerGroupState | None = group
        self._config, self._calls, self._tokenizer, self._limits = config, calls, tokenizer, limits
        self._usage = WorkerUsage(config.num_workers, num_prompt)
        self._lock = asyncio.Lock()

    @property
    def num_workers(self) -> int:
        """Number of workers."""
        return self._config.num_workers

    @property
    def usage(self) -> Usage:
        return self._usage.usage

    async def advance(self, step: GroupStep) -> list[WorkerToken | None]:
        inputs = input_ids(step, self._config, self._tokenizer.encode, self._limits.check_token_ids)
        async with self._lock:
            if self._group is None:
                raise BackendUnavailable("these workers are closed", hint="start others")
            group, tokens_in = self._group, TokenStep(inputs, step.moves)
            try:
                tokens: list[WorkerToken | None] = await self._calls.run_exclusive(
                    lambda cache, _: group.advance(tokens_in, cache)
                )
            except BaseException:
                # Whether the pass was run is not known here, nor how far it got.
                self._close()
                raise
        for worker, (ids, token) in enumerate(zip(inputs, tokens, strict=True)):
            if token is not None:
                self._usage.add(worker, ids, token.token)
        return tokens

    async def aclose(self) -> None:
        """Free their memory; idempotent."""
        async with self._lock:
            self._close()

    def _close(self) -> None:
        group, self._group = self._group, None
        if group is not None:
            self._calls.submit_detached([_closing(group)])
