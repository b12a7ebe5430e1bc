"""The batch APIs of OpenAI and Anthropic: half the price of a request, within a day.

Sources: OpenAI's Batch API (`/v1/files` with a JSONL file of requests, `/v1/batches`) and Anthropic's Message Batches
API (`/v1/messages/batches`).
"""

from __future__ import annotations

import copy
import json
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, Protocol

from pydantic_core import to_json

from ...core.errors import CapabilityMissing, InvalidResponse
from ...core.store.protocol import StoredBatch
from .errors import ErrorResponse
from .providers import Target, load_litellm
from .requests import openai_body
from .transport import HttpClient, proxy_of

CLOCK_SKEW_S: Final = 120.0
"""Maximum difference between our clock and the provider's when a batch is looked for by its time."""
PAGE: Final = 100
"""Batches of one page of a list."""
MAX_PAGES: Final = 20

Json = dict[str, Any]


@dataclass(frozen=True)
class BatchState:
    """A batch at the provider.

    Attributes:
        status: "running", "ended", "cancelled" (some requests may have results), or "failed" (none has).
        is_full: Whether it failed because too much is queued already, so that it may be submitted again later.
        error: Why it failed.
        pages: Where its results are.
    """

    status: Literal["running", "ended", "cancelled", "failed"]
    is_full: bool = False
    error: str = ""
    pages: tuple[str, ...] = ()


@dataclass(frozen=True)
class LineResult:
    """The result of one request of a batch.

    Attributes:
        response: The provider's response; None if the request failed.
        error: Why it failed.
        is_cancelled: Whether it failed since the batch was cancelled.
    """

    response: Json | None = None
    error: Exception | None = None
    is_cancelled: bool = False


class BatchApi(Protocol):
    """One provider's batch API. Its methods raise what `HttpClient` raises."""

    max_requests: int
    max_bytes: int

    def encode(self, line_id: str, body: Mapping[str, Any]) -> bytes:
        """A request of a batch, from the arguments of `litellm.acompletion`."""

    async def submit(self, name: str, lines: Sequence[bytes]) -> str:
        """Submit a batch; returns its id."""

    async def find(self, batch: StoredBatch, known: Collection[str]) -> str | None:
        """The id of a batch whose submission may have been interrupted; None if the provider does not have it.

        Args:
            known: Ids of other batches.
        """

    async def state(self, batch_id: str) -> BatchState:
        """The state of a batch."""

    async def results(self, state: BatchState) -> dict[str, LineResult]:
        """The results of a batch that has ended or was cancelled, by the ids of its requests."""

    async def cancel(self, batch_id: str) -> None:
        """Cancel a batch: what is done has results and is paid, the rest is not served."""

    def event(self, response: Json, body: Mapping[str, Any], positions: Sequence[int]) -> Json:
        """A response as one chunk of a stream in OpenAI's format.

        Args:
            response: The provider's.
            body: The arguments of the request.
            positions: Positions in the response of the samples that are wanted, in order.
        """

    async def aclose(self) -> None:
        """Close the connections."""


def batch_api(target: Target) -> BatchApi | None:
    """The batch API of a model's provider; None unless it is one of `BATCH_PROVIDERS`."""
    if target.provider == "openai":
        return OpenAIBatches(target)
    return AnthropicBatches(target) if target.provider == "anthropic" else None


BATCH_PROVIDERS = ("openai", "anthropic")
"""Providers whose batch APIs are known here."""


def _expired() -> LineResult:
    return LineResult(error=ErrorResponse("the batch expired before the request was served", 504))


class OpenAIBatches:
    """OpenAI's batches."""

    max_requests = 50_000
    max_bytes = 200_000_000

    def __init__(self, target: Target) -> None:
        self._target = target
        self._client = HttpClient(target)

    def encode(self, line_id: str, body: Mapping[str, Any]) -> bytes:
        request = {"custom_id": line_id, "method": "POST", "url": "/v1/chat/completions"}
        return to_json({**request, "body": openai_body(body, self._target)})

    async def submit(self, name: str, lines: Sequence[bytes]) -> str:
        boundary = secrets.token_hex(16)
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'.encode(),
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}.jsonl"\r\n'.encode(),
            b"Content-Type: application/jsonl\r\n\r\n",
            b"\n".join(lines),
            f"\r\n--{boundary}--\r\n".encode(),
        ]
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        file = await self._client.post_json("/files", b"".join(parts), kind)
        order = {
            "input_file_id": _text(file, "id"),
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"reason_batch": name},
        }
        return _text(await self._client.post_json("/batches", order), "id")

    async def find(self, batch: StoredBatch, known: Collection[str]) -> str | None:
        since = batch.created - CLOCK_SKEW_S
        entries = await _list_since(self._client, "/batches", "after", lambda entry: entry["created_at"] >= since)
        named = (entry for entry in entries if (entry.get("metadata") or {}).get("reason_batch") == batch.name)
        return next((_text(entry, "id") for entry in named), None)

    async def state(self, batch_id: str) -> BatchState:
        batch = await self._client.get_json(f"/batches/{batch_id}")
        files = [batch[name] for name in ("output_file_id", "error_file_id") if batch.get(name)]
        pages = tuple(f"/files/{file}/content" for file in files)
        match batch.get("status"):
            case "completed" | "expired":
                return BatchState("ended", pages=pages)
            case "cancelled":
                return BatchState("cancelled", pages=pages)
            case "failed":
                errors = (batch.get("errors") or {}).get("data") or []
                is_full = any(error.get("code") == "token_limit_exceeded" for error in errors)
                text = "; ".join(str(error.get("message")) for error in errors[:3])
                return BatchState("failed", is_full, text or "the provider gave no reason")
        return BatchState("running")

    async def results(self, state: BatchState) -> dict[str, LineResult]:
        results: dict[str, LineResult] = {}
        for page in state.pages:
            for line in _json_lines(await self._client.get_bytes(page)):
                results[_text(line, "custom_id")] = self._result(line, state)
        return results

    @staticmethod
    def _result(line: Json, state: BatchState) -> LineResult:
        response, error = line.get("response"), line.get("error")
        if error:
            if error.get("code") in ("batch_expired", "batch_cancelled"):
                is_cancelled = error["code"] == "batch_cancelled"
                return LineResult(is_cancelled=True) if is_cancelled else _expired()
            return LineResult(error=ErrorResponse(str(error.get("message")), 500, body=error))
        if not isinstance(response, dict) or not isinstance(response.get("body"), dict):
            raise InvalidResponse("a line of the batch's results has neither a response nor an error")
        body, status = response["body"], response.get("status_code")
        if status == 200:
            return LineResult(body)
        fault = body.get("error")
        fault = fault if isinstance(fault, dict) else {"message": str(fault or body)}
        return LineResult(error=ErrorResponse(str(fault.get("message")), int(status or 500), body=fault))

    async def cancel(self, batch_id: str) -> None:
        await self._client.post_json(f"/batches/{batch_id}/cancel", {})

    def event(self, response: Json, body: Mapping[str, Any], positions: Sequence[int]) -> Json:
        return _chunk(response, positions)

    async def aclose(self) -> None:
        await self._client.aclose()


class _AnthropicClient(HttpClient):
    def __init__(self, target: Target) -> None:
        super().__init__(target)
        base = (target.api_base or "https://api.anthropic.com").rstrip("/")
        self.base_url = base.removesuffix("/messages").removesuffix("/v1") + "/v1/messages/batches"
        self._headers = {
            "Accept": "application/json",
            "x-api-key": target.api_key or "",
            "anthropic-version": "2023-06-01",
            **target.settings.headers,
        }
        self._proxy = proxy_of(self.base_url)


_ANTHROPIC_STATUS: Final[Mapping[str, int]] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class AnthropicBatches:
    """Anthropic's batches. LiteLLM translates requests and responses, as it does for single ones."""

    max_requests = 100_000
    max_bytes = 256_000_000

    def __init__(self, target: Target) -> None:
        from litellm import AnthropicConfig

        self._target = target
        self._client = _AnthropicClient(target)
        self._config: Any = AnthropicConfig()
        self._betas: set[str] = set()

    def encode(self, line_id: str, body: Mapping[str, Any]) -> bytes:
        optional = self._optional(body)
        optional.pop("json_mode", None)
        headers: dict[str, str] = {}
        params = self._config.transform_request(
            model=self._target.served,
            messages=copy.deepcopy(body["messages"]),
            optional_params=optional,
            litellm_params={},
            headers=headers,
        )
        self._betas |= {beta.strip() for beta in headers.get("anthropic-beta", "").split(",") if beta.strip()}
        return to_json({"custom_id": line_id, "params": params})

    def _optional(self, body: Mapping[str, Any]) -> Json:
        """The parameters of a request in Anthropic's form, and `json_mode` if its JSON is returned in a tool call.

        Raises:
            CapabilityMissing: The model does not take one of them.
        """
        named = {k: v for k, v in body.items() if k not in ("messages", "extra_body", "extra_headers")}
        litellm = load_litellm()
        try:
            mapped: Json = litellm.get_optional_params(
                model=self._target.served, custom_llm_provider="anthropic", drop_params=False, **copy.deepcopy(named)
            )
        except litellm.UnsupportedParamsError as e:
            raise CapabilityMissing(str(e), self._target.name, alternative="") from e
        return mapped | (mapped.pop("extra_body", None) or {}) | dict(body.get("extra_body") or {})

    async def submit(self, name: str, lines: Sequence[bytes]) -> str:
        data = b'{"requests":[' + b",".join(lines) + b"]}"
        headers = {"anthropic-beta": ",".join(sorted(self._betas))} if self._betas else None
        return _text(await self._client.post_json("", data, headers), "id")

    async def find(self, batch: StoredBatch, known: Collection[str]) -> str | None:
        # a batch has no name of ours: it is told by its time and size, and its results by the ids of the requests
        def is_recent(entry: Json) -> bool:
            return _seconds(entry["created_at"]) >= batch.created - CLOCK_SKEW_S

        recent = filter(is_recent, await _list_since(self._client, "", "after_id", is_recent))
        found = [entry for entry in recent if sum(entry["request_counts"].values()) == len(batch.lines)]
        ids = [_text(entry, "id") for entry in found if entry["id"] not in known]
        return ids[0] if len(ids) == 1 else None

    async def state(self, batch_id: str) -> BatchState:
        batch = await self._client.get_json(f"/{batch_id}")
        if batch.get("processing_status") != "ended":
            return BatchState("running")
        is_cancelled = bool(batch.get("cancel_initiated_at"))
        return BatchState("cancelled" if is_cancelled else "ended", pages=(f"/{batch_id}/results",))

    async def results(self, state: BatchState) -> dict[str, LineResult]:
        [page] = state.pages
        lines = _json_lines(await self._client.get_bytes(page))
        return {_text(line, "custom_id"): self._result(line.get("result") or {}) for line in lines}

    @staticmethod
    def _result(result: Json) -> LineResult:
        match result.get("type"):
            case "succeeded":
                return LineResult(result["message"])
            case "expired":
                return _expired()
            case "canceled":
                return LineResult(is_cancelled=True)
        error = result.get("error") or {}
        error = error.get("error") or error
        status = _ANTHROPIC_STATUS.get(str(error.get("type")), 500)
        return LineResult(error=ErrorResponse(str(error.get("message")), status, body=error))

    async def cancel(self, batch_id: str) -> None:
        await self._client.post_json(f"/{batch_id}/cancel", {})

    def event(self, response: Json, body: Mapping[str, Any], positions: Sequence[int]) -> Json:
        import httpx
        from litellm import ModelResponse

        parsed = self._config.transform_parsed_response(
            completion_response=copy.deepcopy(response),
            raw_response=httpx.Response(200),
            model_response=ModelResponse(),
            json_mode=self._optional(body).get("json_mode"),
        )
        return _chunk(parsed.model_dump(warnings=False), positions)

    async def aclose(self) -> None:
        await self._client.aclose()


def _chunk(response: Json, positions: Sequence[int]) -> Json:
    """A complete response of chat as one chunk of a stream, with some of its samples."""
    choices = {choice["index"]: choice for choice in response["choices"]}
    shown = [
        {
            "index": i,
            "delta": choices[position]["message"],
            "finish_reason": choices[position].get("finish_reason"),
            "logprobs": choices[position].get("logprobs"),
        }
        for i, position in enumerate(positions)
        if position in choices
    ]
    usage = response.get("usage")
    if len(shown) < len(choices):  # the others were stored before: they and the prompt are paid
        usage = None
    return {"choices": shown, "usage": usage}


async def _list_since(client: HttpClient, path: str, cursor: str, is_recent: Callable[[Json], bool]) -> list[Json]:
    """Batches in a provider's list, the newest first, up to a page whose last one is not recent.

    Args:
        path: Path of the list.
        cursor: Parameter that names the batch before the next page.
        is_recent: Whether a batch is recent.
    """
    listed: list[Json] = []
    after = ""
    for _ in range(MAX_PAGES):
        page = await client.get_json(f"{path}?limit={PAGE}" + (f"&{cursor}={after}" if after else ""))
        entries = page.get("data") or []
        listed += entries
        if not page.get("has_more") or not entries or not is_recent(entries[-1]):
            break
        after = _text(entries[-1], "id")
    return listed


def _json_lines(data: bytes) -> list[Json]:
    """The objects of a JSONL file.

    Raises:
        InvalidResponse: A line is no JSON object.
    """
    objects = []
    for line in data.splitlines():
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as e:
            raise InvalidResponse("a line of the batch's results is no JSON") from e
        if not isinstance(value, dict):
            raise InvalidResponse("a line of the batch's results is no JSON object")
        objects.append(value)
    return objects


def _text(page: Any, name: str) -> str:
    """A field with text.

    Raises:
        InvalidResponse: It is missing.
    """
    value = page.get(name) if isinstance(page, dict) else None
    if not isinstance(value, str) or not value:
        raise InvalidResponse(f"the provider's batch API sent no {name!r}")
    return value


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
