"""The step loop: who computes what in the next forward pass.

A step decodes one token of every row under way and prefills up to a chunk of new tokens beside it, in one forward
pass, so that a long prompt delays the others by one chunk at most. Rows join and leave between steps.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...core.errors import BackendError, ReasonError
from ...core.messages import Failure
from ..structured_output import GrammarFailed
from .attention import Span, by_log
from .model import Forward
from .prefix_cache import MIN_SHARED, OutOfCache, Prefixes, Sequenced, Tree
from .relevance import RelevanceTask
from .sampler import pick
from .sequence import Row, SampleTask
from .spec_decode import Guesses, Lookahead, placed, settle, steady
from .tasks import AloneTask, Fill, ReleaseTask, Task, Work
from .worker_group import CloseTask, OpenTask, PassTask

CHUNK = 256
"""Most tokens prefilled in one step."""


@dataclass(frozen=True)
class StepSize:
    """What a step computed: rows decoded, tokens prefilled, work that is a step alone, and tokens guessed."""

    rows: int
    filled: int
    alone: int = 0
    guessed: int = 0


@dataclass(eq=False)
class _Part:
    """A span of the step, whose it is, and what to do with its logits."""

    sequence: Sequenced
    span: Span
    done: Callable[[Tensor], None] | None


@dataclass(eq=False)
class _Rejoining:
    """Rows that go on in one step, as soon as the tokens of all of them are computed again."""

    rows: list[Row]
    logits: dict[int, Tensor] = field(default_factory=dict)


class Scheduler:
    """Decides and runs steps; lives on one thread.

    Args:
        forward: Computes.
        kv_bytes: Bytes for keys and values.
        max_rows: Samples decoded together.
        lookahead: Guesses what the rows will write; None guesses nothing.

    Attributes:
        prefixes: The stored prefixes.
        lookahead: As given.
    """

    def __init__(self, forward: Forward, kv_bytes: int, max_rows: int, lookahead: Lookahead | None = None) -> None:
        self.prefixes = Prefixes(forward, kv_bytes)
        self.lookahead = lookahead or Lookahead((), "off")
        self._forward, self._max_rows = forward, max_rows
        self._waiting: deque[Task] = deque()
        self._alone: deque[AloneTask] = deque()
        self._fills: list[Fill] = []
        self._ready: deque[SampleTask] = deque()
        self._rows: list[Row] = []
        self._paused: deque[list[Row]] = deque()
        self._rejoining: list[_Rejoining] = []
        self._rows_at_pause = 0

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._waiting or self._alone or self._fills or self._ready or self._rows or self._paused)

    @property
    def rows(self) -> int:
        """Samples under way."""
        return len(self._rows)

    def submit(self, task: Work) -> None:
        """Add work; it begins in order of arrival. What gives room back is done at once: others may wait for it."""
        if isinstance(task, OpenTask | PassTask | CloseTask | RelevanceTask):
            self._alone.append(task)
        elif isinstance(task, ReleaseTask):
            task.start(self)
        else:
            self._waiting.append(task)

    def fill(self, fill: Fill) -> None:
        """Have tokens computed (for tasks)."""
        self._fills.append(fill)

    def ready(self, task: SampleTask) -> None:
        """Let a prompt's samples begin (for tasks)."""
        self._ready.append(task)

    def step(self) -> StepSize:
        """Run one step: drop what was cancelled, admit, decode and prefill.

        Raises:
            BackendError: The forward pass failed; every task under way has been failed with it.
        """
        self._drop_cancelled()
        alone = self._run_alone()
        self._admit()
        self._spawn()
        began = time.perf_counter()
        fills = self._choose_fills()
        rows = self._rows
        # beside a prompt the step is long already, and so is what its time would teach
        guesses = self._guess() if self.lookahead.active and not fills else []
        parts = self._make_room(fills, guesses)
        if not parts:
            return StepSize(0, 0, alone)
        guesses = [guess for guess in guesses if guess.span is not None]
        guessed = sum(len(guess.draft) for guess in guesses)
        size = StepSize(len(self._rows), sum(len(p.span.ids) for p in parts) - len(self._rows), alone, guessed)
        self._run(parts, guesses)
        if not size.filled and len(rows) == size.rows:
            accepted = sum(len(guess.accepted) for guess in guesses)
            taken = [guess.draft for guess in guesses]
            self.lookahead.tell(size.rows, taken, accepted, time.perf_counter() - began)
        self._spawn()
        return size

    def fail_all(self, error: ReasonError) -> None:
        """Fail every task, waiting or under way."""
        tasks: dict[int, Task] = {id(t): t for t in self._waiting}
        tasks.update((id(f.task), f.task) for f in self._fills)
        tasks.update((id(t), t) for t in self._ready)
        held = [*(r for rows in self._paused for r in rows), *(r for j in self._rejoining for r in j.rows)]
        tasks.update((id(r.task), r.task) for r in (*self._rows, *held))
        for task in tasks.values():
            task.cancelled = True
        self._drop_cancelled()
        for task in tasks.values():
            task.fail(error)
        while self._alone:
            alone = self._alone.popleft()
            if isinstance(alone, CloseTask):
                alone.run(self.prefixes)
            else:
                alone.fail(error)

    def _run_alone(self) -> int:
        """Run what is a step alone, one after the other.

        Returns:
            How many there were.
        """
        count = len(self._alone)
        while self._alone:
            task = self._alone.popleft()
            if task.cancelled:
                continue
            try:
                task.run(self.prefixes)
            except ReasonError as error:
                task.fail(error)
            except (RuntimeError, IndexError, ValueError, MemoryError) as error:
                task.fail(BackendError(f"the forward pass failed: {error}"))
        return count

    # --- Admission

    def _drop_cancelled(self) -> None:
        for fill in self._fills:
            if fill.task.cancelled:
                fill.sequence.release()
                fill.task.release()
        self._fills = [f for f in self._fills if not f.task.cancelled]
        for row in self._rows:
            if row.task.cancelled:
                row.task.release()
                self._end(row)
        self._rows = [r for r in self._rows if not r.finished]
        for task in self._ready:
            if task.cancelled:
                task.release()
        self._ready = deque(t for t in self._ready if not t.cancelled)
        self._paused = deque(rows for rows in self._paused if not rows[0].task.cancelled)
        for rejoining in self._rejoining:
            if rejoining.rows[0].task.cancelled:
                for row in rejoining.rows:
                    self._end(row)
        self._rejoining = [j for j in self._rejoining if not j.rows[0].task.cancelled]
        self._waiting = deque(t for t in self._waiting if not t.cancelled)

    def _admit(self) -> None:
        while (
            self._waiting
            and not self._paused
            and self._load() < self._max_rows
            and not self._awaits_prefix(self._waiting[0])
        ):
            task = self._waiting.popleft()
            try:
                task.start(self)
            except OutOfCache as error:
                if self._rows or self._fills or any(self._may_begin(t) for t in self._ready):
                    self._waiting.appendleft(task)  # it fits when something has finished
                else:
                    task.fail(error)
                break
        if self._paused and not self._fills and len(self._rows) < self._rows_at_pause:
            self._resume(self._paused.popleft())

    def _load(self) -> int:
        return len(self._rows) + len(self._fills) + len(self._ready)

    def _awaits_prefix(self, task: Task) -> bool:
        """Whether a prompt that is being computed right now will spare this one a good part of its own."""
        if not self._fills:
            return False
        stored = self.prefixes.shared(task.ids[:-1], task.salt)
        alike = (f for f in self._fills if not f.every and f.task.salt == task.salt)
        return any(_common(task.ids, f.task.ids) >= stored + MIN_SHARED for f in alike)

    def _may_begin(self, task: SampleTask) -> bool:
        """Whether the prompts of a task and of its mates are computed."""
        return all(any(t is mate for t in self._ready) for mate in task.mates)

    def _spawn(self) -> None:
        """Begin samples of computed prompts: the first token comes from the prompt's own logits."""
        for task in list(self._ready):
            if task.logits is None or not self._may_begin(task):
                continue  # its mates have begun it, or are not there yet
            group = task.mates or [task]
            begun: list[Row] = []
            while task.pending and len(self._rows) + len(begun) + len(group) <= self._max_rows:
                begun += [mate.spawn() for mate in group]
            logits = {id(mate): mate.logits for mate in group}
            if begun:
                self._choose(begun, torch.stack([_there(logits[id(r.task)]) for r in begun]))
            self._rows.extend(r for r in begun if not r.finished)
            if task.pending:
                break
            for mate in group:
                mate.logits = None
        self._ready = deque(t for t in self._ready if t.pending)

    def _resume(self, rows: list[Row]) -> None:
        """Compute the tokens of paused samples again, then go on with them in one step."""
        begun: list[tuple[Row, Sequenced]] = []
        for row in rows:
            try:
                begun.append((row, self.prefixes.begin(row.ids, 1, row.task.call, row.task.salt)))
            except OutOfCache as error:
                for _, sequence in begun:
                    sequence.release()
                if self._rows or self._fills or self._rejoining:
                    self._paused.appendleft(rows)
                else:
                    self._give_up(rows, error)
                return
        rejoining = _Rejoining(rows)
        self._rejoining.append(rejoining)
        for row, sequence in begun:
            row.sequence = sequence
            ids = row.ids
            self._fills.append(Fill(row.task, sequence, ids[sequence.cached :], False, self._rejoiner(rejoining, row)))

    def _rejoiner(self, rejoining: _Rejoining, row: Row) -> Callable[[Tensor, int], None]:
        def done(logits: Tensor, first: int) -> None:
            rejoining.logits[id(row)] = logits[-1].clone()
            if len(rejoining.logits) == len(rejoining.rows):
                self._rejoining.remove(rejoining)
                self._choose(rejoining.rows, torch.stack([rejoining.logits[id(r)] for r in rejoining.rows]))
                self._rows.extend(r for r in rejoining.rows if not r.finished)

        return done

    # --- One step

    def _choose_fills(self) -> list[tuple[Fill, int]]:
        chosen, left = [], CHUNK
        for fill in self._fills:
            if not left:
                break
            count = min(left, len(fill.tokens))
            chosen.append((fill, count))
            left -= count
        return chosen

    def _guess(self) -> list[Guesses]:
        """What is guessed of the rows."""
        drafts = self.lookahead.drafts(self._rows, steady(self._rows, self._forward))
        return [Guesses(row, draft) for row, draft in zip(self._rows, drafts, strict=True) if len(draft)]

    def _make_room(self, fills: Sequence[tuple[Fill, int]], guesses: Sequence[Guesses]) -> list[_Part]:
        """The step's parts, with room for all of them.

        Until there is room, guesses are left out, then samples are paused, the youngest first. The guesses' places are
        noted with them; they are no parts, since nobody is told of them.
        """
        while True:
            parts = [self._row_part(row) for row in self._rows] + [self._fill_part(f, n) for f, n in fills]
            needs: dict[int, tuple[Tree, int]] = {}
            for part in parts:
                tree, count = part.sequence.tree, len(part.span.ids)
                needs[id(tree)] = (tree, needs.get(id(tree), (tree, 0))[1] + count)
            for guess in guesses:
                tree = placed(guess.row).tree
                needs[id(tree)] = (tree, needs[id(tree)][1] + len(guess.draft))
            try:
                for tree, count in needs.values():
                    self.prefixes.make_room(tree, count)
                if any(tree.log.missing(count) for tree, count in needs.values()):
                    raise OutOfCache("room that was made was taken again")
            except OutOfCache as error:
                if guesses:
                    guesses = []
                elif not self._relieve(error):
                    fills = []
            else:
                for guess in guesses:
                    sequence, draft = placed(guess.row), guess.draft
                    everyone = range(len(draft))
                    guess.span = Span(sequence.tree.log, sequence.branch, draft.tokens, everyone, draft.parents)
                return parts

    def _relieve(self, error: OutOfCache) -> bool:
        """Make room by pausing a sample, or by failing the one that does not fit alone; False if fills must wait."""
        youngest = [r for r in self._rows if r.is_mate(self._rows[-1])]
        others = [r for r in self._rows if r not in youngest]
        if youngest and (others or self._fills):
            for row in youngest:
                if row.sequence is not None:
                    row.sequence.release()
                    row.sequence = None
            self._rows = others
            self._paused.append(youngest)
            # It goes on when one of the others has ended: earlier, there would be no room again.
            self._rows_at_pause = max(1, len(self._rows))
            return True
        if youngest:
            self._rows = []
            self._give_up(youngest, error)
            return True
        fill = self._fills[-1]
        fill.task.cancelled = True
        self._drop_cancelled()
        fill.task.fail(error)
        return False

    def _give_up(self, rows: Sequence[Row], error: OutOfCache) -> None:
        for row in rows:
            row.fail(Failure(code=error.code, message=str(error)))
            self._end(row)

    def _row_part(self, row: Row) -> _Part:
        sequence = placed(row)
        return _Part(sequence, Span(sequence.tree.log, sequence.branch, [row.token], [0]), None)

    def _fill_part(self, fill: Fill, count: int) -> _Part:
        ids = fill.tokens[:count]
        last = fill.at + count == len(fill.ids)
        wanted: Sequence[int] = range(count) if fill.every else [count - 1] if last else []
        first = fill.at if fill.every else len(fill.ids) - 1

        def done(logits: Tensor) -> None:
            fill.at += count
            fill.sequence.record(ids)
            if fill.finished:
                self._fills.remove(fill)
            if wanted:
                fill.done(logits, first)
            if fill.every and fill.finished:
                fill.sequence.release()

        return _Part(fill.sequence, Span(fill.sequence.tree.log, fill.sequence.branch, ids, wanted), done)

    def _run(self, parts: Sequence[_Part], guesses: Sequence[Guesses]) -> None:
        spans = by_log([*(p.span for p in parts), *(g.span for g in guesses if g.span is not None)])
        try:
            logits = self._forward.run(spans)
        except (RuntimeError, IndexError, ValueError, MemoryError) as error:
            broken = BackendError(f"the forward pass failed: {error}")
            self.fail_all(broken)
            self.prefixes.clear()
            raise broken from error
        at = 0
        places: dict[int, int] = {}
        for span in spans:
            places[id(span)] = at
            at += len(span.wanted)
        rows = self._rows
        decoded = parts[: len(rows)]
        for row, part in zip(rows, decoded, strict=True):
            part.sequence.record([row.token])
        if rows:
            self._choose_on(rows, logits, [places[id(p.span)] for p in decoded], guesses, places)
            self._rows = [r for r in rows if not r.finished]
        touched = {id(p.sequence.tree): p.sequence.tree for p in parts}
        for part in parts[len(rows) :]:
            if part.done is not None:
                first = places[id(part.span)]
                part.done(logits[first : first + len(part.span.wanted)])
        for tree in touched.values():
            self.prefixes.tidy(tree)

    def _choose_on(
        self,
        rows: Sequence[Row],
        logits: Tensor,
        starts: Sequence[int],
        guesses: Sequence[Guesses],
        places: Mapping[int, int],
    ) -> None:
        """Choose the next tokens of every row: one, and one more for each guess that was right.

        Args:
            rows: The rows.
            logits: Of the step, `[wanted, vocab]`.
            starts: For each row where the logits behind its last token stand.
            guesses: What was guessed of some of them.
            places: Where the logits of a span begin, by the span's `id`.
        """
        guess_of = {id(guess.row): guess for guess in guesses}
        going, at = list(rows), list(starts)
        ended: list[Row] = []
        while going:
            self._take(going, logits[torch.tensor(at, device=logits.device)])
            further: list[tuple[Row, int]] = []
            for row in going:
                guess = guess_of.get(id(row))
                if row.finished:
                    ended.append(row)
                elif guess is not None and guess.span is not None:
                    node = guess.child(guess.accepted[-1] if guess.accepted else -1, row.token)
                    if node is not None:
                        guess.accepted.append(node)
                        further.append((row, places[id(guess.span)] + node))
            going, at = [row for row, _ in further], [place for _, place in further]
        settle(guesses)
        for row in ended:
            self._end(row)

    def _choose(self, rows: Sequence[Row], logits: Tensor) -> None:
        """Choose the next token of every row; ended rows give back their sequence."""
        self._take(rows, logits)
        for row in rows:
            if row.finished:
                self._end(row)

    def _take(self, rows: Sequence[Row], logits: Tensor) -> None:
        """Choose the next token of every row."""
        tops = [r.task.request.sampling.top_logprobs for r in rows]
        for row, picked in zip(rows, pick(logits, [r.sampler for r in rows], tops), strict=True):
            if isinstance(picked, Exception):
                code = picked.code if isinstance(picked, ReasonError) else "hook_failed"
                told = str(picked) if isinstance(picked, GrammarFailed) else f"a logits hook failed: {picked}"
                row.fail(Failure(code=code, message=told))
            else:
                row.take(picked)

    def _end(self, row: Row) -> None:
        row.finished = True
        if row.sequence is not None:
            row.sequence.release()


def _there(logits: Tensor | None) -> Tensor:
    if logits is None:
        raise RuntimeError("a sample cannot begin before its prompt is computed")
    return logits


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning."""
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n
