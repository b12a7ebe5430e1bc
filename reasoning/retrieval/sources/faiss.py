"""`FaissSource`: a saved FAISS index with the texts it is of, searched by meaning; `save_faiss_source` writes one."""

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
from .protocol import KnowledgeSource, Snippet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


INDEX, TEXTS, ABOUT = "index.faiss", "texts.jsonl", "brain.json"

_BATCH = 256


class FaissSource:
    """A FAISS index and its texts; open it with `FaissSource.open`.

    Attributes:
        name: The string it was opened by.
        kind: "faiss".
        identity: Hash of its files and of the embedding model.
    """

    kind = "faiss"
    keeps_replies = False

    def __init__(
        self, name: str, index: Any, texts: list[Snippet], digest: str, embedding: EmbeddingModel, *, owned: bool
    ) -> None:
        self.name = name
        self.identity = f"faiss:{digest}:{embedding.identity}"
        self._index, self._texts, self._embedding, self._owned = index, texts, embedding, owned

    @classmethod
    async def open(
        cls,
        path: Path,
        embedding: Callable[[str | None], Awaitable[EmbeddingModel]],
        *,
        name: str | None = None,
        owned: bool = True,
    ) -> Self:
        """Open a saved index.

        Args:
            path: A folder with `index.faiss`, `texts.jsonl` and, if another embedding model than the default made it,
                `brain.json` with its name in the field `embedding`; or the index file, beside which the others lie.
                Each line of the texts has `text` and `source_id`, in the order of the index.
            embedding: Opens the embedding model of that name; None is the default.
            name: What it is called; None is the path.
            owned: Whether the embedding model is closed with the brain.

        Raises:
            DataError: A file is missing or damaged, or index, texts and model do not go together.
            UserError: The library is not installed.
        """
        index, texts, about, digest = await asyncio.to_thread(_read, path)
        wanted = about.get("embedding")
        if wanted is not None and not isinstance(wanted, str):
            raise DataError(f"the embedding model in {path} is no name", hint=f"mend {ABOUT}")
        model = await embedding(wanted)
        try:
            if index.d != model.dimension:
                raise DataError(
                    f"the index {path} has vectors of {index.d} numbers, {model.name} makes {model.dimension}",
                    hint=f'name the model that made it in {ABOUT}: {{"embedding": "…"}}',
                )
            made_by = about.get("embedding_identity")
            if made_by is not None and made_by != model.identity:
                raise DataError(
                    f"the index {path} was made by another version of {model.name}", hint="make it anew from its texts"
                )
        except DataError:
            if owned:
                await model.aclose()
            raise
        return cls(name or str(path), index, texts, digest, model, owned=owned)

    def __len__(self) -> int:
        """Number of texts."""
        return len(self._texts)

    def in_run(self, run: Run, deadline_s: float) -> KnowledgeSource:
        """The brain with its embedding of queries charged to a run (see `MeteredSource`).

        Raises:
            UserError: The run limits dollars, and the embedding model's price is unknown.
        """
        return _InRun(self, MeteredEmbedding(self._embedding, "embedding", run))

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """The nearest texts (see `KnowledgeSource`); the context is not used.

        A score is the product with the query's vector, its cosine if the index has vectors of length 1; of an index by
        distance it is the negative of that.
        """
        return await self.search(text, k, self._embedding)

    async def search(self, text: str, k: int, embedding: EmbeddingModel) -> list[Snippet]:
        """See `query`; `embedding` is the model of the index, or a meter over it."""
        vector = await embedding.embed([text], kind="query")
        return await asyncio.to_thread(self._nearest, vector, k)

    async def aclose(self) -> None:
        """Close the embedding model if it is the brain's own; idempotent."""
        if self._owned:
            await self._embedding.aclose()

    def _nearest(self, vector: NDArray[np.float32], k: int) -> list[Snippet]:
        import faiss

        scores, places = self._index.search(vector, min(k, max(1, len(self._texts))))
        sign = 1.0 if self._index.metric_type == faiss.METRIC_INNER_PRODUCT else -1.0
        return [
            self._texts[place].model_copy(update={"score": sign * float(score)})
            for score, place in zip(scores[0], places[0], strict=True)
            if 0 <= place < len(self._texts) and math.isfinite(score)
        ]


class _InRun:
    """An index as one run asks it."""

    kind = FaissSource.kind

    def __init__(self, brain: FaissSource, embedding: EmbeddingModel) -> None:
        self.name, self.identity = brain.name, brain.identity
        self._brain, self._embedding = brain, embedding

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        return await self._brain.search(text, k, self._embedding)

    async def aclose(self) -> None:
        """Do nothing: the brain belongs to whoever opened it."""


async def save_faiss_source(path: Path, snippets: Sequence[Snippet], embedding: EmbeddingModel) -> None:
    """Write an index that `faiss:PATH` opens: exact search by the product of vectors of length 1.

    Args:
        path: A folder; it is made if it is not there, and an index in it is replaced.
        snippets: Texts and sources; scores are not kept.
        embedding: Makes the vectors; its name is kept.

    Raises:
        UserError: There are no texts, or the library is not installed.
        DataError: The folder cannot be written.
        BackendError: The embedding model failed.
    """
    if not snippets:
        raise UserError("an index of no texts was asked for", hint="give at least one snippet")
    faiss = _faiss()
    index = faiss.IndexFlatIP(embedding.dimension)
    for start in range(0, len(snippets), _BATCH):
        index.add(await embedding.embed([s.text for s in snippets[start : start + _BATCH]], kind="document"))
    lines = [json.dumps({"text": s.text, "source_id": s.source_id}, ensure_ascii=False) + "\n" for s in snippets]
    about = {"embedding": embedding.name, "embedding_identity": embedding.identity}

    def write() -> None:
        path.mkdir(parents=True, exist_ok=True)
        atomic_write(path / TEXTS, "".join(lines).encode("utf-8", "replace"))
        atomic_write(path / ABOUT, json.dumps(about, indent=2).encode())
        atomic_write(path / INDEX, faiss.serialize_index(index).tobytes())

    try:
        await asyncio.to_thread(write)
    except OSError as e:
        raise DataError(f"cannot write the index {path}: {e.strerror or e}", hint="choose another folder") from e


def _read(path: Path) -> tuple[Any, list[Snippet], dict[str, Any], str]:
    """Index, texts, what is told of them, and the hash of all."""
    faiss = _faiss()
    folder, file = (path, path / INDEX) if path.is_dir() else (path.parent, path)
    hashed = hashlib.sha256()
    contents: dict[str, bytes] = {}
    for name, where in ((INDEX, file), (TEXTS, folder / TEXTS), (ABOUT, folder / ABOUT)):
        try:
            contents[name] = where.read_bytes()
        except FileNotFoundError as e:
            if name != ABOUT:
                raise DataError(
                    f"there is no {where}", hint=f"an index is a folder with {INDEX} and {TEXTS}; see save_faiss_brain"
                ) from e
            contents[name] = b"{}"
        except OSError as e:
            raise DataError(f"cannot read {where}: {e.strerror or e}") from e
        hashed.update(len(contents[name]).to_bytes(8, "big") + contents[name])
    texts: list[Snippet] = []
    for line in json_lines(contents[TEXTS], str(folder / TEXTS)):
        text, source = line.values.get("text"), line.values.get("source_id", "")
        if not isinstance(text, str) or not isinstance(source, str):
            raise DataError(f"{line.where}: `text` and `source_id` are strings in each line")
        texts.append(Snippet(text=text, source_id=source or f"{folder.name}#{line.number}"))
    try:
        about = json.loads(contents[ABOUT])
    except (ValueError, RecursionError) as e:
        raise DataError(f"{folder / ABOUT} is no JSON") from e
    if not isinstance(about, dict):
        raise DataError(f"{folder / ABOUT} is no JSON object", hint='it is {"embedding": "<name>"}')
    index = _index_of(faiss, contents[INDEX], file)
    if index.ntotal != len(texts):
        raise DataError(f"the index {file} is of {index.ntotal} texts, and {TEXTS} beside it has {len(texts)}")
    return index, texts, about, hashed.hexdigest()


def _index_of(faiss: Any, content: bytes, file: Path) -> Any:
    import numpy as np

    try:
        return faiss.deserialize_index(np.frombuffer(content, dtype=np.uint8))
    except Exception as e:  # the library raises what its C++ does: RuntimeError, MemoryError, TypeError
        raise DataError(f"{file} is no FAISS index, or a damaged one", hint="make it anew from its texts") from e


def _faiss() -> Any:
    try:
        import faiss
    except ModuleNotFoundError as e:
        raise UserError(
            f"a FAISS index needs the package {e.name!r}, which is not installed",
            hint="pip install 'reason-orchestrator[local]'",
        ) from e
    return faiss
