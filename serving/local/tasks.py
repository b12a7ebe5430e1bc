"""What the scheduler works on: tasks, and the tokens they want computed.

A task says what is to be prefilled (`Fill`) and what to do with the logits: `sample_task`, `measure_tasks`,
`prefix_tasks`. One that computes by itself is a step alone: `shared/worker_tasks`, `relevance`. All of it runs on the
engine's thread.

Measuring: scoring given continuations, reading next-token distributions.

Named prefixes on the engine's thread: computing one to hold it, putting one in, giving some back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from ...core.errors import ReasonError
from ...core.messages import NextTokenDistribution, ScoredContinuation, Usage
from .prefix_cache import Prefixes, Sequenced
from .relevance import RelevanceTask
from .sampler import entropy, most_likely
from .spec_decode import Lookahead
from .tokenizer import Tokenizer
from .worker_group import CloseTask, OpenTask, PassTask

if TYPE_CHECKING:
    from .sequence import SampleTask


@dataclass(eq=False)
class Fill:
    """Tokens of a sequence that are to be computed together, in chunks.

    Attributes:
        task: Whose they are.
        sequence: The sequence they extend.
        ids: The tokens, at least one.
        every: Whether all their logits are wanted, or the last one's alone.
        done: Called with the logits `[wanted, vocab]` of each chunk that has any, and the position of the first of them
            within `ids`.
        at: Tokens computed so far.
    """

    task: Task
    sequence: Sequenced
    ids: Sequence[int]
    every: bool
    done: Callable[[Tensor, int], None]
    at: int = 0

    @property
    def finished(self) -> bool:
        """Whether all tokens are computed."""
        return self.at == len(self.ids)

    @property
    def tokens(self) -> Sequence[int]:
        """What is left to compute."""
        return self.ids[self.at :]


class Queue(Protocol):
    """What a task asks of the scheduler."""

    prefixes: Prefixes
    lookahead: Lookahead

    def fill(self, fill: Fill) -> None:
        """Have tokens computed."""

    def ready(self, task: SampleTask) -> None:
        """The prompt is computed: its samples may begin."""


class Task(Protocol):
    """A unit of work.

    Attributes:
        ids: Tokens that are looked up in the store and computed first.
        call: Whose work it is: sequences of one call may share a log.
        salt: Under which keys and values are shared: with no task of another one.
        cancelled: Set from any thread: the work is dropped at the next step.
    """

    ids: Sequence[int]
    call: object
    cancelled: bool

    @property
    def salt(self) -> str:
        """See the attributes."""

    def start(self, queue: Queue) -> None:
        """Begin: look up the prefix, ask for fills."""

    def fail(self, error: ReasonError) -> None:
        """Nothing came of it."""

    def release(self) -> None:
        """Give back every sequence held; idempotent."""


AloneTask = OpenTask | PassTask | CloseTask | RelevanceTask
"""Work that is a step of its own."""

Work = Task | AloneTask
"""What may be handed to the scheduler."""


@dataclass(eq=False)
class ScoreTask:
    """Continuations of one prompt: what all have in common is computed once, and each forks from it.

    Attributes:
        ids: Tokens that all continuations stand behind.
        given: For each continuation its further tokens that are not scored (text may tokenize differently at the seam).
        scored: For each continuation the tokens to score.
        told: Takes the results.
        width: Continuations computed together.
        salt: Under which keys and values are shared.
    """

    ids: Sequence[int]
    given: Sequence[Sequence[int]]
    scored: Sequence[Sequence[int]]
    told: Callable[[list[ScoredContinuation]], None]
    failed: Callable[[ReasonError], None]
    width: int
    salt: str
    call: object = field(default_factory=object)
    cancelled: bool = False
    trunk: Sequenced | None = None
    asked_at: float = field(default_factory=time.monotonic)
    _results: list[tuple[list[float], list[bool]]] = field(default_factory=list)
    _open: set[int] = field(default_factory=set)
    _next: int = 0
    _waited_s: float = 0.0

    def start(self, queue: Queue) -> None:
        """Compute the common part."""
        self._waited_s = time.monotonic() - self.asked_at
        self._results = [([], []) for _ in self.scored]
        rest = max((len(g) + len(s) for g, s in zip(self.given, self.scored, strict=True)), default=0)
        self.trunk = trunk = queue.prefixes.begin(self.ids, rest, self.call, self.salt)

        def done(logits: Tensor, first: int) -> None:
            for i, (given, scored) in enumerate(zip(self.given, self.scored, strict=True)):
                if not given and scored:
                    self._note(i, logits[-1:], scored[:1])
            self._continue(queue)

        queue.fill(Fill(self, trunk, self.ids[trunk.cached :], False, done))

    def fail(self, error: ReasonError) -> None:
        """Nothing could be scored."""
        self.failed(error)

    def release(self) -> None:
        """Give back the common part."""
        if self.trunk is not None:
            self.trunk.release()

    def _continue(self, queue: Queue) -> None:
        """Begin further continuations, then report when all are done."""
        while len(self._open) < self.width and self._next < len(self.scored):
            i = self._next
            self._next += 1
            tokens = [*self.given[i], *self.scored[i]][:-1]
            if tokens and self.scored[i] and self.trunk is not None:
                self._open.add(i)
                queue.fill(Fill(self, self.trunk.fork(), tokens, True, self._noter(queue, i, len(tokens))))
        if not self._open and self._next == len(self.scored):
            self._report()

    def _noter(self, queue: Queue, i: int, count: int) -> Callable[[Tensor, int], None]:
        # The logits of token t tell of token t + 1; those before the last given token are not asked for.
        skip = max(0, len(self.given[i]) - 1)
        follow = [*self.given[i], *self.scored[i]][1:]

        def done(logits: Tensor, first: int) -> None:
            from_row = max(0, skip - first)
            if from_row < logits.shape[0]:
                self._note(i, logits[from_row:], follow[first + from_row : first + logits.shape[0]])
            if first + logits.shape[0] == count:
                self._open.discard(i)
                self._continue(queue)

        return done

    def _note(self, i: int, logits: Tensor, tokens: Sequence[int]) -> None:
        logprobs = torch.log_softmax(logits, -1)
        index = torch.tensor(list(tokens), device=logits.device)
        self._results[i][0].extend(logprobs.gather(1, index[:, None])[:, 0].tolist())
        self._results[i][1].extend((logits.argmax(-1) == index).tolist())

    def _report(self) -> None:
        cached = self.trunk.cached if self.trunk is not None else 0
        self.release()
        self.told(
            [
                ScoredContinuation(
                    token_ids=tuple(scored),
                    logprobs=tuple(logprobs),
                    greedy=all(greedy),
                    usage=Usage(
                        prompt_tokens=len(self.ids) + len(given) + len(scored),
                        cached_tokens=cached if i == 0 else len(self.ids),
                        waited_s=self._waited_s if i == 0 else 0.0,
                    ),
                )
                for i, (given, scored, (logprobs, greedy)) in enumerate(
                    zip(self.given, self.scored, self._results, strict=True)
                )
            ]
        )


@dataclass(eq=False)
class NextTask:
    """The distribution of the token after a prompt.

    Attributes:
        ids: Tokens of the prompt.
        top: Tokens to list.
        salt: Under which keys and values are shared.
    """

    ids: Sequence[int]
    top: int
    tokenizer: Tokenizer
    told: Callable[[NextTokenDistribution], None]
    failed: Callable[[ReasonError], None]
    salt: str
    call: object = field(default_factory=object)
    cancelled: bool = False
    asked_at: float = field(default_factory=time.monotonic)
    _sequence: Sequenced | None = None

    def start(self, queue: Queue) -> None:
        """Compute the prompt."""
        waited_s = time.monotonic() - self.asked_at
        self._sequence = sequence = queue.prefixes.begin(self.ids, 1, self.call, self.salt)

        def done(logits: Tensor, first: int) -> None:
            logprobs = torch.log_softmax(logits[-1], -1)
            best = most_likely(logprobs, self.top)
            self.release()
            self.told(
                NextTokenDistribution(
                    token_ids=tuple(t for t, _ in best),
                    tokens=tuple(self.tokenizer.token(t) for t, _ in best),
                    logprobs=tuple(lp for _, lp in best),
                    entropy=entropy(logprobs),
                    support="full",
                    usage=Usage(prompt_tokens=len(self.ids), cached_tokens=sequence.cached, waited_s=waited_s),
                )
            )

        queue.fill(Fill(self, sequence, self.ids[sequence.cached :], False, done))

    def fail(self, error: ReasonError) -> None:
        """Nothing could be computed."""
        self.failed(error)

    def release(self) -> None:
        """Give back the sequence."""
        if self._sequence is not None:
            self._sequence.release()


@dataclass(frozen=True)
class Held:
    """A prefix that the engine holds (`Prefixes.hold`) until it is given back by a `ReleaseTask`.

    Attributes:
        sequence: What holds it.
        layers: Copies of its keys and values, per layer `[2, kv_heads, tokens, head_dim]`; empty if not asked for.
        usage: Its tokens, and how many of them were not computed.
    """

    sequence: Sequenced
    layers: Sequence[Tensor]
    usage: Usage


@dataclass(eq=False)
class HoldTask:
    """A prompt whose keys and values are computed where they are missing, held, and copied out.

    Attributes:
        ids: Tokens of the prompt.
        told: Takes what is held; it is the taker's to give back.
        salt: Under which it is shared.
    """

    ids: Sequence[int]
    told: Callable[[Held], None]
    failed: Callable[[ReasonError], None]
    salt: str
    call: object = field(default_factory=object)
    cancelled: bool = False
    asked_at: float = field(default_factory=time.monotonic)
    _give_back: Callable[[], None] | None = None

    def start(self, queue: Queue) -> None:
        """Look up the prompt and have the rest of it computed."""
        waited_s = time.monotonic() - self.asked_at
        prefixes = queue.prefixes
        if (again := prefixes.hold_again(self.ids, self.salt)) is not None:
            self._tell(again, len(self.ids), waited_s)
            return
        try:
            prefixes.check_hold(len(self.ids))
        except ReasonError as error:
            self.fail(error)
            return
        begun = prefixes.begin(self.ids, 0, self.call, self.salt)
        prefixes.hold(self.ids, begun)  # at once, so that what others may hold beside it is right
        self._give_back = lambda: prefixes.let_go(begun)

        def done(logits: Tensor, first: int) -> None:
            self._give_back = None  # from here on that is the listener's part
            self._tell(begun, begun.cached, waited_s)

        queue.fill(Fill(self, begun, self.ids[begun.cached :], False, done))

    def fail(self, error: ReasonError) -> None:
        """Nothing is held."""
        self.failed(error)

    def release(self) -> None:
        """Give back what is not computed whole."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()

    def _tell(self, sequence: Sequenced, cached: int, waited_s: float) -> None:
        usage = Usage(prompt_tokens=len(self.ids), cached_tokens=cached, waited_s=waited_s)
        self.told(Held(sequence, sequence.tree.log.read(sequence.branch.columns), usage))


@dataclass(eq=False)
class AdoptTask:
    """Keys and values that were computed elsewhere: they are put into a log of their own and held.

    Attributes:
        tokens: The tokens they belong to.
        layers: Per layer `[2, kv_heads, tokens, head_dim]`.
        salt: Under which they are shared.
    """

    tokens: Sequence[int]
    layers: Sequence[Tensor]
    told: Callable[[Held], None]
    failed: Callable[[ReasonError], None]
    salt: str
    ids: Sequence[int] = ()
    call: object = field(default_factory=object)
    cancelled: bool = False

    def start(self, queue: Queue) -> None:
        """Put them in, unless the tokens are held already."""
        prefixes = queue.prefixes
        sequence = prefixes.hold_again(self.tokens, self.salt)
        if sequence is None:
            try:
                prefixes.check_hold(len(self.tokens))
            except ReasonError as error:
                self.fail(error)
                return
            adopted = prefixes.adopt(self.tokens, self.layers, self.call, self.salt)
            sequence = prefixes.hold(self.tokens, adopted)
        count = len(self.tokens)
        self.told(Held(sequence, (), Usage(prompt_tokens=count, cached_tokens=count)))

    def fail(self, error: ReasonError) -> None:
        """Nothing is held."""
        self.failed(error)

    def release(self) -> None:
        """Nothing to do: it begins and ends in one."""


@dataclass(eq=False)
class ReleaseTask:
    """Held prefixes are given back; nobody waits for it, and it begins and ends when it is submitted."""

    sequences: Sequence[Sequenced]
    salt: str = ""
    ids: Sequence[int] = ()
    call: object = field(default_factory=object)
    cancelled: bool = False

    def start(self, queue: Queue) -> None:
        """Give them back."""
        for sequence in self.sequences:
            queue.prefixes.let_go(sequence)

    def fail(self, error: ReasonError) -> None:
        """Nothing to tell."""

    def release(self) -> None:
        """Nothing to do."""
