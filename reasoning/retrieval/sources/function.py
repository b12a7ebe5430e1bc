"""`FunctionSource`: a Python callable as a brain."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import itertools
from collections.abc import Callable
from typing import Any

from ....core.errors import UserError
from .protocol import Snippet, parse_snippets


class FunctionSource:
    """A callable that is asked.

    It gets the text, the number of snippets and, if it has a parameter called `context` or needs a third one, the
    context. It gives snippets, texts, pairs of text and source, or objects with `text` and `source_id`; or None.
    One that is not asynchronous runs in a thread: cancelling stops waiting for it, and it ends by itself.

    Args:
        function: The callable.
        name: What it is called; None is `python:` and its name.
        identity: Changes whenever the callable would answer differently. None is its module and name and, of a plain
            function, its source; what it reads is not known, so give one where stored replies answer other runs
            (`reuse = "store"`).

    Raises:
        UserError: It cannot be called with a text and a number.
    """

    kind = "python"

    def __init__(self, function: Callable[..., Any], *, name: str | None = None, identity: str | None = None) -> None:
        if not callable(function):
            raise UserError(f"{function!r} cannot be asked", hint="give a function of a text and a number of snippets")
        called = getattr(function, "__qualname__", None) or type(function).__name__
        self.name = name or f"python:{called}"
        self._function = function
        self._with_context = _takes_context(function, self.name)
        self._waits = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 (an object whose call is asynchronous)
        )
        self.identity = f"python:{identity}" if identity is not None else _identity(function, called)

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """What the callable gives (see `KnowledgeSource`).

        Raises:
            BadReply: It gives something that cannot be read as snippets.
            Exception: Whatever the callable raises.
        """
        given: dict[str, Any] = {"context": context} if self._with_context == "keyword" else {}
        arguments = (text, k, context) if self._with_context == "third" else (text, k)
        if self._waits:
            found = await self._function(*arguments, **given)
        else:
            found = await asyncio.to_thread(self._read_all, arguments, given)
            if inspect.isawaitable(found):
                found = await found
        if hasattr(found, "__aiter__"):
            found = [snippet async for _, snippet in _first(found, k)]
        return parse_snippets(found, self.name)[:k]

    async def aclose(self) -> None:
        """Do nothing: the callable belongs to whoever gave it."""

    def _read_all(self, arguments: tuple[Any, ...], given: dict[str, Any]) -> Any:
        """Call it, and let a generator do its work in the thread too."""
        found = self._function(*arguments, **given)
        return list(itertools.islice(found, arguments[1])) if inspect.isgenerator(found) else found


async def _first(found: Any, k: int) -> Any:
    number = 0
    async for snippet in found:
        yield number, snippet
        number += 1
        if number >= k:
            return


def _takes_context(function: Callable[..., Any], name: str) -> str:
    """How the context is given: "keyword", "third" or ""."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ""  # a builtin that does not tell
    named = signature.parameters.get("context")
    ways: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {"": (("", 1), {}), "third": (("", 1, ""), {})}
    if named is not None and named.kind is not named.POSITIONAL_ONLY:
        ways = {"keyword": (("", 1), {"context": ""})}
    for way, (arguments, keywords) in ways.items():
        try:
            signature.bind(*arguments, **keywords)
        except TypeError:
            continue
        return way
    raise UserError(f"{name} cannot be asked with a text and a number", hint="its parameters are (text, k[, context])")


def _identity(function: Callable[..., Any], called: str) -> str:
    """Of its place and, where there is one, of its source."""
    try:
        source = inspect.getsource(function) if inspect.isfunction(function) else ""
    except (OSError, TypeError):
        source = ""
    module = getattr(function, "__module__", "")
    if not source:
        return f"python:{module}.{called}"
    digest = hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()
    return f"python:{module}.{called}:{digest}"
