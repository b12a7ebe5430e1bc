"""OpenAI's Responses API."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import groupby

from support.wires.script import Body, Token
from support.wires.stream import Stream, by_part, event

_FIELDS = (
    *("model", "input", "instructions", "stream", "store", "include", "max_output_tokens", "reasoning", "text"),
    *("tools", "tool_choice", "parallel_tool_calls", "temperature", "top_p", "top_logprobs", "prompt_cache_key"),
    *("previous_response_id", "metadata", "service_tier", "truncation", "user", "safety_identifier"),
)
"""Fields of a request."""
_OURS = ("reasoning", "function_call", "assistant")
"""Kinds of the items that a response had, as far as these are played."""
_ENCRYPTED = "gAAA"
"""Beginning of encrypted reasoning; the key of its response follows, which also begins the ids of its calls."""


def _items(body: Body) -> list[Body]:
    given = body.get("input") or []
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


def _kind(item: Body) -> str:
    return str(item.get("type") if item.get("type", "message") != "message" else item["role"])


def _unpaired(items: Sequence[Body]) -> dict[str, list[str]]:
    """What stands without the item that it needs: calls without their reasoning, reasoning and results alone."""
    found: dict[str, list[str]] = {"bare_calls": [], "bare_reasoning": [], "bare_outputs": []}
    called: set[str] = set()
    for is_response, group in groupby(items, key=lambda item: _kind(item) in _OURS):
        some = list(group)
        if not is_response:
            results = [item["call_id"] for item in some if _kind(item) == "function_call_output"]
            found["bare_outputs"] += [one for one in results if one not in called]
            continue
        keys: set[str] = set()
        for item in some:
            if _kind(item) == "reasoning":
                keys.add(str(item.get("encrypted_content")).removeprefix(_ENCRYPTED))
            elif _kind(item) == "function_call":
                called.add(item["call_id"])
                key = item["call_id"].split("_")[1]
                found["bare_calls"] += [item["call_id"]] if key.startswith("r") and key not in keys else []
        found["bare_reasoning"] += ["reasoning"] if _kind(some[-1]) == "reasoning" else []
    return found


class ResponsesStream(Stream):
    """Events of `/v1/responses`: an item each for the reasoning (encrypted), the message and the tool calls."""

    _open: tuple[str, int] | None = None
    _text = ""
    _count = 0

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self._items: list[Body] = []
        thinks = self.kind.is_thinking(self.body)
        digest = hashlib.sha256(json.dumps(self.body["input"]).encode()).hexdigest()[:8]
        self._key = ("r" if thinks else "n") + digest

    @staticmethod
    def normal(body: Body, path: str) -> Body:
        """See `Stream`."""
        reasoning = [item for item in _items(body) if _kind(item) == "reasoning"]
        contents = [str(item.get("encrypted_content")) for item in reasoning]
        return {
            **body,
            **_unpaired(_items(body)),
            "reasoning_effort": (body.get("reasoning") or {}).get("effort"),
            "unknown": [name for name in body if name not in _FIELDS],
            "unreadable": [text for text in contents if not text.startswith(_ENCRYPTED)],
            "ids": [item["id"] for item in _items(body) if "id" in item and body.get("store") is False],
            "no_summary": [item["type"] for item in reasoning if "summary" not in item],
        }

    @staticmethod
    def chat_request(body: Body) -> Body:
        """See `Stream`."""
        messages: list[Body] = []
        for kind, group in groupby(_items(body), key=_kind):
            for item in group:
                if kind == "function_call":
                    function = {"name": item["name"], "arguments": item["arguments"]}
                    if not messages or not messages[-1].get("tool_calls"):
                        messages.append({"role": "assistant", "tool_calls": []})
                    messages[-1]["tool_calls"].append({"id": item["call_id"], "function": function})
                elif kind == "function_call_output":
                    messages.append({"role": "tool", "content": str(item["output"])})
                elif kind != "reasoning":
                    messages.append({"role": item["role"], "content": item["content"]})
        form = (body.get("text") or {}).get("format") or {}
        choice = body.get("tool_choice")
        return {
            "messages": messages,
            "max_tokens": body.get("max_output_tokens"),
            "reasoning_effort": (body.get("reasoning") or {}).get("effort"),
            "tools": [{"function": tool} for tool in body.get("tools") or () if tool["type"] == "function"],
            "tool_choice": {"function": choice} if isinstance(choice, dict) and "name" in choice else choice,
            "response_format": {"json_schema": {"schema": form["schema"]}} if "schema" in form else None,
        }

    def begin(self) -> bytes:
        """See `Stream`."""
        created = self._event("response.created", response=self._response("in_progress"))
        return created + self._event("response.in_progress", response=self._response("in_progress"))

    def piece(self, index: int, tokens: Sequence[Token], *, is_first: bool, finish: str | None) -> bytes:
        """See `Stream`."""
        data = b""
        for kind, call, text in by_part(tokens):
            part = "thought" if kind == "mark" else kind
            if self._open != (part, call):
                data += self._close() + self._start(part, call)
            self._text += text
            if part == "call":
                data += self._item_event("function_call_arguments.delta", delta=text)
            elif part == "answer":
                data += self._item_event("output_text.delta", content_index=0, delta=text, logprobs=[])
        if not finish:
            return data
        status = "incomplete" if finish == "length" else "completed"
        data += self._close(status)
        return data + self._event(f"response.{status}", response=self._response(status))

    def broken(self) -> bytes:
        """See `Stream`."""
        return self._event("error", code="server_error", message="the engine died", param=None)

    def _start(self, part: str, call: int) -> bytes:
        self._open, self._text = (part, call), ""
        item: Body = {"type": "message", "role": "assistant", "content": [], "status": "in_progress"}
        if part == "call":
            name = self.samples[0].tools[call]
            item = {"type": "function_call", "call_id": f"call_{self._key}_{call}", "name": name, "arguments": ""}
        elif part == "thought":
            item = {"type": "reasoning", "summary": []}
        self._items.append({"id": f"item_{len(self._items)}", **item})
        added = self._event("response.output_item.added", output_index=len(self._items) - 1, item=self._items[-1])
        if part != "answer":
            return added
        return added + self._item_event("content_part.added", content_index=0, part=self._text_part())

    def _close(self, status: str = "completed") -> bytes:
        if self._open is None:
            return b""
        item, part, data = self._items[-1], self._open[0], b""
        if part == "call":
            item |= {"arguments": self._text, "status": status}
            data = self._item_event("function_call_arguments.done", arguments=self._text, name=item["name"])
        elif part == "answer":
            item |= {"content": [self._text_part()], "status": status}
            data = self._item_event("output_text.done", content_index=0, text=self._text, logprobs=[])
            data += self._item_event("content_part.done", content_index=0, part=self._text_part())
        elif "reasoning.encrypted_content" in (self.body.get("include") or ()):
            item["encrypted_content"] = _ENCRYPTED + self._key
        return data + self._event("response.output_item.done", output_index=len(self._items) - 1, item=item)

    def _text_part(self) -> Body:
        return {"type": "output_text", "text": self._text, "annotations": []}

    def _response(self, status: str) -> Body:
        response: Body = {"id": "resp", "object": "response", "created_at": 1, "model": self.kind.served}
        response |= {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "status": status}
        response["output"] = self._items
        if status == "incomplete":
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        if status != "in_progress" and self.shape.usage != "missing":
            prompt, tokens, thinking = self.usage()
            usage = {"input_tokens": prompt, "output_tokens": tokens, "total_tokens": prompt + tokens}
            read = {"cached_tokens": 0, "cache_write_tokens": 0}
            details = {"input_tokens_details": read, "output_tokens_details": {"reasoning_tokens": thinking}}
            response["usage"] = usage | details
        return response

    def _item_event(self, kind: str, **fields: object) -> bytes:
        """An event of the last item."""
        place = {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1}
        return self._event(f"response.{kind}", **place, **fields)

    def _event(self, kind: str, **fields: object) -> bytes:
        self._count += 1
        return event({"type": kind, "sequence_number": self._count - 1, **fields}, kind)
