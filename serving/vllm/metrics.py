"""Counters of vLLM's prefix cache and of its speculative decoding, from the engine itself.

The scheduler's statistics, which come with every step's outputs, count prompt tokens looked up and hit, passes and
draft tokens. vLLM's KV-cache events, which it publishes on a socket, count blocks stored and evicted.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from pathlib import Path
from typing import Any, Self

from ...core.messages import Frozen
from ..spec_decode import SpecDecodeCounters

_POLL_MS = 200
_MAX_SOCKET_DIRECTORY = 70
"""Characters of a directory in which a socket's path still fits, which may have about a hundred."""


class CacheCounters(Frozen):
    """What the prefix cache of an engine did since it was started, over all its requests.

    Each sample is a request of vLLM's own, so a prompt that is sampled n times is looked up n times here, while a run's
    ledger counts it once. Lookups after a preemption are left out. The counters follow the engine by a moment.

    Attributes:
        block_tokens: Tokens in a block, the unit of reuse.
        queried_tokens: Prompt tokens that were looked up.
        hit_tokens: Those whose keys and values were in the engine's memory.
        stored_blocks: Blocks that became reusable; None if there are no events.
        evicted_blocks: Blocks that were evicted; None if events are off.
        lost_events: Batches of events that did not arrive; above 0, the two block counts are too low.
    """

    block_tokens: int
    queried_tokens: int = 0
    hit_tokens: int = 0
    stored_blocks: int | None = None
    evicted_blocks: int | None = None
    lost_events: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of the prompt tokens that were not computed; 0 before the first."""
        return self.hit_tokens / self.queried_tokens if self.queried_tokens else 0.0

    def __sub__(self, before: CacheCounters) -> CacheCounters:
        """What happened since `before`."""

        def difference(now: int | None, then: int | None) -> int | None:
            return None if now is None or then is None else now - then

        return CacheCounters(
            block_tokens=self.block_tokens,
            queried_tokens=self.queried_tokens - before.queried_tokens,
            hit_tokens=self.hit_tokens - before.hit_tokens,
            stored_blocks=difference(self.stored_blocks, before.stored_blocks),
            evicted_blocks=difference(self.evicted_blocks, before.evicted_blocks),
            lost_events=self.lost_events - before.lost_events,
        )


class StepStatsLogger:
    """A stat logger of vLLM's: called by the engine's front end on its event loop, once a step."""

    def __call__(self, vllm_config: Any, engine_index: int = 0) -> Self:
        """What vLLM calls to create the logger of one engine; all share this one."""
        return self

    def record(
        self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
    ) -> None:
        """Add a step."""

    def log(self) -> None:
        """Log nothing."""

    def log_engine_initialized(self) -> None:
        """Log nothing."""

    def record_sleep_state(self, is_awake: int, level: int) -> None:
        """Log nothing."""


class CacheStatsLogger(StepStatsLogger):
    """Sums the scheduler's statistics of the prefix cache."""

    def __init__(self) -> None:
        self.queried = 0
        self.hit = 0

    def record(
        self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
    ) -> None:
        """Add a step."""
        if scheduler_stats is None:
            return
        self.queried += scheduler_stats.prefix_cache_stats.queries
        self.hit += scheduler_stats.prefix_cache_stats.hits


class SpecDecodeStatsLogger(StepStatsLogger):
    """Sums the scheduler's statistics of speculative decoding."""

    def __init__(self) -> None:
        self.counters = SpecDecodeCounters()

    def record(
        self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
    ) -> None:
        """Add a step."""
        drafting = getattr(scheduler_stats, "spec_decoding_stats", None)
        passes = firsts = generated = 0
        if iteration_stats is not None:  # each request in the step has one time there: its first token's, or this
            passes = len(iteration_stats.inter_token_latencies_iter)
            firsts = len(iteration_stats.time_to_first_tokens_iter)
            generated = iteration_stats.num_generation_tokens
        self.counters += SpecDecodeCounters(
            passes=passes,
            drafted=0 if drafting is None else drafting.num_draft_tokens,
            accepted=0 if drafting is None else drafting.num_accepted_tokens,
            tokens=max(0, generated - firsts),
        )


class CacheEventSubscriber:
    """Counts vLLM's KV-cache events, on a thread of its own.

    The socket is a file in a directory that only this user can enter. The subscription is made before the engine binds
    it, so no event is missed.

    Attributes:
        endpoint: Where the engine is to publish.
        stored: Blocks stored.
        removed: Blocks removed.
        lost: Batches that did not arrive.
    """

    def __init__(self) -> None:
        import zmq

        is_long = len(tempfile.gettempdir()) > _MAX_SOCKET_DIRECTORY
        parent = "/tmp" if is_long else None  # noqa: S108 - the new directory is this user's only
        self._directory = Path(tempfile.mkdtemp(prefix="reason-kv-", dir=parent))
        self.endpoint = f"ipc://{self._directory}/events"
        self.stored = self.removed = self.lost = 0
        self._next = 0
        self._ended = threading.Event()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(self.endpoint)
        self._thread = threading.Thread(target=self._listen, name="reason-kv-events", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and remove the socket; blocks for a moment. Idempotent."""
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            for path in self._directory.iterdir():
                path.unlink()
            self._directory.rmdir()

    def _listen(self) -> None:
        try:
            while not self._ended.is_set():
                if self._socket.poll(_POLL_MS):
                    _, number, batch = self._socket.recv_multipart()
                    self._count(int.from_bytes(number, "big"), batch)
        finally:
            self._socket.close()
            self._context.term()

    def _count(self, number: int, packed: bytes) -> None:
        import msgspec
        from vllm.distributed.kv_events import BlockRemoved, BlockStored, KVEventBatch

        self.lost += max(0, number - self._next)
        self._next = number + 1
        for event in msgspec.msgpack.decode(packed, type=KVEventBatch).events:
            if isinstance(event, BlockStored):
                self.stored += len(event.block_hashes)
            elif isinstance(event, BlockRemoved):
                self.removed += len(event.block_hashes)


def cache_counters(block_tokens: int, stats: CacheStatsLogger, events: CacheEventSubscriber | None) -> CacheCounters:
    """The current counters."""
    return CacheCounters(
        block_tokens=block_tokens,
        queried_tokens=stats.queried,
        hit_tokens=stats.hit,
        stored_blocks=None if events is None else events.stored,
        evicted_blocks=None if events is None else events.removed,
        lost_events=0 if events is None else events.lost,
    )
