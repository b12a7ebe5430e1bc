"""`create_knowledge_source`: a knowledge source from a string, a path or a callable."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ....core.errors import BackendUnavailable, CapabilityMissing, DataError, UnknownName, UserError
from ....core.registry import nearest
from ....core.settings import Settings
from ....serving.encoders.factory import load_embedding_model
from ....serving.encoders.protocols import EmbeddingModel
from ....serving.factory import load_model
from ....serving.model import LanguageModel
from ...knowledge import KnowledgeSource
from ..embedding_cache import FILE, EmbeddingCache
from ..readers import FileNote
from .directory import DirectoryOptions, DirectoryProgress, DirectorySource
from .function import FunctionSource
from .http import HttpSource, validate_url
from .mcp import McpSource
from .model import ModelSource

KINDS = ("directory", "mcp", "model")
"""Prefixes before a colon; a directory needs none, and a URL begins with its scheme."""

SourceSpec = str | Path | KnowledgeSource | Callable[..., Any]
"""Specification of a knowledge source."""

LoadEmbedding = Callable[[str | None], Awaitable[EmbeddingModel]]
"""Loads the embedding model of a name; None is the default."""

LoadModel = Callable[[str], Awaitable[LanguageModel]]
"""Loads a language model by its string."""

_WITH_TOOL = re.compile(r"(.*\S)#([\w.\-]+)")


async def create_knowledge_source(
    spec: SourceSpec,
    settings: Settings,
    *,
    load_embedding: LoadEmbedding | None = None,
    load_language_model: LoadModel | None = None,
    options: DirectoryOptions | None = None,
    progress: DirectoryProgress | None = None,
) -> KnowledgeSource:
    """Create a knowledge source.

    | string | source |
    | --- | --- |
    | `DIR`, `directory:DIR` | a directory of documents |
    | `http://…`, `https://…` | a service that is queried by POST |
    | `mcp:COMMAND ARGUMENTS…`, `mcp:http://…`, optionally followed by `#TOOL` | a tool of an MCP server |
    | `model:NAME` | another language model |

    Args:
        spec: One of these strings or a path; a callable of a text and a number; or a source, which is returned.
        settings: Models and directories; vectors of directories are cached in the cache directory.
        load_embedding: Loads embedding models, which its owner closes; None loads them by the settings, and they are
            closed with the source.
        load_language_model: Loads language models, likewise.
        options: How a directory is split and searched.
        progress: Receives progress of reading and embedding a directory.

    Returns:
        The source, closed by the caller. The `notes` of a directory report skipped files.

    Raises:
        UserError: The string or the callable is not valid, or an extra is not installed.
        UnknownName: There is no such kind, model or tool.
        DataError: A directory or file is missing, damaged or without text.
        BackendError: A model or server is not available.
    """
    if not isinstance(spec, str | Path):
        return spec if isinstance(spec, KnowledgeSource) else FunctionSource(spec)
    factory = _SourceFactory(
        settings,
        load_embedding or partial(load_embedding_model, settings=settings),
        load_language_model or partial(load_model, settings=settings),
        owns_embedding=load_embedding is None,
        owns_model=load_language_model is None,
        options=options,
        progress=progress,
    )
    name = str(spec)
    kind, rest = ("directory", name) if isinstance(spec, Path) else _split_kind(name)
    match kind:
        case "directory":
            return await factory.directory(name, Path(rest))
        case "mcp":
            return await factory.mcp(name, rest)
        case "model":
            return await factory.model(rest)
        case _:
            return HttpSource(rest)


def _split_kind(name: str) -> tuple[str, str]:
    """Kind and the rest of a string."""
    if not name.strip():
        raise UserError("a knowledge source cannot be an empty string", hint="give a directory of documents")
    if name.startswith(("http://", "https://")):
        return "http", name
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


@dataclass(frozen=True)
class _SourceFactory:
    """Creates each kind of source."""

    settings: Settings
    load_embedding: LoadEmbedding
    load_language_model: LoadModel
    owns_embedding: bool
    owns_model: bool
    options: DirectoryOptions | None
    progress: DirectoryProgress | None

    async def directory(self, name: str, path: Path) -> KnowledgeSource:
        path = await asyncio.to_thread(_existing_directory, name, path)
        embedding, note = None, None
        try:
            embedding = await self.load_embedding(None)
        except (UserError, BackendUnavailable, CapabilityMissing) as e:
            # BM25 search still works; errors of the directory itself are reported anyway
            note = FileNote(name, f"it is searched by words only: {e.message}", skipped=False)
        try:
            source = await DirectorySource.load(
                path,
                name=name,
                embedding=embedding,
                owned=self.owns_embedding,
                cache=EmbeddingCache(self.settings.cache_dir / FILE),
                options=self.options,
                progress=self.progress,
            )
        except BaseException:
            if embedding is not None and self.owns_embedding:
                await embedding.aclose()
            raise
        if note is not None:
            source.notes = (note, *source.notes)
        return source

    async def mcp(self, name: str, rest: str) -> KnowledgeSource:
        match = _WITH_TOOL.fullmatch(rest)
        server, tool = match.groups() if match else (rest, None)
        if server.startswith(("http://", "https://")):
            return await McpSource.connect(validate_url(server), tool=tool, name=name)
        try:
            command = shlex.split(server)
        except ValueError as e:
            raise UserError(f"the command {server!r} cannot be parsed: {e}", hint="close the quotation marks") from e
        return await McpSource.connect(command, tool=tool, name=name)

    async def model(self, name: str) -> KnowledgeSource:
        return ModelSource(await self.load_language_model(name), owned=self.owns_model)


def _existing_directory(name: str, path: Path) -> Path:
    path = _expanded(str(path))
    if not path.is_dir():
        what = "is a file, not a directory" if path.is_file() else "is not a directory"
        kinds = ", ".join(f"{kind}:…" for kind in KINDS)
        raise DataError(f"{name!r} {what}", hint=f"give a directory of documents, or {kinds}, http://…")
    return path
