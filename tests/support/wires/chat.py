"""OpenAI's chat completions and completions, as OpenAI, vLLM, DeepSeek and gateways stream them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from support.wires.script import Body, Sample, Token, signature_of, token_id
from support.wires.stream import Stream, by_part, event


class ChatStream(Stream):
    """Chunks of `/v1/chat/completions`."""

    SHAPE = "chat.completion.chunk"

    @staticmethod
    def normal(body: Body, path: str) -> Body:
        """See `Stream`."""
        found: dict[str, list[str]] = {"altered": [], "bare_calls": []}
        for message in body.get("messages") or ():
            details = message.get("reasoning_details") or ()
            texts = [one for one in details if one["type"] == "reasoning.text"]
            found["altered"] += [t.get("text", "") for t in texts if t.get("signature") != signature_of(t["text"])]
            is_sealed = any(one["type"] == "reasoning.encrypted" for one in details)
            found["bare_calls"] += [] if is_sealed else [call["id"] for call in message.get("tool_calls") or ()]
        return body | {name: values for name, values in found.items() if values}

    def piece(self, index: int, tokens: Sequence[Token], *, is_first: bool, finish: str | None) -> bytes:
        """See `Stream`. Nothing for tokens that are not shown."""
        choice: dict[str, Any] = {"index": index, "finish_reason": finish, "logprobs": None}
        with_ids = self.kind.vllm and self.shape.ids and bool(self.body.get("return_token_ids"))
        if with_ids:
            choice["token_ids"] = [token.id for token in tokens]
        if self.kind.vllm and (finish is not None or self.SHAPE == "text_completion"):
            choice["stop_reason"] = self.samples[index].stop if finish else None
        shown = self._fill(choice, tokens, with_ids, is_first)
        if self._wants_logprobs and self.kind.has_logprobs and shown:
            start = self.made.choices[index].tokens - len(tokens)
            entries = [self._logprobs(token, start + i) for i, token in enumerate(shown)]
            choice["logprobs"] = {name: [e[name] for e in entries] for name in entries[0]}
        if not shown and finish is None and not is_first:
            return b""
        at_finish = self.shape.usage == "finish" or (self.kind.provider == "mistral" and self.shape.usage == "end")
        return self._event([choice], with_usage=self.shape.usage == "every" or bool(at_finish and finish))

    def end(self) -> bytes:
        """See `Stream`."""
        wanted = (self.body.get("stream_options") or {}).get("include_usage") and self.kind.provider != "mistral"
        at_end = wanted and self.shape.usage in ("end", "constant")
        return (self._event([], with_usage=True) if at_end else b"") + event("[DONE]")

    def _event(self, choices: list[Any], *, with_usage: bool) -> bytes:
        value = {"id": "r", "object": self.SHAPE, "created": 1, "model": self.kind.served, "choices": choices}
        return event({**value, "usage": self.usage_fields()} if with_usage else value)

    def usage_fields(self) -> Body:
        """The usage in OpenAI's form."""
        prompt, tokens, thinking = self.usage()
        usage: Body = {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}
        if self.kind.provider == "xai":  # counts thoughts beside the completion
            usage["completion_tokens"] -= thinking
        if self.kind.reports_thinking_tokens:
            usage["completion_tokens_details"] = {"reasoning_tokens": thinking}
        return usage

    def _fill(self, choice: Body, tokens: Sequence[Token], with_ids: bool, is_first: bool) -> list[Token]:
        """Put the tokens' texts into a choice; gives those that are shown."""
        shows = self.kind.shows
        in_field = shows in ("reasoning", "reasoning_content")
        # the parser takes everything for a thought until it has seen its end
        continued = in_field and self.kind.vllm and bool(self.body.get("continue_final_message"))
        thinks = self.kind.is_thinking(self.body) or self.kind.is_harmony
        fields = {"answer": shows if continued and thinks else "content"}
        if shows in ("tags", "channel"):
            fields |= {"thought": "content", "mark": "content"}
        elif in_field or shows == "chunks":
            fields["thought"] = shows
        delta: Body = {"role": "assistant"} if is_first else {}
        for part, call, text in by_part(tokens):
            if part == "call":
                name = self.samples[choice["index"]].tools[call]
                opens = next(t for t in self.samples[choice["index"]].tokens if t.call == call and t.part == part)
                head = {"id": self._call_id(call), "type": "function"} if any(t is opens for t in tokens) else {}
                function = {**({"name": name} if head else {}), "arguments": text}
                delta.setdefault("tool_calls", []).append({"index": call, **head, "function": function})
            elif part == "thought" and shows == "chunks":
                delta.setdefault("content", []).append({"type": "thinking", "thinking": [_text_chunk(text)]})
            elif part == "answer" and isinstance(delta.get("content"), list):
                delta["content"].append(_text_chunk(text))
            elif part in fields:
                delta[fields[part]] = delta.get(fields[part], "") + text
        if self.kind.details and (details := self._details(self.samples[choice["index"]], tokens)):
            delta["reasoning_details"] = details
        choice["delta"] = delta
        shown = [t for t in tokens if t.part in fields or t.part == "call" or (with_ids and in_field)]
        if not by_part(shown) and any(t.part == "answer" for t in shown):
            delta.setdefault(fields["answer"], "")
        return shown

    def _call_id(self, call: int) -> str:
        return f"call{call:05}" if self.kind.provider == "mistral" else f"call_{call}"

    def _details(self, sample: Sample, tokens: Sequence[Token]) -> list[Body]:
        """OpenRouter's form of the thought in some tokens, and its signature with the first token after it."""
        is_text = self.kind.details == "text"
        name = "text" if is_text else "summary"
        kind = {"type": f"reasoning.{name}", "format": f"{self.kind.served.partition('/')[0]}-v1", "index": 0}
        made = [{**kind, name: text} for part, _, text in by_part(tokens) if part == "thought"]
        first = next((t for t in sample.tokens if t.part in ("answer", "call")), None)
        if sample.thought and any(t is first for t in tokens):
            signature = signature_of(sample.thought)
            sealed = {"type": "reasoning.encrypted", "data": signature, "index": 1}
            made.append(kind | ({"signature": signature} if is_text else sealed))
        return made

    @property
    def _wants_logprobs(self) -> bool:
        return self.body.get("logprobs") is not None and self.body["logprobs"] is not False

    def _ranked(self, token: Token, position: int) -> list[tuple[str, float]]:
        as_ids = self.kind.vllm and self.body.get("return_tokens_as_token_ids")
        digest = hashlib.sha256(f"{token.text}/{position}/{self.body.get('seed')}".encode()).digest()
        others = [t for t in (" so", "No", "Yes", " 3", "\n") if t != token.text]
        ranked = [(token.text or "<|im_end|>", -digest[0] / 512)]
        ranked += [(text, -2.5 - i / 2) for i, text in enumerate(others)]
        return [(f"token_id:{token_id(text)}" if as_ids else text, logprob) for text, logprob in ranked]

    def _logprobs(self, token: Token, position: int) -> Body:
        (name, logprob), *_ = ranked = self._ranked(token, position)
        shown = ranked[: self.body.get("top_logprobs") or 0]
        top = [{"token": t, "logprob": lp, "bytes": None} for t, lp in shown]
        entry = {"token": name, "logprob": logprob, "bytes": list(token.text.encode()), "top_logprobs": top}
        return {"content": entry}


def _text_chunk(text: str) -> Body:
    return {"type": "text", "text": text}


class TextStream(ChatStream):
    """Chunks of `/v1/completions`."""

    SHAPE = "text_completion"

    def _fill(self, choice: Body, tokens: Sequence[Token], with_ids: bool, is_first: bool) -> list[Token]:
        skips = self.body.get("skip_special_tokens", True)
        texts = [t.text for t in tokens if not (skips and t.text.startswith("<|") and t.text.endswith("|>"))]
        choice["text"] = "".join(texts)
        return list(tokens)

    def _logprobs(self, token: Token, position: int) -> Body:
        ranked = self._ranked(token, position)
        top = dict(ranked[: self.body["logprobs"] or 1])
        return {"tokens": ranked[0][0], "token_logprobs": ranked[0][1], "top_logprobs": top}
