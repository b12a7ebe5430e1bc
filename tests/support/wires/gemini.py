"""Gemini's `streamGenerateContent`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from support.wires.script import Body, Token
from support.wires.stream import Stream, by_part, event

_FINISH = {"length": "MAX_TOKENS"}


class GeminiStream(Stream):
    """Responses of `models/NAME:streamGenerateContent`, which show thoughts where the request includes them."""

    COMMENT = b""

    @staticmethod
    def normal(body: Body, path: str) -> Body:
        """The request with the names of fields in camel case, which the API takes in both; schemas stay."""
        model = re.findall(r"models/(.*):", path)[0]
        return {"model": model, **{_camel(name): _normal(value) for name, value in body.items()}}

    @staticmethod
    def chat_request(body: Body) -> Body:
        """See `Stream`."""
        config = body.get("generationConfig") or {}
        messages: list[Body] = []
        for content in body["contents"]:
            parts = content["parts"]
            calls = [
                {
                    "function": {
                        "name": one["functionCall"]["name"],
                        "arguments": json.dumps(one["functionCall"]["args"]),
                    }
                }
                for one in parts
                if "functionCall" in one
            ]
            messages += [
                {"role": "tool", "content": json.dumps(one["functionResponse"])}
                for one in parts
                if "functionResponse" in one
            ]
            text = "".join(one.get("text", "") for one in parts if not one.get("thought"))
            role = "assistant" if content.get("role") == "model" else "user"
            if text or calls:
                messages.append({"role": role, "content": text, **({"tool_calls": calls} if calls else {})})
        declared = [one for tool in body.get("tools") or () for one in tool.get("functionDeclarations") or ()]
        calling = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
        names = calling.get("allowedFunctionNames") or [one["name"] for one in declared]
        is_forced = calling.get("mode") == "ANY"
        schema = config.get("responseJsonSchema") or config.get("responseSchema")
        return {
            "messages": messages,
            "max_tokens": config.get("maxOutputTokens"),
            "stop": config.get("stopSequences"),
            "n": config.get("candidateCount"),
            "seed": config.get("seed"),
            "thinking": {"budget_tokens": (config.get("thinkingConfig") or {}).get("thinkingBudget")},
            "tools": [{"function": one} for one in declared],
            "tool_choice": {"function": {"name": names[0]}} if is_forced else calling.get("mode", "").lower(),
            "response_format": {"json_schema": {"schema": schema}} if schema else None,
        }

    def piece(self, index: int, tokens: Sequence[Token], *, is_first: bool, finish: str | None) -> bytes:
        """See `Stream`."""
        config = (self.body.get("generationConfig") or {}).get("thinkingConfig") or {}
        parts: list[Body] = []
        for part, call, text in by_part(tokens):
            if part == "call":
                if made := self.completed_call(index, call, tokens):
                    called = {"name": made[0], "args": made[1]}
                    parts.append({"functionCall": called, "thoughtSignature": "c2lnbmVk"})
            elif part == "answer":
                parts.append({"text": text})
            elif config.get("includeThoughts"):
                parts.append({"text": text, "thought": True})
        if not parts and not finish:
            return b""
        candidate: Body = {"index": index, "content": {"role": "model", "parts": parts or [{"text": ""}]}}
        if finish:
            candidate["finishReason"] = _FINISH.get(finish, "STOP")
        has_usage = self.shape.usage != "missing" and (self.shape.usage in ("every", "constant") or finish)
        return event(self._response([candidate], with_usage=bool(has_usage)))

    def _response(self, candidates: list[Any], *, with_usage: bool) -> Body:
        response: Body = {"candidates": candidates, "modelVersion": self.kind.served, "responseId": "r"}
        if with_usage:
            prompt, tokens, thinking = self.usage()
            response["usageMetadata"] = {
                "promptTokenCount": prompt,
                "candidatesTokenCount": tokens - thinking,
                "thoughtsTokenCount": thinking,
                "totalTokenCount": prompt + tokens,
            }
        return response


def _normal(value: Any) -> Any:
    if isinstance(value, list):
        return [_normal(one) for one in value]
    if not isinstance(value, dict):
        return value
    names = {name: _camel(name) for name in value}
    kept = ("args", "response", "parameters", "responseSchema", "responseJsonSchema", "parametersJsonSchema")
    return {to: value[name] if to in kept else _normal(value[name]) for name, to in names.items()}


def _camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda match: match[1].upper(), name)
