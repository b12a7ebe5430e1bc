"""Logs as JSON lines on standard error, without secrets and, unless requested, without the texts of users and models.

A record of another library is reduced to logger, level and location. `RunLog` writes one line for each run that ends.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from ..core.events import Event, RunFailed, RunFinished
from .api_keys import KEY_PATTERN

LOGGER = "reason.sidecar"
"""Name of the logger whose records are events with fields; `AccessLogMiddleware` writes them."""
_SERVER = "uvicorn.error"
_SERVER_MESSAGES = re.compile(
    r"Started server process \[\d+\]|Finished server process \[\d+\]|Waiting for application (startup|shutdown)\."
    r"|Application (startup|shutdown) complete\.|Shutting down|Waiting for .{1,60}"
    r"|Uvicorn running on .{1,200}|(Stopping|Started) (re)?load(er|ing).{0,80}"
    r"|Invalid HTTP request received\.|Unsupported upgrade request\.|Exceeded concurrency limit\."
    r"|ASGI callable returned without completing response\."
)
_CREDENTIALS = re.compile(
    rf"{KEY_PATTERN.pattern}|\b(?:sk|pk|rk|gsk|hf|xai)[-_][A-Za-z0-9_\-]{{8,}}|\bAIza[A-Za-z0-9_\-]{{20,}}"
    r"|(?i:bearer|basic)\s+[A-Za-z0-9._~+/=\-]{6,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
REDACTED = "[hidden]"
_FRAMES = 12
_MAX_CHARS = 2000


class JsonFormatter(logging.Formatter):
    """One JSON object a record: `time`, `level`, `event`, and the event's fields.

    Args:
        content: Whether text of libraries and errors may be shown; keys are hidden even then.
    """

    def __init__(self, *, content: bool = False) -> None:
        super().__init__()
        self._content = content

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        told: dict[str, Any] = {"time": f"{stamp}.{int(record.msecs):03d}Z", "level": record.levelname.lower()}
        fields = getattr(record, "fields", None)
        if isinstance(fields, Mapping):
            told["event"] = str(record.msg)
            told |= fields
        else:
            told |= self._foreign(record)
        if record.exc_info and record.exc_info[0] is not None:
            told |= _fault(record.exc_info[0], record.exc_info[1], record.exc_info[2], self._content)
        return redact_secrets(json.dumps(told, ensure_ascii=True, default=str))

    def _foreign(self, record: logging.LogRecord) -> dict[str, Any]:
        """What may be notified of a record that someone else has made."""
        told: dict[str, Any] = {"event": "log", "logger": record.name}
        if record.name != LOGGER and not record.name.startswith("uvicorn"):
            told["at"] = f"{Path(record.pathname).name}:{record.lineno}"
        message = record.getMessage()
        if self._content:
            told["message"] = message[:_MAX_CHARS]
        elif record.name == LOGGER or record.name.startswith("uvicorn"):
            said = _SERVER_MESSAGES.match(message)
            told["message"] = said[0] if said and record.name == _SERVER else str(record.msg)[:200]
        return told


class ContentFilter(logging.Filter):
    """Takes the text out of the records of a library that brings its own handlers along, unless content is requested.

    Args:
        content: Whether it is; keys are hidden even then.
    """

    def __init__(self, *, content: bool = False) -> None:
        super().__init__()
        self._content = content

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; let it pass if it is a warning or worse."""
        record.msg = redact_secrets(record.getMessage()) if self._content else "(text withheld)"
        record.args, record.exc_info, record.exc_text, record.stack_info = (), None, None, None
        return record.levelno >= logging.WARNING


NOISY_LOGGERS = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy", "httpx", "httpcore", "openai", "openai._base_client")
"""Loggers that put addresses, headers or bodies of requests to models into their lines."""


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at that moment: anyone who replaces it may close the former one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self.stream = sys.stderr
        super().emit(record)


def configure_logging(*, content: bool = False, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send every record of this process through `JsonFormatter`, and quieten who states too much.

    Args:
        content: Whether logs may hold what users, models and libraries say.
        level: The lowest level that is shown.
        stream: Where lines go; None is standard error.
    """
    handler = StderrHandler() if stream is None else logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(content=content))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger(LOGGER).setLevel(level)
    logging.getLogger(_SERVER).setLevel(level)
    for name in ("uvicorn", _SERVER, "uvicorn.asgi"):
        logging.getLogger(name).handlers[:] = []
        logging.getLogger(name).propagate = True
    access = logging.getLogger("uvicorn.access")  # `AccessLogMiddleware` reports of requests
    access.handlers[:] = []
    access.propagate = False
    redact_content(content=content)


def redact_content(*, content: bool = False) -> None:
    """Take the text out of what chatty libraries log, whatever handlers they have or get later."""
    for name in NOISY_LOGGERS:
        logger = logging.getLogger(name)
        for old in [one for one in logger.filters if isinstance(one, ContentFilter)]:
            logger.removeFilter(old)
        logger.addFilter(ContentFilter(content=content))


def log_event(event: str, level: int = logging.INFO, /, **fields: Any) -> None:
    """Write an event with its fields; those that are None are left out."""
    logger = logging.getLogger(LOGGER)
    if logger.isEnabledFor(level):
        logger.log(level, event, extra={"fields": {name: v for name, v in fields.items() if v is not None}})


def log_fault(event: str, error: BaseException, /, **fields: Any) -> None:
    """An error with its location in the code and, unless content is logged, without its message."""
    told = {name: value for name, value in fields.items() if value is not None}
    logging.getLogger(LOGGER).error(event, exc_info=error, extra={"fields": told})


def redact_secrets(text: str) -> str:
    """The text without anything that looks like a key."""
    return _CREDENTIALS.sub(REDACTED, text)


def _fault(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None, content: bool
) -> dict[str, Any]:
    frames = traceback.extract_tb(trace)[-_FRAMES:]
    told: dict[str, Any] = {
        "error": f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."),
        "frames": [f"{Path(f.filename).parent.name}/{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames],
    }
    if content:
        told["error_message"] = str(error)[:_MAX_CHARS]
    return told


class RunLog:
    """A sink that reports of the end of one run.

    Args:
        strategy: The run's strategy.
        request_id: The request that began it; empty if none did.
        key_id: The key that it was sent with; empty if none was.
        content: Whether logs may hold what users and models say.
    """

    def __init__(self, strategy: str, *, request_id: str = "", key_id: str = "", content: bool = False) -> None:
        self._strategy, self._request_id, self._key_id, self._content = strategy, request_id, key_id, content

    def __call__(self, event: Event) -> None:
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

    def _who(self, event: Event) -> dict[str, str | None]:
        return {
            "request_id": self._request_id or None,
            "key_id": self._key_id or None,
            "run_id": event.run_id,
            "strategy": self._strategy,
        }
