"""Anthropic's Messages API."""

from __future__ import annotations

import json
from collections.abc import Sequence

from support.wires.script import Body, Token, signature_of, tokens_of
from support.wires.stream import Stream, by_part, event

_BLOCKS = {"thought": ("thinking", "thinking"), "answer": ("text", "text"), "call": ("input_json", "partial_json")}
"""Type of the deltas and their field, by part."""
MIN_CACHED_TOKENS = 1024
COUNT_FIELDS = (
    *("model", "messages", "system", "tools", "tool_choice", "thinking", "cache_control", "context_management"),
    *("mcp_servers", "output_config", "output_format", "speed"),
)
"""Fields of `/v1/messages/count_tokens`. Source: https://docs.claude.com/en/api/messages-count-tokens."""


def _blocks(content: str | list[Body] | None) -> list[Body]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []


def blocks_of(body: Body) -> list[tuple[str, bool]]:
    """Text of each block of a request in the order of the cache, and whether it is marked."""
    contents = [body.get("system"), *(message["content"] for message in body["messages"])]
    blocks = [block for content in contents for block in _blocks(content)]
    return [(block.get("text", ""), "cache_control" in block) for block in blocks]


class MessagesStream(Stream):
    """Events of `/v1/messages`, with a block for a thought, the answer and each tool call."""

    COMMENT = event({"type": "ping"}, "ping")
    _open: tuple[str, int] | None = None
    _index = -1

    @staticmethod
    def normal(body: Body, path: str) -> Body:
        """See `Stream`."""
        blocks = [block for message in body["messages"] for block in _blocks(message["content"])]
        thoughts = [block for block in blocks if block["type"] == "thinking"]
        altered = [block["thinking"] for block in thoughts if block["signature"] != signature_of(block["thinking"])]
        return {**body, "altered": altered}

    @staticmethod
    def chat_request(body: Body) -> Body:
        """See `Stream`."""
        messages = [{"role": "system", "content": "".join(block["text"] for block in _blocks(body.get("system")))}]
        for message in body["messages"]:
            blocks = _blocks(message["content"])
            text = "".join(block.get("text", "") for block in blocks)
            calls = [
                {"id": block["id"], "function": {"name": block["name"], "arguments": json.dumps(block["input"])}}
                for block in blocks
                if block["type"] == "tool_use"
            ]
            messages += [{"role": "tool", "content": b.get("content")} for b in blocks if b["type"] == "tool_result"]
            if text or calls or len(blocks) == 0:
                messages.append({"role": message["role"], "content": text, **({"tool_calls": calls} if calls else {})})
        tools = [
            {"function": {"name": tool["name"], "parameters": tool["input_schema"]}}
            for tool in body.get("tools") or ()
            if "input_schema" in tool
        ]
        chosen = body.get("tool_choice") or {}
        form = body.get("output_format") or (body.get("output_config") or {}).get("format") or {}
        return {
            **{k: body[k] for k in ("max_tokens", "thinking") if k in body},
            "messages": messages,
            "stop": body.get("stop_sequences"),
            "tools": tools,
            "tool_choice": {"function": {"name": chosen["name"]}} if "name" in chosen else chosen.get("type"),
            "response_format": {"json_schema": {"schema": form["schema"]}} if form else None,
        }

    def begin(self) -> bytes:
        """See `Stream`."""
        message = {"id": "m", "type": "message", "role": "assistant", "model": self.kind.served, "content": []}
        read, written = self._cached()
        usage = {"input_tokens": self.usage()[0] - read - written, "output_tokens": 0}
        usage |= {"cache_read_input_tokens": read, "cache_creation_input_tokens": written}
        return _event("message_start", message={**message, "stop_reason": None, "usage": usage})

    def _cached(self) -> tuple[int, int]:
        """Tokens of the prompt that are read from the cache and written to it, up to each marked block."""
        prefix, read, written, tokens = "", 0, 0, 0
        fresh: list[str] = []
        for block, is_marked in blocks_of(self.body):
            prefix, tokens = prefix + block, tokens + len(tokens_of(block))
            if prefix in self.made.cache:
                read, written = tokens, 0
            elif is_marked and tokens >= MIN_CACHED_TOKENS:
                written = tokens - read
                fresh.append(prefix)
        self.made.cache.update(fresh)
        return read, written

    def piece(self, index: int, tokens: Sequence[Token], *, is_first: bool, finish: str | None) -> bytes:
        """See `Stream`."""
        data = b""
        for part, call, text in by_part(tokens):
            if self._open != (part, call):
                data += self._close() + self._start(part, call)
            kind, field = _BLOCKS[part]
            if part == "thought" and self._is_omitted:
                continue
            data += _event("content_block_delta", index=self._index, delta={"type": f"{kind}_delta", field: text})
        return data + (self._finish(finish) if finish else b"")

    def _start(self, part: str, call: int) -> bytes:
        self._open, self._index = (part, call), self._index + 1
        block: Body = {"type": "text", "text": ""}
        if part == "thought":
            block = {"type": "thinking", "thinking": "", "signature": ""}
        elif part == "call":
            block = {"type": "tool_use", "id": f"toolu_{call}", "name": self.samples[0].tools[call], "input": {}}
        return _event("content_block_start", index=self._index, content_block=block)

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        text = "" if self._is_omitted else self.samples[0].thought
        signature = {"type": "signature_delta", "signature": signature_of(text)}
        signed = _event("content_block_delta", index=self._index, delta=signature)
        return (signed if self._open[0] == "thought" else b"") + _event("content_block_stop", index=self._index)

    def _finish(self, finish: str) -> bytes:
        (sample,) = self.samples
        named = {"length": "max_tokens", "tool_calls": "tool_use"}
        reason = named.get(finish, "end_turn" if sample.stop is None else "stop_sequence")
        delta = {"stop_reason": reason, "stop_sequence": sample.stop}
        _, tokens, thinking = self.usage()
        usage: Body = {"output_tokens": tokens}
        if self.kind.reports_thinking_tokens:
            usage["output_tokens_details"] = {"thinking_tokens": thinking}
        return self._close() + _event("message_delta", delta=delta, usage=usage)

    @property
    def _is_omitted(self) -> bool:
        return self.kind.omits and (self.body.get("thinking") or {}).get("display") != "summarized"

    def end(self) -> bytes:
        """See `Stream`."""
        return _event("message_stop")


def _event(kind: str, **fields: object) -> bytes:
    return event({"type": kind, **fields}, kind)
