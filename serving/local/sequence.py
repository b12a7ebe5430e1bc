"""Generating: a request's prompt is computed once, and its samples fork from it as running sequences."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ...core.errors import ReasonError
from ...core.messages import Chunk, Completion, Failure, FinishReason, Request, TopToken, Usage
from ..logits_processors import LogitsProcessor
from ..thoughts import SplitText
from .prefix_cache import CachedSequence
from .response import ResponseAssembler, ThoughtFollower
from .sampler import SampledToken, Sampler
from .spec_decode import NgramSpeculator, OutputRecorder
from .tasks import Prefill, TaskQueue
from .tokenizer import Tokenizer

MAX_EXPECTED_TOKENS = 256
"""Maximum tokens that a sample is expected to generate when a prefix tree is chosen for it."""


@dataclass(eq=False)
class GenerateTask:
    """One request: its prompt is computed once, and its samples fork from it.

    Attributes:
        on_chunk: Receives chunks; the last chunk of a sample carries its completion.
        on_error: Receives the error if nothing could be sampled.
        is_single_sample: Whether its call is for one sample only.
        may_think: Whether its samples begin with a thought, or inside one.
        is_open: Whether they begin inside one.
        speculator: Indexes what is generated, once the prompt has started.
    """

    request: Request
    position: int
    prompt_ids: Sequence[int]
    eos: frozenset[int]
    processors: Sequence[tuple[str, LogitsProcessor]]
    tokenizer: Tokenizer
    on_chunk: Callable[[Chunk], None]
    on_error: Callable[[ReasonError], None]
    call: object = field(default_factory=object)
    cancelled: bool = False
    prompt: CachedSequence | None = None
    logits: Tensor | None = None
    submitted_at: float = field(default_factory=time.monotonic)
    waited_s: float = 0.0
    pending: list[int] = field(default_factory=list)
    is_single_sample: bool = False
    may_think: bool = False
    is_open: bool = False
    speculator: NgramSpeculator | None = None

    @property
    def salt(self) -> str:
        """The salt of the prompt."""
        return self.request.prompt.cache_salt

    def start(self, queue: TaskQueue) -> None:
        """Look up the prompt and have the rest of it computed."""
        self.waited_s = time.monotonic() - self.submitted_at
        self.pending = list(self.request.indices)
        expected = min(self.request.sampling.total_tokens, MAX_EXPECTED_TOKENS)
        self.prompt = prompt = queue.prefix_cache.start(self.prompt_ids, expected, self.call, self.salt)
        self.speculator = queue.speculator
        self.speculator.add_prompt(self.salt, self.prompt_ids, prompt.num_cached)

        def on_logits(logits: Tensor, first: int) -> None:
            self.logits = logits[-1].clone()
            queue.add_ready(self)

        queue.add_prefill(Prefill(self, prompt, self.prompt_ids[prompt.num_cached :], False, on_logits))

    def spawn(self) -> RunningSequence:
        """Start the next sample."""
        if self.prompt is None:
            raise RuntimeError("a sample cannot start before its prompt")
        recorder = None if self.speculator is None else self.speculator.start_output(self.salt, self.prompt_ids)
        sequence = RunningSequence(self, self.pending.pop(0), self.prompt.fork(), recorder)
        if not self.pending:
            self.prompt.release()
        return sequence

    def fail(self, error: ReasonError) -> None:
        self.on_error(error)

    def release(self) -> None:
        """Release the prompt."""
        if self.prompt is not None:
            self.prompt.release()
        self.pending.clear()
        self.logits = None


class RunningSequence:
    """A sample that is being decoded: one row of every decode step.

    Attributes:
        task: Its request.
        cached: Its slots in a prefix tree; None while it is preempted.
        is_finished: Whether it has ended.
    """

    def __init__(
        self, task: GenerateTask, index: int, cached: CachedSequence, recorder: OutputRecorder | None = None
    ) -> None:
        sampling = task.request.sampling
        self.task = task
        self.index = index
        self.cached: CachedSequence | None = cached
        tokenizer = task.tokenizer
        thought = None
        if task.may_think and task.processors:
            thought = ThoughtFollower(lambda: tokenizer, tokenizer.profile, is_open=task.is_open)
        self.sampler = Sampler(sampling, index, task.processors, task.prompt_ids, task.eos, thought)
        self.is_finished = False
        self._num_cached = cached.num_cached
        self._sampling = sampling
        self._text = ResponseAssembler(tokenizer, task.request, task.prompt_ids, is_open=task.is_open)
        self._logprobs: list[float] = []
        self._top_logprobs: list[tuple[TopToken, ...]] = []
        self._recorder = recorder

    @property
    def salt(self) -> str:
        """The salt of its prompt."""
        return self.task.salt

    @property
    def location(self) -> CachedSequence:
        """Its slots in a prefix tree, which a sequence in a step has."""
        if self.cached is None:
            raise RuntimeError("a sequence in a step has a place in the cache")
        return self.cached

    @property
    def max_draft_tokens(self) -> int:
        """Tokens that may still be drafted."""
        return self._sampling.total_tokens - len(self.sampler.generated)

    def tail(self, count: int) -> Sequence[int]:
        """Its last tokens."""
        generated = self.sampler.generated
        if len(generated) >= count:
            return generated[-count:]
        return [*self.task.prompt_ids[len(generated) - count :], *generated]

    @property
    def last_token(self) -> int:
        """The token sampled last, which the next step computes."""
        return self.sampler.generated[-1]

    @property
    def token_ids(self) -> list[int]:
        """All its tokens, the prompt's included."""
        return [*self.task.prompt_ids, *self.sampler.generated]

    def append(self, sampled: SampledToken) -> None:
        """Take a sampled token, emit it, and end if it ends the sample."""
        sampling = self._sampling
        self._logprobs.append(sampled.logprob)
        if self._recorder is not None:
            self._recorder.append(sampled.token)
        if sampling.top_logprobs:
            text = self.task.tokenizer.token
            self._top_logprobs.append(tuple(TopToken(token_id=t, token=text(t), logprob=lp) for t, lp in sampled.top))
        ended = sampled.token in self.task.eos and not sampling.ignore_eos
        piece = self._text.push_end() if ended else self._text.push(sampled.token)
        ended = ended or self.sampler.is_structure_complete
        reason: FinishReason | None = "stop" if ended or self._text.stopped else self._text.limit()
        if reason is not None:
            piece = self._text.finish(piece)
            if self._text.stopped:
                reason = "stop"
            elif reason == "stop" and self._text.is_unfinished:
                reason = "thinking"
        self._emit(piece, sampled, None if reason is None else self._completion(reason, None))

    def fail(self, failure: Failure) -> None:
        """End without a result; the other samples continue."""
        self._emit(SplitText(), None, self._completion("error", failure))

    def end(self) -> None:
        """Mark it as finished and release its slots."""
        self.is_finished = True
        if self.cached is not None:
            self.cached.release()

    def _emit(self, piece: SplitText, sampled: SampledToken | None, completion: Completion | None) -> None:
        self.is_finished = completion is not None
        self.task.on_chunk(
            Chunk(
                request=self.task.position,
                sample_index=self.index,
                text=piece.answer,
                thought=piece.thought,
                token_ids=() if sampled is None else (sampled.token,),
                logprobs=(sampled.logprob,) if sampled is not None and self._sampling.logprobs else (),
                completion=completion,
            )
        )

    def _completion(self, reason: FinishReason, failure: Failure | None) -> Completion:
        is_first = self.index == self.task.request.indices[0]
        count = len(self._logprobs)
        thought = self._text.thought
        return Completion(
            text=self._text.text,
            token_ids=tuple(self.sampler.generated[:count]),
            logprobs=tuple(self._logprobs) if self._sampling.logprobs else None,
            top_logprobs=tuple(self._top_logprobs) if self._sampling.top_logprobs else None,
            finish_reason=reason,
            stop_reason=self._text.stop_reason if reason == "stop" else None,
            usage=Usage(
                prompt_tokens=len(self.task.prompt_ids) if is_first else 0,
                cached_tokens=self._num_cached if is_first else 0,
                completion_tokens=count,
                thinking_tokens=0 if thought is None else thought.tokens,
                waited_s=self.task.waited_s if is_first else 0.0,
            ),
            sample_index=self.index,
            thought=thought,
            answer_from=self._text.answer_from,
            extras={name: state.extras for name, state in self.sampler.states.items() if state.extras},
            failure=failure,
        )
