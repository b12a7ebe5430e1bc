"""`PrefixDesk`: the connector's half beside vLLM's scheduler: which blocks are read, written and held for whom.

It is apart from vLLM: requests, block pool and scheduler output are taken as they come. Nothing here may raise into the
engine, which would end it: what fails is told in the request's own reply, and its prompt is computed as if nothing had
been asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core.errors import BackendError, DataError, ReasonError, UserError
from ..kv_store import SavedPrefix
from ..prefix_folder import DESCRIPTION, Attempt, PrefixFolder
from .kv_orders import KEY, Ask, BlockShape, ReadOrder, Told, WorkerReport, WriteOrder, common, tokens_sum

MOST_PINNED = 0.5
"""Share of the engine's blocks that may be held for named prefixes."""


class Pins:
    """Blocks that are held under names.

    Args:
        pool: vLLM's block pool.
        most: Most blocks that may be held.
    """

    def __init__(self, pool: Any, most: int) -> None:
        self._pool, self._most = pool, most
        self._held: dict[str, list[Any]] = {}
        self._uses: Counter[int] = Counter()

    @property
    def names(self) -> list[str]:
        """What is held."""
        return list(self._held)

    def hold(self, name: str, numbers: Sequence[int]) -> None:
        """Hold blocks; those that were held under the name before are given up.

        Raises:
            UserError: They would be too many (`prefix_too_large`).
            BackendError: The cache does not know them.
        """
        blocks = [self._pool.blocks[n] for n in numbers]
        if any(b.is_null or b.block_hash is None for b in blocks):
            raise BackendError("the engine's prefix cache does not have the prompt's blocks")
        fresh = sum(self._uses[n] == 0 for n in set(numbers))
        if len(self._uses) + fresh > self._most:
            raise TooManyPinned(
                f"{fresh} blocks more would be held, beside {len(self._uses)}; at most {self._most} may be",
                hint="drop other prefixes, or give the engine more memory (setting vllm.kv_bytes)",
            )
        self._pool.touch(blocks)
        self._uses.update(numbers)
        self.release([name])
        self._held[name] = blocks

    def release(self, names: Sequence[str]) -> None:
        """Give up what is held under names; unknown ones are passed over."""
        for name in names:
            blocks = self._held.pop(name, [])
            self._uses.subtract(b.block_id for b in blocks)
            self._uses = +self._uses
            self._pool.free_blocks(reversed(blocks))  # the tail is evicted first


class TooManyPinned(UserError):
    """The engine's cache cannot hold so much."""

    code = "prefix_too_large"


@dataclass(eq=False)
class _Job:
    """A request that asks something of the connector."""

    ask: Ask
    prompt: Sequence[int]
    source: tuple[SavedPrefix, Path] | None = None
    attempt: Attempt | None = None
    target: Path | None = None
    computed: int = 0
    reading: tuple[int, tuple[int, ...]] | None = None
    ordered: bool = False
    workers: int = 0
    told: Told = field(default_factory=Told)

    def note(self, **values: Any) -> None:
        self.told = self.told.model_copy(update=values)

    def fail(self, code: str, message: str) -> None:
        if not self.told.code:
            self.note(code=code, message=message)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Keep what goes wrong for the reply."""
        try:
            yield
        except ReasonError as e:
            self.fail(e.code, str(e))
        except OSError as e:
            self.fail("backend_error", str(e))

    def close(self) -> None:
        """Remove what was not published."""
        if self.attempt is not None:
            self.attempt.__exit__(None, None, None)
            self.attempt = None


class PrefixDesk:
    """The connector beside the scheduler.

    Args:
        root: Folder of the prefixes; folders that a request names must lie in it.
        block_tokens: Tokens in a block.
        folder: Makes the folder that names are looked up in, from the workers' layout; None where names are not taken.
    """

    def __init__(
        self, root: Path, block_tokens: int, folder: Callable[[BlockShape], PrefixFolder] | None = None
    ) -> None:
        self._root, self._block, self._make_folder = root, block_tokens, folder
        self._folder: PrefixFolder | None = None
        self._shape = BlockShape(refusal="no worker has told its layout")
        self._ranks = 1
        self._pins: Pins | None = None
        self._refusal = ""
        self._jobs: dict[str, _Job] = {}
        self._leaving: dict[str, _Job] = {}

    # -- what the engine is like

    def meet(self, shape: BlockShape, ranks: int) -> None:
        """Learn how the workers keep blocks."""
        self._shape, self._ranks, self._refusal = shape, ranks, self._refusal or shape.refusal
        if self._make_folder is not None and not shape.refusal:
            self._folder = self._make_folder(shape)

    def bind(self, manager: Any, context_tokens: int) -> None:
        """Learn of vLLM's cache manager."""
        pool = manager.block_pool
        context = -(-context_tokens // self._block)
        most = min(int(pool.num_gpu_blocks * MOST_PINNED), pool.num_gpu_blocks - 1 - context)
        self._manager, self._pins = manager, Pins(pool, max(0, most))
        if not pool.enable_caching:
            self._refusal = "its prefix cache is off"

    def refuse(self, why: str) -> None:
        """Answer every request with a refusal."""
        self._refusal = why

    @property
    def pinned(self) -> list[str]:
        """Names under which blocks are held."""
        return [] if self._pins is None else self._pins.names

    # -- the life of a request

    def enter(self, request: Any) -> None:
        """A request has come."""
        params = request.kv_transfer_params
        if not params or KEY not in params:
            return
        job = _Job(Ask(), request.prompt_token_ids or ())
        self._jobs[request.request_id] = job
        with job.failing():
            job.ask = Ask.of(params)
            if job.ask.describe:
                job.note(shape=BlockShape(refusal=self._refusal) if self._refusal else self._shape)
                return
            if self._refusal:
                raise UserError(f"this engine keeps no named prefixes: {self._refusal}")
            if self._pins is not None:
                self._pins.release(job.ask.unpin)
            self._open(job)

    def matched(self, request: Any, computed: int) -> int:
        """Tokens beyond the first `computed` that files hold: whole blocks, and at least one token is left over."""
        job = self._jobs.get(request.request_id)
        if job is None or job.source is None or job.told.code:
            return 0
        saved, _ = job.source
        same = common(saved.token_ids[: saved.stored], job.prompt)
        same = min(same, len(job.prompt) - 1) // self._block * self._block
        job.computed = computed
        return max(0, same - computed)

    def allotted(self, request: Any, blocks: Callable[[], Sequence[int]], tokens: int) -> None:
        """Blocks were set aside; `tokens` of them are to be read."""
        job = self._jobs.get(request.request_id)
        if job is not None and tokens > 0:
            first = job.computed // self._block
            job.reading = first, tuple(blocks()[first : first + tokens // self._block])
            job.note(read_tokens=tokens)

    def orders(self, scheduled: Any) -> tuple[list[ReadOrder], list[WriteOrder]]:
        """What the workers are to do in this step."""
        if not self._jobs:
            return [], []
        reads = []
        for name, job in self._jobs.items():
            if job.reading is not None and job.source is not None:
                (first, blocks), (saved, folder) = job.reading, job.source
                job.reading = None
                tokens = tokens_sum(saved.token_ids[: saved.stored])
                reads.append(ReadOrder(name, folder, saved.files, tokens, first, blocks))
        writes = []
        for name, computed in _computed_after(scheduled):
            one = self._jobs.get(name)
            if one is None or one.ordered or one.target is None or one.told.code or computed < len(one.prompt):
                continue
            one.ordered = True
            whole = len(one.prompt) // self._block
            tokens = tokens_sum(one.prompt[: whole * self._block])
            writes.append(WriteOrder(name, one.target, tokens, tuple(self._manager.get_block_ids(name)[0][:whole])))
        return reads, writes

    def hear(self, report: WorkerReport) -> None:
        """The workers' report of a step."""
        for name, (code, message) in report.failed.items():
            job = self._jobs.get(name) or self._leaving.get(name)
            if job is not None:
                job.fail(code, message)
                job.note(read_tokens=0)
                self._settle(name)
        for name, count in report.written.items():
            job = self._jobs.get(name) or self._leaving.get(name)
            if job is not None:
                job.workers += count
                if job.workers == self._ranks and not job.told.code:
                    self._written(job)
                    self._settle(name)

    def leave(self, request: Any, blocks: Sequence[int], whole: bool) -> dict[str, Any] | None:
        """A request has ended.

        Args:
            request: The request.
            blocks: Its blocks.
            whole: Whether it ran to its end.

        Returns:
            Parameters of the reply; None if it asked nothing.
        """
        job = self._jobs.pop(request.request_id, None)
        if job is None:
            return None
        if job.ask.pin and whole and not job.told.code and self._pins is not None:
            with job.failing():
                mine = blocks[: len(job.prompt) // self._block]
                self._pins.hold(job.ask.pin, mine)
                job.note(pinned_blocks=len(mine))
        if job.ordered and job.workers < self._ranks and not job.told.code and whole:
            self._leaving[request.request_id] = job  # the workers' report of its only step comes next
        else:
            job.close()
        return {KEY: job.told.model_dump(mode="json")}

    def close(self) -> None:
        """The engine ends."""
        for job in [*self._jobs.values(), *self._leaving.values()]:
            job.close()
        self._jobs, self._leaving = {}, {}

    # -- within

    def _open(self, job: _Job) -> None:
        """Look for what is to be read, and make place for what is to be written."""
        ask = job.ask
        if ask.read:
            place = self._inside(ask.read)
            job.source = _described(place), place
        elif ask.restore:
            # Checked here; the workers check again the very bytes that they put into the cache.
            job.source = self._named().read(ask.restore, lambda saved, place: place)
        if not ask.stores:
            return
        whole = len(job.prompt) // self._block
        if not whole:
            raise UserError(f"a prompt of {len(job.prompt)} tokens has no whole block of {self._block}")
        if ask.write:
            job.target = self._inside(ask.write)
        else:
            job.attempt = self._named().begin(ask.save, whole * self._shape.nbytes, self.pinned)
            job.target = job.attempt.folder

    def _named(self) -> PrefixFolder:
        if self._folder is None:
            raise UserError("this engine takes no names of prefixes")
        return self._folder

    def _inside(self, place: str) -> Path:
        """A folder of an attempt.

        Raises:
            UserError: It is something else: no request may read or write elsewhere.
        """
        path = Path(place)
        if path.parent.parent != self._root or not path.name.startswith(".partial-") or path.is_symlink():
            raise UserError(f"{place} is no folder for prefixes")
        return path

    def _written(self, job: _Job) -> None:
        stored = len(job.prompt) // self._block * self._block
        with job.failing():
            if job.attempt is not None:
                self._named().publish(job.attempt, tuple(job.prompt), stored, self.pinned)
            job.note(stored_tokens=stored)

    def _settle(self, name: str) -> None:
        job = self._leaving.pop(name, None)
        if job is not None:
            job.close()


def _computed_after(scheduled: Any) -> Iterator[tuple[str, int]]:
    """Per request of a step, its tokens that will be computed when the step is over."""
    now = scheduled.num_scheduled_tokens
    for request in scheduled.scheduled_new_reqs:
        yield request.req_id, request.num_computed_tokens + now[request.req_id]
    old = scheduled.scheduled_cached_reqs
    for name, before in zip(old.req_ids, old.num_computed_tokens, strict=True):
        yield name, before + now[name]


def _described(folder: Path) -> SavedPrefix:
    try:
        return SavedPrefix.model_validate_json((folder / DESCRIPTION).read_bytes())
    except (OSError, ValueError) as e:
        raise DataError(f"{folder / DESCRIPTION} cannot be read") from e
