"""`create_knowledge_source`: from a string, or whatever else was given, to a brain."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from ....core.errors import BackendUnavailable, CapabilityMissing, DataError, UnknownName, UserError
from ....core.registry import nearest
from ....core.settings import Settings
from ....serving.encoders.protocols import CrossEncoder, EmbeddingModel, load_embedding_model
from ....serving.factory import load_model
from ....serving.model import LanguageModel
from ..embedding_cache import EmbeddingCache
from ..readers import FileNote
from .directory import DirectoryOptions, DirectorySource, Told
from .faiss import INDEX, TEXTS, FaissSource
from .function import FunctionSource
from .http import HttpSource, validate_url
from .mcp import McpSource
from .model import ModelSource
from .protocol import KnowledgeSource

KINDS = ("folder", "faiss", "mcp", "model")
"""What a string begins with, before a colon; a folder needs nothing, and an address begins with its protocol."""

SourceSpec = str | Path | KnowledgeSource | Callable[..., Any]
"""What a brain can be opened from."""

OpenEmbedding = Callable[[str | None], Awaitable[EmbeddingModel]]
"""Opens the embedding model of a name; None is the default."""

_TOOL = re.compile(r"(.*\S)#([\w.\-]+)")

OpenModel = Callable[[str], Awaitable[LanguageModel]]
"""Opens a language model by its string."""


async def create_knowledge_source(
    asked: SourceSpec,
    settings: Settings,
    *,
    embedding: OpenEmbedding | None = None,
    model: OpenModel | None = None,
    reranker: CrossEncoder | None = None,
    options: DirectoryOptions | None = None,
    progress: Told | None = None,
) -> KnowledgeSource:
    """Open a brain.

    | string | brain |
    | --- | --- |
    | `DIR`, `folder:DIR` | a folder of documents; one that holds a saved index is opened as that |
    | `faiss:PATH` | a saved FAISS index and its texts |
    | `http://…`, `https://…` | a service that is asked by POST |
    | `mcp:COMMAND ARGUMENTS…`, `mcp:http://…`, each with `#TOOL` behind it or not | a tool of an MCP server |
    | `model:NAME` | another language model |

    Args:
        asked: One of these strings or a path; a callable of a text and a number; or a brain, which is given back.
        settings: Models and where things are kept: vectors of folders beside the run store.
        embedding: Opens embedding models, which then belong to whoever gave it; None opens them by the settings, and
            they are closed with the brain.
        model: Opens language models; likewise.
        reranker: A cross-encoder that ranks what a folder finds; it belongs to whoever gave it.
        options: How a folder is cut and searched.
        progress: Told how far reading and embedding a folder is.

    Returns:
        The brain; whoever opened it closes it. A folder's `notes` tell what of it is not known.

    Raises:
        UserError: The string or the callable is no brain, or an extra is not installed.
        UnknownName: There is no such kind, model or tool.
        DataError: A folder or file is missing, damaged or without text.
        BackendError: A model or server cannot be had.
    """
    if not isinstance(asked, str | Path):
        if isinstance(asked, KnowledgeSource):
            return asked
        return FunctionSource(asked)
    opens = _Opening(settings, embedding, model, reranker, options, progress)
    name = str(asked)
    kind, rest = ("folder", name) if isinstance(asked, Path) else _read(name)
    match kind:
        case "folder":
            return await opens.folder(name, Path(rest))
        case "faiss":
            return await opens.faiss(name, _path(rest))
        case "mcp":
            return await opens.mcp(name, rest)
        case "model":
            return await opens.model(rest)
        case _:
            return HttpSource(rest)


def _read(name: str) -> tuple[str, str]:
    """Kind and the rest of a string."""
    if not name.strip():
        raise UserError("a brain was asked for by an empty string", hint="give a folder of documents")
    if name.startswith(("http://", "https://")):
        return "http", name
    kind, colon, rest = name.partition(":")
    if not colon or (kind not in KINDS and _path(name).exists()):
        return "folder", name
    if kind not in KINDS:
        known = ", ".join(KINDS)
        raise UnknownName("kind of brain", kind, nearest(kind, KINDS), hint=f"kinds are {known}; or give a folder")
    if not rest.strip():
        raise UserError(f"{name!r} does not say which {kind}", hint=f"give it behind the colon: {kind}:…")
    return kind, rest


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # the home of a user whom there is not
        return Path(text)


class _Opening:
    """What the kinds of brains are opened with."""

    def __init__(
        self,
        settings: Settings,
        embedding: OpenEmbedding | None,
        model: OpenModel | None,
        reranker: CrossEncoder | None,
        options: DirectoryOptions | None,
        progress: Told | None,
    ) -> None:
        self._settings = settings
        self._own_embedding, self._own_model = embedding is None, model is None
        self._embedding = embedding or partial(load_embedding_model, settings=settings)
        self._model = model or partial(load_model, settings=settings)
        self._reranker, self._options, self._progress = reranker, options, progress

    async def folder(self, name: str, path: Path) -> KnowledgeSource:
        path, indexed = await asyncio.to_thread(_looked_at, name, path)
        if indexed:
            return await self.faiss(name, path)
        found, without = None, None
        try:
            found = await self._embedding(None)
        except (UserError, BackendUnavailable, CapabilityMissing) as e:
            # by words alone is less, but it is an answer; what is wrong with the folder itself is told all the same
            without = FileNote(name, f"it is searched by words alone: {e.message}", left_out=False)
        try:
            brain = await DirectorySource.open(
                path,
                name=name,
                embedding=found,
                owned=self._own_embedding,
                reranker=self._reranker,
                cache=EmbeddingCache(self._settings.beside_store / "vectors.sqlite3"),
                options=self._options,
                progress=self._progress,
            )
        except BaseException:
            if found is not None and self._own_embedding:
                await found.aclose()
            raise
        if without is not None:
            brain.notes = (without, *brain.notes)
        return brain

    async def faiss(self, name: str, path: Path) -> KnowledgeSource:
        return await FaissSource.open(path, self._embedding, name=name, owned=self._own_embedding)

    async def mcp(self, name: str, rest: str) -> KnowledgeSource:
        named = _TOOL.fullmatch(rest)
        where, tool = named.groups() if named else (rest, None)
        if where.startswith(("http://", "https://")):
            return await McpSource.open(validate_url(where), tool=tool, name=name)
        try:
            command = shlex.split(where)
        except ValueError as e:
            raise UserError(f"the command {where!r} cannot be read: {e}", hint="close what is quoted") from e
        return await McpSource.open(command, tool=tool, name=name)

    async def model(self, name: str) -> KnowledgeSource:
        return ModelSource(await self._model(name), owned=self._own_model)


def _looked_at(name: str, path: Path) -> tuple[Path, bool]:
    """The folder, and whether it holds a saved index."""
    path = _path(str(path))
    if not path.is_dir():
        what = "is a file, not a folder" if path.is_file() else "is no folder here"
        raise DataError(
            f"{name!r} {what}", hint=f"give a folder of documents, or {', '.join(f'{k}:…' for k in KINDS)}, http://…"
        )
    return path, (path / INDEX).is_file() and (path / TEXTS).is_file()
