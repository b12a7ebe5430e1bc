"""Overhead of a model call by client: time of a call to a server that answers at once.

    python benchmarks/backend_overhead.py [--requests 1024] [--concurrency 256] [--rounds 9] [--tokens 8]

The server runs in a process of its own and sends one fixed response, streamed on request. Every client sends the same
prompt concurrently, reads the response to its end and checks it. Rounds of the clients are interleaved in rotating
order, so that other load affects all alike. Printed are medians over the rounds of wall time and of this process's CPU
time per call. Loaded objects are frozen before (`gc.freeze`): one collection takes longer than a hundred calls.

its-hub and OptiLLM are measured where installed, by the part of them that calls a model.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import gc
import json
import logging
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from typing import Any

from reporting import processor

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
Call = Callable[[], Awaitable[str]]
Close = Callable[[], Awaitable[None]]


def serve(tokens: int, pipe: Connection) -> None:
    """Answer every POST with the same stream; sends its port through the pipe."""
    frame = {"id": "r", "object": "chat.completion.chunk", "created": 1, "model": "fake"}
    choices = [{"index": 0, "delta": {"content": "word "}, "finish_reason": None} for _ in range(tokens)]
    choices[-1]["finish_reason"] = "stop"
    events: list[Any] = [{**frame, "choices": [choice]} for choice in choices]
    usage = {"prompt_tokens": 14, "completion_tokens": tokens, "total_tokens": 14 + tokens}
    events.append({**frame, "choices": [], "usage": usage})
    stream = "".join(f"data: {json.dumps(e)}\n\n" for e in events) + "data: [DONE]\n\n"
    full = json.dumps(
        {
            **frame,
            "object": "chat.completion",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "word " * tokens},
                    "finish_reason": "stop",
                }
            ],
            "usage": usage,
        }
    )

    def reply(kind: str, text: str) -> bytes:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(text)}\r\n\r\n"
        return (head + text).encode()

    streamed, plain = reply("text/event-stream", stream), reply("application/json", full)

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                length = next((int(x.partition(b":")[2]) for x in lines if x.startswith(b"content-length")), 0)
                body = await reader.readexactly(length)
                writer.write(streamed if b'"stream":true' in body.replace(b" ", b"") else plain)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(connection, "127.0.0.1", 0, backlog=2048)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


async def do_nothing() -> None:
    """Close a client that has nothing to close."""


def httpx_call(base: str, concurrency: int) -> tuple[Call, Close]:
    """Bare httpx: the stream's lines, read as JSON."""
    import httpx

    client = httpx.AsyncClient(
        limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency), timeout=60
    )
    body = {"model": "fake", "messages": MESSAGES, "stream": True, "max_tokens": 64}

    async def call() -> str:
        text = ""
        async with client.stream("POST", f"{base}/chat/completions", json=body) as reply:
            async for line in reply.aiter_lines():
                if line.startswith("data: {"):
                    for choice in json.loads(line[6:])["choices"]:
                        text += choice["delta"]["content"]
        return text

    return call, client.aclose


def openai_call(base: str, concurrency: int) -> tuple[Call, Close]:
    """The `openai` client, streaming."""
    import openai

    client = openai.AsyncOpenAI(api_key="none", base_url=base, max_retries=0)

    async def call() -> str:
        stream = await client.chat.completions.create(
            model="fake", messages=MESSAGES, stream=True, max_tokens=64, stream_options={"include_usage": True}
        )
        text = ""
        async for chunk in stream:
            for choice in chunk.choices:
                text += choice.delta.content or ""
        return text

    return call, client.close


def litellm_call(base: str, concurrency: int) -> tuple[Call, Close]:
    """`litellm.acompletion` as its documentation shows it, streaming."""
    from reason.serving.litellm.providers import load_litellm

    litellm = load_litellm()

    async def call() -> str:
        stream = await litellm.acompletion(
            model="hosted_vllm/fake",
            messages=MESSAGES,
            stream=True,
            max_tokens=64,
            api_base=base,
            stream_options={"include_usage": True},
        )
        text = ""
        async for chunk in stream:
            for choice in chunk.choices:
                text += choice.delta.content or ""
        return text

    return call, do_nothing


def router_call(base: str, concurrency: int) -> tuple[Call, Close]:
    """`litellm.Router` with one endpoint, least busy, streaming."""
    from litellm import Router

    endpoint = {"model": "hosted_vllm/fake", "api_base": base, "api_key": "none"}
    router = Router(
        model_list=[{"model_name": "fake", "litellm_params": endpoint}],
        routing_strategy="least-busy",
        num_retries=0,
    )

    async def call() -> str:
        stream = await router.acompletion(
            model="fake",
            messages=MESSAGES,
            stream=True,
            max_tokens=64,
            stream_options={"include_usage": True},
        )
        text = ""
        async for chunk in stream:
            for choice in chunk.choices:
                text += choice.delta.content or ""
        return text

    return call, do_nothing


async def ours_call(base: str, concurrency: int) -> tuple[Call, Close]:
    """`LiteLLMModel.generate`, one request a call, with a listener; no probing, as the fake can do nothing."""
    from reason.core.messages import Chunk, Prompt, Request, SamplingParams
    from reason.core.settings import ProviderSettings, Settings
    from reason.serving.litellm.factory import load_litellm_model

    provider = ProviderSettings(api_base=base, concurrency=concurrency, probe=False)
    model = await load_litellm_model("hosted_vllm/fake", Settings(providers={"hosted_vllm": provider}))
    request = Request(
        prompt=Prompt.user(MESSAGES[0]["content"]), sampling=SamplingParams(max_tokens=64, seed=1, logprobs=False)
    )

    def collect(chunk: Chunk) -> None:
        pass

    async def call() -> str:
        [[completion]] = await model.generate([request], collect)
        return completion.text

    return call, model.aclose


def its_hub_call(base: str, concurrency: int) -> tuple[Call, Close]:
    """its-hub's own client, with the session that it keeps; it does not stream."""
    from its_hub.api import ChatMessage
    from its_hub.core.lms.openai_lm import OpenAICompatibleLanguageModel

    model = OpenAICompatibleLanguageModel(
        endpoint=base, api_key="none", model_name="fake", max_completion_tokens=64, max_concurrency=concurrency
    )
    messages = [ChatMessage(role="user", content=MESSAGES[0]["content"])]

    async def call() -> str:
        return str((await model.agenerate_single(messages))["content"])

    return call, model.close


def optillm_call(base: str, concurrency: int) -> tuple[Call, Close]:
    """OptiLLM's plain approach over the client that it makes itself: blocking, so in threads; it does not stream."""
    from optillm import server

    logging.disable(logging.WARNING)  # it logs every request
    os.environ["OPENAI_API_KEY"] = "none"
    server.server_config["base_url"] = base
    client, _ = server.get_config()
    threads = ThreadPoolExecutor(concurrency)

    def ask() -> str:
        reply = server.none_approach(client, "fake", MESSAGES, max_tokens=64)
        return str(reply["choices"][0]["message"]["content"])

    async def call() -> str:
        return await asyncio.get_running_loop().run_in_executor(threads, ask)

    async def close() -> None:
        threads.shutdown()
        client.close()

    return call, close


async def run_round(call: Call, requests: int, concurrency: int, expected: str) -> tuple[float, float]:
    """Milliseconds that pass for a call, and of this process's processor time, with so many calls at a time."""
    numbers = iter(range(requests))

    async def work() -> None:
        for _ in numbers:
            text = await call()
            assert text == expected, f"a wrong reply: {text!r}"

    began, worked = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    return (time.perf_counter() - began) / requests * 1e3, (time.process_time() - worked) / requests * 1e3


MAKERS: dict[str, tuple[str, Callable[[str, int], Any]]] = {
    "httpx": ("stream", httpx_call),
    "openai": ("stream", openai_call),
    "litellm": ("stream", litellm_call),
    "litellm Router": ("stream", router_call),
    "reason": ("stream", ours_call),
    "its-hub": ("complete", its_hub_call),
    "optillm": ("complete, threads", optillm_call),
}


async def compare(base: str, args: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Median milliseconds a call by client: passed, and of the processor."""
    clients: dict[str, Call] = {}
    closers: list[Close] = []
    for name, (_, make) in MAKERS.items():
        try:
            made = make(base, args.concurrency)
            call, close = await made if asyncio.iscoroutine(made) else made
        except ImportError as e:
            print(f"not measured: {name} ({e})")
            continue
        clients[name] = call
        closers.append(close)
    expected = "word " * args.tokens
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
    for call in clients.values():  # open the connections
        await run_round(call, 2 * args.concurrency, args.concurrency, expected)
    gc.collect()
    gc.freeze()
    order = list(clients)
    for _ in range(args.rounds):
        for name in order:
            taken[name].append(await run_round(clients[name], args.requests, args.concurrency, expected))
        order.append(order.pop(0))
    for close in closers:
        await close()
    return {
        name: (statistics.median(a for a, _ in values), statistics.median(b for _, b in values))
        for name, values in taken.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1024)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=8)
    args = parser.parse_args()
    load = os.getloadavg()[0]
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=serve, args=(args.tokens, theirs), daemon=True)
    server.start()
    try:
        medians = asyncio.run(compare(f"http://127.0.0.1:{ours.recv()}/v1", args))
    finally:
        server.terminate()
        server.join()
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC; {processor()}, {os.cpu_count()} cores, ", end="")
    print(f"load {load:.1f} before; Python {platform.python_version()}; ", end="")
    reported = []
    for package in ("litellm", "openai", "httpx", "aiohttp", "its-hub", "optillm"):
        try:
            reported.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            reported.append(f"{package} not installed")
    print(", ".join(reported))
    print(f"{args.concurrency} at a time, {args.requests} a round, {args.rounds} rounds, {args.tokens} tokens\n")
    print("| client | reply | requests/s | ms a call | processor ms a call | over bare litellm, ms |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for name, (ms, cpu) in medians.items():
        over = ms - medians["litellm"][0]
        print(f"| {name} | {MAKERS[name][0]} | {1e3 / ms:.0f} | {ms:.3f} | {cpu:.3f} | {over:+.3f} |")
    mine = medians["reason"]
    best = min((v for k, v in medians.items() if k != "reason"), key=lambda pair: pair[0])
    print(f"\nreason over bare litellm: {mine[0] - medians['litellm'][0]:+.3f} ms a call (target: below 0.3)")
    print(f"reason over the fastest other client: {mine[0] - best[0]:+.3f} ms a call (target: not above 0)")


if __name__ == "__main__":
    main()
