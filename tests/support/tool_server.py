"""A `FaultServer` that takes tools: it shows them to its script, and calls one until it was told what the tool gave."""

from __future__ import annotations

import json
from typing import Any

from reason.core.messages import Prompt, Request

from support.fault_server import FaultServer

SAID = "Let me see."
PIECES = ('{"ci', 'ty": "Ro', 'me"}')
"""The arguments of the first call, as they are streamed."""


class ToolServer(FaultServer):
    """See the module.

    Args:
        names_calls: Whether calls have ids.
        blind: Whether it ignores tools, as servers do that do not know them.
        refuses: Whether it refuses requests with tools, as vLLM without a parser does.
    """

    def __init__(self, *args: Any, names_calls: bool = True, blind: bool = False, refuses: bool = False, **more: Any):
        super().__init__(*args, **more)
        self.names_calls, self.blind, self.refuses = names_calls, blind, refuses

    def _prompt(self, messages: Any, body: Any) -> Prompt:
        told = [{**m, "content": m.get("content") or json.dumps(m.get("tool_calls"))} for m in messages]
        if body.get("tools") and not self.blind:
            told = [{"role": "system", "content": f"tools: {json.dumps(body['tools'])}"}, *told]
        return super()._prompt([{"role": m["role"], "content": m["content"]} for m in told], body)

    async def _writing(self, reply: Any, path: str, body: Any, fault: Any) -> None:
        if body.get("tools") and self.refuses:
            await reply.error(400, '"auto" tool choice requires --enable-auto-tool-choice')
            return
        await super()._writing(reply, path, body, fault)

    async def _stream(self, reply: Any, path: str, body: Any, request: Request, fault: Any) -> None:
        calls = body.get("tools") and not self.blind and body["messages"][-1]["role"] != "tool"
        if not calls or body["max_tokens"] == 1:
            await super()._stream(reply, path, body, request, fault)
            return
        frame = {"id": f"r{self.count}", "object": "chat.completion.chunk", "created": 1, "model": self.served}
        chosen = body["tool_choice"]
        name = chosen["function"]["name"] if isinstance(chosen, dict) else body["tools"][0]["function"]["name"]
        await reply.start("text/event-stream")

        async def tell(index: int, delta: dict[str, Any], finish: str | None = None) -> None:
            choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": None}
            await reply.event({**frame, "choices": [choice]})

        def call(place: int, **more: Any) -> dict[str, Any]:
            return {"tool_calls": [{"index": place, **more}]}

        def began(place: int, arguments: str) -> dict[str, Any]:
            named = {"id": f"call-{place}"} if self.names_calls else {}
            return call(place, type="function", function={"name": name, "arguments": arguments}, **named)

        for i in range(request.sampling.n):
            await tell(i, {"role": "assistant", "content": SAID})
            await tell(i, began(0, ""))
            for piece in PIECES:
                await tell(i, call(0, function={"arguments": piece}))
            await tell(i, began(1, "{}"))
            if fault == "truncated":
                await reply.end()
                return
            await tell(i, {}, "tool_calls")
        tokens = self.model.count_tokens(request.prompt)
        usage = {"prompt_tokens": tokens, "completion_tokens": 8, "total_tokens": tokens + 8}
        await reply.event({**frame, "choices": [], "usage": usage})
        await reply.event("[DONE]")
        await reply.end()
