"""`FaissSource`: a FAISS index with its texts as a knowledge source; `save_faiss_source` writes one."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ....core.errors import DataError, UserError
from ....core.files import atomic_write, json_lines
from ....core.run import Run
from ....serving.encoders.protocols import EmbeddingModel
from ....serving.metered.scorers import MeteredEmbedding
from ...knowledge import KnowledgeSource, Snippet
from ..vector_index import deserialize_index, load_faiss

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INDEX_FILE, TEXTS_FILE, CONFIG_FILE = "index.faiss", "texts.jsonl", "source.json"

_BATCH = 256


class FaissSource:
    """A FAISS index and its texts; create it with `FaissSource.load`."""

    kind = "faiss"
    records_calls = False

    def __init__(
        self, name: str, index: Any, texts: list[Snippet], digest: str, embedding: EmbeddingModel, *, owned: bool
    ) -> None:
        self.name = name
        self.identity = f"faiss:{digest}:{embedding.identity}"
        self._index, self._texts, self._embedding, self._owned = index, texts, embedding, owned

    @classmethod
    async def load(
        cls,
        path: Path,
        load_embedding: Callable[[str | None], Awaitable[EmbeddingModel]],
        *,
        name: str | None = None,
        owned: bool = True,
    ) -> Self:
        """Load a saved index.

        Args:
            path: A directory with `index.faiss`, `texts.jsonl` and, unless the default embedding model made it,
                `source.json` with the model's name in the field `embedding`; or the index file next to the others. Each
                line of the texts has `text` and `source_id`, in the order of the index.
            load_embedding: Loads the embedding model of that name; None is the default.
            name: Name of the source; None is the path.
            owned: Whether the embedding model is closed with the source.

        Raises:
            DataError: A file is missing or damaged, or index, texts and model do not match.
            UserError: FAISS is not installed.
        """
        index, texts, config, digest = await asyncio.to_thread(_read, path)
        model_name = config.get("embedding")
        if model_name is not None and not isinstance(model_name, str):
            raise DataError(f"the field `embedding` of {path} is not a string", hint=f"correct {CONFIG_FILE}")
        model = await load_embedding(model_name)
        try:
            if index.d != model.dimension:
                raise DataError(
                    f"the index {path} has vectors of dimension {index.d}, but {model.name} has {model.dimension}",
                    hint=f'name the model that made it in {CONFIG_FILE}: {{"embedding": "…"}}',
                )
            identity = config.get("embedding_identity")
            if identity is not None and identity != model.identity:
                raise DataError(
                    f"the index {path} was made by another version of {model.name}", hint="rebuild it from its texts"
                )
        except DataError:
            if owned:
                await model.aclose()
            raise
        return cls(name or str(path), index, texts, digest, model, owned=owned)

    def __len__(self) -> int:
        """Number of texts."""
        return len(self._texts)

    def metered(self, run: Run, timeout_s: float) -> KnowledgeSource:
        """The source with its embedding of queries charged to a run (see `MeteredSource`).

        Raises:
            UserError: The run limits dollars, and the embedding model's price is unknown.
        """
        return _MeteredFaissSource(self, MeteredEmbedding(self._embedding, "embedding", run))

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """The nearest texts (see `KnowledgeSource`); the context is not used.

        A score is the inner product with the query's vector; for an index by distance it is the negative distance.
        """
        return await self.search(text, k, self._embedding)

    async def search(self, text: str, k: int, embedding: EmbeddingModel) -> list[Snippet]:
        """`query` with another instance of the embedding model, such as a metered one."""
        vector = await embedding.embed([text], kind="query")
        return await asyncio.to_thread(self._nearest, vector, k)

    async def aclose(self) -> None:
        """Close the embedding model if the source owns it; idempotent."""
        if self._owned:
            await self._embedding.aclose()

    def _nearest(self, vector: NDArray[np.float32], k: int) -> list[Snippet]:
        scores, rows = self._index.search(vector, min(k, max(1, len(self._texts))))
        sign = 1.0 if self._index.metric_type == load_faiss().METRIC_INNER_PRODUCT else -1.0
        return [
            self._texts[row].model_copy(update={"score": sign * float(score)})
            for score, row in zip(scores[0], rows[0], strict=True)
            if 0 <= row < len(self._texts) and math.isfinite(score)
        ]


class _MeteredFaissSource:
    """An index as one run queries it."""

    kind = FaissSource.kind

    def __init__(self, source: FaissSource, embedding: EmbeddingModel) -> None:
        self.name, self.identity = source.name, source.identity
        self._source, self._embedding = source, embedding

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        return await self._source.search(text, k, self._embedding)

    async def aclose(self) -> None:
        """Do nothing: the index is closed by its owner."""


async def save_faiss_source(path: Path, snippets: Sequence[Snippet], embedding: EmbeddingModel) -> None:
    """Write an index that `faiss:PATH` loads: exact search by inner product of unit vectors.

    Args:
        path: A directory, created if necessary; an index in it is replaced.
        snippets: Texts and sources; scores are not stored.
        embedding: Makes the vectors; its name is stored.

    Raises:
        UserError: There are no texts, or FAISS is not installed.
        DataError: The directory cannot be written.
        BackendError: The embedding model failed.
    """
    if not snippets:
        raise UserError("an index needs at least one text, got none", hint="give at least one snippet")
    faiss = load_faiss()
    index = faiss.IndexFlatIP(embedding.dimension)
    for start in range(0, len(snippets), _BATCH):
        index.add(await embedding.embed([s.text for s in snippets[start : start + _BATCH]], kind="document"))
    lines = [json.dumps({"text": s.text, "source_id": s.source_id}, ensure_ascii=False) + "\n" for s in snippets]
    config = {"embedding": embedding.name, "embedding_identity": embedding.identity}

    def write() -> None:
        path.mkdir(parents=True, exist_ok=True)
        atomic_write(path / TEXTS_FILE, "".join(lines).encode("utf-8", "replace"))
        atomic_write(path / CONFIG_FILE, json.dumps(config, indent=2).encode())
        atomic_write(path / INDEX_FILE, faiss.serialize_index(index).tobytes())

    try:
        await asyncio.to_thread(write)
    except OSError as e:
        raise DataError(f"cannot write the index {path}: {e.strerror or e}", hint="choose another directory") from e


def _read(path: Path) -> tuple[Any, list[Snippet], dict[str, Any], str]:
    """Index, texts, configuration, and the hash of all."""
    load_faiss()
    directory, file = (path, path / INDEX_FILE) if path.is_dir() else (path.parent, path)
    hashed = hashlib.sha256()
    contents: dict[str, bytes] = {}
    for name, where in (
        (INDEX_FILE, file),
        (TEXTS_FILE, directory / TEXTS_FILE),
        (CONFIG_FILE, directory / CONFIG_FILE),
    ):
        try:
            contents[name] = where.read_bytes()
        except FileNotFoundError as e:
            if name != CONFIG_FILE:
                raise DataError(
                    f"{where} does not exist",
                    hint=f"an index is a directory with {INDEX_FILE} and {TEXTS_FILE}; see save_faiss_source",
                ) from e
            contents[name] = b"{}"
        except OSError as e:
            raise DataError(f"cannot read {where}: {e.strerror or e}") from e
        hashed.update(len(contents[name]).to_bytes(8, "big") + contents[name])
    texts: list[Snippet] = []
    for line in json_lines(contents[TEXTS_FILE], str(directory / TEXTS_FILE)):
        text, source = line.values.get("text"), line.values.get("source_id", "")
        if not isinstance(text, str) or not isinstance(source, str):
            raise DataError(f"{line.where}: `text` and `source_id` must be strings")
        texts.append(Snippet(text=text, source_id=source or f"{directory.name}#{line.number}"))
    try:
        config = json.loads(contents[CONFIG_FILE])
    except (ValueError, RecursionError) as e:
        raise DataError(f"{directory / CONFIG_FILE} is not valid JSON") from e
    if not isinstance(config, dict):
        raise DataError(f"{directory / CONFIG_FILE} is not a JSON object", hint='expected: {"embedding": "<name>"}')
    try:
        index = deserialize_index(contents[INDEX_FILE])
    except Exception as e:  # the library raises what its C++ code does: RuntimeError, MemoryError, TypeError
        raise DataError(f"{file} is damaged or not a FAISS index", hint="rebuild it from its texts") from e
    if index.ntotal != len(texts):
        raise DataError(f"the index {file} has {index.ntotal} vectors, but {TEXTS_FILE} has {len(texts)} texts")
    return index, texts, config, hashed.hexdigest()
