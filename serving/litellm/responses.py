"""`SampleCollector`: the samples of one streamed response, from the chunks of any client."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...core.errors import InvalidResponse
from ...core.messages import Chunk, Completion, Failure, FinishReason, ToolCall, TopToken, Usage

HIDDEN = -1
"""Token id of an alternative whose id the provider does not report."""

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "eos": "stop",
    "end_turn": "stop",
    "tool_calls": "stop",
    "tool_use": "stop",
}
_ID = "token_id:"


_Fresh = tuple[list[str], list[int], list[float], list[str]]
"""What came of a sample at once: texts, token ids, log-probabilities, thoughts."""


@dataclass(slots=True)
class _Call:
    """A tool call while it is streamed."""

    name: str = ""
    arguments: list[str] = field(default_factory=list)
    id: str = ""


class StreamedSample:
    """One sample while it is streamed.

    Attributes:
        finish: The finish reason; None before the end.
        calls: Tool calls by their index, as far as they were received.
        stopped_by: vLLM's stop reason of a sample that ended with "stop", as in `Completion`; None if it sent none.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.top: list[list[tuple[str, float]]] = []
        self.calls: dict[int, _Call] = {}
        self.pieces = 0
        self.finish: str | None = None
        self.stopped_by: str | None = None

    @property
    def tokens(self) -> int | None:
        """Generated tokens; None if the provider shows none."""
        return len(self.token_ids) or len(self.logprobs) or None


class SampleCollector:
    """Collects the samples of one request and reports each new piece.

    Args:
        indices: The samples, in the order of the response's choices.
        emit: Called with each new piece as (sample, text, token ids, log-probabilities, thoughts).
        endpoint: The endpoint, for messages.
    """

    def __init__(
        self,
        indices: Sequence[int],
        emit: Callable[[int, str, tuple[int, ...], tuple[float, ...], str], None],
        endpoint: str,
    ) -> None:
        self.samples = [StreamedSample(i) for i in indices]
        self.usage: Any = None
        self._emit = emit
        self._endpoint = endpoint

    def take(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Read chunks of chat or of plain completion in OpenAI's JSON; the pieces of one read are reported together.

        Raises:
            InvalidResponse: A chunk is about a sample that was not requested.
            openai.APIError: A chunk reports an error.
        """
        fresh: dict[int, _Fresh] = {}
        number = len(self.samples)
        try:
            for event in events:
                if event.get("error"):
                    raise _stream_error(event["error"])
                usage = event.get("usage")
                if usage is not None:
                    self.usage = usage
                for choice in event.get("choices") or ():
                    index = choice["index"]
                    if not 0 <= index < number:
                        raise InvalidResponse(f"{self._endpoint} sent sample {index} of {len(self.samples)}")
                    self._take_choice(index, choice, fresh)
        finally:
            for index, came in fresh.items():
                self._keep(self.samples[index], came)

    def _keep(self, sample: StreamedSample, came: _Fresh) -> None:
        texts, ids, logprobs, thoughts = came
        sample.text += texts
        sample.token_ids += ids
        sample.logprobs += logprobs
        sample.reasoning += thoughts
        self._emit(sample.index, "".join(texts), tuple(ids), tuple(logprobs), "".join(thoughts))

    def _take_choice(self, index: int, choice: Mapping[str, Any], fresh: dict[int, _Fresh]) -> None:
        sample = self.samples[index]
        delta = choice.get("delta")
        shown = choice.get("logprobs")
        logprobs: list[float] = []
        top: list[list[tuple[str, float]]] = []
        if delta is not None:
            text = delta.get("content") or ""
            # vLLM and OpenRouter say `reasoning`, DeepSeek and older servers `reasoning_content`
            thought = delta.get("reasoning") or delta.get("reasoning_content") or ""
            if called := delta.get("tool_calls"):
                _take_calls(sample, called, self._endpoint)
            if shown:
                logprobs, top = _chat_logprobs(shown)
        else:
            text, thought = choice.get("text") or "", ""
            if shown:
                logprobs, top = _completion_logprobs(shown)
        ids = choice.get("token_ids") or ()
        if text or ids or logprobs or thought:
            sample.top += top
            sample.pieces += 1
            came = fresh.get(index)
            if came is None:
                fresh[index] = [text], [*ids], logprobs, [thought]
            else:
                came[0].append(text)
                came[1].extend(ids)
                came[2].extend(logprobs)
                came[3].append(thought)
        reason = choice.get("finish_reason")
        if reason is not None:
            sample.finish = reason
            if reason == "stop" and "stop_reason" in choice:
                # vLLM's: the stop string, or null or the token's id at the end of the text
                stop = choice["stop_reason"]
                sample.stopped_by = stop if isinstance(stop, str) else ""


def _take_calls(sample: StreamedSample, deltas: Sequence[Mapping[str, Any]], endpoint: str) -> None:
    """Append deltas of tool calls; a delta without an index belongs to the last call.

    Raises:
        InvalidResponse: A delta is not in OpenAI's form.
    """
    for delta in deltas:
        function = delta.get("function") or {}
        index = delta.get("index")
        fields = [delta.get("id") or "", function.get("name") or "", function.get("arguments") or ""]
        if not (all(isinstance(one, str) for one in fields) and isinstance(index, int | None)):
            raise InvalidResponse(f"{endpoint} sent a tool call that is not in OpenAI's form")
        call_id, name, arguments = fields
        if index is None:
            index = len(sample.calls) if name or not sample.calls else max(sample.calls)
        call = sample.calls.setdefault(index, _Call())
        call.id = call.id or call_id
        call.name = call.name or name
        call.arguments.append(arguments)
        sample.pieces += 1


def _stream_error(error: Any) -> Exception:
    import httpx
    import openai

    message = error.get("message") if isinstance(error, dict) else error
    request: Any = httpx.Request("POST", "stream:")
    return openai.APIError(str(message), request, body=error)


def _chat_logprobs(shown: Mapping[str, Any]) -> tuple[list[float], list[list[tuple[str, float]]]]:
    entries = shown.get("content") or ()
    return (
        [float(e["logprob"]) for e in entries],
        [[(t["token"], float(t["logprob"])) for t in e.get("top_logprobs") or ()] for e in entries],
    )


def _completion_logprobs(shown: Mapping[str, Any]) -> tuple[list[float], list[list[tuple[str, float]]]]:
    values = shown.get("token_logprobs") or ()
    top = shown.get("top_logprobs") or [{}] * len(values)
    ranked = [sorted((t or {}).items(), key=lambda pair: -pair[1]) for t in top]
    return [float(v) for v in values], ranked


def token_id(name: str) -> int:
    """Id in a name such as `token_id:17`; `HIDDEN` if the name is the token's text."""
    number = name.removeprefix(_ID)
    return int(number) if name.startswith(_ID) and number.isascii() and number.isdigit() else HIDDEN


def to_completion(
    sample: StreamedSample,
    usage: Usage,
    top: tuple[tuple[TopToken, ...], ...] | None,
    *,
    wants_logprobs: bool,
    reports_stop: bool,
    endpoint: str,
) -> Completion:
    """The finished sample.

    Args:
        sample: Its stream.
        usage: Its tokens.
        top: Its alternatives.
        wants_logprobs: Whether log-probabilities were requested.
        reports_stop: Whether its `stop_reason` is vLLM's, which distinguishes a stop string from the end of the text.
        endpoint: The endpoint, for messages.

    Raises:
        InvalidResponse: The response is incomplete, or its numbers are invalid.
    """
    if sample.finish is None:
        raise InvalidResponse(f"{endpoint} broke off before the end of the response")
    if sample.finish in ("abort", "error"):
        raise InvalidResponse(f"{endpoint} gave the sample up ({sample.finish})")
    if any(not call.name for call in sample.calls.values()):
        raise InvalidResponse(f"{endpoint} sent a tool call without a name")
    if any(math.isnan(v) for v in sample.logprobs):
        raise InvalidResponse(f"{endpoint} sent log-probabilities that are not numbers")
    return Completion(
        text="".join(sample.text),
        token_ids=tuple(sample.token_ids),
        logprobs=tuple(sample.logprobs) if wants_logprobs and sample.logprobs else None,
        top_logprobs=top,
        finish_reason=_REASONS.get(sample.finish, "stop"),
        stop_reason=sample.stopped_by if reports_stop else None,
        usage=usage,
        sample_index=sample.index,
        reasoning="".join(sample.reasoning),
        extras={} if sample.finish in _REASONS else {"finish_reason": sample.finish},
        tool_calls=tuple(
            ToolCall(name=call.name, arguments="".join(call.arguments) or "{}", id=call.id)
            for _, call in sorted(sample.calls.items())
        ),
    )


def with_processor_report(completion: Completion, report: Mapping[str, Any]) -> Completion:
    """The sample with the report of its logits processors; it is a failed one if a processor failed.

    Args:
        completion: The sample.
        report: `extras` by processor, and `failure` as (code, message) or None.
    """
    failed = report["failure"]
    return completion.model_copy(
        update={
            "extras": {**completion.extras, **report["extras"]},
            "finish_reason": completion.finish_reason if failed is None else "error",
            "stop_reason": completion.stop_reason if failed is None else None,
            "failure": None if failed is None else Failure(code=failed[0], message=failed[1]),
        }
    )


def final_chunk(
    request: int,
    completion: Completion,
    text: str = "",
    ids: tuple[int, ...] = (),
    logprobs: tuple[float, ...] = (),
) -> Chunk:
    """The last chunk of a sample, with what was not streamed before."""
    return Chunk(
        request=request,
        sample_index=completion.sample_index,
        text=text,
        token_ids=ids,
        logprobs=logprobs,
        completion=completion,
    )
