"""Logs as JSON lines on standard error, without secrets and by default without the text of users and models.

Records of other libraries are reduced to logger, level and location. `RunLog` writes one line for each finished run.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from ..core.events import Event, RunFailed, RunFinished
from .api_keys import KEY_PATTERN

LOGGER = "reason.sidecar"
"""Name of the logger for structured events (`log_event`, `log_fault`)."""
_SERVER = "uvicorn.error"
_CREDENTIALS = re.compile(
    rf"{KEY_PATTERN.pattern}|\b(?:sk|pk|rk|gsk|hf|xai)[-_][A-Za-z0-9_\-]{{8,}}|\bAIza[A-Za-z0-9_\-]{{20,}}"
    r"|(?i:bearer|basic)\s+[A-Za-z0-9._~+/=\-]{6,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
REDACTED = "[hidden]"
_FRAMES = 12
_MAX_CHARS = 2000


class JsonFormatter(logging.Formatter):
    """Formats each record as a JSON object with `time`, `level`, `event` and the event's fields.

    Args:
        content: Whether to include messages of libraries and errors; credentials are redacted in any case.
    """

    def __init__(self, *, content: bool = False) -> None:
        super().__init__()
        self._content = content

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line of JSON."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, Mapping):
            told["event"] = str(record.msg)
            told |= fields
            if "error_text" in told:
                told["error_text"] = str(told["error_text"])[:_MAX_CHARS]
        else:
            told |= self._foreign(record)
        if record.exc_info and record.exc_info[0] is not None:
            told |= _fault(record.exc_info[0], record.exc_info[1], record.exc_info[2], self._content)
        return redact_secrets(json.dumps(told, default=str))

    def _foreign(self, record: logging.LogRecord) -> dict[str, Any]:
        """The fields of a record that was not written by `log_event`."""
        told: dict[str, Any] = {"event": "log", "logger": record.name}
        if record.name != LOGGER and not record.name.startswith("uvicorn"):
            told["at"] = f"{Path(record.pathname).name}:{record.lineno}"
        if self._content:
            told["message"] = record.getMessage()[:_MAX_CHARS]
        elif record.name == LOGGER or record.name.startswith("uvicorn"):
            told["message"] = str(record.msg)[:200]  # the format alone
        return told


class ContentFilter(logging.Filter):
    """Removes the text from records of libraries that may install their own handlers.

    Args:
        content: Whether to keep the message; credentials are redacted in any case.
    """

    def __init__(self, *, content: bool = False) -> None:
        super().__init__()
        self._content = content

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the record in place; drop it below level WARNING."""
        record.msg = redact_secrets(record.getMessage()) if self._content else "(text withheld)"
        record.args, record.exc_info, record.exc_text, record.stack_info = (), None, None, None
        return record.levelno >= logging.WARNING


NOISY_LOGGERS = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy", "httpx", "httpcore", "openai", "openai._base_client")
"""Loggers whose messages contain addresses, headers or bodies of model requests."""


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the current `sys.stderr`, since code that replaces it may close the previous stream."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self.stream = sys.stderr
        super().emit(record)


def configure_logging(*, content: bool = False, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Format all records of this process with `JsonFormatter`, and redact those of noisy libraries.

    Args:
        content: Whether logs may contain text of users, models and libraries.
        level: Minimum level of the server's own records; other libraries log from WARNING on.
        stream: Output stream; None writes to standard error.
    """
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # no record shows them
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
    access = logging.getLogger("uvicorn.access")  # replaced by `AccessLogMiddleware`
    access.handlers[:] = []
    access.propagate = False
    redact_content(content=content)


def redact_content(*, content: bool = False) -> None:
    """Install a `ContentFilter` on `NOISY_LOGGERS`, which applies to any handler that they have or get later."""
    for name in NOISY_LOGGERS:
        logger = logging.getLogger(name)
        for old in [one for one in logger.filters if isinstance(one, ContentFilter)]:
            logger.removeFilter(old)
        logger.addFilter(ContentFilter(content=content))


def log_event(event: str, level: int = logging.INFO, /, **fields: Any) -> None:
    """Log an event with its fields; fields that are None are omitted."""
    logger = logging.getLogger(LOGGER)
    if logger.isEnabledFor(level):
        told = {name: v for name, v in fields.items() if v is not None}
        # without the search for the caller, which no record of ours shows
        logger.handle(logger.makeRecord(LOGGER, level, "", 0, event, (), None, extra={"fields": told}))


def log_fault(event: str, error: BaseException, /, **fields: Any) -> None:
    """Log an exception with its stack frames; its message is included only if content is logged."""
    told = {name: value for name, value in fields.items() if value is not None}
    logging.getLogger(LOGGER).error(event, exc_info=error, extra={"fields": told})


def redact_secrets(text: str) -> str:
    """Replace everything in the text that looks like a credential."""
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
    """Logs the end of one run.

    Args:
        strategy: Strategy of the run.
        request_id: Id of the request that started the run; empty if there is none.
        key_id: Id of the request's key; empty without authentication.
        content: Whether logs may contain text of users and models.
    """

    def __init__(self, strategy: str, *, request_id: str = "", key_id: str = "", content: bool = False) -> None:
        self._strategy, self._request_id, self._key_id, self._content = strategy, request_id, key_id, content

    def __call__(self, event: RunFinished | RunFailed) -> None:
        """Log the run that the event ends."""
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
        else:
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
