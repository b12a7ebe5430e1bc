"""`ResponsesTransport`: OpenAI's Responses API, for the requests that its chat API does not take from a model.

The model's profile says which these are (`responses_api`). The arguments of a chat request are translated into the
body, and the events of the stream into chunks of chat, so that everything else is as for other models. OpenAI stores
nothing: the encrypted reasoning of a response is kept in `Thought.blocks` and returned with the results of the tools.

Source: OpenAI's API reference, "Create a response" and its streaming events.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from pydantic_core import to_json

from .litellm.errors import NO_CONTEXT, readable_response
from .litellm.providers import Target
from .litellm.transport import EventStream, HttpClient, Transport
from .profiles.profile import ModelProfile

MIN_OUTPUT_TOKENS = 16
"""Minimum of `max_output_tokens`; a lower limit is refused."""

_RETURNED = frozenset({"thinking_blocks", "reasoning_details"})
"""Fields of a message with the thoughts of an earlier turn, in the form of some provider."""
_CALLS_BEFORE = "calls_before"
"""Field of a kept reasoning item: how many tool calls the model had made before it."""
_SAME_NAME = ("temperature", "top_p", "prompt_cache_key")
_FINISH = {"max_output_tokens": "length"}
"""Finish reasons of chat for the reasons of an incomplete response; others are passed on."""
_ERROR_STATUS = {
    "rate_limit_exceeded": 429,
    "server_error": 500,
    "vector_store_timeout": 500,
    "server_is_overloaded": 503,
    "slow_down": 503,
}
"""HTTP statuses for the codes of errors that may pass; other codes are those of requests that fail again."""


class ResponsesTransport(Transport):
    """The connection to a model of which some or all requests need the Responses API.

    Args:
        target: The endpoint and the model.
        profile: Says which requests.
    """

    def __init__(self, target: Target, profile: ModelProfile) -> None:
        super().__init__(target)
        self._is_only = profile.responses_api == "always"

    def chat(self, body: Mapping[str, Any]) -> AbstractAsyncContextManager[AsyncIterator[list[Any]]]:
        """A chat request by the API that takes it; its chunks in OpenAI's JSON, in batches."""
        if self.client is None:
            return super().chat(body)
        if self._is_only or _needs_responses(body):
            return ResponsesStream(self.client, responses_body(body, self._target.served), body.get("extra_headers"))
        messages = [{k: v for k, v in message.items() if k not in _RETURNED} for message in body["messages"]]
        return super().chat({**body, "messages": messages})


def _needs_responses(body: Mapping[str, Any]) -> bool:
    """Whether a request has tools, or encrypted thoughts of earlier turns, and the model thinks in it."""
    if body.get("reasoning_effort") == "none":
        return False
    return bool(body.get("tools")) or ("n" not in body and any(_reasoning(m) for m in body["messages"]))


def responses_body(body: Mapping[str, Any], served: str) -> dict[str, Any]:
    """The JSON of a request to `/responses`.

    Args:
        body: Arguments of a chat request (`chat_body`), for one sample. A seed has no counterpart.
        served: The model's name at OpenAI.
    """
    sent: dict[str, Any] = {
        "model": served,
        "input": [item for message in body["messages"] for item in _input_items(message)],
        "stream": True,
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "max_output_tokens": max(MIN_OUTPUT_TOKENS, body["max_tokens"]),
        **{name: body[name] for name in _SAME_NAME if name in body},
    }
    if effort := body.get("reasoning_effort"):
        sent["reasoning"] = {"effort": effort}
    if form := body.get("response_format"):
        sent["text"] = {"format": {"type": form["type"], **form.get("json_schema", {})}}
    if tools := body.get("tools"):
        # without the field, the API makes a function strict, and its optional parameters required
        sent["tools"] = [{"type": "function", "strict": False, **tool["function"]} for tool in tools]
    if choice := body.get("tool_choice"):
        sent["tool_choice"] = {"type": "function", **choice["function"]} if isinstance(choice, Mapping) else choice
    return sent


def _reasoning(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The reasoning items of a message; those of other providers are left out."""
    blocks = message.get("reasoning_details") or ()
    return [block for block in blocks if block.get("type") == "reasoning" and block.get("encrypted_content")]


def _input_items(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The items of a message of chat; those of a response are in the order in which the model wrote them.

    Items have no ids: without storage, OpenAI looks up those that have one and does not find them.
    """
    role, content = message["role"], message.get("content")
    if role == "tool":
        return [{"type": "function_call_output", "call_id": message["tool_call_id"], "output": content or ""}]
    calls = [{"type": "function_call", "call_id": c["id"], **c["function"]} for c in message.get("tool_calls") or ()]
    thoughts: dict[int, list[dict[str, Any]]] = {}
    for block in _reasoning(message):
        item = {"type": "reasoning", "summary": block.get("summary") or []}
        item["encrypted_content"] = block["encrypted_content"]
        before = block.get(_CALLS_BEFORE)
        thoughts.setdefault(before if isinstance(before, int) else 0, []).append(item)
    items = thoughts.pop(0, [])
    if content or not calls:
        parts = content if isinstance(content, str) else [_input_part(part) for part in content or ()]
        items.append({"role": role, "content": parts})
    for number, call in enumerate(calls):  # reasoning after the last call has no item that follows, and is refused
        items += [*thoughts.get(number, ()), call]
    return items


def _input_part(part: Mapping[str, Any]) -> dict[str, Any]:
    """A part of a message of the user."""
    if part["type"] == "image_url":
        image = part["image_url"]
        return {"type": "input_image", "image_url": image["url"], "detail": image.get("detail", "auto")}
    if part["type"] == "file":
        return {"type": "input_file", **part["file"]}
    return {"type": "input_text", "text": part["text"]}


class ResponsesStream(EventStream):
    """The chunks of chat that the events of one response are translated into.

    Args:
        client: Sends the request.
        body: Its JSON.
        headers: Its own headers.
    """

    def __init__(self, client: HttpClient, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(client, "/responses", to_json(body), headers)
        self._translator = ChunkTranslator()

    async def __anext__(self) -> list[dict[str, Any]]:
        events = await super().__anext__()
        with readable_response(self._client.base_url):
            chunks = self._translator.chunks(events)
        self._reader.done = self._translator.has_ended
        return chunks


class ChunkTranslator:
    """Translates the events of one response into chunks of chat.

    Attributes:
        has_ended: Whether the response has ended. One that breaks off before has no finish reason.
    """

    def __init__(self) -> None:
        self.has_ended = False
        self._has_text = self._is_refusal = False
        self._num_calls = 0

    def chunks(self, events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The chunks of some events; most have none."""
        made: list[dict[str, Any]] = []
        for event in events:
            kind = str(event.get("type", "error" if event.get("error") else ""))
            if kind in ("response.completed", "response.incomplete", "response.failed", "error"):
                self.has_ended = True
                made += self._end(kind, event)
            elif delta := self._delta(kind, event):
                made.append(_chunk(delta))
        return made

    def _delta(self, kind: str, event: Mapping[str, Any]) -> dict[str, Any]:
        match kind:
            case "response.output_text.delta" | "response.refusal.delta":
                self._has_text = True
                self._is_refusal |= kind == "response.refusal.delta"
                return {"content": event["delta"]}
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                return {"reasoning": event["delta"]}
            case "response.function_call_arguments.delta":
                return _call_delta(event, {"arguments": event["delta"]})
            case "response.output_item.added" if event["item"]["type"] == "function_call":
                self._num_calls += 1
                return _call_delta(event, {"name": event["item"]["name"]}, id=event["item"]["call_id"])
            case "response.output_item.added" if event["item"]["type"] == "message" and self._has_text:
                return {"content": "\n\n"}  # between a comment and the answer
            case "response.output_item.done" if event["item"]["type"] == "reasoning":
                item = {k: event["item"].get(k) for k in ("type", "summary", "encrypted_content")}
                item |= {"index": event["output_index"], _CALLS_BEFORE: self._num_calls}
                return {"reasoning_details": [item]}
        return {}

    def _end(self, kind: str, event: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The chunks of the last event: the usage, and the finish reason or the error."""
        if kind == "error":
            return [{"error": _error(event.get("error") or event)}]
        response = event["response"]
        usage = {"usage": _chat_usage(response.get("usage"))}
        if kind == "response.failed":
            return [usage, {"error": _error(response.get("error") or {})}]
        finish = "tool_calls" if self._num_calls else "refusal" if self._is_refusal else "stop"
        if kind == "response.incomplete":
            reason = (response.get("incomplete_details") or {}).get("reason") or "incomplete"
            finish = _FINISH.get(reason, reason)
        return [_chunk({}, finish) | usage]


def _chunk(delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def _call_delta(event: Mapping[str, Any], function: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": event["output_index"], "function": function, **fields}]}


def _error(error: Mapping[str, Any]) -> dict[str, Any]:
    """An error of a response with the HTTP status of its code, by which it is known whether it may pass."""
    code = error.get("code")
    status = _ERROR_STATUS.get(code, 400) if isinstance(code, str) and code != NO_CONTEXT else code
    return {**error, "message": error.get("message") or "the response failed", "code": status}


def _chat_usage(usage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The usage of a response in the form of chat; None if there is none."""
    if usage is None:
        return None
    return {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage.get("total_tokens"),
        "prompt_tokens_details": usage.get("input_tokens_details"),
        "completion_tokens_details": usage.get("output_tokens_details"),
    }
