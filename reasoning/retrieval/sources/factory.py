"""`create_knowledge_source`: a knowledge source from a string, a path or a callable (`FunctionSource`)."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ....core.errors import DataError, UnknownName, UserError
from ....core.files import Progress
from ....core.registry import nearest
from ....core.settings import Settings
from ...knowledge import KnowledgeSource, Snippet
from .client import parse_snippets
from .directory import SNIPPET_CHUNKING, DirectorySource, LoadEmbedding, load_retriever
from .mcp import McpSource, validate_url

KINDS = ("directory", "mcp")
"""Prefixes before a colon; a directory needs none."""

SourceSpec = str | Path | KnowledgeSource | Callable[..., Any]
"""Specification of a knowledge source."""

_WITH_TOOL = re.compile(r"(.*\S)#([\w.\-]+)")


async def create_knowledge_source(
    spec: SourceSpec,
    settings: Settings,
    *,
    load_embedding: LoadEmbedding | None = None,
    progress: Progress | None = None,
) -> KnowledgeSource:
    """Create a knowledge source.

    | string | source |
    | --- | --- |
    | `DIR`, `directory:DIR` | a directory of documents, or a saved index |
    | `mcp:COMMAND ARGUMENTS…`, `mcp:http://…`, optionally followed by `#TOOL` | a tool of an MCP server |

    Args:
        spec: One of these strings or a path; a callable of a text and a number; or a source, which is returned.
        settings: Models and directories; vectors of directories are cached in the cache directory.
        load_embedding: Loads embedding models, which its owner closes; None loads them by the settings, and they are
            closed with the source.
        progress: Receives progress of reading and embedding a directory.

    Returns:
        The source, closed by the caller. The `degraded` of a directory reports skipped files.

    Raises:
        UserError: The string or the callable is not valid, or an extra is not installed.
        UnknownName: There is no such kind or tool.
        DataError: A directory or file is missing, damaged or without text.
        BackendError: A server is not available.
    """
    if not isinstance(spec, str | Path):
        return spec if isinstance(spec, KnowledgeSource) else FunctionSource(spec)
    name = str(spec)
    kind, rest = ("directory", name) if isinstance(spec, Path) else _split_kind(name)
    match kind:
        case "directory":
            path = await asyncio.to_thread(_existing_directory, name, rest)
            retriever = await load_retriever([str(path)], settings, progress, load_embedding, SNIPPET_CHUNKING)
            return DirectorySource(name, retriever)
        case _:
            return await _connect_mcp(name, rest)


def _split_kind(name: str) -> tuple[str, str]:
    """Kind and the rest of a string."""
    if not name.strip():
        raise UserError("a knowledge source cannot be an empty string", hint="give a directory of documents")
    kind, colon, rest = name.partition(":")
    if not colon or (kind not in KINDS and _expanded(name).exists()):
        return "directory", name
    if kind not in KINDS:
        raise UnknownName(
            "kind of knowledge source",
            kind,
            nearest(kind, KINDS),
            hint=f"kinds are {', '.join(KINDS)}; or give a directory",
        )
    if not rest.strip():
        raise UserError(f"{name!r} lacks a value", hint=f"give it after the colon: {kind}:…")
    return kind, rest


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # the home of an unknown user
        return Path(text)


async def _connect_mcp(name: str, rest: str) -> KnowledgeSource:
    match = _WITH_TOOL.fullmatch(rest)
    server, tool = match.groups() if match else (rest, None)
    if server.startswith(("http://", "https://")):
        return await McpSource.connect(validate_url(server), tool=tool, name=name)
    try:
        command = shlex.split(server)
    except ValueError as e:
        raise UserError(f"the command {server!r} cannot be parsed: {e}", hint="close the quotation marks") from e
    return await McpSource.connect(command, tool=tool, name=name)


def _existing_directory(name: str, text: str) -> Path:
    path = _expanded(text)
    if not path.is_dir():
        what = "is a file, not a directory" if path.is_file() else "is not a directory"
        kinds = ", ".join(f"{kind}:…" for kind in KINDS)
        raise DataError(f"{name!r} {what}", hint=f"give a directory of documents, or {kinds}")
    return path


# -- functions


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
