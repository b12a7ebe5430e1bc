"""A model server for evaluations on several hosts: a sample follows from its prompt and seed; it counts what it sends.

It ignores `n`, as some servers do, so that each sample is a request of its own. It can hold all responses, so that a
test kills hosts and programs at a moment at which nothing is on the way. A held response whose client has gone is never
sent, and not counted.
"""

from __future__ import annotations

import hashlib
import json
import re
import select
import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_QUESTION = re.compile(r"What is (\d+) \+ (\d+)\?")


class RayModelServer:
    """`openai/sums` at `url`: answers "What is A + B?", under every third seed or so wrongly.

    Attributes:
        sent: Samples that were sent, by question and seed.
        clients: Number of samples that were sent to each address.
    """

    def __init__(self, host: str = "127.0.0.1", seconds: float = 0.0) -> None:
        self.sent: Counter[tuple[str, int]] = Counter()
        self.clients: Counter[str] = Counter()
        self._seconds = seconds
        self._left: int | None = None
        self._awaited: set[str] = set()
        self._held = 0
        self._ended = False
        self._state = threading.Condition()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send("application/json", json.dumps({"object": "list", "data": [{"id": "sums"}]}))

            def do_POST(self) -> None:
                owner.respond(json.loads(self.rfile.read(int(self.headers["Content-Length"]))), self)

            def send(self, kind: str, text: str) -> None:
                data = text.encode()
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_: Any) -> None:
                """Clients may be killed."""

        self._server = Server((host, 0), Handler)
        self.url = f"http://{host}:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def hold_after(self, more: int) -> None:
        """Send so many more samples, and hold all others until `release`."""
        with self._state:
            self._left = more

    def await_clients(self, addresses: set[str]) -> None:
        """Hold all responses until a request of each address waits: on a busy machine one may begin much later."""
        with self._state:
            self._awaited = set(addresses)

    def release(self) -> None:
        """Hold nothing more."""
        with self._state:
            self._left = None
            self._state.notify_all()

    @property
    def is_holding(self) -> bool:
        """Whether no more is sent, and a request waits."""
        with self._state:
            return self._left == 0 and self._held > 0

    @property
    def total(self) -> int:
        """Number of all samples that were sent."""
        with self._state:
            return sum(self.sent.values())

    def respond(self, body: dict[str, Any], handler: Any) -> None:
        """Wait until the response may be sent, and send it if its client is still there."""
        question = _QUESTION.search(body["messages"][-1]["content"])
        seed = int(body.get("seed", 0))
        if question is None:  # `reason` measures what the server can do
            handler.send(*_response(body, f"Word {seed} "))
            return
        time.sleep(self._seconds)
        with self._state:
            self._awaited.discard(handler.client_address[0])
            if not self._awaited:
                self._state.notify_all()
            self._state.wait_for(lambda: not self._awaited or self._ended)
            if self._left == 0:
                self._held += 1
                self._state.wait_for(lambda: self._left != 0 or self._ended)
                self._held -= 1
            if self._ended or _has_left(handler.connection):
                handler.close_connection = True
                return
            if self._left is not None:
                self._left -= 1
            handler.send(*_response(body, _sample(question, seed)))
            self.sent[question[0], seed] += 1
            self.clients[handler.client_address[0]] += 1

    def close(self) -> None:
        """Stop the server."""
        with self._state:
            self._ended = True
            self._state.notify_all()
        self._server.shutdown()
        self._server.server_close()


def _sample(question: re.Match[str], seed: int) -> str:
    chance = hashlib.sha256(f"{question[0]} {seed}".encode()).digest()[0]
    answer = int(question[1]) + int(question[2]) + chance % 3 // 2
    return f"Adding gives {answer} ({seed}). The answer is {answer}."


def _has_left(connection: socket.socket) -> bool:
    readable, _, _ = select.select([connection], [], [], 0)
    try:
        return bool(readable) and not connection.recv(1, socket.MSG_PEEK)
    except OSError:
        return True


def _response(body: dict[str, Any], text: str) -> tuple[str, str]:
    """Type and text of a response, as one piece or as a stream."""
    common = {"id": "chatcmpl-1", "created": 1, "model": "sums"}
    usage = {"prompt_tokens": 20, "completion_tokens": 12, "total_tokens": 32}
    said = {"role": "assistant", "content": text}
    if not body.get("stream"):
        choice = {"index": 0, "message": said, "finish_reason": "stop"}
        return "application/json", json.dumps(
            {**common, "object": "chat.completion", "choices": [choice], "usage": usage}
        )
    choice = {"index": 0, "delta": said, "finish_reason": "stop"}
    events = ({"choices": [choice]}, {"choices": [], "usage": usage})
    lines = [f"data: {json.dumps({**common, 'object': 'chat.completion.chunk', **event})}\n\n" for event in events]
    return "text/event-stream", "".join(lines) + "data: [DONE]\n\n"
