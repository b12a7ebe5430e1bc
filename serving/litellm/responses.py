"""`SampleCollector`: the samples of one streamed response, from the chunks of any client.

Thoughts come in a field of their own, or between tags of the text, which are split here; in a text that continues a
prompt's open thought, or that the template began with one, the thought comes first. Stop strings that the provider does
not take, or would apply to the thought, are applied to the answer here; so is the limit of the thought.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from pydantic import JsonValue

from ...core.errors import InvalidResponse
from ...core.messages import Completion, FinishReason, SamplingParams, Thought, ToolCall, TopToken, Usage
from ..profiles.profile import ModelProfile
from ..stop_strings import StopStrings
from ..thoughts import ThoughtSplitter
from .errors import ErrorResponse, readable_response
from .providers import Prices, Target, estimate_tokens
from .requests import shows_logprobs

MAX_REST_TOKENS = 8
"""Maximum tokens that the server may add to a sample that was ended here, for which the response is read to its end."""
MAX_COUNTED_TOKENS = 1 << 40
"""A larger reported count is invalid."""
HIDDEN = -1
"""Token id of an alternative whose id the provider does not report."""

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "eos": "stop",
    "end_turn": "stop",
    "tool_calls": "stop",
    "tool_use": "stop",
    "thinking": "thinking",
}
_ID = "token_id:"
_PLAIN_DELTA = frozenset({"role", "content"})
"""Fields of a delta that has neither thoughts nor tool calls."""


@dataclass(frozen=True)
class ReadingRules:
    """How the samples of a response are read.

    Attributes:
        thinks: Whether the model thinks first; white space before the answer is then no part of it.
        opened: Whether the text begins inside a thought.
        is_exact: Whether that is certain, since the prompt was sent as tokens; otherwise a closing tag without an
            opening one shows that it did.
        continues: Whether the prompt has an open thought, so that a sample may end inside it in order.
        stops: Stop strings that are applied to the answer here.
        max_thinking_tokens: Tokens after which a thought is cut; 0 if only the server's limit of the sample holds.
        chars_per_token: Characters of a chunk that are taken for a token where no tokens are shown; 0 is one token a
            chunk, as self-hosted servers send them.
        needs_usage: Whether a response whose answers were ended here is read to its end for the provider's count, since
            thoughts do not show their tokens.
    """

    profile: ModelProfile = field(default_factory=ModelProfile)
    thinks: bool = False
    opened: bool = False
    is_exact: bool = False
    continues: bool = False
    stops: tuple[str, ...] = ()
    max_thinking_tokens: int = 0
    max_tokens: int = 1 << 40
    chars_per_token: int = 0
    needs_usage: bool = False


PLAIN_RULES = ReadingRules()
"""Those of a model that does not think."""


class _Start(NamedTuple):
    """Where the answer begins: in the `size` tokens from `first` on, with this text."""

    first: int
    size: int
    text: str


@dataclass(slots=True)
class _StreamedCall:
    """A tool call while it is streamed."""

    name: str = ""
    arguments: list[str] = field(default_factory=list)
    id: str = ""


@dataclass(slots=True)
class Piece:
    """What came of a sample at once."""

    text: str = ""
    thought: str = ""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    tokens: int = 0


class StreamedSample:
    """One sample while it is streamed.

    Attributes:
        finish: The finish reason; None before the end.
        is_cut: Whether the sample was ended here, before the server ended it.
        calls: Tool calls by their index, as far as they were received.
        stopped_by: The stop string that ended it, or vLLM's stop reason, as in `Completion`; None if unknown.
        report: Name under which a vLLM server keeps the report of its logits processors; empty if it keeps none.
        names: Names of the tokens, where log-probabilities are shown: their texts, or `token_id:N`.
        pieces: Chunks with something of the sample in them, each a token or more.
        thought_pieces: Those with something of the thought.
        received_text: Text as it was received, tags included; where thoughts have a field, that of the thought or, once
            it has begun, that of the answer.
    """

    def __init__(self, index: int, rules: ReadingRules = PLAIN_RULES) -> None:
        self.index = index
        self.rules = rules
        self.text = self.thought = self.received_text = ""
        self.blocks: list[dict[str, JsonValue]] = []
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.top: list[list[tuple[str, float]]] = []
        self.names: list[str] = []
        self.calls: dict[int, _StreamedCall] = {}
        self.pieces = self.thought_pieces = 0
        self.finish: str | None = None
        self.is_cut = False
        self.server_ended = False
        self.stopped_by: str | None = None
        self.report = ""
        self.start: _Start | None = None
        self.late_tokens = self.late_thought = 0
        self._splitter: ThoughtSplitter | None = None
        if rules.profile.can_think:
            self._splitter = ThoughtSplitter(rules.profile, opened=rules.opened, is_known=rules.is_exact)
        self._stops = StopStrings(rules.stops) if rules.stops else None
        self._by_field = False
        self._field_thought = ""

    @property
    def received(self) -> int:
        """Tokens that the stream showed."""
        return len(self.token_ids) or len(self.logprobs)

    @property
    def tokens(self) -> int | None:
        """Generated tokens; None if the provider shows none."""
        return self.received + self.late_tokens or None

    @property
    def is_thinking(self) -> bool:
        """Whether it is inside a thought."""
        if self._by_field:
            return not self.text and not self.calls
        return self._splitter is not None and self._splitter.is_thinking

    @property
    def has_thought(self) -> bool:
        """Whether it began with a thought that is shown."""
        return self._by_field or bool(self.blocks) or (self._splitter is not None and self._splitter.has_thought)

    @property
    def answer_from(self) -> int:
        """Index of the answer's first token, exact if the tokens came one by one."""
        if self.start is not None:
            return min(self.start.first, self.received)
        return self.received if self.has_thought else 0

    @property
    def thought_tokens(self) -> int:
        """Tokens of the thought in the stream, or pieces of it if the provider shows no tokens."""
        return (self.answer_from if self.token_ids else self.thought_pieces) + self.late_thought

    def add(
        self, text: str, thought: str, ids: list[int], logprobs: list[float], *, final: bool = False
    ) -> list[Piece]:
        """Add what a chunk has; returns what can be reported."""
        before = self.received
        self.token_ids += ids
        self.logprobs += logprobs
        chars, shown = self.rules.chars_per_token, len(ids) or len(logprobs)
        count = 0 if final else shown or max(1, (len(text) + len(thought)) // chars if chars else 1)
        answer = ""
        if thought and not self._by_field:
            self._by_field = True
        if self._by_field and text and not self.text:
            self.received_text = ""
        self.received_text += text or thought
        if self._by_field or self._splitter is None:
            answer = text
            self.thought += thought
            if (self.rules.thinks or self._by_field) and not self.text:
                answer = answer.lstrip()
        else:
            split = self._splitter.finish() if final else self._splitter.push(text)
            if len(self._splitter.answer) < len(self.text) + len(split.answer):
                self.text, self.start = "", None  # a late closing tag: all before it was the thought
            thought, answer = split.thought, split.answer
            if (self.rules.thinks or self._by_field) and not self.text:
                answer = answer.lstrip()
            self.thought = self._field_thought + self._splitter.thought
        held = 0 if self._splitter is None or self._by_field else self._splitter.num_held
        pending = len(text[-held:].lstrip()) if held else 0
        if self.start is None and self.has_thought and (answer or (pending and not self.is_thinking)):
            first = before
            if not ids and len(self.names) == self.received:
                first = self._first_of(len(answer) + pending, before)
            self.start = _Start(first, self.received - first, answer)
        if self._stops is not None:
            answer = self._stops.push(answer)
            if self._stops.stop_reason:
                self._cut("stop")
                self.stopped_by = self._stops.stop_reason
            elif final:
                answer += self._stops.finish()
        self.text += answer
        self.thought_pieces += bool(thought) or (self.has_thought and self.start is None and not final)
        limit = self.rules.max_thinking_tokens
        size = max(self.thought_tokens, len(self.thought) // chars) if chars else self.thought_tokens
        if limit and self.finish is None and not final and self.is_thinking and size >= limit:
            self._cut("thinking")
        return self._pieces(answer, thought, ids, logprobs, count)

    def _first_of(self, chars: int, first: int) -> int:
        """Index of the first token of the last characters so far, at least `first`, by the tokens' texts."""
        at = self.received
        while chars > 0 and at > first:
            at -= 1
            chars -= len(self.names[at])
        return at

    def _cut(self, reason: str) -> None:
        self.finish, self.is_cut = reason, True

    @staticmethod
    def _pieces(text: str, thought: str, ids: list[int], logprobs: list[float], tokens: int) -> list[Piece]:
        """A chunk as reports, thought and answer apart."""
        if not (thought and text):
            return [Piece(text, thought, ids, logprobs, tokens)] if text or thought or tokens else []
        # tokens of both came at once: divided by the length of the texts
        count = len(ids) or len(logprobs) or tokens
        cut = max(0, count - max(1, len(text) * count // (len(text) + len(thought))))
        return [
            Piece("", thought, ids[:cut], logprobs[:cut], cut),
            Piece(text, "", ids[cut:], logprobs[cut:], count - cut),
        ]

    def count_late(self, ids: Sequence[int], logprobs: Sequence[float], *, has_text: bool) -> None:
        """Count the tokens of a chunk after the sample's end, which are more of what it was in."""
        tokens = len(ids) or len(logprobs)
        self.late_tokens += tokens
        self.pieces += has_text
        if self.finish == "thinking":
            self.late_thought += tokens or has_text

    def end(self) -> list[Piece]:
        """The rest, at the end of the response."""
        return [] if self.is_cut else self.add("", "", [], [], final=True)

    def drop_last_token(self) -> None:
        """Forget the last token, of which no text was shown."""
        count = len(self.token_ids) - 1
        lists: tuple[list[Any], ...] = (self.token_ids, self.logprobs, self.top, self.names)
        for values in lists:
            del values[count:]

    def resume(self, held: str, stops: tuple[str, ...]) -> list[Piece]:
        """Prepare for the rest of a response that broke off, which comes as plain text with tags.

        Args:
            held: Text of the received tokens that the server had not sent, as it may have begun a stop string.
            stops: Stop strings of the request, which the server does not get again.
        """
        if self._by_field and self.is_thinking:
            self._by_field, self._field_thought = False, self.thought
            self._splitter = ThoughtSplitter(self.rules.profile, opened=True, is_known=True)
        if stops and self._stops is None:
            self.rules, self._stops = replace(self.rules, stops=stops), StopStrings(stops)
        return self.add(held, "", [], []) if held else []


class SampleCollector:
    """Collects the samples of one request and reports each new piece.

    Args:
        indices: The samples, in the order of the response's choices.
        emit: Called with a sample's index and each new piece of it.
        resumed: A sample whose earlier response broke off, instead of a new one.

    Attributes:
        usage: What the provider sent as usage; None if it sent none.
        prompt_tokens: Tokens of the prompt, if the server returned them; 0 if unknown.
    """

    def __init__(
        self,
        indices: Sequence[int],
        emit: Callable[[int, Piece], None],
        endpoint: str,
        rules: ReadingRules = PLAIN_RULES,
        *,
        resumed: StreamedSample | None = None,
    ) -> None:
        self.samples = [StreamedSample(i, rules) for i in indices] if resumed is None else [resumed]
        self.usage: Any = None
        self.prompt_tokens = 0
        self._emit = emit
        self._endpoint = endpoint

    @property
    def is_complete(self) -> bool:
        """Whether every sample has ended and the server still generates, since it was ended here."""
        samples = self.samples
        rules = samples[0].rules
        cut = [s for s in samples if s.is_cut and not s.server_ended]
        if not cut or any(s.finish is None for s in samples):
            return False
        if rules.needs_usage and any(s.finish != "thinking" for s in cut):
            return False
        # the rest of a few tokens comes with the count of all
        return any(rules.max_tokens - (s.tokens or s.pieces) > MAX_REST_TOKENS for s in cut)

    def resume(self, held: str, stops: tuple[str, ...]) -> None:
        """Prepare the resumed sample for its rest (see `StreamedSample.resume`)."""
        self._report(self.samples[0], self.samples[0].resume(held, stops))

    def restart(self, rules: ReadingRules) -> None:
        """Read the samples by other rules; nothing of them was read so far."""
        self.samples = [StreamedSample(sample.index, rules) for sample in self.samples]

    async def read(self, chunks: AsyncIterator[Sequence[Mapping[str, Any]]]) -> None:
        """Read a response until it ends, or until every sample was ended here. Raises as `take`."""
        async for events in chunks:
            self.take(events)
            if self.is_complete:
                break

    def take(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Read chunks of chat or of plain completion in OpenAI's JSON.

        What one read has of a sample is reported together. A chunk without tokens counts as one token.
        """
        fresh: dict[int, list[Piece]] = {}
        try:
            with readable_response(self._endpoint):
                for event in events:
                    self._take_event(event, fresh)
        finally:
            for index, pieces in fresh.items():
                self._report(self.samples[index], pieces)

    def _take_event(self, event: Mapping[str, Any], fresh: dict[int, list[Piece]]) -> None:
        if event.get("error"):
            raise _stream_error(event["error"])
        usage = event.get("usage")
        if usage is not None:
            self.usage = usage
        if shown := event.get("prompt_token_ids"):
            self.prompt_tokens = len(shown)
        for choice in event.get("choices") or ():
            index = choice["index"]
            if not 0 <= index < len(self.samples):
                raise InvalidResponse(f"{self._endpoint} sent sample {index} of {len(self.samples)}")
            if shown := choice.get("prompt_token_ids"):
                self.prompt_tokens = len(shown)
            self._take_choice(index, choice, fresh)

    def _report(self, sample: StreamedSample, pieces: Sequence[Piece]) -> None:
        joined: list[Piece] = []
        for piece in pieces:
            last = joined[-1] if joined else None
            if last is None or bool(last.thought) != bool(piece.thought):
                joined.append(piece)
            else:
                last.text += piece.text
                last.thought += piece.thought
                last.ids += piece.ids
                last.logprobs += piece.logprobs
                last.tokens += piece.tokens
        for piece in joined:
            self._emit(sample.index, piece)

    def _take_choice(self, index: int, choice: Mapping[str, Any], fresh: dict[int, list[Piece]]) -> None:
        sample = self.samples[index]
        delta = choice.get("delta")
        shown = choice.get("logprobs")
        logprobs: list[float] = []
        top: list[list[tuple[str, float]]] = []
        names: list[str] = []
        if delta is not None:
            text, thought = delta.get("content") or "", ""
            if not delta.keys() <= _PLAIN_DELTA:
                # vLLM and OpenRouter say `reasoning`, DeepSeek and older servers `reasoning_content`
                thought = delta.get("reasoning") or delta.get("reasoning_content") or ""
                if (called := delta.get("tool_calls")) and not sample.is_cut:
                    added = _take_calls(sample, called, self._endpoint)
                    sample.pieces += max(1, estimate_tokens(added))  # some servers send a call as one chunk
                    if sample.has_thought and sample.start is None:
                        sample.start = _Start(sample.received, 0, "")
                _take_blocks(sample, delta)
            if shown:
                logprobs, top, names = _chat_logprobs(shown)
        else:
            text, thought = choice.get("text") or "", ""
            if shown:
                logprobs, top, names = _completion_logprobs(shown)
        ids = [*(choice.get("token_ids") or ())]
        if sample.is_cut:
            sample.count_late(ids, logprobs, has_text=bool(text or thought))
        elif text or ids or logprobs or thought:
            sample.top += top
            sample.names += names
            sample.pieces += bool(text or thought or not sample.calls)
            fresh.setdefault(index, []).extend(sample.add(text, thought, ids, logprobs))
        reason = choice.get("finish_reason")
        if reason is not None:
            sample.server_ended = True
        if reason is not None and not sample.is_cut:
            sample.finish = reason
            if reason == "stop" and "stop_reason" in choice:
                # vLLM's: the stop string, or null or the token's id at the end of the text
                stop = choice["stop_reason"]
                sample.stopped_by = stop if isinstance(stop, str) else ""
            fresh.setdefault(index, []).extend(sample.end())


def _take_blocks(sample: StreamedSample, delta: Mapping[str, Any]) -> None:
    """Append deltas of the thought in the provider's own form: signed blocks, or items with encrypted ones.

    Text, signature and data of one block come in pieces with the block's index, or, without one, in a row.
    """
    fields = {**delta, **(delta.get("provider_specific_fields") or {})}
    deltas = fields.get("thinking_blocks") or fields.get("reasoning_details")
    for one in deltas if isinstance(deltas, list | tuple) else ():
        if not isinstance(one, Mapping):
            continue
        kind, index = one.get("type"), one.get("index")
        last = sample.blocks[-1] if sample.blocks else None
        same = last is not None and last.get("type") == kind and last.get("index") == index
        if index is None and last is not None and (last.get("signature") or kind == "redacted_thinking"):
            same = bool(one.get("signature")) and one.get("signature") == last.get("signature")
        if not same or last is None:
            sample.blocks.append({str(k): v for k, v in one.items() if v is not None})
            continue
        for name, value in one.items():
            if name == "signature" and value == last.get(name):
                continue  # LiteLLM signs every piece of Mistral's
            if name in ("thinking", "text", "summary", "data", "signature") and isinstance(value, str):
                last[name] = str(last.get(name) or "") + value
            elif value is not None:
                last[name] = value


def _take_calls(sample: StreamedSample, deltas: Sequence[Mapping[str, Any]], endpoint: str) -> str:
    """Append deltas of tool calls, and return their text; a delta without an index belongs to the last call.

    Some gateways give all calls the index 0: what begins under another id is another call.
    """
    added = ""
    for delta in deltas:
        function = delta.get("function") or {}
        index = delta.get("index")
        fields = [delta.get("id") or "", function.get("name") or "", function.get("arguments") or ""]
        if not (all(isinstance(one, str) for one in fields) and isinstance(index, int | None)):
            raise InvalidResponse(f"{endpoint} sent a tool call that is not in OpenAI's form")
        call_id, name, arguments = fields
        if index is None:
            index = len(sample.calls) if name or not sample.calls else max(sample.calls)
        known = sample.calls.get(index)
        if known is not None and name and "" not in (known.id, call_id) and call_id != known.id:
            index = len(sample.calls)
        call = sample.calls.setdefault(index, _StreamedCall())
        call.id = call.id or call_id
        call.name = call.name or name
        call.arguments.append(arguments)
        added += name + arguments
    return added


def _stream_error(error: Any) -> Exception:
    message = error.get("message") if isinstance(error, dict) else error
    return ErrorResponse(str(message), body=error)


_Logprobs = tuple[list[float], list[list[tuple[str, float]]], list[str]]
"""Log-probabilities of some tokens, the alternatives at each, and the tokens' names."""


def _chat_logprobs(shown: Mapping[str, Any]) -> _Logprobs:
    entries = shown.get("content") or ()
    return (
        [float(e["logprob"]) for e in entries],
        [[(t["token"], float(t["logprob"])) for t in e.get("top_logprobs") or ()] for e in entries],
        [str(e.get("token", "")) for e in entries],
    )


def _completion_logprobs(shown: Mapping[str, Any]) -> _Logprobs:
    values = shown.get("token_logprobs") or ()
    top = shown.get("top_logprobs") or [{}] * len(values)
    ranked = [sorted((t or {}).items(), key=lambda pair: -pair[1]) for t in top]
    return [float(v) for v in values], ranked, [str(name) for name in shown.get("tokens") or ()]


def token_id(name: str) -> int:
    """Id in a name such as `token_id:17`; `HIDDEN` if the name is the token's text."""
    number = name.removeprefix(_ID)
    return int(number) if name.startswith(_ID) and number.isascii() and number.isdigit() else HIDDEN


def to_completion(
    sample: StreamedSample, usage: Usage, sampling: SamplingParams, texts: Mapping[int, str], target: Target
) -> Completion:
    """The finished sample."""
    endpoint = target.endpoint
    if sample.finish is None:
        raise InvalidResponse(f"{endpoint} broke off before the end of the response")
    if sample.finish in ("abort", "error"):
        raise InvalidResponse(f"{endpoint} gave the sample up ({sample.finish})")
    if any(not call.name for call in sample.calls.values()):
        raise InvalidResponse(f"{endpoint} sent a tool call without a name")
    if any(math.isnan(v) for v in sample.logprobs):
        raise InvalidResponse(f"{endpoint} sent log-probabilities that are not numbers")
    finish = _REASONS.get(sample.finish, "stop")
    thought = _thought_of(sample, usage, finish)
    if thought is not None and not thought.closed and (finish == "length" or not sample.rules.continues):
        finish = "thinking"  # whether it was cut or ended by itself: there is no answer
    # vLLM's reason distinguishes a stop string from the end of the text
    stop_reason = sample.stopped_by if target.vllm or sample.is_cut else None
    if stop_reason is None and sample.rules.stops:
        stop_reason = ""  # the server does not know of the stop strings, so the model ended the text
    k = sampling.top_logprobs
    top = [row[:k] for row in sample.top] if k else []
    return Completion(
        text=sample.text,
        token_ids=tuple(sample.token_ids),
        logprobs=tuple(sample.logprobs) if shows_logprobs(sampling) and sample.logprobs else None,
        top_logprobs=tuple(_top_tokens(row, texts) for row in top) or None,
        finish_reason=finish,
        stop_reason=stop_reason if finish == "stop" else None,
        usage=usage,
        sample_index=sample.index,
        thought=thought,
        answer_from=sample.answer_from,
        extras={} if sample.finish in _REASONS else {"finish_reason": sample.finish},
        tool_calls=tuple(
            ToolCall(name=call.name, arguments="".join(call.arguments) or "{}", id=call.id)
            for _, call in sorted(sample.calls.items())
        ),
    )


def _thought_of(sample: StreamedSample, usage: Usage, finish: FinishReason) -> Thought | None:
    """The thought of a sample, shown or hidden; None if it did not think."""
    tokens = usage.thinking_tokens
    if not sample.has_thought and not tokens:
        return None
    is_open = sample.is_thinking
    if not sample.text and not sample.calls and not is_open:
        # in a field, or hidden: what is cut before the answer is cut in the thought
        is_open = finish in ("length", "thinking") and sample.start is None
    return Thought(
        text=sample.thought,
        tokens=tokens,
        closed=not is_open,
        blocks=tuple(_without_index(block) for block in sample.blocks),
    )


def _without_index(block: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """A block as it is returned to the provider: the index of Anthropic's is LiteLLM's own."""
    own = str(block.get("type", "")).endswith("thinking")
    return {name: value for name, value in block.items() if name != "index" or not own}


def _top_tokens(row: Sequence[tuple[str, float]], texts: Mapping[int, str]) -> tuple[TopToken, ...]:
    """The alternatives at one position, the most likely first."""
    ranked = sorted(row, key=lambda pair: -pair[1])
    return tuple(
        TopToken(token_id=token_id(name), token=texts.get(token_id(name), name), logprob=value)
        for name, value in ranked
    )


def split_usage(
    usage: Any,
    samples: Sequence[StreamedSample],
    prices: Prices,
    target: Target,
    waited_s: float,
    prompt_tokens: int = 0,
) -> list[Usage]:
    """The usage of each sample of a response; the prompt belongs to the first.

    Where the provider sends no valid usage, the tokens are those in the stream, or else estimated from the text.
    Thought tokens are the provider's; where it reports none, those in the stream, or else in proportion to its chunks.

    Args:
        usage: What the provider sent as `usage`; None if it sent none.
        waited_s: Seconds that the request waited, reported on the first sample.
        prompt_tokens: Tokens of the prompt where the provider sent no usage; about as many, where one of fewer than a
            quarter of them is not believed.
    """
    counts = _counts(usage)
    prompt, cached, written, thinking, total = (prompt_tokens, 0, 0, 0, 0) if counts is None else counts
    shown = [sample.tokens or _estimated_tokens(sample, target) for sample in samples]
    is_valid = _is_plausible(counts, samples, prompt_tokens)
    prompt = prompt if is_valid else max(prompt, prompt_tokens)
    completions = _split(total, shown) if is_valid else shown
    thoughts = [_shown_thought(sample, tokens) for sample, tokens in zip(samples, completions, strict=True)]
    if thinking and is_valid:
        thoughts = _split_within(thinking, thoughts if any(thoughts) else completions, completions)
    else:
        if not target.is_own_server:
            estimates = [0 if s.token_ids else estimate_tokens(s.thought) for s in samples]
            thoughts = list(map(max, thoughts, estimates))
        thoughts = [min(t, c) for t, c in zip(thoughts, completions, strict=True)]
    shares = []
    for i, (tokens, thought) in enumerate(zip(completions, thoughts, strict=True)):
        first = i == 0
        read = min(cached, prompt) if first else 0
        paid = prompt if first else 0
        stored = min(written, paid - read)
        shares.append(
            Usage(
                prompt_tokens=paid,
                cached_tokens=read,
                cache_write_tokens=stored,
                completion_tokens=tokens,
                thinking_tokens=thought,
                waited_s=waited_s if first else 0.0,
                cost_usd=prices.cost(paid, read, tokens, stored),
            )
        )
    return shares


def _estimated_tokens(sample: StreamedSample, target: Target) -> int:
    """About how many tokens a sample has; one's own server sends a token a chunk, unless the text is much longer."""
    estimate = count_tokens(sample)
    return sample.pieces if target.is_own_server and 2 * sample.pieces > estimate else estimate


def _is_plausible(counts: _Counts | None, samples: Sequence[StreamedSample], prompt_tokens: int) -> bool:
    """Whether a response may have these counts: some gateways report constants."""
    if counts is None or 4 * counts[0] < prompt_tokens:
        return False
    total = counts[4]
    has_all_chunks = total >= sum(sample.pieces for sample in samples)
    return has_all_chunks or total >= sum(estimate_tokens(s.thought + s.text) for s in samples) // 2


def _shown_thought(sample: StreamedSample, tokens: int) -> int:
    """Tokens of the thought of a sample of so many; without ids, in proportion to its chunks."""
    per_chunk = 1 if sample.token_ids else max(1, tokens / max(1, sample.pieces))
    return int(sample.thought_tokens * per_chunk) if sample.has_thought else 0


def is_uncounted(usage: Any, sample: StreamedSample, prompt_tokens: int) -> bool:
    """Whether nobody knows the tokens of a sample's thought: it is hidden, and the provider sent no valid usage."""
    is_hidden = sample.rules.thinks and not sample.has_thought
    return is_hidden and not _is_plausible(_counts(usage), [sample], prompt_tokens)


def with_received(usage: Any, received: int) -> Any:
    """The usage of a complete sample, given what the provider sent for its rest after some received tokens."""
    counts = _counts(usage) if received else None
    if counts is None:
        return usage
    prompt, _, _, _, rest = counts
    return {**usage, "prompt_tokens": max(0, prompt - received), "completion_tokens": rest + received}


_Counts = tuple[int, int, int, int, int]


def _counts(usage: Any) -> _Counts | None:
    """Tokens of the prompt, those read from a cache and written to it, of thoughts, and all generated ones.

    None if they are invalid. The number of tokens written has one name in LiteLLM's form of usage, and one at OpenAI.
    """
    if not isinstance(usage, Mapping):
        return None
    details = (usage.get("prompt_tokens_details"), usage.get("completion_tokens_details"))
    read, generated = (one if isinstance(one, Mapping) else {} for one in details)
    counts_json = (
        usage.get("prompt_tokens"),
        read.get("cached_tokens"),
        read.get("cache_creation_tokens") or read.get("cache_write_tokens"),
        generated.get("reasoning_tokens"),
        usage.get("completion_tokens"),
    )
    counts = [0 if count is None else count for count in counts_json]
    if not all(isinstance(count, int) and 0 <= count <= MAX_COUNTED_TOKENS for count in counts):
        return None
    prompt, cached, written, thinking, total = counts
    # some providers (xAI) count thoughts only in the total
    is_separate = thinking > total or (thinking and usage.get("total_tokens") == prompt + total + thinking)
    return prompt, cached, written, thinking, total + thinking if is_separate else total


def _split_within(total: int, weights: Sequence[int], bounds: Sequence[int]) -> list[int]:
    """An integer split in proportion to the weights, no part above its bound; the total is at most their sum."""
    parts = [min(part, bound) for part, bound in zip(_split(total, weights), bounds, strict=True)]
    for i, bound in enumerate(bounds):
        parts[i] += min(bound - parts[i], total - sum(parts))
    return parts


def _split(total: int, weights: Sequence[int]) -> list[int]:
    """An integer split into integer parts in proportion to the weights."""
    weight_sum = sum(weights)
    if weight_sum == 0:
        weights, weight_sum = [1] * len(weights), len(weights)
    bounds = [total * sum(weights[: i + 1]) // weight_sum for i in range(len(weights))]
    return [b - a for a, b in zip([0, *bounds], bounds, strict=False)]


def count_tokens(sample: StreamedSample) -> int:
    """About how many tokens a sample has whose provider shows none."""
    called = "".join(call.name + "".join(call.arguments) for call in sample.calls.values())
    return max(sample.pieces, estimate_tokens(sample.thought + sample.text + called))
