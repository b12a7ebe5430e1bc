"""OpenAI's Responses API."""

from __future__ import annotations

from collections.abc import Sequence

from support.wires.script import Body, Token
from support.wires.stream import Stream, by_part, event

_DELTAS = {"answer": "response.output_text.delta", "call": "response.function_call_arguments.delta"}


class ResponsesStream(Stream):
    """Events of `/v1/responses`: an item each for the reasoning (encrypted), the message and the tool calls."""

    _open: tuple[str, int] | None = None
    _text = ""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._items: list[Body] = []

    @staticmethod
    def chat_request(body: Body) -> Body:
        """See `Stream`."""
        given = body["input"]
        items = [{"role": "user", "content": given}] if isinstance(given, str) else given
        messages: list[Body] = []
        for item in items:
            if item.get("type") == "function_call":
                function = {"name": item["name"], "arguments": item["arguments"]}
                messages.append({"role": "assistant", "tool_calls": [{"id": item["call_id"], "function": function}]})
            elif item.get("type") == "function_call_output":
                messages.append({"role": "tool", "content": str(item["output"])})
            elif item.get("type", "message") == "message":
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
        return self._event("response.created", response=self._response("in_progress"))

    def piece(self, index: int, tokens: Sequence[Token], *, is_first: bool, finish: str | None) -> bytes:
        """See `Stream`."""
        data = b""
        for part, call, text in by_part(tokens):
            if self._open != (part, call):
                data += self._close() + self._start(part, call)
            self._text += text
            if part in _DELTAS:
                data += self._event(_DELTAS[part], item_id=self._items[-1]["id"], delta=text)
        if not finish:
            return data
        status = "incomplete" if finish == "length" else "completed"
        data += self._close()
        return data + self._event(f"response.{status}", response=self._response(status))

    def _start(self, part: str, call: int) -> bytes:
        self._open, self._text = (part, call), ""
        item: Body = {"type": "message", "role": "assistant", "content": []}
        if part == "call":
            item = {"type": "function_call", "call_id": f"call_{call}", "name": self.samples[0].tools[call]}
        elif part == "thought":
            item = {"type": "reasoning", "summary": []}
        self._items.append({"id": f"item_{len(self._items)}", "status": "in_progress", **item})
        return self._event("response.output_item.added", item=dict(self._items[-1]))

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        item, part = self._items[-1], self._open[0]
        item["status"] = "completed"
        if part == "call":
            item["arguments"] = self._text
        elif part == "answer":
            item["content"] = [{"type": "output_text", "text": self._text, "annotations": []}]
        elif "reasoning.encrypted_content" in (self.body.get("include") or ()):
            item["encrypted_content"] = "encrypted"
        return self._event("response.output_item.done", item=item)

    def _response(self, status: str) -> Body:
        response: Body = {"id": "resp", "object": "response", "model": self.kind.served, "status": status}
        response["output"] = self._items
        if status == "incomplete":
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        if status != "in_progress" and self.shape.usage != "missing":
            prompt, tokens, thinking = self.usage()
            usage = {"input_tokens": prompt, "output_tokens": tokens, "total_tokens": prompt + tokens}
            response["usage"] = {**usage, "output_tokens_details": {"reasoning_tokens": thinking}}
        return response

    def _event(self, kind: str, **fields: object) -> bytes:
        place = {} if "response" in fields else {"output_index": max(0, len(self._items) - 1)}
        return event({"type": kind, **place, **fields}, kind)
