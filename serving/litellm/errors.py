"""Errors of endpoints, LiteLLM and its clients as our own, by class, status and provider code, and the retry policy.

Neither LiteLLM nor the `openai` package is imported for this: their classes are known by their names.
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ...core.errors import (
    BackendError,
    BackendMisconfigured,
    BackendRefused,
    BackendTimeout,
    BackendUnavailable,
    CapabilityMissing,
    InvalidResponse,
    RateLimited,
    ReasonError,
    UnknownName,
)
from ..profiles.profile import Parameter
from ..refusals import refused_parameter

if TYPE_CHECKING:
    from .providers import Target


MANY_RETRIES: Final = 100
"""As many as the settings allow."""
FEW_RETRIES: Final = 2
"""Retries of what may be permanent: status 500, a rate limit without `Retry-After`, a page that is no response."""
PASSING_STATUSES: Final = (502, 504, 529)
"""Statuses of gateways, and Anthropic's of an overloaded service: they pass."""


@dataclass(frozen=True)
class FailedAttempt:
    """A failed attempt.

    Attributes:
        error: The error for the caller.
        retryable: Whether the same request may succeed later: a rate limit, a server that cannot be reached or does not
            respond, a status of 500 or more, or an incomplete or invalid response.
        fatal: Whether every other request to this model fails in the same way (a wrong key, an unknown model).
        refused: The parameter that the endpoint does not take, if that is why.
        max_retries: Maximum retries where waiting seldom helps; 0 for a server that cannot be reached, until it has
            answered once.
    """

    error: Exception
    retryable: bool = False
    fatal: bool = False
    refused: Parameter | None = None
    max_retries: int = MANY_RETRIES


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long a request is retried: exponential backoff with jitter, bounded in number and time.

    A response that breaks off after its first token is more than a failed request: its tokens are paid for, and a
    client may have seen them. It is continued where the model continues a prefix exactly; otherwise the sample is
    generated again if nobody has seen its text, and fails if somebody has.

    Attributes:
        max_seconds: Maximum seconds from the first attempt to the start of the last.
        initial_wait_s: Maximum wait before the first retry; doubled each time.
        max_wait_s: Maximum wait that was not requested by the provider.
        max_broken: Maximum responses to one sample that may break off after their first token.
    """

    max_retries: int = 6
    max_seconds: float = 120.0
    initial_wait_s: float = 0.5
    max_wait_s: float = 30.0
    max_broken: int = 2

    def retries_broken(self, num_broken: int, *, is_seen: bool, is_continuable: bool) -> bool:
        """Whether a sample is tried again after a response to it broke off in the middle."""
        return num_broken <= self.max_broken and (is_continuable or not is_seen)

    def wait(self, fault: FailedAttempt, retries: int, elapsed_s: float, draw: Callable[[], float]) -> float | None:
        """Seconds to wait before the next attempt; None if there is none.

        `draw` gives uniform numbers in [0, 1), so that clients do not retry in step.
        """
        max_retries = min(self.max_retries, fault.max_retries)
        if not fault.retryable or retries >= max_retries or not isinstance(fault.error, BackendError):
            return None
        max_wait = min(self.max_wait_s, self.initial_wait_s * 2.0 ** min(retries, 30))
        wait = max_wait * (0.5 + 0.5 * draw())
        requested = fault.error.retry_after_s if isinstance(fault.error, RateLimited) else None
        if requested is not None:
            # never earlier than requested, and not all at the same moment
            wait = requested + self.initial_wait_s * draw()
        return wait if elapsed_s + wait <= self.max_seconds else None


NO_CONTEXT = "context_length_exceeded"
"""OpenAI's code of a request that does not fit."""
VLLM_NO_CONTEXT = "input_tokens"
"""What vLLM names as the parameter at fault then."""
NO_MONEY = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
"""OpenAI's codes of an account that waiting does not help."""


_CONTEXT_WORDS = re.compile(
    r"context (?:length|window|size|limit)|maximum model length|(?:prompt|input)[a-z ]* (?:is )?too long"
    r"|exceeds? the (?:available|configured|maximum)[a-z ]* (?:context|tokens|limit)",
    re.IGNORECASE,
)
"""How servers without a code say the same."""


class ContextExceeded(Exception):
    """The provider reports that a request does not fit its context; the caller knows its length."""


class ErrorResponse(Exception):
    """An error that an endpoint in OpenAI's format reports, by a status or by an event of a stream.

    Attributes:
        status_code: Status of the response, of 400 or more; None in a stream.
        body: The endpoint's error object; None if it sent none.
    """

    def __init__(
        self, message: str, status_code: int | None = None, headers: Mapping[str, str] | None = None, body: Any = None
    ) -> None:
        super().__init__(message)
        self.message, self.status_code, self.headers, self.body = message, status_code, headers or {}, body


@contextmanager
def readable_response(endpoint: str) -> Iterator[None]:
    """Inside, what a response of an unknown form raises while it is read becomes `InvalidResponse`."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError) as e:
        raise InvalidResponse(f"{endpoint} sent a response of an unknown form: {e!r}") from e


def classify_error(error: Exception, target: Target) -> FailedAttempt:
    """The meaning of a failed attempt.

    An error of Python's own, such as a `TypeError`, is a bug of ours: it stays as it is, and is not retried.
    """
    if isinstance(error, ReasonError):
        return FailedAttempt(error, retryable=isinstance(error, InvalidResponse), max_retries=FEW_RETRIES)
    chain = _chain(error)
    if any(_is(e, *CONNECT_ERRORS) for e in chain):
        return FailedAttempt(
            BackendUnavailable(
                f"{target.endpoint} cannot be reached: {_error_message(error)}",
                hint="is the server running, and is its address right?",
            ),
            retryable=True,
            max_retries=0,
        )
    if any(isinstance(e, TimeoutError) or _is(e, "openai.APITimeoutError") for e in chain):
        return FailedAttempt(
            BackendTimeout(
                f"{target.endpoint} did not answer for {target.settings.timeout_s:g} s", hint="raise timeout_s"
            ),
            retryable=True,
        )
    if _is(error, "litellm.UnsupportedParamsError"):
        missing = CapabilityMissing(_error_message(error), target.name, alternative="")
        return FailedAttempt(missing, fatal=True, refused=refused_parameter(str(error)))
    if (
        _is(error, "litellm.ContextWindowExceededError")
        or _error_field(error, "code") == NO_CONTEXT
        or (target.vllm and _error_field(error, "param") == VLLM_NO_CONTEXT)
        or (_status(error) in (400, 413, 422) and _CONTEXT_WORDS.search(_error_message(error)))
    ):
        return FailedAttempt(ContextExceeded(_error_message(error)))
    unconnected = any(_is(e, "openai.APIConnectionError") for e in chain)
    status = None if unconnected else _status(error)
    if status is not None:
        return _by_status(status, error, target)
    if _is(error, "openai.APIResponseValidationError"):
        return FailedAttempt(
            InvalidResponse(f"{target.endpoint} sent no valid response: {_error_message(error)}"),
            retryable=True,
            max_retries=FEW_RETRIES,
        )
    if unconnected or isinstance(error, OSError) or _is(error, *TRANSPORT_ERRORS):
        return FailedAttempt(
            BackendUnavailable(f"the connection to {target.endpoint} broke off: {_error_message(error)}"),
            retryable=True,
        )
    if isinstance(error, ErrorResponse) or _is(error, "openai.APIError"):  # in a stream; the status may stand in it
        body = getattr(error, "body", None)
        status = body.get("code") if isinstance(body, dict) else None
        if isinstance(status, int) and 400 <= status < 600:
            return _by_status(status, error, target)
        failed = BackendError(f"{target.endpoint} failed: {_error_message(error)}")
        return FailedAttempt(failed, retryable=True, max_retries=FEW_RETRIES)
    if type(error).__module__ == "builtins":
        return FailedAttempt(error)
    return FailedAttempt(BackendError(f"{target.endpoint} failed: {_error_message(error)}"))


def _by_status(status: int, error: Exception, target: Target) -> FailedAttempt:
    message = _error_message(error)
    if status in (401, 403):
        return FailedAttempt(
            BackendMisconfigured(
                f"{target.endpoint} refused the key: {message}", hint=f"put the right key into {target.key_env}"
            ),
            fatal=True,
        )
    if status == 404:
        return FailedAttempt(
            UnknownName("model", target.name, hint=f"{target.endpoint} does not serve it: {message}"), fatal=True
        )
    if status == 408:
        return FailedAttempt(BackendTimeout(f"{target.endpoint} took too long: {message}"), retryable=True)
    if status == 429 and _error_field(error, "code") not in NO_MONEY:
        wait = retry_after_s(_headers(error))
        return FailedAttempt(
            RateLimited(f"{target.endpoint} limits the rate: {message}", retry_after_s=wait),
            retryable=True,
            max_retries=FEW_RETRIES if wait is None else MANY_RETRIES,
        )
    if status == 503:
        return FailedAttempt(BackendUnavailable(f"{target.endpoint} is not available: {message}"), retryable=True)
    if status >= 500 or status == 409:
        failed = BackendError(f"{target.endpoint} failed with status {status}: {message}")
        passes = status in PASSING_STATUSES
        return FailedAttempt(failed, retryable=True, max_retries=MANY_RETRIES if passes else FEW_RETRIES)
    refused = refused_parameter(str(error), _error_field(error, "param")) if status in (400, 422) else None
    return FailedAttempt(
        BackendRefused(f"{target.endpoint} refused the request with status {status}: {message}"), refused=refused
    )


def retry_after_s(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds in `Retry-After`, which has seconds or an HTTP date; None if it is missing."""
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
    """An error and its causes, the outermost first: LiteLLM wraps the errors of its clients."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain


def _status(error: Exception) -> int | None:
    """Status of the innermost response; None without a response."""
    for link in reversed(_chain(error)):
        status = getattr(getattr(link, "response", None), "status_code", None)
        status = status if isinstance(status, int) else getattr(link, "status_code", None)
        if isinstance(status, int) and status >= 400:
            return status
    return None


CONNECT_ERRORS = (
    *(f"{client}.{error}" for client in ("httpx", "httpx2") for error in ("ConnectError", "ConnectTimeout")),
    *("aiohttp.ClientConnectorError", "aiohttp.ConnectionTimeoutError"),
)
"""Errors of HTTP clients that could not connect."""
TRANSPORT_ERRORS = ("httpx.TransportError", "httpx2.TransportError", "aiohttp.ClientError")
"""Errors of HTTP clients below the API clients."""


def _is(error: BaseException, *names: str) -> bool:
    """Whether an error has one of these classes, named by package and class."""
    return any(f"{c.__module__.partition('.')[0]}.{c.__name__}" in names for c in type(error).__mro__)


def _headers(error: Exception) -> Mapping[str, str]:
    for holder in reversed(_chain(error)):
        for headers in (
            getattr(holder, "headers", None),
            getattr(getattr(holder, "response", None), "headers", None),
            getattr(holder, "litellm_response_headers", None),
        ):
            if headers:
                return dict(headers)
    return {}


def _error_field(error: Exception, field: str) -> str | None:
    """A field of the provider's own error, such as its code; None if it is not there."""
    for holder in reversed(_chain(error)):
        value = getattr(holder, field, None)
        if isinstance(value, str):
            return value
        body = getattr(holder, "body", None)
        if isinstance(body, dict) and isinstance(body.get(field), str):
            return str(body[field])
    return None


def _error_message(error: Exception) -> str:
    """The provider's message, on one line and of bounded length."""
    text = " ".join(str(getattr(error, "message", "") or error or type(error).__name__).split())
    return text if len(text) <= 300 else text[:297] + "…"
