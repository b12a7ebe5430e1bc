"""From the exceptions of LiteLLM and its clients to our own errors: by class, status and provider code.

`Retrying`: whether a failed request is made again, and after how long.
"""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ...core.errors import (
    BackendError,
    BackendTimeout,
    BackendUnavailable,
    CapabilityMissing,
    InvalidResponse,
    RateLimited,
    ReasonError,
    UnknownName,
    UserError,
)
from .providers import Target, load_litellm


@dataclass(frozen=True)
class Fault:
    """A failed attempt.

    Attributes:
        error: What it is to the caller.
        retryable: Whether the same request may succeed later: a rate limit, an unreachable or silent server, a status
            of 500 or more, or a reply that broke off or is no reply.
        fatal: Whether every other request to this model must fail in the same way (a wrong key, an unknown model).
    """

    error: Exception
    retryable: bool = False
    fatal: bool = False


@dataclass(frozen=True)
class Retrying:
    """Exponential backoff with jitter, bounded in count and time.

    Attributes:
        most: Retries of one request.
        seconds: Most seconds from the first attempt to the beginning of the last.
        first_s: Longest wait before the first retry; doubled each time.
        longest_s: Longest wait that was not asked for by the provider.
    """

    most: int = 6
    seconds: float = 120.0
    first_s: float = 0.5
    longest_s: float = 30.0

    def wait(self, fault: Fault, retries: int, elapsed_s: float, draw: Callable[[], float]) -> float | None:
        """Seconds to wait before the next attempt; None if there is to be none.

        Args:
            fault: Why the last attempt failed.
            retries: Retries made so far.
            elapsed_s: Seconds since the first attempt began.
            draw: Uniform numbers in [0, 1), so that many clients do not come back in step.
        """
        if not fault.retryable or retries >= self.most or not isinstance(fault.error, BackendError):
            return None
        most = min(self.longest_s, self.first_s * 2.0 ** min(retries, 30))
        wait = most * (0.5 + 0.5 * draw())
        asked = fault.error.retry_after_s if isinstance(fault.error, RateLimited) else None
        if asked is not None:
            # never earlier than asked for, and not all at the same moment
            wait = asked + self.first_s * draw()
        return wait if elapsed_s + wait <= self.seconds else None


NO_CONTEXT = "context_length_exceeded"
"""OpenAI's code of a request that does not fit."""
VLLM_NO_CONTEXT = "input_tokens"
"""What vLLM names as the parameter at fault then."""
NO_MONEY = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
"""OpenAI's codes of an account that waiting does not help."""


class TooLong(Exception):
    """The provider says that a request does not fit its context; the caller knows how long it is."""


def explain(error: Exception, target: Target) -> Fault:
    """What a failed attempt means.

    Args:
        error: What came out of LiteLLM, the `openai` client or the reading of the reply.
        target: Where the request went.
    """
    import openai

    litellm = load_litellm()
    if isinstance(error, ReasonError):
        return Fault(error, retryable=isinstance(error, InvalidResponse))
    chain = _chain(error)
    if any(isinstance(e, TimeoutError | openai.APITimeoutError) for e in chain):
        return Fault(
            BackendTimeout(
                f"{target.place} did not answer for {target.settings.timeout_s:g} s", hint="raise timeout_s"
            ),
            retryable=True,
        )
    if isinstance(error, litellm.UnsupportedParamsError):
        return Fault(CapabilityMissing(_said(error), target.name, alternative=""), fatal=True)
    if (
        isinstance(error, litellm.ContextWindowExceededError)
        or _told(error, "code") == NO_CONTEXT
        or (target.vllm and _told(error, "param") == VLLM_NO_CONTEXT)
    ):
        return Fault(TooLong(_said(error)))
    unconnected = any(isinstance(e, openai.APIConnectionError) for e in chain)
    status = None if unconnected else _status(error)
    if status is not None:
        return _by_status(status, error, target)
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError | openai.APIResponseValidationError):
        return Fault(InvalidResponse(f"{target.place} sent something that is no reply: {_said(error)}"), retryable=True)
    if unconnected or isinstance(error, OSError) or _is_transport(error):
        return Fault(
            BackendUnavailable(
                f"{target.place} cannot be reached or broke off: {_said(error)}",
                hint="is the server running, and is api_base right?",
            ),
            retryable=True,
        )
    if isinstance(error, openai.APIError):  # an error that came inside a stream, whose status may stand in it
        status = error.body.get("code") if isinstance(error.body, dict) else None
        if isinstance(status, int) and 400 <= status < 600:
            return _by_status(status, error, target)
        return Fault(BackendError(f"{target.place} failed: {_said(error)}"), retryable=True)
    if isinstance(error, ValueError | TypeError | KeyError | AttributeError | IndexError):
        return Fault(InvalidResponse(f"{target.place} sent a reply of an unknown shape: {error!r}"), retryable=True)
    return Fault(BackendError(f"{target.place} failed: {_said(error)}"))


def _by_status(status: int, error: Exception, target: Target) -> Fault:
    said = _said(error)
    if status in (401, 403):
        return Fault(
            UserError(f"{target.place} refused the key: {said}", hint=f"put the right key into {target.key_env}"),
            fatal=True,
        )
    if status == 404:
        return Fault(UnknownName("model", target.name, hint=f"{target.place} does not serve it: {said}"), fatal=True)
    if status == 408:
        return Fault(BackendTimeout(f"{target.place} took too long: {said}"), retryable=True)
    if status == 429 and _told(error, "code") not in NO_MONEY:
        return Fault(
            RateLimited(f"{target.place} limits the rate: {said}", retry_after_s=retry_after_s(_headers(error))),
            retryable=True,
        )
    if status == 503:
        return Fault(BackendUnavailable(f"{target.place} is not available: {said}"), retryable=True)
    if status >= 500 or status == 409:
        return Fault(BackendError(f"{target.place} failed with status {status}: {said}"), retryable=True)
    return Fault(BackendError(f"{target.place} refused the request with status {status}: {said}"))


def retry_after_s(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that `Retry-After` asks to wait: given as seconds or as an HTTP date; None if it is not there.

    Args:
        headers: The reply's headers; their names in any case.
        now: Seconds since the epoch; None is now.
    """
    value = next((v for k, v in headers.items() if k.lower() == "retry-after"), None)
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - (time.time() if now is None else now))


def _chain(error: BaseException) -> list[BaseException]:
    """An error and those it came from, the outermost first: LiteLLM wraps what its clients raise."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain


def _status(error: Exception) -> int | None:
    """The reply's status, by the innermost that has one; None where there was no reply."""
    for link in reversed(_chain(error)):
        status = getattr(getattr(link, "response", None), "status_code", None)
        status = status if isinstance(status, int) else getattr(link, "status_code", None)
        if isinstance(status, int) and status >= 400:
            return status
    return None


def _is_transport(error: Exception) -> bool:
    """Whether it comes from an HTTP client below the API clients."""
    names = {f"{c.__module__.partition('.')[0]}.{c.__name__}" for c in type(error).__mro__}
    return bool(names & {"httpx.TransportError", "httpx2.TransportError", "aiohttp.ClientError"})


def _headers(error: Exception) -> Mapping[str, str]:
    for holder in reversed(_chain(error)):
        for headers in (
            getattr(getattr(holder, "response", None), "headers", None),
            getattr(holder, "litellm_response_headers", None),
        ):
            if headers:
                return dict(headers)
    return {}


def _told(error: Exception, field: str) -> str | None:
    """A field of the provider's own error, such as its code; None if it is not there."""
    for holder in reversed(_chain(error)):
        value = getattr(holder, field, None)
        if isinstance(value, str):
            return value
        body = getattr(holder, "body", None)
        if isinstance(body, dict) and isinstance(body.get(field), str):
            return str(body[field])
    return None


def _said(error: Exception) -> str:
    """What the provider said, on one line and of bounded length."""
    text = " ".join(str(getattr(error, "message", "") or error or type(error).__name__).split())
    return text if len(text) <= 300 else text[:297] + "…"
