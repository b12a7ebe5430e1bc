"""Sampling a request: its prompt is computed once, and its samples fork from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ...core.errors import ReasonError
from ...core.messages import Chunk, Completion, Failure, FinishReason, Request, TopToken, Usage
from ..logits_processors import Hook
from .prefix_cache import Sequenced
from .sampler import Picked, Sampler
from .spec_decode import Lookahead, Writing
from .tasks import Fill, Queue
from .tokenizer import TextAssembler, Tokenizer

EXPECTED_TOKENS = 256
"""Most tokens a sample is expected to take when a tree is chosen for it."""


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
        mates: All tasks of its group, itself among them, whose samples begin and decode together; empty if it is alone.
        alone: Whether its call is for one sample alone.
        lookahead: Reads along once the prompt is begun.
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
    mates: list[SampleTask] = field(default_factory=list)
    alone: bool = False
    lookahead: Lookahead | None = None

    @property
    def salt(self) -> str:
        """Whose text it is."""
        return self.request.prompt.cache_salt

    def start(self, queue: Queue) -> None:
        """Look up the prompt and have the rest of it computed."""
        self.waited_s = time.monotonic() - self.asked_at
        self.pending = list(self.request.indices)
        expected = min(self.request.sampling.max_tokens, EXPECTED_TOKENS)
        self.trunk = trunk = queue.prefixes.begin(self.ids, expected, self.call, self.salt)
        self.lookahead = queue.lookahead
        self.lookahead.read(self.salt, self.ids, trunk.cached)

        def done(logits: Tensor, first: int) -> None:
            self.logits = logits[-1].clone()
            queue.ready(self)

        queue.fill(Fill(self, trunk, self.ids[trunk.cached :], False, done))

    def spawn(self) -> Row:
        """Begin the next sample."""
        if self.trunk is None:
            raise RuntimeError("a sample cannot begin before its prompt")
        writing = None if self.lookahead is None else self.lookahead.writing(self.salt, self.ids)
        row = Row(self, self.pending.pop(0), self.trunk.fork(), writing)
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

    def __init__(self, task: SampleTask, index: int, sequence: Sequenced, writing: Writing | None = None) -> None:
        sampling = task.request.sampling
        self.task = task
        self.index = index
        self.sequence: Sequenced | None = sequence
        together = task.mates[0] if task.mates else None
        self.sampler = Sampler(sampling, index, task.hooks, task.ids, task.eos, together)
        self.finished = False
        self._cached = sequence.cached
        self._sampling = sampling
        self._text = TextAssembler(task.tokenizer, task.ids, sampling.stop)
        self._logprobs: list[float] = []
        self._tops: list[tuple[TopToken, ...]] = []
        self._writing = writing

    @property
    def salt(self) -> str:
        """Whose text it is."""
        return self.task.salt

    @property
    def left(self) -> int:
        """Tokens that may still be guessed; none of a row that decodes in step with others."""
        return 0 if self.task.mates else self._sampling.max_tokens - len(self.sampler.generated)

    def tail(self, count: int) -> Sequence[int]:
        """Its last tokens."""
        generated = self.sampler.generated
        if len(generated) >= count:
            return generated[-count:]
        return [*self.task.ids[len(generated) - count :], *generated]

    def is_mate(self, other: Row) -> bool:
        """Whether the other is this row, or one that must decode in step with it."""
        return other is self or (other.index == self.index and any(t is other.task for t in self.task.mates))

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
        if self._writing is not None:
            self._writing.write(picked.token)
        if sampling.top_logprobs:
            name = self.task.tokenizer.token
            self._tops.append(tuple(TopToken(token_id=t, token=name(t), logprob=lp) for t, lp in picked.top))
        ended = picked.token in self.task.eos and not sampling.ignore_eos
        piece = "" if ended else self._text.push(picked.token)
        ended = ended or self.sampler.whole
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
            stopped_by=self._text.stopped_by if reason == "stop" else None,
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
