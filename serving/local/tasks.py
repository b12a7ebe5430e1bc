"""The scheduler's units of work, all of which run on the engine's thread.

A task requests prefills (`Prefill`) and handles their logits: generating (`sequence`), scoring, next-token
distributions. An `ExclusiveTask` computes by itself, as a step of its own: `worker_group`, `relevance`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from ...core.errors import ReasonError
from ...core.messages import NextTokenDistribution, ScoredContinuation, Usage
from .prefix_cache import CachedSequence, PrefixCache
from .sampler import entropy, token_logprobs, top_logprobs
from .spec_decode import NgramSpeculator
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from .sequence import GenerateTask


@dataclass(eq=False)
class Prefill:
    """Tokens of a sequence that are to be computed together, in chunks.

    Attributes:
        task: Whose they are.
        sequence: The sequence they extend.
        token_ids: The tokens, at least one.
        all_logits: Whether all their logits are needed, or only the last token's.
        on_logits: Called with the logits `[requested, vocab_size]` of each chunk that has any, and the position of the
            first of them within `token_ids`.
        num_computed: Tokens computed so far.
    """

    task: Task
    sequence: CachedSequence
    token_ids: Sequence[int]
    all_logits: bool
    on_logits: Callable[[Tensor, int], None]
    num_computed: int = 0

    @property
    def is_finished(self) -> bool:
        """Whether all tokens are computed."""
        return self.num_computed == len(self.token_ids)

    @property
    def remaining(self) -> Sequence[int]:
        """Tokens that are still to be computed."""
        return self.token_ids[self.num_computed :]


class TaskQueue(Protocol):
    """What a task needs of the scheduler."""

    prefix_cache: PrefixCache
    speculator: NgramSpeculator

    @property
    def has_room(self) -> bool:
        """Whether further sequences may start."""

    def add_prefill(self, prefill: Prefill) -> None:
        """Have tokens computed."""

    def add_ready(self, task: GenerateTask) -> None:
        """The prompt is computed: its samples may start."""


class Task(Protocol):
    """A unit of work.

    Attributes:
        prompt_ids: Tokens that are looked up in the prefix cache and computed first.
        call: The call it belongs to: sequences of one call may share a KV cache.
        salt: Under which keys and values are shared.
        cancelled: Set from any thread: the work is dropped at the next step.
    """

    prompt_ids: Sequence[int]
    call: object
    cancelled: bool

    @property
    def salt(self) -> str:
        """See the attributes."""

    def start(self, queue: TaskQueue) -> None:
        """Look up the prefix and request prefills."""

    def fail(self, error: ReasonError) -> None:
        """Report that the task failed."""

    def release(self) -> None:
        """Release every sequence; idempotent."""


@dataclass(eq=False)
class ExclusiveTask:
    """Work that is a step of its own.

    Attributes:
        compute: Does the work; the second argument returns whether it was cancelled.
        on_result: Receives the result.
        on_error: Receives the error.
        always_runs: Whether it runs even when the engine fails or closes: it only frees memory.
        cancelled: Set from any thread: the work is dropped at the next step.
    """

    compute: Callable[[PrefixCache, Callable[[], bool]], Any]
    on_result: Callable[[Any], None]
    on_error: Callable[[ReasonError], None]
    always_runs: bool = False
    cancelled: bool = False

    def run(self, prefix_cache: PrefixCache) -> None:
        """Do the work."""
        self.on_result(self.compute(prefix_cache, lambda: self.cancelled))

    def fail(self, error: ReasonError) -> None:
        """Report that it failed."""
        self.on_error(error)


Work = Task | ExclusiveTask
"""What may be submitted to the scheduler."""


@dataclass(eq=False)
class ScoreTask:
    """Continuations of one prompt: what all have in common is computed once, and each forks from it.

    Attributes:
        prompt_ids: Tokens that precede all continuations.
        context_ids: For each continuation its further tokens that are not scored (text may tokenize differently at the
            seam).
        scored_ids: For each continuation the tokens to score.
        on_result: Receives the results.
        on_error: Receives the error if the scoring failed.
    """

    prompt_ids: Sequence[int]
    context_ids: Sequence[Sequence[int]]
    scored_ids: Sequence[Sequence[int]]
    on_result: Callable[[list[ScoredContinuation]], None]
    on_error: Callable[[ReasonError], None]
    salt: str
    call: object = field(default_factory=object)
    cancelled: bool = False
    prompt: CachedSequence | None = None
    submitted_at: float = field(default_factory=time.monotonic)
    _results: list[tuple[list[float], list[bool]]] = field(default_factory=list)
    _running: set[int] = field(default_factory=set)
    _next: int = 0
    _waited_s: float = 0.0

    def start(self, queue: TaskQueue) -> None:
        """Compute the common part."""
        self._waited_s = time.monotonic() - self.submitted_at
        self._results = [([], []) for _ in self.scored_ids]
        rest = max((len(c) + len(s) for c, s in zip(self.context_ids, self.scored_ids, strict=True)), default=0)
        self.prompt = prompt = queue.prefix_cache.start(self.prompt_ids, rest, self.call, self.salt)

        def on_logits(logits: Tensor, first: int) -> None:
            for i, (context, scored) in enumerate(zip(self.context_ids, self.scored_ids, strict=True)):
                if not context and scored:
                    self._add(i, logits[-1:], scored[:1])
            self._continue(queue)

        queue.add_prefill(Prefill(self, prompt, self.prompt_ids[prompt.num_cached :], False, on_logits))

    def fail(self, error: ReasonError) -> None:
        self.on_error(error)

    def release(self) -> None:
        """Release the common part."""
        if self.prompt is not None:
            self.prompt.release()

    def _continue(self, queue: TaskQueue) -> None:
        """Start further continuations, or report when all are done."""
        while self._next < len(self.scored_ids) and (queue.has_room or not self._running):
            i = self._next
            self._next += 1
            tokens = [*self.context_ids[i], *self.scored_ids[i]][:-1]
            if tokens and self.scored_ids[i] and self.prompt is not None:
                self._running.add(i)
                queue.add_prefill(Prefill(self, self.prompt.fork(), tokens, True, self._adder(queue, i, len(tokens))))
        if not self._running and self._next == len(self.scored_ids):
            self._report()

    def _adder(self, queue: TaskQueue, i: int, count: int) -> Callable[[Tensor, int], None]:
        # The logits of token t predict token t + 1; those before the last context token are not needed.
        skip = max(0, len(self.context_ids[i]) - 1)
        targets = [*self.context_ids[i], *self.scored_ids[i]][1:]

        def on_logits(logits: Tensor, first: int) -> None:
            start = max(0, skip - first)
            if start < logits.shape[0]:
                self._add(i, logits[start:], targets[first + start : first + logits.shape[0]])
            if first + logits.shape[0] == count:
                self._running.discard(i)
                self._continue(queue)

        return on_logits

    def _add(self, i: int, logits: Tensor, targets: Sequence[int]) -> None:
        index = torch.tensor(list(targets))
        self._results[i][0].extend(logprob for logprob, _ in token_logprobs(logits, targets, [0] * len(targets)))
        self._results[i][1].extend((logits.argmax(-1) == index).tolist())

    def _report(self) -> None:
        cached = self.prompt.num_cached if self.prompt is not None else 0
        self.release()
        self.on_result(
            [
                ScoredContinuation(
                    token_ids=tuple(scored),
                    logprobs=tuple(logprobs),
                    is_greedy=all(greedy),
                    usage=Usage(
                        prompt_tokens=len(self.prompt_ids) + len(context) + len(scored),
                        cached_tokens=cached if i == 0 else len(self.prompt_ids),
                        waited_s=self._waited_s if i == 0 else 0.0,
                    ),
                )
                for i, (context, scored, (logprobs, greedy)) in enumerate(
                    zip(self.context_ids, self.scored_ids, self._results, strict=True)
                )
            ]
        )


@dataclass(eq=False)
class NextTokenTask:
    """The distribution of the token after a prompt.

    Attributes:
        top: Tokens to list.
        on_result: Receives the distribution.
        on_error: Receives the error if nothing could be computed.
    """

    prompt_ids: Sequence[int]
    top: int
    tokenizer: Tokenizer
    on_result: Callable[[NextTokenDistribution], None]
    on_error: Callable[[ReasonError], None]
    salt: str
    call: object = field(default_factory=object)
    cancelled: bool = False
    submitted_at: float = field(default_factory=time.monotonic)
    _sequence: CachedSequence | None = None

    def start(self, queue: TaskQueue) -> None:
        """Compute the prompt."""
        waited_s = time.monotonic() - self.submitted_at
        self._sequence = sequence = queue.prefix_cache.start(self.prompt_ids, 1, self.call, self.salt)

        def on_logits(logits: Tensor, first: int) -> None:
            logprobs = torch.log_softmax(logits[-1], -1)
            top = top_logprobs(logprobs, self.top)
            self.release()
            self.on_result(
                NextTokenDistribution(
                    token_ids=tuple(t for t, _ in top),
                    tokens=tuple(self.tokenizer.token(t) for t, _ in top),
                    logprobs=tuple(lp for _, lp in top),
                    entropy=entropy(logprobs),
                    support="full",
                    usage=Usage(
                        prompt_tokens=len(self.prompt_ids), cached_tokens=sequence.num_cached, waited_s=waited_s
                    ),
                )
            )

        queue.add_prefill(Prefill(self, sequence, self.prompt_ids[sequence.num_cached :], False, on_logits))

    def fail(self, error: ReasonError) -> None:
        self.on_error(error)

    def release(self) -> None:
        """Release the sequence."""
        if self._sequence is not None:
            self._sequence.release()
