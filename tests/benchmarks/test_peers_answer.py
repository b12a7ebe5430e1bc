"""Peers answer through their runners, before a model that is scripted, behind the proxy that counts."""

from __future__ import annotations

import importlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from peer_job import Job, MarkedQuestion
from peer_judge import QUESTION as JUDGED
from peers_compare import CHAIN, STEPS, SYSTEM, peer_named
from peers_proxy import MARK, Proxy

SIZE = 2
ASKED = MarkedQuestion("q", "How many?", MARK.format(name="q") + "How many?", MARK.format(name="q"))


class Model:
    """Writes one step, or an end in a box, or what the judge thinks: it likes ends with an even number."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    async def reply(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        last = body["messages"][-1]
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        if last["content"] == JUDGED:
            likes = any(even in body["messages"][-2]["content"] for even in ("boxed{2}", "boxed{4}"))
            shown = [{"token": "Yes", "logprob": -0.1 if likes else -3.0}, {"token": "No", "logprob": -1.0}]
            choice |= {"message": {"role": "assistant", "content": "Yes"}}
            choice |= {"logprobs": {"content": [{"token": "Yes", "logprob": -0.1, "top_logprobs": shown}]}}
        else:
            first = body.get("stop") and last["role"] == "user"
            text = "First we count." if first else f"So \\boxed{{{len(self.bodies) % 5}}}"
            choice |= {"message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
        return web.json_response({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage})


@asynccontextmanager
async def listening(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("peer", "method", "written", "judged"),
    [
        ("its-hub", "self-consistency", SIZE, 0),
        ("its-hub", "best-of-n", SIZE, SIZE),
        ("its-hub", "beam", 2 * SIZE, 2 * SIZE),
        ("its-hub", "particle-filter", 2 * SIZE, 2 * SIZE),
        ("treequest", "mcts", SIZE, SIZE),
        ("treequest", "ab-mcts", SIZE, SIZE),
    ],
)
async def test_peer_answers_and_every_call_is_counted_for_its_question(peer, method, written, judged):
    reported = peer_named(peer)
    pytest.importorskip(reported.venv)
    model, app = Model(), web.Application()
    app.router.add_post("/v1/chat/completions", model.reply)
    async with listening(app) as upstream:
        proxy = Proxy(upstream)
        async with listening(proxy.app) as root:
            job = Job(f"{root}/v1", "model", method, SIZE, (ASKED,), SYSTEM, CHAIN, STEPS)
            solve = await importlib.import_module(reported.runner.removesuffix(".py")).make(job)
            text = await solve(ASKED)
    assert "\\boxed{" in text
    assert {call.item for call in proxy.calls} == {"q"}
    assert "[[item" not in json.dumps(model.bodies)
    asked = [body["messages"][-1]["content"] == JUDGED for body in model.bodies]
    assert (asked.count(False), asked.count(True)) == (written, judged)
    if judged:
        liked = [body["messages"][-2]["content"] for body in model.bodies if body["messages"][-1]["content"] == JUDGED]
        best = [said for said in liked if "boxed{2}" in said or "boxed{4}" in said]
        assert method == "particle-filter" or not best or text in best
