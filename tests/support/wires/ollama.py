"""Ollama's own API."""

from __future__ import annotations

import json
from collections.abc import Sequence

from support.wires.script import Body, Token
from support.wires.stream import Stream, by_part

_FIELDS = {"answer": "content", "thought": "thinking"}


class OllamaStream(Stream):
    """Lines of `/api/chat`."""

    content_type = "application/x-ndjson"
    COMMENT = b""

    @staticmethod
    def chat_request(body: Body) -> Body:
        """See `Stream`."""
        options = body.get("options") or {}
        schema = body.get("format")
        return {
            "messages": body["messages"],
            "max_tokens": options.get("num_predict"),
            "stop": options.get("stop"),
            "seed": options.get("seed"),
            "tools": body.get("tools"),
            "response_format": {"json_schema": {"schema": schema}} if isinstance(schema, dict) else None,
        }

    def piece(self, index: int, tokens: Sequence[Token], *, is_first: bool, finish: str | None) -> bytes:
        """See `Stream`."""
        message: Body = {"role": "assistant", "content": ""}
        for part, call, text in by_part(tokens):
            if part in _FIELDS:
                message[_FIELDS[part]] = message.get(_FIELDS[part], "") + text
            elif part == "call" and (made := self.completed_call(index, call, tokens)):
                function = {"name": made[0], "arguments": made[1]}
                message.setdefault("tool_calls", []).append({"function": function})
        line: Body = {
            "model": self.kind.served,
            "created_at": "2026-01-01T00:00:00Z",
            "message": message,
            "done": False,
        }
        if finish:
            line |= {"done": True, "done_reason": "length" if finish == "length" else "stop"}
            if self.shape.usage != "missing":
                line["prompt_eval_count"], line["eval_count"], _ = self.usage()
        return json.dumps(line).encode() + b"\n"

    def broken(self) -> bytes:
        """See `Stream`."""
        return json.dumps({"error": "the engine died"}).encode() + b"\n"
