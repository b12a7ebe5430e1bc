"""The three kinds of work: sampling a request, scoring continuations, reading next-token distributions.

A task says what is to be prefilled (`Fill`) and what to do with the logits. Everything here runs on the engine's
thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ...core.errors import ReasonError
from ...core.messages import (
    Chunk,
    Completion,
    Failure,
    FinishReason,
    NextToken,
    Request,
    Scored,
    TopToken,
    Usage,
)
from ..hooks import Hook
from .prefixes import Prefixes, Sequenced
from .sampling import Picked, Sampler, entropy, most_likely
from .text import TextAssembler, Tokenizer

EXPECTED_TOKENS = 256
"""Most tokens a sample is expected to take when a tree is chosen for it."""


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

    def fill(self, fill: Fill) -> None:
        """Have tokens computed."""

    def ready(self, task: SampleTask) -> None:
        """The prompt is computed: its samples may begin."""


class Task(Protocol):
    """A unit of work.

    Attributes:
        ids: Tokens that are looked up in the store and computed first.
        call: Whose work it is: sequences of one call may share a log.
        cancelled: Set from any thread: the work is dropped at the next step.
    """

    ids: Sequence[int]
    call: object
    cancelled: bool

    def start(self, queue: Queue) -> None:
        """Begin: look up the prefix, ask for fills."""

    def fail(self, error: ReasonError) -> None:
        """Nothing came of it."""

    def release(self) -> None:
        """Give back every sequence held; idempotent."""


@dataclass(eq=False)
class SampleTask:
    """One request: its prompt is computed once, and its samples fork from it.

    Attributes:
        request: What to sample.
        position: Its place in the batch.
        ids: Tokens of the prompt.
        eos: Tokens that end a text.
        tell: Takes chunks; the last chunk of a sample carries its completion.
        failed: Takes the error if nothing could be sampled.
    """

    request: Request
    position: int
    ids: Sequence[int]
    eos: frozenset[int]
    hooks: Sequence[tuple[str, Hook]]
    tokenizer: Tokenizer
    tell: Callable[[Chunk], None]
    failed: Callable[[ReasonError], None]
    call: object = field(default_factory=object)
    cancelled: bool = False
    trunk: Sequenced | None = None
    logits: Tensor | None = None
    asked_at: float = field(default_factory=time.monotonic)
    waited_s: float = 0.0
    pending: list[int] = field(default_factory=list)

    def start(self, queue: Queue) -> None:
        """Look up the prompt and have the rest of it computed."""
        self.waited_s = time.monotonic() - self.asked_at
        self.pending = list(self.request.indices)
        expected = min(self.request.sampling.max_tokens, EXPECTED_TOKENS)
        self.trunk = trunk = queue.prefixes.begin(self.ids, expected, self.call)

        def done(logits: Tensor, first: int) -> None:
            self.logits = logits[-1].clone()
            queue.ready(self)

        queue.fill(Fill(self, trunk, self.ids[trunk.cached :], False, done))

    def spawn(self) -> Row:
        """Begin the next sample."""
        if self.trunk is None:
            raise RuntimeError("a sample cannot begin before its prompt")
        row = Row(self, self.pending.pop(0), self.trunk.fork())
        if not self.pending:
            self.trunk.release()
        return row

    def fail(self, error: ReasonError) -> None:
        """Nothing could be sampled."""
        self.failed(error)

    def release(self) -> None:
        """Give back the prompt."""
        if self.trunk is not None:
            self.trunk.release()
        self.pending.clear()
        self.logits = None


class Row:
    """A sample under way: one row of every decode step.

    Attributes:
        task: Its request.
        sequence: Its place in a log; None while it waits for room.
        token: The token it has chosen last, which the next step computes.
        finished: Whether it has ended.
    """

    def __init__(self, task: SampleTask, index: int, sequence: Sequenced) -> None:
        sampling = task.request.sampling
        self.task = task
        self.index = index
        self.sequence: Sequenced | None = sequence
        self.sampler = Sampler(sampling, index, task.hooks, task.ids, task.eos)
        self.finished = False
        self._cached = sequence.cached
        self._sampling = sampling
        self._text = TextAssembler(task.tokenizer, task.ids, sampling.stop)
        self._logprobs: list[float] = []
        self._tops: list[tuple[TopToken, ...]] = []

    @property
    def token(self) -> int:
        """The last chosen token."""
        return self.sampler.generated[-1]

    @property
    def ids(self) -> list[int]:
        """All its tokens, the prompt's included."""
        return [*self.task.ids, *self.sampler.generated]

    def take(self, picked: Picked) -> None:
        """Take a chosen token, tell of it, and end if it ends the sample."""
        sampling = self._sampling
        self._logprobs.append(picked.logprob)
        if sampling.top_logprobs:
            name = self.task.tokenizer.token
            self._tops.append(tuple(TopToken(token_id=t, token=name(t), logprob=lp) for t, lp in picked.top))
        ended = picked.token in self.task.eos and not sampling.ignore_eos
        piece = "" if ended else self._text.push(picked.token)
        reason: FinishReason | None = None
        if ended or self._text.stopped:
            reason = "stop"
        elif len(self.sampler.generated) >= sampling.max_tokens:
            reason = "length"
        if reason is not None:
            piece += self._text.finish()
            if self._text.stopped:
                reason = "stop"
        self._tell(piece, picked, None if reason is None else self._completion(reason, None))

    def fail(self, failure: Failure) -> None:
        """End without a result; the other samples go on."""
        self._tell("", None, self._completion("error", failure))

    def _tell(self, piece: str, picked: Picked | None, completion: Completion | None) -> None:
        self.finished = completion is not None
        self.task.tell(
            Chunk(
                request=self.task.position,
                sample_index=self.index,
                text=piece,
                token_ids=() if picked is None else (picked.token,),
                logprobs=(picked.logprob,) if picked is not None and self._sampling.logprobs else (),
                completion=completion,
            )
        )

    def _completion(self, reason: FinishReason, failure: Failure | None) -> Completion:
        first = self.index == self.task.request.indices[0]
        count = len(self._logprobs)
        return Completion(
            text=self._text.text,
            token_ids=tuple(self.sampler.generated[:count]),
            logprobs=tuple(self._logprobs) if self._sampling.logprobs else None,
            top_logprobs=tuple(self._tops) if self._sampling.top_logprobs else None,
            finish_reason=reason,
            usage=Usage(
                prompt_tokens=len(self.task.ids) if first else 0,
                cached_tokens=self._cached if first else 0,
                completion_tokens=count,
                waited_s=self.task.waited_s if first else 0.0,
            ),
            sample_index=self.index,
            extras={name: state.extras for name, state in self.sampler.states.items() if state.extras},
            failure=failure,
        )


@dataclass(eq=False)
class ScoreTask:
    """Continuations of one prompt: what all have in common is computed once, and each forks from it.

    Attributes:
        ids: Tokens that all continuations stand behind.
        given: For each continuation its further tokens that are not scored (text may tokenize differently at the seam).
        scored: For each continuation the tokens to score.
        told: Takes the results.
        width: Continuations computed together.
    """

    ids: Sequence[int]
    given: Sequence[Sequence[int]]
    scored: Sequence[Sequence[int]]
    told: Callable[[list[Scored]], None]
    failed: Callable[[ReasonError], None]
    width: int
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
        self.trunk = trunk = queue.prefixes.begin(self.ids, rest, self.call)

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
        index = torch.tensor(list(tokens))
        self._results[i][0].extend(logprobs.gather(1, index[:, None])[:, 0].tolist())
        self._results[i][1].extend((logits.argmax(-1) == index).tolist())

    def _report(self) -> None:
        cached = self.trunk.cached if self.trunk is not None else 0
        self.release()
        self.told(
            [
                Scored(
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
    """

    ids: Sequence[int]
    top: int
    tokenizer: Tokenizer
    told: Callable[[NextToken], None]
    failed: Callable[[ReasonError], None]
    call: object = field(default_factory=object)
    cancelled: bool = False
    asked_at: float = field(default_factory=time.monotonic)
    _sequence: Sequenced | None = None

    def start(self, queue: Queue) -> None:
        """Compute the prompt."""
        waited_s = time.monotonic() - self.asked_at
        self._sequence = sequence = queue.prefixes.begin(self.ids, 1, self.call)

        def done(logits: Tensor, first: int) -> None:
            logprobs = torch.log_softmax(logits[-1], -1)
            best = most_likely(logprobs, self.top)
            self.release()
            self.told(
                NextToken(
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
