"""`FunctionSource`: a Python callable as a knowledge source."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import itertools
from collections.abc import Callable
from typing import Any

from ....core.errors import UserError
from ...knowledge import Snippet
from .snippets import parse_snippets


class FunctionSource:
    """A callable `(text, k)` or `(text, k, context)` that returns snippets.

    The context is passed as the parameter `context`, or as a third argument. The result is a list or generator of
    snippets, texts, pairs of text and source, or objects with `text` and `source_id`; or None. A synchronous callable
    runs in a thread, which cancellation does not stop.

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
        self._context_argument = _context_argument(function, self.name)
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 (an object whose call is asynchronous)
        )
        self.identity = f"python:{identity}" if identity is not None else _identity(function, qualified_name)

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """The snippets that the callable returns (see `KnowledgeSource`).

        Raises:
            InvalidResponse: It returned something that cannot be read as snippets.
            Exception: Whatever the callable raises.
        """
        keywords: dict[str, Any] = {"context": context} if self._context_argument == "keyword" else {}
        arguments = (text, k, context) if self._context_argument == "third" else (text, k)
        if self._is_async:
            result = await self._function(*arguments, **keywords)
        else:
            result = await asyncio.to_thread(self._call, arguments, keywords)
            if inspect.isawaitable(result):
                result = await result
        if hasattr(result, "__aiter__"):
            result = [snippet async for snippet in _first(result, k)]
        return parse_snippets(result, self.name)[:k]

    async def aclose(self) -> None:
        """Do nothing: the callable belongs to the caller."""

    def _call(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Call it, and consume a generator in the same thread."""
        result = self._function(*arguments, **keywords)
        return list(itertools.islice(result, arguments[1])) if inspect.isgenerator(result) else result


async def _first(snippets: Any, k: int) -> Any:
    count = 0
    async for snippet in snippets:
        yield snippet
        count += 1
        if count >= k:
            return


def _context_argument(function: Callable[..., Any], name: str) -> str:
    """How the context is passed: "keyword", "third" or ""."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ""  # a builtin without a signature
    parameter = signature.parameters.get("context")
    call_forms: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {"": (("", 1), {}), "third": (("", 1, ""), {})}
    if parameter is not None and parameter.kind is not parameter.POSITIONAL_ONLY:
        call_forms = {"keyword": (("", 1), {"context": ""})}
    for form, (arguments, keywords) in call_forms.items():
        try:
            signature.bind(*arguments, **keywords)
        except TypeError:
            continue
        return form
    raise UserError(
        f"{name} cannot be called with a text and a number", hint="its parameters must be (text, k[, context])"
    )


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
