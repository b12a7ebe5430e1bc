"""`Panel`: one stage of a jury, in which several models are called at once without waiting for the slowest.

Requests to one model form one batch, different models are called concurrently. A stage ends when all have responded or
at its deadline; a round of requests when a quorum has responded. Pending calls are then cancelled and charged for what
they used. Failures are recorded in the run store, so that a replay, without a clock and models, takes the same path.

`StructuredRequest`: a request whose completion has a form, JSON or plain lines. JSON is constrained by a schema if the
model supports it, otherwise guided by a prefix and stop strings, and parsed leniently.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, cast

from pydantic import JsonValue

from ...core.budget import LimitKind
from ...core.concurrency import gather
from ...core.errors import (
    BackendError,
    BackendTimeout,
    BudgetExceeded,
    CapabilityMissing,
    ContextTooLong,
    InvalidResponse,
    StoreError,
)
from ...core.events import JuryStageEnded
from ...core.json_schema import JsonSchema
from ...core.messages import Chunk, Completion, Message, Prompt, Request, SamplingParams, Usage
from ...core.run import Run
from ...core.types import RunUsage
from ...reasoning.quoting import quote_line
from ...serving.metered.decisions import load_decision, save_decision
from ...serving.metered.model import MeteredModel, sampled_json
from ...serving.model import LanguageModel
from ...serving.quick_calls import quick_params
from .types import Stage, StageCost

Form = Literal["json", "lines"]

MAX_REPEATED_CHARS: Final = 1500
"""Characters of an unreadable completion that its author is shown again."""


@dataclass(frozen=True, slots=True)
class StructuredRequest:
    """A request with the form of its completion.

    Attributes:
        prefix: Beginning of the completion, already in the prompt; to be put before the completion for parsing.
        form: The requested form.
        schema: Schema that constrains the completion; there is neither a prefix nor a stop string then.
        is_repair: Whether it follows an unreadable completion; the model does not think again then.
    """

    prompt: Prompt
    prefix: str
    stop: tuple[str, ...]
    form: Form
    schema: JsonSchema | None = None
    is_repair: bool = False

    def sampling(self, model: LanguageModel, temperature: float, max_tokens: int) -> SamplingParams:
        """Sampling parameters for a model.

        Args:
            temperature: Temperature where the model takes one.

        Raises:
            BudgetExceeded: It is a repair, and the model has to think, for which the budget has no room.
        """
        if self.is_repair:
            return quick_params(
                model,
                default_temperature=temperature,
                max_tokens=max_tokens,
                stop=self.stop,
                json_schema=self.schema,
            )
        return SamplingParams(
            default_temperature=temperature, max_tokens=max_tokens, stop=self.stop, json_schema=self.schema
        )


def structured_request(
    prompt: Prompt,
    prefix: str,
    stop: tuple[str, ...],
    form: Form,
    *,
    supports_prefix: bool,
    schema: JsonSchema | None = None,
) -> StructuredRequest:
    """A request; the prefix is omitted for models without prefix support, or with a schema.

    Args:
        supports_prefix: Whether the model can continue a prefix, and need not think first: with one it does not.
    """
    if schema is not None:
        return StructuredRequest(prompt.with_prefix(""), "", (), form, schema)
    used_prefix = prefix if supports_prefix else ""
    return StructuredRequest(prompt.with_prefix(used_prefix), used_prefix, stop, form)


def repair_conversation(
    first: StructuredRequest,
    completion: str,
    request: str,
    prefix: str,
    stop: tuple[str, ...],
    *,
    supports_prefix: bool,
) -> StructuredRequest:
    """The conversation so far with the unreadable completion and a simpler request, always for lines.

    Args:
        completion: The unreadable completion, including its prefix.
        prefix: Prefix of the new completion.
    """
    previous = quote_line(completion, MAX_REPEATED_CHARS) or "(nothing)"
    turns = (*first.prompt.messages, Message(role="assistant", content=previous), Message(role="user", content=request))
    repair = structured_request(Prompt(messages=turns), prefix, stop, "lines", supports_prefix=supports_prefix)
    return replace(repair, is_repair=True)


def continues_prefix(model: MeteredModel) -> bool:
    """Whether a call in which the model may think can have a prefix: with one it would not think."""
    return model.capabilities.prefix and not model.thinks


MAX_PARSED_CHARS: Final = 40_000
"""Characters of a completion that are parsed."""

_MAX_STARTS = 16
_CLOSERS = {"{": "}", "[": "]"}


def find_object(completion: str, accepts: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
    """The first JSON object in a completion that `accepts` returns True for.

    Complete objects come first, nested ones included; otherwise the first truncated one, closed after its last complete
    value. Never raises.
    """
    text = completion[:MAX_PARSED_CHARS]
    decoder = json.JSONDecoder(strict=False)
    starts = [match.start() for match in re.finditer(r"\{", text)][:_MAX_STARTS]
    for closing in (False, True):
        for start in starts:
            try:
                value = (
                    json.loads(_closed(text[start:]), strict=False) if closing else decoder.raw_decode(text, start)[0]
                )
                if isinstance(value, dict) and "\\u" in text:
                    value = _without_surrogates(value)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict) and accepts(value):
                return value
    return None


def find_text(completion: str, key: str) -> tuple[str, bool] | None:
    """The text of a field anywhere in a completion, whatever else is malformed.

    Returns:
        The text, and whether it is terminated; None without such a field or if it is blank.
    """
    text = completion[:MAX_PARSED_CHARS]
    field = re.search(rf"[\"']?{re.escape(key)}[\"']?\s{{0,4}}:\s{{0,4}}\"", text, re.IGNORECASE)
    if field is None:
        return None
    body = re.compile(r'(?:[^"\\]|\\.)*', re.DOTALL).match(text, field.end())
    raw = body[0] if body else ""
    try:
        value = json.JSONDecoder(strict=False).decode(f'"{raw}"')
    except ValueError:  # an escape that JSON does not know
        value = raw.replace("\\n", "\n").replace('\\"', '"').replace("\\", "")
    value = value.encode("utf-8", "replace").decode()
    return (value, body is not None and body.end() < len(text)) if value.strip() else None


def texts_in(value: Any, maximum: int, max_chars: int) -> tuple[str, ...]:
    """The non-blank texts of a list, or a single text in its place."""
    items = value if isinstance(value, list) else [value]
    texts = [" ".join(item.split())[:max_chars] for item in items if isinstance(item, str)]
    return tuple(text for text in texts if text)[:maximum]


def objects_in(value: Any) -> list[dict[str, Any]]:
    """The objects of a list, or a single object in its place."""
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, dict)]


def _without_surrogates(value: dict[str, Any]) -> dict[str, Any]:
    """An object with "?" in place of lone surrogates, which files and databases cannot hold."""
    cleaned: dict[str, Any] = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    return cleaned


def _closed(text: str) -> str:
    """Truncated JSON up to its last complete value, with missing brackets added and stray commas removed."""
    stack: list[str] = []
    pieces: list[str] = []
    safe: tuple[int, str] | None = None
    i = 0
    while i < len(text):
        character = text[i]
        if character == '"':
            string = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL).match(text, i)
            if string is None:
                break
            pieces.append(string[0])
            i = string.end()
            continue
        if character in _CLOSERS:
            stack.append(_CLOSERS[character])
        elif character in "}]":
            if not stack or stack[-1] != character:
                break
            stack.pop()
        elif character == ",":
            safe = (len(pieces), "".join(reversed(stack)))
            if re.compile(r"\s*[}\]]").match(text, i + 1):  # one too many
                i += 1
                continue
        pieces.append(character)
        i += 1
        if character in "}]":
            safe = (len(pieces), "".join(reversed(stack)))
            if not stack:
                break
    return "".join(pieces[: safe[0]]) + safe[1] if safe else ""


TIMED_OUT = "no response in time"


@dataclass(frozen=True)
class JurorRequest:
    """One request to one juror.

    Attributes:
        juror: The juror; unique within a round.
        request: A request for one sample.
    """

    juror: int
    model: MeteredModel
    request: Request

    @property
    def key(self) -> JsonValue:
        """Identifies the request in the run store."""
        return [self.juror, self.model.identity, list(self.request.indices), sampled_json(self.request)]

    def within(self, tokens: float, thinking_tokens: float) -> JurorRequest:
        """The request with limits of its tokens, thought and answer together; unchanged if its own are lower."""
        shares = (share if share >= 1 else math.inf for share in (tokens, thinking_tokens))
        request, unbounded = self.model.within(self.request, *shares), self.model.within(self.request, math.inf)
        is_bounded = request.sampling.total_tokens < unbounded.sampling.total_tokens
        return replace(self, request=request) if is_bounded else self

    def without_stops(self) -> JurorRequest:
        """The request for a model without stop strings."""
        sampling = self.request.sampling.model_copy(update={"stop": ()})
        return replace(self, request=self.request.model_copy(update={"sampling": sampling}))


@dataclass(frozen=True)
class JurorResponse:
    """The result of a request.

    Attributes:
        completion: The sample, possibly truncated; None without one.
        latency_ms: Milliseconds from the beginning of the stage.
        failure: Why it does not count; empty if it does.
    """

    juror: int
    completion: Completion | None
    latency_ms: float
    failure: str = ""

    @property
    def ok(self) -> bool:
        """Whether it counts; its text may be empty."""
        return not self.failure

    @property
    def is_cut_in_thought(self) -> bool:
        """Whether it ended while the model thought, so that there is no text."""
        return self.ok and self.completion is not None and self.completion.finish_reason == "thinking"

    @property
    def text(self) -> str:
        """The text; empty if it does not count."""
        return self.completion.text if self.completion is not None and self.ok else ""

    @property
    def tokens(self) -> int:
        """Generated tokens, also of a response that does not count."""
        return 0 if self.completion is None else self.completion.usage.completion_tokens

    @property
    def thinking_tokens(self) -> int:
        """Part of `tokens` that are thoughts."""
        return 0 if self.completion is None else self.completion.usage.thinking_tokens


@dataclass
class RequestRound:
    """Concurrent requests, one batch a model, and the result of each.

    Args:
        is_over: Set when pending calls are to be cancelled.
        bounded: Jurors whose completions the token budget limits.
        on_response: Called with each juror whose completion is not empty.
        elapsed_s: Returns the seconds since the stage began.
        recorded: The record of the same round in the resumed or replayed run (see `to_record`).

    Attributes:
        is_limited: Whether a budget prevented a request or truncated a completion.
        error: The first error of a model.
    """

    run: Run
    is_over: asyncio.Event
    bounded: frozenset[int]
    on_response: Callable[[int], None]
    elapsed_s: Callable[[], float]
    recorded: dict[str, JsonValue] | None = None
    is_limited: bool = False
    error: BackendError | None = None
    _completions: dict[int, Completion] = field(default_factory=dict)
    _finished_s: dict[int, float] = field(default_factory=dict)
    _failed: dict[int, str] = field(default_factory=dict)
    _limits: list[str] = field(default_factory=list)
    _unrepeated_calls: dict[int, int] = field(default_factory=dict)
    """Charged calls that a replay does not make, since it knows their result."""
    _lost_usage: dict[int, Usage] = field(default_factory=dict)
    """Usage of failed samples, which are not in the run store."""
    _without_stops: set[str] = field(default_factory=set)
    """Identities of models without stop strings."""

    async def run_all(self, requests: Sequence[JurorRequest]) -> list[JurorResponse]:
        """Send all requests and collect the responses, in order, until the round is over."""
        if self.recorded is not None:
            self._restore(requests, self.recorded)
        groups: dict[int, list[JurorRequest]] = {}
        for entry in requests:
            if entry.juror not in self._failed:
                groups.setdefault(id(entry.model), []).append(entry)
        await gather([self._call(group) for group in groups.values()])
        return [self._response(entry.juror) for entry in requests]

    def to_record(self) -> dict[str, JsonValue]:
        """The record from which a replay reproduces the round."""
        return {
            "failed": {str(juror): why for juror, why in self._failed.items()},
            "limits": [*self._limits],
            "unrepeated": {str(juror): calls for juror, calls in self._unrepeated_calls.items()},
            "lost": {str(juror): usage.model_dump(mode="json") for juror, usage in self._lost_usage.items()},
            "without_stops": [*sorted(self._without_stops)],
        }

    async def _call(self, requests: Sequence[JurorRequest]) -> None:
        """Send the requests of one model."""
        model = requests[0].model
        if self.is_over.is_set() and self.recorded is None:
            self._fail(requests, TIMED_OUT)
            return
        entries = [entry.without_stops() for entry in requests] if model.identity in self._without_stops else requests

        def add_chunk(chunk: Chunk) -> None:
            if chunk.completion is not None:
                self._add(requests[chunk.request].juror, chunk.completion)

        try:
            results = await model.generate([entry.request for entry in entries], add_chunk, enough=self.is_over)
        except BudgetExceeded as e:
            self.run.record_limit(e)
            self.is_limited = True
            self._limits.append(e.kind)
            self._fail(requests, e.message)
        except CapabilityMissing as e:
            if e.feature != "stop" or model.identity in self._without_stops:
                raise
            self._without_stops.add(model.identity)
            self._count_unrepeated(requests)
            await self._call(requests)
        except ContextTooLong as e:
            self._count_unrepeated(requests)
            if len(requests) > 1:  # a prompt that is too long must not fail the others
                await gather([self._call([entry]) for entry in requests])
            else:
                self._fail(requests, e.message)
        except BackendError as e:
            self.error = self.error or e
            self._count_unrepeated(requests)
            self._fail(requests, e.message)
        except StoreError as e:
            if self.run.recording:
                raise
            self._fail(requests, e.message)  # a replay of a run that was interrupted here
        else:
            for entry, (completion,) in zip(requests, results, strict=True):
                self._add(entry.juror, completion)
                self.is_limited = self.is_limited or completion.finish_reason == "budget"

    def _add(self, juror: int, completion: Completion) -> None:
        self._finished_s.setdefault(juror, self.elapsed_s())
        self._completions[juror] = completion
        if completion.failure is not None:
            if juror not in self._failed:
                self._failed[juror] = completion.failure.message
                self._unrepeated_calls[juror] = self._unrepeated_calls.get(juror, 0) + 1
                self._lost_usage[juror] = completion.usage
            return
        if completion.finish_reason in ("length", "thinking") and juror in self.bounded:
            self.is_limited = True
        if completion.finish_reason != "cancelled" and completion.text.strip():
            self.on_response(juror)

    def _fail(self, requests: Iterable[JurorRequest], why: str) -> None:
        for entry in requests:
            if entry.juror not in self._completions:
                self._failed[entry.juror] = why
                self._finished_s[entry.juror] = self.elapsed_s()

    def _count_unrepeated(self, requests: Iterable[JurorRequest]) -> None:
        for entry in requests:
            if entry.juror not in self._completions:
                self._unrepeated_calls[entry.juror] = self._unrepeated_calls.get(entry.juror, 0) + 1

    def _restore(self, requests: Sequence[JurorRequest], recorded: dict[str, JsonValue]) -> None:
        """Restore failures, charges and limits from the record."""
        failed, calls, lost = (_mapping(recorded.get(name)) for name in ("failed", "unrepeated", "lost"))
        limits, without = recorded.get("limits"), recorded.get("without_stops")
        for entry in requests:
            name = str(entry.juror)
            if name in failed:
                self._fail([entry], str(failed[name]))
            count, usage = calls.get(name, 0), lost.get(name)
            if isinstance(count, int) and count:
                self.run.ledger.charge(
                    entry.model.role,
                    entry.model.name,
                    Usage() if usage is None else Usage.model_validate(usage),
                    calls=count,
                    replayed_calls=count,
                )
        if isinstance(without, list):
            self._without_stops.update(map(str, without))
        for kind in limits if isinstance(limits, list) else ():
            self.is_limited = True
            self.run.record_limit(self.run.ledger.exceeded(cast(LimitKind, kind)))

    def _response(self, juror: int) -> JurorResponse:
        completion = self._completions.get(juror)
        failure = self._failed.get(juror, "")
        if not failure and (completion is None or completion.finish_reason == "cancelled"):
            failure = TIMED_OUT
        return JurorResponse(juror, completion, 1000 * self._finished_s.get(juror, self.elapsed_s()), failure)


def _mapping(recorded: JsonValue) -> dict[str, JsonValue]:
    return recorded if isinstance(recorded, dict) else {}


class Panel:
    """One stage of a jury.

    Args:
        deadline_s: Seconds after which pending calls are cancelled; None waits for all.
        quorum: Number of responses that complete a round; None is all.

    Attributes:
        is_limited: Whether a budget prevented a request or truncated a completion.
        cost: The cost of the stage, once it has ended.
    """

    def __init__(self, run: Run, stage: Stage, *, deadline_s: float | None = None, quorum: int | None = None) -> None:
        self.is_limited = False
        self.cost = StageCost(stage=stage)
        self._run, self._stage = run, stage
        self._deadline_s, self._quorum = deadline_s, quorum
        self._is_late = False
        self._enough = asyncio.Event()
        self._requested: set[int] = set()
        self._responded: set[int] = set()
        self._before, self._began_s = run.ledger.usage(), run.ledger.elapsed_s

    @contextmanager
    def stage(self) -> Iterator[None]:
        """The context of the stage: its events and its deadline, which does not run in a replay."""
        run, timer = self._run, None
        if self._deadline_s is not None and run.recording:  # a replay reads from the store what was late
            timer = asyncio.get_running_loop().call_later(self._deadline_s, self._expire)
        try:
            with run.stage(f"jury: {self._stage}"):
                yield
                self.cost = self._cost()
                cost = self.cost.model_dump(mode="json")
                num_requests, num_responses = len(self._requested), len(self._responded)
                run.emit(
                    JuryStageEnded(
                        stage=self._stage, num_requests=num_requests, num_responses=num_responses, report=cost
                    )
                )
        finally:
            if timer is not None:
                timer.cancel()

    @property
    def is_over(self) -> bool:
        """Whether the deadline has passed."""
        return self._is_late

    async def call(self, requests: Sequence[JurorRequest], *, require_response: bool = False) -> list[JurorResponse]:
        """Send requests and wait as long as the stage allows.

        A token budget that does not cover all requests is shared equally, independent of the order of the models.

        Args:
            require_response: Whether it is an error if no juror responds.

        Returns:
            A response for each request, in order, including failed and late ones.

        Raises:
            BackendError: A response is required, none came, and no budget is the reason.
        """
        if not requests:
            return []
        run = self._run
        self._requested |= {entry.juror for entry in requests}
        view = run.ledger.view()
        share, thinking_share = view.tokens_per_sample(len(requests)), view.remaining("thinking_tokens") / len(requests)
        fitted = [entry.within(share, thinking_share) for entry in requests]
        bounded = frozenset(a.juror for a, b in zip(requests, fitted, strict=True) if a is not b)
        decision: dict[str, JsonValue] = {"jury": self._stage, "requests": [entry.key for entry in fitted]}
        recorded = await load_decision(run, requests[0].model, decision)
        self._enough = asyncio.Event()
        if self._is_late:
            self._enough.set()
        responders: set[int] = set()

        def on_response(juror: int) -> None:
            responders.add(juror)
            if self._quorum is not None and len(responders) >= self._quorum:
                self._enough.set()

        current = RequestRound(run, self._enough, bounded, on_response, self._elapsed_s, recorded)
        responses = await current.run_all(fitted)
        if bounded and current.is_limited and run.ledger.exhausted is None:
            run.record_limit(run.ledger.exceeded("tokens"))
        self._responded |= responders
        self.is_limited = self.is_limited or current.is_limited
        if require_response and not current.is_limited and not any(response.ok for response in responses):
            failure = responses[0].failure
            is_late = all(response.failure == TIMED_OUT for response in responses)
            raise current.error or (BackendTimeout if is_late else InvalidResponse)(
                f"no juror gave an opinion: {failure}"
            )
        if recorded is None:
            await save_decision(run, requests[0].model, decision, {**current.to_record(), "late": self._is_late})
        elif recorded.get("late") is True:
            self._expire()
        return responses

    def _expire(self) -> None:
        self._is_late = True
        self._enough.set()

    def _elapsed_s(self) -> float:
        return max(0.0, self._run.ledger.elapsed_s - self._began_s)

    def _cost(self) -> StageCost:
        before, now = self._before, self._run.ledger.usage()
        return StageCost(
            stage=self._stage,
            calls=now.model_calls - before.model_calls,
            prompt_tokens=now.prompt_tokens - before.prompt_tokens,
            completion_tokens=now.completion_tokens - before.completion_tokens,
            latency_ms=1000 * self._elapsed_s(),
            cost_usd=_spent(before, now),
        )


def _spent(before: RunUsage, now: RunUsage) -> float | None:
    if before.cost_usd is None or now.cost_usd is None:
        return None
    return max(0.0, now.cost_usd - before.cost_usd)
