"""`FunctionSource`: a Python callable as a knowledge source."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Callable
from typing import Any

from ....core.errors import UserError
from ...knowledge import Snippet
from .snippets import parse_snippets


class FunctionSource:
    """A callable `(text, k)`, with a parameter `context` if it wants one, that returns snippets.

    The result is a list of snippets, texts, pairs of text and source, or objects with `text` and `source_id`; or None.
    A synchronous callable runs in a thread, which cancellation does not stop.

    Args:
        function: The callable.
        name: Name of the source; None is `python:` and the qualified name.
        identity: Changes whenever the callable would respond differently. None is module, qualified name and, of a
            plain function, the source code; give one if it reads other data and stored responses answer other runs
            (`reuse = "store"`).

    Raises:
        UserError: It is not callable with a text and a number.
    """

    kind = "python"

    def __init__(self, function: Callable[..., Any], *, name: str | None = None, identity: str | None = None) -> None:
        if not callable(function):
            raise UserError(f"{function!r} is not callable", hint="give a function of a text and a number of snippets")
        qualified_name = getattr(function, "__qualname__", None) or type(function).__name__
        self.name = name or f"python:{qualified_name}"
        self._function = function
        self._takes_context = _takes_context(function, self.name)
        self.identity = f"python:{identity}" if identity is not None else _identity(function, qualified_name)

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """The snippets that the callable returns (see `KnowledgeSource`).

        Raises:
            InvalidResponse: It returned something that cannot be read as snippets.
            Exception: Whatever the callable raises.
        """
        keywords = {"context": context} if self._takes_context else {}
        # of an asynchronous callable the thread only makes the coroutine
        result = await asyncio.to_thread(self._function, text, k, **keywords)
        if inspect.isawaitable(result):
            result = await result
        return parse_snippets(result, self.name)[:k]

    async def aclose(self) -> None:
        """Do nothing: the callable belongs to the caller."""


def _takes_context(function: Callable[..., Any], name: str) -> bool:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return False  # a builtin without a signature
    takes_context = "context" in signature.parameters
    try:
        signature.bind("", 1, **({"context": ""} if takes_context else {}))
    except TypeError as e:
        raise UserError(
            f"{name} cannot be called with a text and a number", hint="its parameters must be (text, k[, context])"
        ) from e
    return takes_context


def _identity(function: Callable[..., Any], qualified_name: str) -> str:
    """Identity by module, name and, if available, source code."""
    try:
        source = inspect.getsource(function) if inspect.isfunction(function) else ""
    except (OSError, TypeError):
        source = ""
    module = getattr(function, "__module__", "")
    if not source:
        return f"python:{module}.{qualified_name}"
    digest = hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()
    return f"python:{module}.{qualified_name}:{digest}"
