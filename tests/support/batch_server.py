"""OpenAI's batch API on a real socket, strict about its format, and failing on demand."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

LineFault = str
"""One of: "expired", "missing", "400", "500", "429", "too long"."""


@dataclass
class Batch:
    """A batch that was submitted.

    Attributes:
        requests: (id, parameters) of each request.
        polls: How often its state was requested.
        end: What it ends as, once it has been polled often enough.
    """

    id: str
    requests: list[tuple[str, dict[str, Any]]]
    created: datetime
    metadata: dict[str, str] = field(default_factory=dict)
    polls: int = 0
    end: str = "completed"
    is_cancelled: bool = False


class BatchServer:
    """Serves the API.

    Args:
        text: Text of a sample, from the parameters of its request and its position.
        num_polls: Polls after which a batch has ended; None is never.
        fault: What goes wrong with a request, from its parameters and how often it was submitted before.
        key: The key that is let in.

    Attributes:
        batches: The batches, in the order of their submission.
        submissions: What happens to the next submissions: "lost" (done, but the connection breaks before the reply),
            "503" and the like (not done), "full" (accepted, and then failed for lack of room), "invalid".
        direct: Requests that were no part of a batch.
        num_calls: Requests of any kind that were handled.
    """

    def __init__(
        self,
        text: Callable[[dict[str, Any], int], str] = lambda params, position: f"{last_text(params)} {position}",
        *,
        num_polls: int | None = 1,
        fault: Callable[[dict[str, Any], int], LineFault | None] = lambda params, before: None,
        key: str = "key",
        max_requests: int = 50_000,
        max_bytes: int = 200_000_000,
    ) -> None:
        self.text, self.num_polls, self.fault, self.key = text, num_polls, fault, key
        self.max_requests, self.max_bytes = max_requests, max_bytes
        self.batches: list[Batch] = []
        self.submissions: list[str] = []
        self.faulty_polls: list[int] = []
        self.direct: list[dict[str, Any]] = []
        self.num_calls = 0
        self._files: dict[str, bytes] = {}
        self._before: dict[str, int] = {}

    @asynccontextmanager
    async def run(self) -> AsyncIterator[str]:
        """Serve; gives the address without `/v1`."""
        app = web.Application(client_max_size=1 << 30, middlewares=[self._admit])
        app.router.add_post("/v1/files", self._add_file)
        app.router.add_get("/v1/files/{id}/content", self._file)
        app.router.add_post("/v1/batches", self._add_batch)
        app.router.add_get("/v1/batches", self._list)
        app.router.add_get("/v1/batches/{id}", self._batch)
        app.router.add_post("/v1/batches/{id}/cancel", self._cancel)
        app.router.add_post("/v1/chat/completions", self._direct)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            port = runner.addresses[0][1]
            yield f"http://127.0.0.1:{port}"
        finally:
            await runner.cleanup()

    @property
    def num_requests(self) -> int:
        """Requests of all batches together."""
        return sum(len(batch.requests) for batch in self.batches)

    def end_all(self) -> None:
        """Let every batch end at the next poll."""
        self.num_polls = 0

    async def interrupt(self, work: asyncio.Future[Any]) -> None:
        """Cancel work that waits for the first batch, once that has been polled; the provider is told nothing."""
        while not self.batches or not self.batches[0].polls:
            await asyncio.sleep(0.001)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    @web.middleware
    async def _admit(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.key}":
            return _error(401, "authentication_error", "no such key")
        try:
            return await handler(request)
        finally:
            self.num_calls += 1

    async def _direct(self, request: web.Request) -> web.Response:
        self.direct.append(await request.json())
        return _error(400, "invalid_request_error", "only batches are served here")

    async def _add_file(self, request: web.Request) -> web.Response:
        fields: dict[str, bytes] = {}
        async for part in await request.multipart():
            fields[part.name] = await part.read(decode=True)
        if fields.get("purpose") != b"batch":
            return _error(400, "invalid_request_error", f"purpose is {fields.get('purpose')!r}")
        name = f"file-{len(self._files)}"
        self._files[name] = fields["file"]
        return web.json_response({"id": name, "object": "file", "purpose": "batch", "bytes": len(fields["file"])})

    async def _file(self, request: web.Request) -> web.Response:
        return web.Response(body=self._files[request.match_info["id"]])

    async def _add_batch(self, request: web.Request) -> web.Response:
        outcome = self.submissions.pop(0) if self.submissions else ""
        if outcome.isdigit():
            return _not_now(int(outcome))
        body = await request.json()
        assert (body["endpoint"], body["completion_window"]) == ("/v1/chat/completions", "24h")
        data = self._files[body["input_file_id"]]
        lines = [json.loads(line) for line in data.splitlines()]
        assert all(set(line) == {"custom_id", "method", "url", "body"} for line in lines)
        assert all((line["method"], line["url"]) == ("POST", body["endpoint"]) for line in lines)
        requests = [(line["custom_id"], line["body"]) for line in lines]
        batch = self._added("batch", requests, body.get("metadata") or {}, size=len(data))
        batch.end = {"full": "full", "invalid": "invalid"}.get(outcome, "completed")
        if outcome == "lost":
            request.transport.close()  # type: ignore[union-attr]
        return self._shown(batch)

    async def _list(self, request: web.Request) -> web.Response:
        page, more = self._page(request, "after")
        return web.json_response({"object": "list", "data": [self._openai(batch) for batch in page], "has_more": more})

    def _openai(self, batch: Batch) -> dict[str, Any]:
        is_done = self.num_polls is not None and batch.polls >= self.num_polls
        status = "in_progress"
        extra: dict[str, Any] = {"output_file_id": None, "error_file_id": None, "errors": None}
        if batch.end in ("full", "invalid"):
            code = "token_limit_exceeded" if batch.end == "full" else "invalid_json_line"
            status = "failed"
            extra["errors"] = {"object": "list", "data": [{"code": code, "message": f"the batch is {batch.end}"}]}
        elif batch.is_cancelled or is_done:
            status = "cancelled" if batch.is_cancelled else "completed"
            outputs, errors = self._written(batch)
            for name, lines in (("output_file_id", outputs), ("error_file_id", errors)):
                if lines:
                    file = f"{batch.id}-{name}"
                    self._files[file] = b"\n".join(json.dumps(line).encode() for line in lines) + b"\n"
                    extra[name] = file
        created = int(batch.created.timestamp())
        frame = {"id": batch.id, "object": "batch", "created_at": created, "metadata": batch.metadata}
        return {**frame, "status": status, **extra}

    def _written(self, batch: Batch) -> tuple[list[Any], list[Any]]:
        outputs: list[Any] = []
        errors: list[Any] = []
        for number, (line_id, params) in enumerate(batch.requests):
            fault = self._fault(batch, number, params)
            line: dict[str, Any] = {"id": f"r{number}", "custom_id": line_id, "response": None, "error": None}
            if fault == "missing":
                continue
            if fault in ("expired", "cancelled"):
                errors.append({**line, "error": {"code": f"batch_{fault}", "message": f"the batch {fault}"}})
            elif fault is not None:
                error = {"message": f"status {fault} on demand", "code": None}
                if fault == "too long":
                    error = {"message": "too long", "code": "context_length_exceeded"}
                status = 400 if fault == "too long" else int(fault)
                errors.append({**line, "response": {"status_code": status, "body": {"error": error}}})
            else:
                outputs.append({**line, "response": {"status_code": 200, "body": self._completion(params)}})
        return outputs, errors

    def _completion(self, params: dict[str, Any]) -> dict[str, Any]:
        assert "stream" not in params
        texts = [self.text(params, i) for i in range(params.get("n", 1))]
        choices = [
            {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", "logprobs": None}
            for i, text in enumerate(texts)
        ]
        tokens = sum(len(text) for text in texts)
        usage = {"prompt_tokens": 100, "completion_tokens": tokens, "total_tokens": 100 + tokens}
        # reversed: the order of choices is not that of their indices
        return {"object": "chat.completion", "model": params["model"], "choices": choices[::-1], "usage": usage}

    async def _batch(self, request: web.Request) -> web.Response:
        batch = self._found(request)
        if self.faulty_polls:
            return _not_now(self.faulty_polls.pop(0))
        batch.polls += 1
        return self._shown(batch)

    async def _cancel(self, request: web.Request) -> web.Response:
        batch = self._found(request)
        batch.is_cancelled = True
        return self._shown(batch)

    def _shown(self, batch: Batch) -> web.Response:
        return web.json_response(self._openai(batch))

    def _added(self, kind: str, requests: Any, metadata: dict[str, str], *, size: int) -> Batch:
        ids = [line_id for line_id, _ in requests]
        assert len(set(ids)) == len(ids)
        assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", line_id) for line_id in ids)
        assert len(requests) <= self.max_requests
        assert size <= self.max_bytes
        batch = Batch(f"{kind}_{len(self.batches)}", requests, datetime.now(UTC), metadata)
        self.batches.append(batch)
        return batch

    def _fault(self, batch: Batch, number: int, params: dict[str, Any]) -> str | None:
        """Of a cancelled batch the first request has a result."""
        if batch.is_cancelled and number > 0:
            return "cancelled"
        same = json.dumps(params, sort_keys=True)
        earlier = self.batches[: self.batches.index(batch)]
        before = sum(json.dumps(p, sort_keys=True) == same for other in earlier for _, p in other.requests)
        return self.fault(params, before)

    def _found(self, request: web.Request) -> Batch:
        found = next((batch for batch in self.batches if batch.id == request.match_info["id"]), None)
        if found is None:
            raise web.HTTPNotFound
        return found

    def _page(self, request: web.Request, cursor: str) -> tuple[list[Batch], bool]:
        newest = self.batches[::-1]
        after = request.query.get(cursor)
        start = next((i + 1 for i, batch in enumerate(newest) if batch.id == after), 0)
        limit = int(request.query["limit"])
        return newest[start : start + limit], len(newest) > start + limit


def last_text(params: dict[str, Any]) -> str:
    """Text of a request's last message."""
    content = params["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def _not_now(status: int) -> web.Response:
    return _error(status, "server_error", "not now")


def _error(status: int, kind: str, message: str) -> web.Response:
    return web.json_response({"type": "error", "error": {"type": kind, "message": message}}, status=status)
