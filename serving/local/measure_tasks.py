"""Measuring: scoring given continuations, reading next-token distributions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...core.errors import ReasonError
from ...core.messages import NextToken, Scored, Usage
from .prefixes import Sequenced
from .sampling import entropy, most_likely
from .tasks import Fill, Queue
from .text import Tokenizer


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
    told: Callable[[list[Scored]], None]
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
        salt: Under which keys and values are shared.
    """

    ids: Sequence[int]
    top: int
    tokenizer: Tokenizer
    told: Callable[[NextToken], None]
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
