"""`Retrying`: whether a failed request is made again, and after how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...core.errors import BackendError, RateLimited


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
