"""`RecordedModel`: the samples of a pool as a language model, `recorded/POOL[:MODEL]`.

Sample index `i` of a question is the `i`-th recorded sample of a permutation drawn from the request's seed and the
question: runs under different seeds are bootstrap replicates, without replacement within a run. Sampling parameters
are those of the recording; a request's temperature, `top_p` and `top_k` change nothing.

A prompt is matched with a question by its text: it is one user message (a system message before it is ignored) that
begins with the question as the pool has it, followed by nothing or by an instruction of one paragraph. Anything else
was not recorded: a conversation, a beginning of the response, documents, options that are not in the pool's question,
other answers to be reviewed.

A sample that is a run of an agent is replayed turn by turn: its turn `t` is the completion after `t` messages of the
assistant, which must be the run's. Of several runs, the index names the one; if its turns are others, it is the first
in order whose turns they are. What comes after a run that did not end by itself is empty, with `finish_reason`
"length".
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...core.errors import CapabilityMissing, UnknownName, UserError
from ...core.messages import (
    Chunk,
    Completion,
    FinishReason,
    Message,
    NextTokenDistribution,
    Prompt,
    Request,
    ScoredContinuation,
    Thought,
    ToolCall,
    Usage,
)
from ...core.registry import nearest
from ..model import Capabilities, Listener
from ..profiles.profile import ModelProfile, check_sampling
from .pool import SUFFIXES, NotInPool, Pool, PoolSample, QuestionKey, RecordedTurn, normalized, read_pool

PREFIX: Final = "recorded/"
ANSWER_FORM: Final = "The answer is: {answer}"
"""The text of a sample whose text was not recorded; `reasoning.answers` reads the answer from it."""

_NAME = re.compile(r"(?P<pool>.+?\.jsonl(?:\.gz)?)(?::(?P<model>.+))?")
_OPTION = re.compile(r"\(?[A-Z]\)\s")
_LIVE_MODEL = "use the model itself for this, or a strategy that samples complete answers"


SETTLE_TURNS = 16
"""Turns of the event loop in which nothing happens before the clock advances: a listener has woken its tasks, they have
checked their stopping rule, and have cancelled a call or begun another."""


@dataclass(eq=False)
class Playback:
    """One sample while it is replayed.

    Attributes:
        length: Its tokens.
        on_finish: Called when it has finished.
        start: Step at which it began.
        tokens: Tokens that it has generated: all of them, or as far as it got when it was cancelled.
    """

    length: int
    on_finish: Callable[[], None]
    start: int = 0
    tokens: int = 0


@dataclass(eq=False)
class _Call:
    open: set[Playback]
    done: asyncio.Future[None]
    is_waiting: bool = True


class TokenClock:
    """Replays the samples of one run on one question in the order in which they would finish.

    Samples in flight together advance together, one token a step, so the shortest remaining one finishes first. No time
    passes: the clock jumps from one finished sample to the next. It pauses while those that wait for samples work on
    the last one: they may cancel the others, or start new ones, as of that step.
    """

    def __init__(self) -> None:
        self.now = 0
        """Steps so far."""
        self._queue: list[tuple[int, int, Playback, _Call]] = []
        self._order = itertools.count()
        self._holds = 0
        self._waiting = 0
        self._changes = 0
        self._released = asyncio.Event()
        self._driver: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight and nobody holds it."""
        return not self._queue and not self._holds and not self._waiting

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Stop the clock, except while the holder waits in `play`."""
        self._holds += 1
        self._changed()
        try:
            yield
        finally:
            self._holds -= 1
            self._changed()

    async def play(self, samples: Sequence[Playback]) -> None:
        """Replay samples from the present step on, until all have finished.

        Cancelling stops them where they are (`Playback.tokens`).
        """
        if not samples:
            return
        call = _Call(set(samples), asyncio.get_running_loop().create_future())
        for sample in samples:
            sample.start = self.now
            heapq.heappush(self._queue, (self.now + sample.length, next(self._order), sample, call))
        self._waiting += 1
        self._changed()
        if self._driver is None:
            self._driver = asyncio.get_running_loop().create_task(self._advance())
        try:
            await call.done
        finally:
            if call.open:
                for sample in call.open:
                    sample.tokens = min(sample.length, self.now - sample.start)
                self._queue = [entry for entry in self._queue if entry[3] is not call]
                heapq.heapify(self._queue)
            self._leave(call)

    def _leave(self, call: _Call) -> None:
        """The call no longer waits: its caller works on what it got."""
        if call.is_waiting:
            call.is_waiting = False
            self._waiting -= 1
            self._changed()

    def _changed(self) -> None:
        self._changes += 1
        self._released.set()

    async def _advance(self) -> None:
        """Finish the samples in their order, while there are any."""
        try:
            while self._queue:
                await self._settled()
                if not self._queue:
                    break
                self.now = self._queue[0][0]
                while self._queue and self._queue[0][0] == self.now:
                    _, _, sample, call = heapq.heappop(self._queue)
                    self._finish(sample, call)
        finally:
            self._driver = None

    def _finish(self, sample: Playback, call: _Call) -> None:
        sample.tokens = sample.length
        call.open.discard(sample)
        try:
            sample.on_finish()
        except Exception as e:  # noqa: BLE001 (it belongs to the caller, who awaits the call)
            if not call.done.done():
                call.done.set_exception(e)
        if not call.open and not call.done.done():
            call.done.set_result(None)
        if call.done.done():
            self._leave(call)

    async def _settled(self) -> None:
        """Wait until nobody works on what has finished."""
        turns, changes = 0, self._changes
        while turns < SETTLE_TURNS:
            if self._holds > self._waiting:
                self._released.clear()
                await self._released.wait()
            else:
                await asyncio.sleep(0)
            turns, changes = (turns + 1, changes) if changes == self._changes else (0, self._changes)


_held: ContextVar[tuple[TokenClock, ...]] = ContextVar("held", default=())
"""The clocks that the current task, or the one that began it, holds."""


@dataclass(frozen=True)
class RecordedQuestion:
    """One question of a model's samples.

    Attributes:
        text: The question, as prompts show it.
        samples: Its samples, by number.
    """

    dataset: str
    question_id: str
    text: str
    samples: tuple[PoolSample, ...]

    @property
    def name(self) -> str:
        """`<dataset>:<question_id>`."""
        return f"{self.dataset}:{self.question_id}"

    @property
    def prompt_tokens(self) -> int | None:
        """Tokens of its prompt; None if not recorded."""
        return next((s.prompt_tokens for s in self.samples if s.prompt_tokens is not None), None)

    @property
    def is_timed(self) -> bool:
        """Whether the time of every sample is known."""
        return all(sample.seconds is not None for sample in self.samples)

    def order(self, seed: int | None) -> list[PoolSample]:
        """The samples in a run's order: by a hash of seed, question and number; without a seed as recorded.

        Samples that are added to the pool do not change the order of the others.
        """
        if seed is None:
            return list(self.samples)

        def digest(sample: PoolSample) -> bytes:
            named = (seed, sample.model, self.dataset, self.question_id, sample.sample)
            return hashlib.sha256("\x1f".join(map(str, named)).encode("utf-8", "surrogatepass")).digest()

        return sorted(self.samples, key=digest)


def parse_name(name: str) -> tuple[Path, str | None]:
    """Pool and model of a model string.

    Raises:
        UserError: It names no pool.
    """
    match = _NAME.fullmatch(name.removeprefix(PREFIX))
    if match is None:
        raise UserError(
            f"{name!r} names no pool", hint=f"{PREFIX}POOL:MODEL, where POOL ends in {' or '.join(SUFFIXES)}"
        )
    return Path(match["pool"]).expanduser(), match["model"]


def load_recorded(name: str) -> RecordedModel:
    """Open the model of a pool.

    Args:
        name: `recorded/POOL[:MODEL]`; a pool of one model needs no MODEL.

    Raises:
        UserError: The string names no pool, or no model of several.
        UnknownName: The pool has no such model.
        DataError: The pool cannot be read or is damaged.
    """
    path, model = parse_name(name)
    pool = read_pool(path)
    if model is None and len(pool.models) > 1:
        raise UserError(
            f"{path} has samples of {len(pool.models)} models, and {name!r} names none of them",
            hint="add one: " + ", ".join(f"{name}:{m}" for m in pool.models[:3]) + (", …" if pool.models[3:] else ""),
        )
    model = pool.models[0] if model is None else model
    if model not in pool.models:
        near = nearest(model, pool.models) or pool.models[:3]
        raise UnknownName("model", name, tuple(f"{PREFIX}{path}:{m}" for m in near))
    return RecordedModel(name, pool, model)


class RecordedModel:
    """The samples of one model of a pool (see the module's text).

    A sample has its recorded text, or one that states its recorded answer, or none if it has neither; log-probabilities
    of its tokens, or their mean for every token; its finish reason ("stop" if unknown), its tokens, thoughts and price.
    One without a recorded number of tokens counts as one token, one without a price has an unknown price.

    `max_tokens`, `thinking_tokens` and stop strings cut a sample where the model would have been cut, but no turn of a
    run, whose own tokens are not known: what a model generates does not depend on its limits. The text of a cut sample
    is in proportion to its tokens, and empty if it was not recorded: the answer stands at the end. Samples in flight
    together are replayed token step by token step (`TokenClock`), those of a run on one question on one clock; turns
    of runs whose time is known for all, millisecond by millisecond.

    Args:
        name: The model string.
        pool: The samples.
        model: Whose samples.
    """

    def __init__(self, name: str, pool: Pool, model: str) -> None:
        self.name = name
        self.identity = f"recorded/{model}@{pool.fingerprint}"
        self._path = pool.path
        self._model = model
        self._questions = {
            key: RecordedQuestion(*key, samples[0].question_text, samples)
            for key, samples in pool.by_question(model).items()
        }
        self._by_text: dict[str, list[RecordedQuestion]] = {}
        for question in self._questions.values():
            self._by_text.setdefault(normalized(question.text), []).append(question)
        samples = [sample for question in self._questions.values() for sample in question.samples]
        self._capabilities = _capabilities(samples)
        self._has_runs = any(sample.turns is not None for sample in samples)
        self._clocks: dict[tuple[QuestionKey, int | None], TokenClock] = {}
        self._calls: set[asyncio.Task[object]] = set()

    @property
    def capabilities(self) -> Capabilities:
        """What every sample of the model has."""
        return self._capabilities

    @property
    def questions(self) -> tuple[RecordedQuestion, ...]:
        """The questions, in the order of the pool."""
        return tuple(self._questions.values())

    @property
    def num_in_flight(self) -> int:
        """Calls that are being replayed."""
        return len(self._calls)

    def question_of(self, prompt: Prompt) -> RecordedQuestion:
        """The question that a prompt asks.

        Raises:
            CapabilityMissing: The prompt begins the response, or has tools.
            NotInPool: It asks none of the pool's questions, or more than the question.
        """
        if prompt.prefix or prompt.thought is not None:
            raise self._missing("prefix")
        if prompt.tools and not self._capabilities.tools:
            raise self._missing("tools")
        messages = [message for message in prompt.messages if message.role != "system"]
        is_plain = prompt.text is not None or (len(messages) == 1 and messages[0].role == "user")
        if not is_plain and not (self._has_runs and messages and messages[0].role == "user"):
            raise self._not_plain("a conversation")
        text = messages[0].content if prompt.text is None else prompt.text
        paragraphs = text.split("\n\n")
        for count in range(len(paragraphs), 0, -1):
            found = self._by_text.get(normalized("\n\n".join(paragraphs[:count])))
            if found is not None:
                if not is_plain and found[0].samples[0].turns is None:
                    raise self._not_plain("a conversation")
                self._check_rest(found[0], [p for p in paragraphs[count:] if p.strip()])
                if len(found) > 1:
                    raise NotInPool(
                        f"{' and '.join(q.name for q in found[:3])} have the same text in {self._path}",
                        hint="make their texts differ, or leave one out",
                    )
                return found[0]
        raise NotInPool(
            f"{self._path} has no samples of {self._model} for the question {_short(paragraphs[0])}",
            hint="`reason pool show` lists what it has; a prompt begins with the question as the pool has it",
        )

    def _check_rest(self, question: RecordedQuestion, rest: Sequence[str]) -> None:
        """Refuse a prompt that has more than an instruction after the question."""
        if rest and _OPTION.match(rest[0]):
            raise NotInPool(
                f"the prompt has options after {question.name}, and the question in {self._path} has none",
                hint="recorded letters hold for the recorded order: put the options into the pool's question",
            )
        if len(rest) > 1:
            raise self._not_plain(f"more than an instruction after {question.name}")

    # -- sampling

    async def generate(self, requests: Sequence[Request], listener: Listener | None = None) -> list[list[Completion]]:
        """See `LanguageModel.generate`.

        Raises:
            NotInPool: The pool has no such question, or fewer samples of it.
            CapabilityMissing: A request needs what was not recorded.
            UserError: An effort or a limit of the thought does not suit the model.
        """
        if not requests:
            return []
        served = [self._serve(i, request) for i, request in enumerate(requests)]
        samples = [sample for one in served for sample in one]

        def chunk_of(sample: _Served, tokens: int, completion: Completion | None = None) -> Chunk:
            return Chunk(
                request=sample.request,
                sample_index=sample.index,
                text=sample.text_of(tokens),
                tokens=tokens,
                logprobs=() if completion is None else completion.logprobs or (),
                completion=completion,
            )

        def finish(sample: _Served) -> None:
            if listener is not None:
                listener(chunk_of(sample, sample.length, sample.completion))

        playbacks = [Playback(s.steps, lambda s=s: finish(s)) for s in samples]  # type: ignore[misc]
        key = self._clock_key(requests[0])
        clock = self._clocks.setdefault(key, TokenClock())
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        try:
            await clock.play(playbacks)
        except asyncio.CancelledError:
            for sample, playback in zip(samples, playbacks, strict=True):
                if 0 < playback.tokens < playback.length and listener is not None:
                    listener(chunk_of(sample, sample.length * playback.tokens // playback.length))
            raise
        finally:
            self._calls.discard(task)
            self._forget(key)
        return [[sample.completion for sample in one] for one in served]

    @contextmanager
    def hold_replay(self, requests: Sequence[Request]) -> Iterator[None]:
        """Let no sample of these requests' question advance, except while `generate` is awaited; may be nested.

        `MeteredModel` holds the clock while it stores a sample or looks one up: what that takes is not to decide how
        far other samples come.
        """
        try:
            key = self._clock_key(requests[0])
        except (UserError, CapabilityMissing):  # `generate` raises it
            yield
            return
        clock = self._clocks.setdefault(key, TokenClock())
        outer = _held.get()
        if clock in outer:  # by who holds it for longer, such as a whole run
            yield
            return
        token = _held.set((*outer, clock))
        try:
            with clock.hold():
                yield
        finally:
            _held.reset(token)
            self._forget(key)

    def _clock_key(self, request: Request) -> tuple[QuestionKey, int | None]:
        question = self.question_of(request.prompt)
        return (question.dataset, question.question_id), request.sampling.seed

    def _forget(self, key: tuple[QuestionKey, int | None]) -> None:
        clock = self._clocks.get(key)
        if clock is not None and clock.is_idle:
            del self._clocks[key]

    def _serve(self, number: int, request: Request) -> list[_Served]:
        """The samples of a request, cut to its limits."""
        question, sampling = self.question_of(request.prompt), request.sampling
        profile, capabilities = self._capabilities.profile, self._capabilities
        thinking = profile.starts_thinking(request.prompt, sampling.effort)
        check_sampling(profile, self.name, sampling, thinking=thinking)
        for feature, is_needed in {
            "json_schema": sampling.json_schema is not None,
            "logits_processors": bool(sampling.logits_processors),
            "top_logprobs": sampling.top_logprobs > 0,
            "logprobs": sampling.logprobs and not capabilities.logprobs,
            "stop": bool(sampling.stop) and profile.refused("stop", thinking=thinking),
            "ignore_eos": sampling.ignore_eos,
        }.items():
            if is_needed:
                raise self._missing(feature)
        order, indices = question.order(sampling.seed), request.indices
        if max(indices, default=0) >= len(order):
            raise NotInPool(
                f"{self._path} has {len(order)} samples of {self._model} for {question.name}, and sample "
                f"{max(indices) + 1} is requested",
                hint=f"request at most {len(order)} samples of a question, as with --set n={len(order)}",
            )
        limit = sampling.thinking_tokens if thinking else None
        if limit is None and thinking:
            limit = profile.thinking_tokens(sampling.effort)
        return [
            _Served(
                number,
                index,
                order[index] if order[index].turns is None else self._turn(question, index, request),
                request,
                max_thinking=limit,
                is_turn=order[index].turns is not None,
                is_timed=question.is_timed,
                prompt_tokens=(question.prompt_tokens or 0) if index == indices[0] else 0,
            )
            for index in indices
        ]

    def _turn(self, question: RecordedQuestion, index: int, request: Request) -> PoolSample:
        """The next turn of the run that a conversation follows."""
        made = [message for message in request.prompt.messages if message.role == "assistant"]
        order = question.order(request.sampling.seed)
        run = next((one for one in (order[index], *order) if _is_beginning(made, one.turns or ())), None)
        if run is None:
            raise NotInPool(
                f"no run of {self._model} on {question.name} in {self._path} has these {len(made)} turns",
                hint=f"recorded turns cannot be changed; {_LIVE_MODEL}",
            )
        return run.turn(len(made) if request.prompt.tools else len(run.turns or ()))

    # -- what a pool does not have

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        """Raise `CapabilityMissing`."""
        raise self._missing("scoring")

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextTokenDistribution]:
        """Raise `CapabilityMissing`."""
        raise self._missing("next_token")

    def count_tokens(self, prompt: Prompt) -> int | None:
        """Recorded tokens of a question's prompt; None if they were not recorded."""
        try:
            return self.question_of(prompt).prompt_tokens
        except (UserError, CapabilityMissing):
            return None

    async def aclose(self) -> None:
        """Cancel what is in flight."""
        calls = list(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    def _missing(self, feature: str) -> CapabilityMissing:
        error = CapabilityMissing(feature, self.name, alternative="")
        error.hint = f"a pool has complete samples of plain questions; {_LIVE_MODEL}"
        return error

    def _not_plain(self, what: str) -> NotInPool:
        return NotInPool(
            f"{self.name} has no sample for this prompt: it is no plain question but {what}",
            hint=f"a review, a step or a self-evaluation was not recorded; {_LIVE_MODEL}",
        )


class _Served:
    """One recorded sample as a request gets it.

    Attributes:
        request: Position of the request in its call.
        index: Index of the sample in the request.
        length: Tokens until it ends or is cut.
        steps: Steps of the clock that it takes: its tokens, or the milliseconds of a turn whose run's time is known.
    """

    def __init__(
        self,
        request_number: int,
        index: int,
        sample: PoolSample,
        request: Request,
        *,
        max_thinking: int | None,
        is_turn: bool,
        is_timed: bool,
        prompt_tokens: int,
    ) -> None:
        self.request, self.index = request_number, index
        self._sample = sample
        tokens = 1 if sample.num_tokens is None else sample.num_tokens
        self._thinking = sample.thinking_tokens or 0
        self._text = _text_of(sample)
        self._answer_tokens = tokens - self._thinking
        reason: FinishReason = sample.finish_reason or "stop"
        stop_reason = "" if sample.finish_reason == "stop" else None
        length = tokens
        if max_thinking is not None and self._thinking > max_thinking:
            length, reason, stop_reason = max_thinking, "thinking", None
        else:
            stop, stop_at = _first_stop(self._text, request.sampling.stop)
            if stop is not None:
                share = (stop_at + len(stop)) / len(self._text)
                length = self._thinking + max(1, min(self._answer_tokens, round(self._answer_tokens * share)))
            if length - self._thinking > request.sampling.max_tokens and not is_turn:
                length, reason, stop_reason = self._thinking + request.sampling.max_tokens, "length", None
            elif stop is not None:
                self._text, reason, stop_reason = self._text[:stop_at], "stop", stop
                self._answer_tokens = length - self._thinking
        self.length = length
        self.steps = round(1000 * (sample.seconds or 0.0)) if is_turn and is_timed else length
        thinking = min(length, self._thinking)
        logprobs = _logprobs(sample, tokens)
        has_thought = sample.thinking_tokens is not None or max_thinking is not None
        self.completion = Completion(
            text=self.text_of(length),
            tool_calls=sample.tool_calls if length == tokens and request.prompt.tools else (),
            logprobs=logprobs[:length] if logprobs is not None and request.sampling.logprobs else None,
            finish_reason=reason,
            stop_reason=stop_reason,
            usage=Usage(
                prompt_tokens=prompt_tokens,
                completion_tokens=length,
                thinking_tokens=thinking,
                cost_usd=None if sample.usd is None else sample.usd * length / max(1, tokens),
            ),
            sample_index=index,
            thought=Thought(tokens=thinking, closed=reason != "thinking") if has_thought else None,
            answer_from=thinking if logprobs is not None and request.sampling.logprobs else 0,
        )

    def text_of(self, tokens: int) -> str:
        """The text of its first tokens: all of it, or a part in proportion, or none if it was not recorded."""
        answer = tokens - self._thinking
        if answer >= self._answer_tokens:
            return self._text
        if self._sample.text is None or answer <= 0:
            return ""
        return self._text[: len(self._text) * answer // self._answer_tokens]


def _is_beginning(made: Sequence[Message], turns: Sequence[RecordedTurn]) -> bool:
    """Whether messages of an assistant are the first turns of a run."""

    def compared(calls: Iterable[ToolCall]) -> list[tuple[str, str]]:
        return [(call.name, call.arguments) for call in calls]

    return len(made) <= len(turns) and all(
        compared(message.tool_calls) == compared(one.call for one in turn.calls)
        for message, turn in zip(made, turns, strict=False)
    )


def _text_of(sample: PoolSample) -> str:
    if sample.text is not None:
        return sample.text
    return "" if sample.answer is None else ANSWER_FORM.format(answer=sample.answer)


def _logprobs(sample: PoolSample, tokens: int) -> tuple[float, ...] | None:
    if sample.token_logprobs is not None:
        return sample.token_logprobs
    return None if sample.mean_logprob is None else (sample.mean_logprob,) * tokens


def _first_stop(text: str, stops: Sequence[str]) -> tuple[str | None, int]:
    """The stop string that ends a text first, and where."""
    found = [(text.find(stop), -len(stop), stop) for stop in stops if stop in text]
    if not found:
        return None, len(text)
    at, _, stop = min(found)
    return stop, at


def _capabilities(samples: Sequence[PoolSample]) -> Capabilities:
    priced = all(s.usd is not None for s in samples)
    price = max((s.usd / max(1, s.num_tokens or 1) for s in samples if s.usd is not None), default=0.0)
    thoughts = [s.thinking_tokens for s in samples if s.thinking_tokens]
    # a stop string may stand anywhere in a text that was not recorded
    profile = ModelProfile(refuses=frozenset() if all(s.text is not None for s in samples) else frozenset({"stop"}))
    if thoughts:
        # its limit is the longest thought, so that no thought is cut unless the caller sets a lower one
        longest = {"max_thinking_tokens": max(thoughts), "min_thinking_tokens": max(thoughts)}
        profile = profile.model_copy(update={"thinks": "always", "thought": "hidden", **longest})
    return Capabilities(
        logprobs=all(s.token_logprobs is not None or s.mean_logprob is not None for s in samples),
        seed=True,
        tools=any(s.tools is not None or s.calls is not None or s.turns is not None for s in samples),
        usd_per_prompt_token=0.0 if priced else None,
        usd_per_completion_token=price if priced else None,
        profile=profile,
    )


def _short(text: str) -> str:
    plain = normalized(text)
    return repr(plain if len(plain) <= 80 else f"{plain[:79]}…")
