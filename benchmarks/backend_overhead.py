"""What a call costs beside the model: requests per second and time per call against a server that answers at once.

The server runs in a process of its own and sends one fixed reply of some tokens as a stream. Every client sends the
same prompt, many at a time, and reads the reply to its end. The clients take turns round by round within one run, so
that whatever else the machine does falls on all of them; the figure of a client is the median over its rounds.

    python benchmarks/backend_overhead.py [--requests 512] [--concurrency 256] [--rounds 5] [--tokens 8]
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from typing import Any

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
Call = Callable[[], Awaitable[str]]


def serve(tokens: int, pipe: Connection) -> None:
    """Answer every POST with the same stream; tells its port through the pipe."""
    frame = {"id": "r", "object": "chat.completion.chunk", "created": 1, "model": "fake"}
    choices = [{"index": 0, "delta": {"content": "word "}, "finish_reason": None} for _ in range(tokens)]
    choices[-1]["finish_reason"] = "stop"
    events: list[Any] = [{**frame, "choices": [choice]} for choice in choices]
    usage = {"prompt_tokens": 14, "completion_tokens": tokens, "total_tokens": 14 + tokens}
    events.append({**frame, "choices": [], "usage": usage})
    stream = "".join(f"data: {json.dumps(e)}\n\n" for e in events) + "data: [DONE]\n\n"
    whole = json.dumps(
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

    streamed, plain = reply("text/event-stream", stream), reply("application/json", whole)

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


def httpx_call(base: str, concurrency: int) -> tuple[Call, Callable[[], Awaitable[None]]]:
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


def openai_call(base: str, concurrency: int) -> tuple[Call, Callable[[], Awaitable[None]]]:
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


def litellm_call(base: str, concurrency: int) -> tuple[Call, Callable[[], Awaitable[None]]]:
    """`litellm.acompletion` as its documentation shows it, streaming."""
    from reason.serving.litellm.target import load_litellm

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

    async def close() -> None:
        pass

    return call, close


def litellm_raw_call(base: str, concurrency: int) -> tuple[Call, Callable[[], Awaitable[None]]]:
    """`litellm.acompletion` with the `openai` client's stream read below LiteLLM's own, as ours does."""
    import openai
    from reason.serving.litellm.target import load_litellm

    litellm = load_litellm()
    client = openai.AsyncOpenAI(api_key="none", base_url=base, max_retries=0)

    async def call() -> str:
        stream = await litellm.acompletion(
            model="openai/fake",
            messages=MESSAGES,
            stream=True,
            max_tokens=64,
            client=client,
            stream_options={"include_usage": True},
        )
        text = ""
        async for chunk in stream.completion_stream:
            for choice in chunk.choices:
                text += choice.delta.content or ""
        return text

    return call, client.close


async def ours_call(base: str, concurrency: int) -> tuple[Call, Callable[[], Awaitable[None]]]:
    """`LiteLLMModel.generate`, one request a call, with a listener; no probing, as the fake can do nothing."""
    from reason.core.messages import Chunk, Prompt, Request, Sampling
    from reason.core.settings import ProviderSettings, Settings
    from reason.serving.litellm.opening import open_litellm

    provider = ProviderSettings(api_base=base, concurrency=concurrency, probe=False)
    model = await open_litellm("hosted_vllm/fake", Settings(providers={"hosted_vllm": provider}))
    request = Request(
        prompt=Prompt.user(MESSAGES[0]["content"]), sampling=Sampling(max_tokens=64, seed=1, logprobs=False)
    )

    def hear(chunk: Chunk) -> None:
        pass

    async def call() -> str:
        [[completion]] = await model.generate([request], hear)
        return completion.text

    return call, model.aclose


def its_hub_call(base: str, concurrency: int) -> tuple[Call, Callable[[], Awaitable[None]]]:
    """its-hub's own client; it does not stream."""
    from its_hub.lms import OpenAICompatibleLanguageModel
    from its_hub.types import ChatMessage

    model = OpenAICompatibleLanguageModel(
        endpoint=base, api_key="none", model_name="fake", is_async=True, max_concurrency=concurrency, max_tokens=64
    )
    messages = [ChatMessage(role="user", content=MESSAGES[0]["content"])]

    async def call() -> str:
        reply = await model.agenerate(messages)
        return reply["content"] if isinstance(reply, dict) else str(reply)

    async def close() -> None:
        pass

    return call, close


async def turn(call: Call, requests: int, concurrency: int, expected: str | None) -> float:
    """Seconds that a number of calls takes, so many at a time."""
    numbers = iter(range(requests))

    async def work() -> None:
        for _ in numbers:
            text = await call()
            assert expected is None or text == expected, f"a wrong reply: {text!r}"

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    return time.perf_counter() - began


async def compare(base: str, requests: int, concurrency: int, rounds: int, tokens: int) -> dict[str, float]:
    """Median milliseconds a call by client."""
    makers: dict[str, Callable[[str, int], Any]] = {
        "httpx": httpx_call,
        "openai": openai_call,
        "litellm": litellm_call,
        "litellm-raw": litellm_raw_call,
        "reason": ours_call,
        "its-hub": its_hub_call,
    }
    clients: dict[str, Call] = {}
    closers = []
    for name, make in makers.items():
        try:
            made = make(base, concurrency)
            call, close = await made if asyncio.iscoroutine(made) else made
        except ImportError as e:
            print(f"SKIPPED {name}: {e}")
            continue
        clients[name] = call
        closers.append(close)
    try:
        import optillm

        print(f"optillm {optillm.__version__}: its client path is the openai client; see that row")
    except ImportError as e:
        print(f"SKIPPED optillm: {e} (its client path is the openai client)")
    expected = "word " * tokens
    taken: dict[str, list[float]] = {name: [] for name in clients}
    for number in range(rounds + 1):
        for name, call in clients.items():
            seconds = await turn(call, requests if number else concurrency, concurrency, expected)
            if number:  # the first round warms up
                taken[name].append(seconds / requests * 1e3)
    for close in closers:
        await close()
    return {name: statistics.median(values) for name, values in taken.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=512)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=8)
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=serve, args=(asked.tokens, theirs), daemon=True)
    server.start()
    try:
        base = f"http://127.0.0.1:{ours.recv()}/v1"
        medians = asyncio.run(compare(base, asked.requests, asked.concurrency, asked.rounds, asked.tokens))
    finally:
        server.terminate()
        server.join()
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, {platform.processor() or platform.machine()}, ")
    print(f"{os.cpu_count()} cores, load {load:.1f} before; Python {platform.python_version()}")
    for package in ("litellm", "openai", "httpx", "aiohttp", "its-hub", "optillm"):
        try:
            print(f"{package} {version(package)}", end="; ")
        except PackageNotFoundError:
            print(f"{package} not installed", end="; ")
    print(f"\n{asked.concurrency} at a time, {asked.requests} a round, {asked.rounds} rounds, {asked.tokens} tokens\n")
    print(f"{'client':12} {'requests/s':>10} {'ms a call':>10} {'over httpx':>11} {'ratio to litellm':>17}")
    for name, ms in medians.items():
        over, ratio = ms - medians["httpx"], ms / medians["litellm"]
        print(f"{name:12} {1e3 / ms:10.0f} {ms:10.3f} {over:11.3f} {ratio:17.2f}")
    print(f"\nreason over bare litellm: {medians['reason'] - medians['litellm']:+.3f} ms a call (target: below 0.3)")


if __name__ == "__main__":
    main()
