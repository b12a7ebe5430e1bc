"""A proxy before the model server that counts the calls of all peers alike.

    python benchmarks/peers_proxy.py UPSTREAM [--port N]

It writes `ready PORT` to its output. Requests are forwarded unchanged, except that questions have a mark,
`[[item:NAME]]`, which assigns a call to a question and which the proxy removes. Calls without a mark (those of a
client's start) are counted under the empty name.

`GET /ledger` returns the calls so far, `POST /ledger` returns and forgets them. Tokens are the server's usage; where a
stream ends without it (the client left), each event with text is a token and the call counts as cut.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web

MARK = "[[item:{name}]] "
_MARK = re.compile(rb"\[\[item:([A-Za-z0-9_.-]+)\]\] ?")
_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}
"""Headers of one connection, which are not handed on."""


@dataclass
class Call:
    """One call of the model.

    Attributes:
        item: Name of the question; empty if there was no mark.
        samples: Responses that were requested.
        prompt: Tokens of the prompt.
        completion: Tokens that were generated.
        seconds: From the request to the end of the response.
        first: To the first bytes of the response's body.
        status: The server's; 0 if it could not be reached.
        cut: Whether the client left, or the server stated no tokens.
    """

    item: str
    samples: int
    prompt: int = 0
    completion: int = 0
    seconds: float = 0.0
    first: float = 0.0
    status: int = 0
    cut: bool = False


def unmarked(body: bytes) -> tuple[str, bytes]:
    """The name in the first mark of a body, or nothing, and the body without marks."""
    result = _MARK.search(body)
    return (result[1].decode(), _MARK.sub(b"", body)) if result else ("", body)


def read_usage(call: Call, reply: bytes, streamed: bool) -> None:
    """Put what a response states about its tokens into its call."""
    usage: dict[str, Any] | None = None
    if streamed:
        pieces = 0
        for line in reply.split(b"\n"):
            if line.startswith(b"data:") and line[5:].strip() not in (b"", b"[DONE]"):
                try:
                    event = json.loads(line[5:])
                except ValueError:  # the last line of a stream that was cut
                    continue
                usage = event.get("usage") or usage
                pieces += sum(bool(c.get("delta", {}).get("content")) for c in event.get("choices", ()))
        call.completion = pieces
    else:
        try:
            usage = json.loads(reply).get("usage")
        except ValueError:
            usage = None
    if usage is None:
        call.cut = True
    else:
        call.prompt, call.completion = usage["prompt_tokens"], usage["completion_tokens"]


class Proxy:
    """The proxy as an aiohttp application."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream.rstrip("/")
        self.calls: list[Call] = []
        self.app = web.Application(client_max_size=64 << 20)
        self.app.router.add_get("/ledger", self._ledger)
        self.app.router.add_post("/ledger", self._ledger)
        self.app.router.add_route("*", "/{path:.*}", self._forward)
        self.app.cleanup_ctx.append(self._session_of)
        self._session: ClientSession

    async def _session_of(self, app: web.Application) -> Any:
        # a connection for each call: the server closes idle ones, and a call that met that would be lost to a peer that
        # does not ask again
        connector = TCPConnector(limit=0, force_close=True)
        async with ClientSession(connector=connector, timeout=ClientTimeout(total=None)) as session:
            self._session = session
            yield

    async def _ledger(self, request: web.Request) -> web.Response:
        values = [asdict(call) for call in self.calls]
        if request.method == "POST":
            self.calls.clear()
        return web.json_response(values)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        item, body = unmarked(await request.read())
        counted = request.method == "POST" and request.path.endswith("/completions")
        args = json.loads(body) if counted else {}
        call = Call(item, int(args.get("n") or 1))
        streamed = bool(args.get("stream"))
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        reply, began = bytearray(), time.perf_counter()
        answer = web.StreamResponse()
        try:
            url = f"{self.upstream}{request.rel_url}"
            async with self._session.request(request.method, url, data=body or None, headers=headers) as got:
                call.status = got.status
                answer = web.StreamResponse(status=got.status)
                answer.headers.update({k: v for k, v in got.headers.items() if k.lower() not in _HOP})
                answer.headers.pop("Content-Encoding", None)  # aiohttp has undone it
                await answer.prepare(request)
                async for piece in got.content.iter_any():
                    call.first = call.first or time.perf_counter() - began
                    reply += piece
                    await answer.write(piece)
                await answer.write_eof()
        except ClientError as e:
            return web.json_response({"error": {"message": str(e), "code": 502}}, status=502)
        finally:  # a client that left cancels this: the server's connection is closed, and the call is counted so far
            call.seconds = time.perf_counter() - began
            if counted:
                read_usage(call, bytes(reply), streamed)
                self.calls.append(call)
        return answer


async def serve(upstream: str, port: int) -> None:
    """Serve until ended."""
    runner = web.AppRunner(Proxy(upstream).app, handler_cancellation=True, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    print(f"ready {runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("upstream")
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args()
    asyncio.run(serve(args.upstream, args.port))


if __name__ == "__main__":
    main()
