"""`NamedMemory`: a memory that persists across runs; it is a `KnowledgeSource` itself.

The items in an SQLite database are authoritative; their vectors are stored next to them, so that none is embedded
twice. The FAISS index is derived from these and rebuilt whenever it does not match. A process killed at any moment
leaves a valid memory with every item whose `add` has returned.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from ...core.errors import StoreError, UserError
from ...core.files import atomic_write
from ...core.messages import Frozen
from ...core.settings import Settings
from ...serving.encoders.protocols import EmbeddingModel
from ..knowledge import MemoryItem, Snippet
from ..retrieval.deduplication import DuplicateLevel, FingerprintIndex, TextFingerprint
from ..retrieval.vector_index import FlatVectorIndex
from ..retrieval.words import content_terms
from .admission import AdmissionRules, DropReason
from .storage import MemoryDatabase, MemoryLocation, MemoryState, StoredItem, memory_location

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_ITEMS = 10_000
INDEX_FILE = "index.faiss"
STAMP_FILE = "index.json"
_PARTIAL = ".partial-"
_MAX_ATTEMPTS = 100
"""Retries of an operation because other processes have written meanwhile."""
_FAISS_THREADS = 1
"""With several threads on a busy machine, waiting takes a hundred times longer than the search by one."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AddResult:
    """The result of adding items.

    Attributes:
        ids: The new items, without those that were evicted at once.
        dropped: Number of items that were not added, by reason ("empty" or "duplicate").
        duplicates_by_level: Number of duplicates by level.
        evicted: Ids of items that were evicted because there were too many.
    """

    ids: tuple[int, ...] = ()
    dropped: Mapping[DropReason, int] = field(default_factory=dict)
    duplicates_by_level: Mapping[DuplicateLevel, int] = field(default_factory=dict)
    evicted: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RecalledItem:
    """An item and its similarity: the cosine or, without embeddings, the share of the query's content words it has."""

    stored: StoredItem
    similarity: float


class NamedMemory:
    """A memory that persists across runs.

    Open it with `NamedMemory.open` or `load_memory`. Any number of tasks and processes may use one concurrently; each
    sees what the others have written. A cancelled call has either completed or had no effect.

    Attributes:
        name: Its name.
        kind: "memory".
        identity: Changes with every change to the items, and with the embedding model.
    """

    kind = "memory"

    def __init__(
        self,
        database: MemoryDatabase,
        thread: ThreadPoolExecutor,
        embedding: EmbeddingModel | None,
        rules: AdmissionRules,
        max_items: int,
    ) -> None:
        self.name = database.location.name
        self.identity = ""
        self.max_items = max_items
        self._database, self._thread, self._embedding = database, thread, embedding
        self._lock = asyncio.Lock()
        self._closed = False
        self._snapshot = MemorySnapshot(database, embedding, rules)  # used on the thread only

    @classmethod
    async def open(
        cls,
        location: MemoryLocation,
        embedding: EmbeddingModel | None = None,
        *,
        rules: AdmissionRules | None = None,
        max_items: int = MAX_ITEMS,
        create: bool = True,
    ) -> NamedMemory:
        """Open or create a memory.

        Args:
            location: Its location.
            embedding: Compares meanings; not closed by this object. None compares content words only.
            rules: Thresholds of duplicates.
            max_items: Maximum items; the least relevant are evicted first, the oldest among ties.
            create: Whether to create it if it does not exist.

        Raises:
            UserError: `max_items` is not positive, or an embedding model is used and FAISS is not installed.
            UnknownName: It does not exist and is not to be created.
            StoreError: It cannot be opened, is locked by another process, damaged, or of another version of `reason`.
            ReasonError: Items that have no vector of this model could not be embedded.
        """
        if max_items < 1:
            raise UserError(f"max_items must be at least 1, got {max_items}")
        thread = ThreadPoolExecutor(1, thread_name_prefix="reason-memory")
        try:
            opening = asyncio.get_running_loop().run_in_executor(
                thread, partial(MemoryDatabase, location, create=create)
            )
            try:
                database = await asyncio.shield(opening)
            except asyncio.CancelledError:
                opening.add_done_callback(_close_unused)
                raise
            memory = cls(database, thread, embedding, rules or AdmissionRules(), max_items)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        try:
            async with memory._lock:
                await memory._refresh()
        except BaseException:
            await memory.aclose()
            raise
        return memory

    async def add(self, items: Sequence[MemoryItem], *, run_id: str = "", question: str = "") -> AddResult:
        """Add the items that duplicate no item of this memory, and none before them.

        Args:
            items: The items.
            run_id: The run that they come from.
            question: The question of the run.

        Raises:
            StoreError: They cannot be written.
            ReasonError: They could not be embedded. Nothing is added then.
        """
        valid = [_valid(item) for item in items]
        vectors = await self._embed([item.text for item in valid])
        async with self._lock:
            for _ in range(_MAX_ATTEMPTS):
                await self._refresh()
                result = await self._on_thread(partial(self._try_to_add, valid, vectors, run_id, question))
                if result is not None:
                    return result
        raise StoreError(f"memory {self.name!r} is being written by too many processes", hint="try again")

    async def recall(self, text: str, k: int) -> list[RecalledItem]:
        """Up to `k` items with a similarity above 0 to a text, most similar first.

        Raises:
            UserError: `k` is not positive.
            StoreError: The memory cannot be read.
            ReasonError: The text, or an item that has no vector yet, could not be embedded.
        """
        if k < 1:
            raise UserError(f"k must be at least 1, got {k}")
        async with self._lock:
            await self._refresh()
            if not self._snapshot.items or not TextFingerprint.of(text).form:
                return []
        vector = None if self._embedding is None else (await self._embedding.embed([text], kind="query"))[0]
        async with self._lock:
            hits = await self._on_thread(partial(self._snapshot.nearest, text, vector, k))
        return [RecalledItem(stored, similarity) for stored, similarity in hits]

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """See `KnowledgeSource.query`; the context is not used.

        `source_id` is `memory:NAME#ITEM`, followed by the item's own source in brackets if it has one.
        """
        return [
            Snippet(text=hit.stored.item.text, source_id=self._citation(hit.stored), score=hit.similarity)
            for hit in await self.recall(text, k)
        ]

    async def items(self) -> list[StoredItem]:
        """All items, oldest first.

        Raises:
            StoreError: They cannot be read.
        """
        async with self._lock:
            return (await self._on_thread(self._database.read))[2]

    async def remove(self, ids: Sequence[int]) -> None:
        """Remove items: all of them or, if one does not exist, none.

        Raises:
            UnknownName: One does not exist.
            StoreError: They cannot be removed.
        """
        async with self._lock:
            await self._on_thread(partial(self._database.remove, ids))
            await self._refresh()

    async def aclose(self) -> None:
        """Close the database; idempotent."""
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)
            self._thread.shutdown(wait=False)

    async def _refresh(self) -> None:
        """Bring the snapshot to the current state; the caller holds the lock."""
        for _ in range(_MAX_ATTEMPTS):
            texts = await self._on_thread(self._update_snapshot)
            if not texts:
                return
            assert self._embedding is not None
            vectors = await self._embed(list(texts.values()))
            blobs = {i: v.astype("<f4").tobytes() for i, v in zip(texts, vectors, strict=True)}
            await self._on_thread(partial(self._database.put_vectors, self._embedding.identity, blobs))
        raise StoreError(f"memory {self.name!r} is being written by too many processes", hint="try again")

    def _update_snapshot(self) -> dict[int, str]:
        """On the thread: see `MemorySnapshot.update`."""
        texts = self._snapshot.update()
        if not texts and self._snapshot.state is not None:
            embedding = self._embedding
            self.identity = f"memory:{self._snapshot.state.token}+{embedding.identity if embedding else 'words'}"
        return texts

    def _try_to_add(
        self, items: Sequence[MemoryItem], vectors: NDArray[np.float32], run_id: str, question: str
    ) -> AddResult | None:
        """On the thread: add what is new in the snapshot; None if the memory has changed meanwhile."""
        assert self._snapshot.state is not None
        new, embedding = self._snapshot.new_items(items, vectors), self._embedding
        if not new.positions:
            return AddResult((), new.dropped, new.duplicates_by_level)
        written = self._database.add(
            self._snapshot.state,
            [(items[i], None if embedding is None else vectors[i].astype("<f4").tobytes()) for i in new.positions],
            run_id=run_id,
            question=question,
            embedding="" if embedding is None else embedding.identity,
            max_items=self.max_items,
        )
        if written is None:
            return None
        self._update_snapshot()
        ids, evicted = written
        added = tuple(i for i in ids if i not in evicted)
        return AddResult(added, new.dropped, new.duplicates_by_level, tuple(evicted))

    async def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors `[texts, dimension]` of items; of dimension 0 without a model."""
        import numpy as np

        if self._embedding is None or not texts:
            return np.zeros((len(texts), 0), dtype=np.float32)
        return await self._embedding.embed(texts, kind="document")

    def _citation(self, stored: StoredItem) -> str:
        source = stored.item.source_id
        return f"memory:{self.name}#{stored.id}" + (f" ({source})" if source else "")

    async def _on_thread(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise StoreError(f"memory {self.name!r} is closed", hint="open it again")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


async def load_memory(
    name: str,
    settings: Settings,
    embedding: EmbeddingModel | None = None,
    *,
    rules: AdmissionRules | None = None,
    max_items: int = MAX_ITEMS,
    create: bool = True,
) -> NamedMemory:
    """Open the memory of a name, which is next to the run store (see `NamedMemory.open`).

    Raises:
        UserError: The name is not valid.
        ReasonError: As `NamedMemory.open`.
    """
    location = memory_location(name, settings)
    return await NamedMemory.open(location, embedding, rules=rules, max_items=max_items, create=create)


def _valid(item: MemoryItem) -> MemoryItem:
    """The item with its hash and a finite score."""
    score = item.score if math.isfinite(item.score) else 0.0
    return item.model_copy(update={"hash": TextFingerprint.of(item.text).hash, "score": score})


def _close_unused(opening: asyncio.Future[MemoryDatabase]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


# -- the snapshot of one process


@dataclass(frozen=True, slots=True)
class NewItems:
    """Which of some items are new to a memory.

    Attributes:
        positions: Positions of the new items.
        dropped: Number of the others by reason ("empty" or "duplicate").
        duplicates_by_level: Number of duplicates by level.
    """

    positions: tuple[int, ...] = ()
    dropped: Mapping[DropReason, int] = field(default_factory=dict)
    duplicates_by_level: Mapping[DuplicateLevel, int] = field(default_factory=dict)


class MemorySnapshot:
    """The items of one state of a memory, their fingerprints, and the index over their vectors. Everything blocks.

    Args:
        database: The open database.
        embedding: The model of the vectors, which is not called here; None compares content words only.
        rules: Thresholds of duplicates.

    Attributes:
        state: The state; None before the first update.
        items: The items by id, oldest first.
    """

    def __init__(self, database: MemoryDatabase, embedding: EmbeddingModel | None, rules: AdmissionRules) -> None:
        self.state: MemoryState | None = None
        self.items: dict[int, StoredItem] = {}
        self._database, self._embedding, self._rules = database, embedding, rules
        self._fingerprints = FingerprintIndex()
        self._terms: dict[int, frozenset[str]] = {}
        self._index: FlatVectorIndex | None = None

    def update(self) -> dict[int, str]:
        """Read the current state.

        Returns:
            The texts of items that have no vector of the model, by id. If there are any, nothing was changed: store
            their vectors and update again.
        """
        if self._database.state() == self.state:
            return {}
        state, ids, new = self._database.read(self.items.keys())
        if self._embedding is not None:
            missing = self._update_index(state, ids, self._embedding)
            if missing:
                texts = {stored.id: stored.item.text for stored in (*self.items.values(), *new)}
                return {i: texts[i] for i in missing}
        for removed in self.items.keys() - set(ids):
            del self.items[removed], self._terms[removed]
            self._fingerprints.remove(removed)
        for stored in new:
            self.items[stored.id] = stored
            self._terms[stored.id] = content_terms(stored.item.text)
            self._fingerprints.add(stored.id, TextFingerprint.of(stored.item.text))
        self.state = state
        return {}

    def new_items(self, items: Sequence[MemoryItem], vectors: NDArray[np.float32]) -> NewItems:
        """The items that duplicate no item of the memory, and none before them.

        Args:
            items: The items.
            vectors: Unit vectors `[items, dimension]`; not used without a model.
        """
        import numpy as np

        positions: list[int] = []
        new_vectors = np.empty_like(vectors)  # its first rows are the vectors of new items
        dropped: Counter[DropReason] = Counter()
        levels: Counter[DuplicateLevel] = Counter()
        added = FingerprintIndex()
        for i, item in enumerate(items):
            fingerprint = TextFingerprint.of(item.text)
            if not fingerprint.form:
                dropped["empty"] += 1
                continue
            level = self._duplicate_level(fingerprint, self._fingerprints) or self._duplicate_level(fingerprint, added)
            if level is None and self._index is not None:
                stored = max((cosine for _, cosine in self._index.search(vectors[i], 1)), default=-1.0)
                # not by BLAS, whose threads wait for each other longer than this small product takes
                new_cosine = np.einsum("ij,j->i", new_vectors[: len(positions)], vectors[i]).max(initial=-1.0)
                level = 3 if max(stored, new_cosine) >= self._rules.cosine else None
            if level is not None:
                dropped["duplicate"] += 1
                levels[level] += 1
            else:
                new_vectors[len(positions)] = vectors[i]
                positions.append(i)
                added.add(i, fingerprint)
        return NewItems(tuple(positions), dict(dropped), dict(levels))

    def nearest(self, text: str, vector: NDArray[np.float32] | None, k: int) -> list[tuple[StoredItem, float]]:
        """Up to `k` items with a similarity above 0 (see `RecalledItem`), most similar first.

        Args:
            text: The text.
            vector: Its unit vector `[dimension]`; None compares words.
            k: Maximum number of items.
        """
        if vector is not None and self._index is not None:
            hits = self._index.search(vector, k)
        else:
            terms = content_terms(text)
            common = ((i, len(terms & self._terms[i])) for i in self.items)
            shares = [(i, count / len(terms)) for i, count in common if count]
            hits = sorted(shares, key=lambda hit: (-hit[1], hit[0]))[:k]
        return [(self.items[i], min(1.0, similarity)) for i, similarity in hits if similarity > 0]

    def _update_index(self, state: MemoryState, ids: Sequence[int], embedding: EmbeddingModel) -> list[int]:
        """Bring the index to a state; if items have no vector, change nothing and return their ids."""
        import numpy as np

        index, location = self._index, self._database.location
        if index is None:
            index = stored_index(location, state, embedding, ids)
            if index is not None:
                self._index = index
                return []
            index = FlatVectorIndex(embedding.dimension, num_threads=_FAISS_THREADS)
        new = [i for i in ids if i not in index.ids]
        blobs = self._database.vectors(embedding.identity, new)
        missing = [i for i in new if len(blobs.get(i, b"")) != 4 * embedding.dimension]
        if missing:
            return missing
        index.remove(index.ids - set(ids))
        index.add({i: np.frombuffer(blobs[i], dtype="<f4").astype(np.float32) for i in new})
        self._index = index
        # the file only saves time: without it, the next process rebuilds the index
        with contextlib.suppress(OSError, StoreError):
            store_index(index, location, state, embedding.identity)
        return []

    def _duplicate_level(self, item: TextFingerprint, fingerprints: FingerprintIndex) -> DuplicateLevel | None:
        rules = self._rules
        return fingerprints.duplicate_level(item, min_jaccard=rules.jaccard, min_containment=rules.containment)


# -- the index file, which is always verified


class IndexStamp(Frozen):
    """Source state of an index file.

    Attributes:
        state: The state of the memory.
        embedding: Identity of the embedding model.
        sha256: Hash of the index file, in hexadecimal.
    """

    state: MemoryState
    embedding: str
    sha256: str


def store_index(index: FlatVectorIndex, location: MemoryLocation, state: MemoryState, embedding: str) -> None:
    """Write an index, unless one of a later state is there.

    Raises:
        StoreError: The directory is locked by another process.
        OSError: It could not be written.
    """
    content = index.to_bytes()
    stamp = IndexStamp(state=state, embedding=embedding, sha256=hashlib.sha256(content).hexdigest())
    with location.locked():
        current = _read_stamp(location.directory)
        if current is not None and current.embedding == embedding and current.state.version > state.version:
            return
        for leftover in location.directory.glob(f"{_PARTIAL}*"):  # of a process that was killed
            leftover.unlink(missing_ok=True)
        atomic_write(location.directory / INDEX_FILE, content, _PARTIAL)
        atomic_write(location.directory / STAMP_FILE, stamp.model_dump_json().encode(), _PARTIAL)


def stored_index(
    location: MemoryLocation, state: MemoryState, embedding: EmbeddingModel, ids: Collection[int]
) -> FlatVectorIndex | None:
    """The index on disk, if it is intact and belongs to exactly this state, these items and this model."""
    try:
        with location.locked():
            stamp = _read_stamp(location.directory)
            if stamp is None or (stamp.state, stamp.embedding) != (state, embedding.identity):
                return None
            content = (location.directory / INDEX_FILE).read_bytes()
    except (OSError, StoreError):
        return None
    if hashlib.sha256(content).hexdigest() != stamp.sha256:
        return None  # FAISS only reads bytes that it has written
    index = FlatVectorIndex.from_bytes(content, num_threads=_FAISS_THREADS)
    if index is None or index.dimension != embedding.dimension or index.ids != set(ids):
        return None
    return index


def _read_stamp(directory: Path) -> IndexStamp | None:
    try:
        return IndexStamp.model_validate_json((directory / STAMP_FILE).read_bytes())
    except (OSError, ValidationError):
        return None
