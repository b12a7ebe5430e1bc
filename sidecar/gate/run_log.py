"""`RunLog`: one line in the log for each run that ends; what was asked and answered is not in it."""

from __future__ import annotations

import logging

from ...core.events import EventFields, RunFailed, RunFinished
from .log_lines import log_event


class RunLog:
    """A sink that tells of the end of one run.

    Args:
        strategy: The run's strategy.
        request_id: The request that began it; empty if none did.
        key_id: The key that it was sent with; empty if none was.
        content: Whether logs may hold what users and models say.
    """

    def __init__(self, strategy: str, *, request_id: str = "", key_id: str = "", content: bool = False) -> None:
        self._strategy, self._request_id, self._key_id, self._content = strategy, request_id, key_id, content

    def __call__(self, event: EventFields) -> None:
        """Tell, if the event is the last."""
        if isinstance(event, RunFinished):
            usage = event.answer.usage
            log_event(
                "run",
                **self._who(event),
                outcome=event.answer.stopped,
                seconds=round(usage.wall_seconds, 6),
                tokens=usage.completion_tokens,
                prompt_tokens=usage.prompt_tokens,
                usd=usage.cost_usd,
                answer=event.answer.text if self._content else None,
            )
        elif isinstance(event, RunFailed):
            log_event(
                "run",
                logging.WARNING,
                **self._who(event),
                outcome="error",
                code=event.code,
                seconds=round(event.at_s, 6),
                message=event.message if self._content else None,
            )

    def _who(self, event: EventFields) -> dict[str, str | None]:
        return {
            "request_id": self._request_id or None,
            "key_id": self._key_id or None,
            "run_id": event.run_id,
            "strategy": self._strategy,
        }
