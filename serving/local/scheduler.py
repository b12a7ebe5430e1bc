"""The step loop: what the next forward pass computes (continuous batching).

A step decodes one token of every running sequence and prefills up to a chunk of new tokens in the same forward pass, so
that a long prompt delays the others by at most one chunk. Sequences join and leave between steps.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from ...core.errors import BackendError, ReasonError
from ...core.messages import Failure
from ..structured_output import GrammarError
from .attention import TokenChunk, group_by_cache
from .model import CausalLM
from .prefix_cache import MIN_SHARED_TOKENS, CachedSequence, OutOfCache, PrefixCache, PrefixTree
from .sampler import sample_tokens
from .sequence import GenerateTask, RunningSequence
from .spec_decode import NgramSpeculator, SequenceDraft, keep_accepted, max_invariant_drafts
from .tasks import ExclusiveTask, Prefill, Task, Work

MAX_PREFILL_TOKENS = 512
"""Maximum tokens prefilled in one step."""
MAX_SCORED_TOKENS = 256
"""Maximum tokens of one prefill in one step where the logits of each are requested: they take a megabyte or so each."""


@dataclass(eq=False)
class _ScheduledChunk:
    """A chunk of the step, its sequence, and what to do with its logits."""

    sequence: CachedSequence
    chunk: TokenChunk
    on_logits: Callable[[Tensor], None] | None


class Scheduler:
    """Chooses and runs steps; lives on one thread."""

    def __init__(
        self, model: CausalLM, kv_bytes: int, max_rows: int, speculator: NgramSpeculator | None = None
    ) -> None:
        self.prefix_cache = PrefixCache(model, kv_bytes)
        self.speculator = speculator or NgramSpeculator((), "off")
        self._model, self._max_rows = model, max_rows
        self._waiting: deque[Task] = deque()
        self._exclusive: deque[ExclusiveTask] = deque()
        self._prefills: list[Prefill] = []
        self._ready: deque[GenerateTask] = deque()
        self._running: list[RunningSequence] = []
        self._preempted: deque[RunningSequence] = deque()
        self._running_at_preemption = 0

    @property
    def has_work(self) -> bool:
        """Whether there is anything to do."""
        return bool(
            self._waiting or self._exclusive or self._prefills or self._ready or self._running or self._preempted
        )

    @property
    def num_running(self) -> int:
        """Sequences that are being decoded."""
        return len(self._running)

    @property
    def has_room(self) -> bool:
        """Whether further sequences may start."""
        return len(self._running) + len(self._prefills) + len(self._ready) < self._max_rows

    def submit(self, task: Work) -> None:
        """Add work; it starts in order of arrival."""
        if isinstance(task, ExclusiveTask):
            self._exclusive.append(task)
        else:
            self._waiting.append(task)

    def add_prefill(self, prefill: Prefill) -> None:
        """Have tokens computed (for tasks)."""
        self._prefills.append(prefill)

    def add_ready(self, task: GenerateTask) -> None:
        """Let a prompt's samples start (for tasks)."""
        self._ready.append(task)

    def step(self) -> None:
        """Run one step: drop what was cancelled, admit, decode and prefill.

        Raises:
            BackendError: The forward pass failed; every task has been failed with it.
        """
        self._drop_cancelled()
        self._run_exclusive()
        self._admit()
        self._spawn()
        started = time.perf_counter()
        prefills = self._choose_prefills()
        num_running = len(self._running)
        # a step with a prefill is long already, and so is the time that it would be measured by
        drafts = self._draft() if self.speculator.is_enabled and not prefills else []
        scheduled = self._make_room(prefills, drafts)
        if not scheduled:
            return
        drafts = [draft for draft in drafts if draft.chunk is not None]
        only_decoded = len(scheduled) == len(self._running) == num_running  # nothing was prefilled or preempted
        self._run(scheduled, drafts)
        if only_decoded:
            accepted = sum(len(draft.accepted) for draft in drafts)
            trees = [draft.tree for draft in drafts]
            self.speculator.observe(num_running, trees, accepted, time.perf_counter() - started)
        self._spawn()

    def fail_all(self, error: ReasonError) -> None:
        """Fail every task, waiting or running."""
        tasks: dict[int, Task] = {id(t): t for t in self._waiting}
        tasks.update((id(p.task), p.task) for p in self._prefills)
        tasks.update((id(t), t) for t in self._ready)
        tasks.update((id(s.task), s.task) for s in (*self._running, *self._preempted))
        for task in tasks.values():
            task.cancelled = True
        self._drop_cancelled()
        for task in tasks.values():
            task.fail(error)
        while self._exclusive:
            exclusive = self._exclusive.popleft()
            if exclusive.always_runs:
                exclusive.run(self.prefix_cache)
            else:
                exclusive.fail(error)

    def _run_exclusive(self) -> None:
        """Run the exclusive tasks, one after the other."""
        while self._exclusive:
            task = self._exclusive.popleft()
            if task.cancelled:
                continue
            try:
                task.run(self.prefix_cache)
            except ReasonError as error:
                task.fail(error)
            except Exception as error:  # noqa: BLE001 - whatever breaks, the waiting call must receive it
                task.fail(BackendError(f"the local engine failed: {error!r}"))

    # --- Admission

    def _drop_cancelled(self) -> None:
        for prefill in self._prefills:
            if prefill.task.cancelled:
                prefill.sequence.release()
                prefill.task.release()
        self._prefills = [p for p in self._prefills if not p.task.cancelled]
        for sequence in self._running:
            if sequence.task.cancelled:
                sequence.task.release()
                sequence.end()
        self._running = [s for s in self._running if not s.is_finished]
        for task in self._ready:
            if task.cancelled:
                task.release()
        self._ready = deque(t for t in self._ready if not t.cancelled)
        self._preempted = deque(s for s in self._preempted if not s.task.cancelled)
        self._waiting = deque(t for t in self._waiting if not t.cancelled)

    def _admit(self) -> None:
        while self._waiting and not self._preempted and self.has_room and not self._awaits_prefix(self._waiting[0]):
            task = self._waiting.popleft()
            try:
                task.start(self)
            except OutOfCache as error:
                if self._running or self._prefills or self._ready:
                    self._waiting.appendleft(task)  # it fits when something has finished
                else:
                    task.fail(error)
                break
        if self._preempted and not self._prefills and len(self._running) < self._running_at_preemption:
            self._resume(self._preempted.popleft())

    def _awaits_prefix(self, task: Task) -> bool:
        """Whether a prompt that is being prefilled right now will spare this one a good part of its own."""
        if not self._prefills:
            return False
        stored = self.prefix_cache.match_length(task.prompt_ids[:-1], task.salt)
        comparable = (p for p in self._prefills if not p.all_logits and p.task.salt == task.salt)
        return any(_common_prefix(task.prompt_ids, p.task.prompt_ids) >= stored + MIN_SHARED_TOKENS for p in comparable)

    def _spawn(self) -> None:
        """Start samples of computed prompts: the first token comes from the prompt's own logits."""
        while self._ready:
            task = self._ready[0]
            started = [task.spawn() for _ in range(min(len(task.pending), self._max_rows - len(self._running)))]
            if started:
                assert task.logits is not None  # its prompt is computed
                self._sample(started, task.logits.expand(len(started), -1))
            self._running.extend(s for s in started if not s.is_finished)
            if task.pending:
                break
            task.logits = None
            self._ready.popleft()

    def _resume(self, sequence: RunningSequence) -> None:
        """Compute the tokens of a preempted sequence again, then continue it."""
        task = sequence.task
        try:
            cached = self.prefix_cache.start(sequence.token_ids, 1, task.call, task.salt)
        except OutOfCache as error:
            if self._running or self._prefills:
                self._preempted.appendleft(sequence)
            else:
                self._fail(sequence, error)
            return

        def on_logits(logits: Tensor, first: int) -> None:
            self._sample([sequence], logits[-1:])
            if not sequence.is_finished:
                self._running.append(sequence)

        sequence.cached = cached
        self._prefills.append(Prefill(task, cached, sequence.token_ids[cached.num_cached :], False, on_logits))

    # --- One step

    def _choose_prefills(self) -> list[tuple[Prefill, int]]:
        chosen, left = [], MAX_PREFILL_TOKENS
        for prefill in self._prefills:
            if not left:
                break
            count = min(left, len(prefill.remaining), MAX_SCORED_TOKENS if prefill.all_logits else left)
            chosen.append((prefill, count))
            left -= count
        return chosen

    def _draft(self) -> list[SequenceDraft]:
        trees = self.speculator.draft(self._running, max_invariant_drafts(self._running, self._model))
        return [SequenceDraft(s, tree) for s, tree in zip(self._running, trees, strict=True) if len(tree)]

    def _make_room(
        self, prefills: Sequence[tuple[Prefill, int]], drafts: Sequence[SequenceDraft]
    ) -> list[_ScheduledChunk]:
        """The step's chunks, with cache capacity for all of them.

        Until they fit, drafts are left out, then sequences are preempted, the youngest first. The drafts' chunks
        are set on the drafts.
        """
        while True:
            scheduled = [self._decode_chunk(s) for s in self._running]
            scheduled += [self._prefill_chunk(p, count) for p, count in prefills]
            needs: dict[int, tuple[PrefixTree, int]] = {}
            sizes = [(s.sequence.tree, len(s.chunk.token_ids)) for s in scheduled]
            for tree, count in [*sizes, *((d.sequence.location.tree, len(d.tree)) for d in drafts)]:
                needs[id(tree)] = (tree, needs.get(id(tree), (tree, 0))[1] + count)
            try:
                for tree, count in needs.values():
                    self.prefix_cache.make_room(tree, count)
                if any(tree.cache.required_capacity(count) for tree, count in needs.values()):
                    raise OutOfCache("room that was made was taken again")
            except OutOfCache as error:
                if drafts:
                    drafts = []
                elif not self._preempt(error):
                    prefills = []
            else:
                for draft in drafts:
                    location, tree_ = draft.sequence.location, draft.tree
                    draft.chunk = TokenChunk(
                        location.tree.cache, location.table, tree_.tokens, range(len(tree_)), tree_.parents
                    )
                return scheduled

    def _preempt(self, error: OutOfCache) -> bool:
        """Free memory by preempting a sample, or fail one that does not fit by itself; False if prefills must wait."""
        if self._running:
            youngest = self._running.pop()
            if not self._running and not self._prefills:
                self._fail(youngest, error)
                return True
            youngest.location.release()
            youngest.cached = None
            self._preempted.append(youngest)
            # It continues when one of the others has ended: earlier, it would not fit either.
            self._running_at_preemption = max(1, len(self._running))
            return True
        prefill = self._prefills[-1]
        prefill.task.cancelled = True
        self._drop_cancelled()
        prefill.task.fail(error)
        return False

    def _fail(self, sequence: RunningSequence, error: OutOfCache) -> None:
        sequence.fail(Failure(code=error.code, message=str(error)))
        sequence.end()

    def _decode_chunk(self, sequence: RunningSequence) -> _ScheduledChunk:
        location = sequence.location
        chunk = TokenChunk(location.tree.cache, location.table, [sequence.last_token], [0])
        return _ScheduledChunk(location, chunk, None)

    def _prefill_chunk(self, prefill: Prefill, count: int) -> _ScheduledChunk:
        token_ids = prefill.remaining[:count]
        is_last = prefill.num_computed + count == len(prefill.token_ids)
        logit_indices: Sequence[int] = range(count) if prefill.all_logits else [count - 1] if is_last else []
        first = prefill.num_computed if prefill.all_logits else len(prefill.token_ids) - 1

        def on_logits(logits: Tensor) -> None:
            prefill.num_computed += count
            prefill.sequence.record(token_ids)
            if prefill.is_finished:
                self._prefills.remove(prefill)
            if logit_indices:
                prefill.on_logits(logits, first)
            if prefill.all_logits and prefill.is_finished:
                prefill.sequence.release()

        sequence = prefill.sequence
        chunk = TokenChunk(sequence.tree.cache, sequence.table, token_ids, logit_indices)
        return _ScheduledChunk(sequence, chunk, on_logits)

    def _run(self, scheduled: Sequence[_ScheduledChunk], drafts: Sequence[SequenceDraft]) -> None:
        parts = self._passes(scheduled, drafts)
        try:
            logits = torch.cat([self._model.forward(chunks) for chunks in parts])
        except (RuntimeError, IndexError, ValueError, MemoryError) as error:
            failure = BackendError(f"the forward pass failed: {error}")
            self.fail_all(failure)
            self.prefix_cache.evict_idle()
            raise failure from error
        row = 0
        first_row: dict[int, int] = {}
        for chunk in chain.from_iterable(parts):
            first_row[id(chunk)] = row
            row += len(chunk.logit_indices)
        running = self._running
        decoded = scheduled[: len(running)]
        for sequence, one in zip(running, decoded, strict=True):
            one.sequence.record([sequence.last_token])
        if running:
            self._sample_with_drafts(running, logits, [first_row[id(s.chunk)] for s in decoded], drafts, first_row)
            self._running = [s for s in running if not s.is_finished]
        touched = {id(s.sequence.tree): s.sequence.tree for s in scheduled}
        for one in scheduled[len(running) :]:
            if one.on_logits is not None:
                first = first_row[id(one.chunk)]
                one.on_logits(logits[first : first + len(one.chunk.logit_indices)])
        for tree in touched.values():
            self.prefix_cache.tidy(tree)

    def _passes(self, scheduled: Sequence[_ScheduledChunk], drafts: Sequence[SequenceDraft]) -> list[list[TokenChunk]]:
        """The step's chunks, by forward pass.

        There is one, unless a prefill would make a sample's bits depend on it: then decoding has a pass of its own.
        """
        chunks = [s.chunk for s in scheduled]
        chunks += [draft.chunk for draft in drafts if draft.chunk is not None]
        num_decoded, num_rows = len(self._running), sum(len(chunk.token_ids) for chunk in chunks)
        if not drafts and 0 < num_decoded < len(chunks) and 0 < self._model.max_invariant_rows < num_rows:
            return [group_by_cache(chunks[:num_decoded]), group_by_cache(chunks[num_decoded:])]
        return [group_by_cache(chunks)]

    def _sample_with_drafts(
        self,
        sequences: Sequence[RunningSequence],
        logits: Tensor,
        rows: Sequence[int],
        drafts: Sequence[SequenceDraft],
        first_row: Mapping[int, int],
    ) -> None:
        """Sample the next tokens of every sequence: one, and one more for each accepted draft token.

        Args:
            logits: Of the step, `[requested, vocab_size]`.
            rows: For each sequence the row of logits after its last token.
            drafts: Drafts of some of them.
            first_row: Row of a chunk's first logits, by the chunk's `id`.
        """
        draft_of = {id(draft.sequence): draft for draft in drafts}
        active, active_rows = list(sequences), list(rows)
        ended: list[RunningSequence] = []
        while active:
            self._append_samples(active, logits[torch.tensor(active_rows)])
            accepted: list[tuple[RunningSequence, int]] = []
            for sequence in active:
                draft = draft_of.get(id(sequence))
                if sequence.is_finished:
                    ended.append(sequence)
                elif draft is not None and draft.chunk is not None:
                    child = draft.child(draft.accepted[-1] if draft.accepted else -1, sequence.last_token)
                    if child is not None:
                        draft.accepted.append(child)
                        accepted.append((sequence, first_row[id(draft.chunk)] + child))
            active, active_rows = [sequence for sequence, _ in accepted], [row for _, row in accepted]
        keep_accepted(drafts)
        for sequence in ended:
            sequence.end()

    def _sample(self, sequences: Sequence[RunningSequence], logits: Tensor) -> None:
        """Sample the next token of every sequence; finished ones release their slots."""
        self._append_samples(sequences, logits)
        for sequence in sequences:
            if sequence.is_finished:
                sequence.end()

    def _append_samples(self, sequences: Sequence[RunningSequence], logits: Tensor) -> None:
        """Sample the next token of every sequence."""
        num_top = [s.task.request.sampling.top_logprobs for s in sequences]
        sampled = sample_tokens(logits, [s.sampler for s in sequences], num_top)
        for sequence, result in zip(sequences, sampled, strict=True):
            if isinstance(result, Exception):
                code = result.code if isinstance(result, ReasonError) else "logits_processor_failed"
                message = str(result) if isinstance(result, GrammarError) else f"a logits processor failed: {result}"
                sequence.fail(Failure(code=code, message=message))
            else:
                sequence.append(result)


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common prefix."""
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n
