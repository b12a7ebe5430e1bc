"""Ollama's `/v1/chat/completions`.

Source: `openai/openai.go`, `middleware/openai.go` and `server/routes.go` of ollama/ollama, August 2026.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from support.wires.chat import ChatStream
from support.wires.script import Body, Token

_FIELDS = (
    *("model", "messages", "stream", "stream_options", "max_tokens", "seed", "stop", "temperature", "top_p"),
    *("frequency_penalty", "presence_penalty", "response_format", "tools", "reasoning_effort"),
    *("logprobs", "top_logprobs"),
)
"""Those of `ChatCompletionRequest`; all others are ignored, as `n`, `tool_choice` and `chat_template_kwargs`."""


class OllamaStream(ChatStream):
    """Its chunks: tool calls are complete, and the finish has one of its own."""

    @staticmethod
    def normal(body: Body, path: str) -> Body:
        """See `Stream`."""
        return {name: value for name, value in body.items() if name in _FIELDS}

    def piece(self, index: int, tokens: Sequence[Token], *, is_first: bool, finish: str | None) -> bytes:
        """See `Stream`."""
        data = super().piece(index, tokens, is_first=is_first, finish=None)
        return data + (super().piece(index, (), is_first=False, finish=finish) if finish else b"")

    def _fill(self, choice: Body, tokens: Sequence[Token], with_ids: bool, is_first: bool) -> list[Token]:
        calls = {t.call: t for t in tokens if t.part == "call"}
        shown = super()._fill(choice, [t for t in tokens if t.part != "call"], with_ids, is_first)
        for call, last in calls.items():
            if made := self.completed_call(choice["index"], call, tokens):
                function = {"name": made[0], "arguments": json.dumps(made[1])}
                called = {"id": f"call_{call}", "index": call, "type": "function", "function": function}
                choice["delta"].setdefault("tool_calls", []).append(called)
                shown.append(last)
        return shown

    def usage(self) -> tuple[int, int, int]:
        """See `Stream`. After a thought, a schema is applied in a second run of the engine, whose counts are sent."""
        prompt, tokens, thinking = super().usage()
        if self.shape.usage == "constant" or not self.body.get("response_format"):
            return prompt, tokens, thinking
        return prompt + thinking, tokens - thinking, thinking

    def broken(self) -> bytes:
        """See `Stream`. An error is read as a response without its fields, and the end of the stream is missing."""
        return self._event([{"index": 0, "delta": {"content": ""}, "finish_reason": None}], with_usage=False)
