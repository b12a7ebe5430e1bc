"""`NamedMemory`: what was learnt in one run and is there in the next, under a name; it is a `KnowledgeSource` itself.

The items are rows of an SQLite file and are the truth; their vectors lie beside them, so that nothing is embedded
twice. The FAISS index is made of these and made again whenever it does not fit. A process that is killed at any moment
leaves a memory that opens and has every item whose `add` has returned.

`VectorIndex`: FAISS over the vectors of a named memory, and its file, which is never trusted.

The file is a copy of what the rows hold and says so in a stamp beside it: which state of the rows it was made of, by
which embedding model, and its SHA-256. A file that is missing, damaged, of another model or behind the rows is not
used.

`MemorySnapshot`: what one process knows of a named memory, brought up to date before each use. Everything here blocks.
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
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from ...core.errors import StoreError, UserError
from ...core.files import atomic_write
from ...core.messages import Frozen
from ...core.settings import Settings
from ...serving.encoders.protocols import EmbeddingModel
from ...serving.model_files.conversion import missing_extra
from ..retrieval.deduplication import DuplicateLevel, FingerprintIndex, TextFingerprint
from ..retrieval.sources.protocol import Snippet
from ..retrieval.words import content_terms, terms_of
from .admission import AdmissionRules, DropReason
from .storage import MemoryDatabase, MemoryLocation, StoredItem, memory_location
from .working_memory import MemoryItem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


INDEX = "index.faiss"
STAMP = "index.json"
_PARTIAL = ".partial-"


class MemoryState(Frozen):
    """The state of a memory's rows.

    Attributes:
        change: How many changes there have been.
        mark: Drawn anew with each change, so that no two states have the same.
        rows: How many items there are.
    """

    change: int
    mark: str
    rows: int


class IndexStamp(Frozen):
    """What an index was made of.

    Attributes:
        head: The state of the rows.
        embedding: Identity of the embedding model.
        sha256: Sum of the index file's bytes, in hexadecimal.
    """

    head: MemoryState
    embedding: str
    sha256: str


class VectorIndex:
    """Exact search by inner product over vectors of length one, each under the id of its item. Everything blocks.

    Args:
        dimension: Numbers of a vector.

    Raises:
        UserError: FAISS is not installed.
    """

    def __init__(self, dimension: int) -> None:
        faiss = _faiss()
        self._index: Any = faiss.IndexIDMap2(faiss.IndexFlatIP(dimension))
        self.dimension = dimension
        self.ids: set[int] = set()

    def add(self, vectors: Mapping[int, NDArray[np.float32]]) -> None:
        """Take vectors in, by the ids of their items, which are not there yet."""
        import numpy as np

        if vectors:
            self._index.add_with_ids(np.stack(list(vectors.values())), np.array(list(vectors), dtype=np.int64))
            self.ids.update(vectors)

    def remove(self, ids: Collection[int]) -> None:
        """Take vectors out; ids that are not there do not matter."""
        import numpy as np

        gone = self.ids.intersection(ids)
        if gone:
            self._index.remove_ids(np.array(sorted(gone), dtype=np.int64))
            self.ids -= gone

    def search(self, vector: NDArray[np.float32], k: int) -> list[tuple[int, float]]:
        """The items closest to a vector.

        Args:
            vector: `[dimension]`, of length one.
            k: Most items wanted, at least 1.

        Returns:
            (id, cosine), the closest first.
        """
        if not self.ids:
            return []
        _faiss()
        cosines, ids = self._index.search(vector.reshape(1, -1), min(k, len(self.ids)))
        found = [(int(i), float(c)) for i, c in zip(ids[0], cosines[0], strict=True) if i >= 0]
        return sorted(found, key=lambda hit: (-hit[1], hit[0]))

    def save(self, place: MemoryLocation, head: MemoryState, embedding: str) -> None:
        """Write it beside the rows, unless an index of a later state of them is there.

        Raises:
            StoreError: The folder is held by another process.
            OSError: It could not be written.
        """
        content = _faiss().serialize_index(self._index).tobytes()
        stamp = IndexStamp(head=head, embedding=embedding, sha256=hashlib.sha256(content).hexdigest())
        with place.locked():
            there = _stamp(place.folder)
            if there is not None and there.embedding == embedding and there.head.change > head.change:
                return
            for leftover in place.folder.glob(f"{_PARTIAL}*"):  # of a process that died here
                leftover.unlink(missing_ok=True)
            _replace(place.folder / INDEX, content)
            _replace(place.folder / STAMP, stamp.model_dump_json().encode())

    @classmethod
    def load(
        cls, place: MemoryLocation, head: MemoryState, embedding: str, dimension: int, ids: Collection[int]
    ) -> VectorIndex | None:
        """The index on disk, if it is whole and of exactly these rows and this model.

        Args:
            place: Where it lies.
            head: The state of the rows.
            embedding: Identity of the embedding model.
            dimension: Numbers of its vectors.
            ids: The items that there are.
        """
        import numpy as np

        try:
            with place.locked():
                stamp = _stamp(place.folder)
                if stamp is None or (stamp.head, stamp.embedding) != (head, embedding):
                    return None
                content = (place.folder / INDEX).read_bytes()
        except (OSError, StoreError):
            return None
        if hashlib.sha256(content).hexdigest() != stamp.sha256:
            return None  # FAISS is never given bytes that it did not write
        faiss = _faiss()
        try:
            index = faiss.deserialize_index(np.frombuffer(content, dtype=np.uint8))
            held = {int(i) for i in faiss.vector_to_array(index.id_map)}
        except (RuntimeError, AttributeError):  # of another version of FAISS
            return None
        if index.d != dimension or held != set(ids):
            return None
        loaded = cls(dimension)
        loaded._index, loaded.ids = index, held
        return loaded


def _stamp(folder: Path) -> IndexStamp | None:
    try:
        return IndexStamp.model_validate_json((folder / STAMP).read_bytes())
    except (OSError, ValidationError):
        return None


def _replace(path: Path, content: bytes) -> None:
    atomic_write(path, content, _PARTIAL)


def _faiss() -> Any:
    try:
        import faiss
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    # of the calling thread alone, which is the memory's own: where cores are busy, several threads wait for each other
    # a hundred times longer than one takes
    faiss.omp_set_num_threads(1)
    return faiss


@dataclass(frozen=True, slots=True)
class NewItems:
    """What of some items is new to a memory.

    Attributes:
        new: Positions of the items that are.
        dropped: How many are not, by reason ("empty" or "duplicate").
        duplicates_by_level: How many of the duplicates were found on each level.
    """

    new: tuple[int, ...] = ()
    dropped: Mapping[DropReason, int] = field(default_factory=dict)
    duplicates_by_level: Mapping[DuplicateLevel, int] = field(default_factory=dict)


class MemorySnapshot:
    """The items of one state of a memory, what they are known by, and the index over their vectors.

    Args:
        rows: The open file.
        embedding: The model of the vectors, which is not called here; None compares words alone.
        rules: From which likeness on two items are the same.

    Attributes:
        head: The state; None before the first look.
        items: The items by id, the oldest first.
    """

    def __init__(self, rows: MemoryDatabase, embedding: EmbeddingModel | None, rules: AdmissionRules) -> None:
        self.head: MemoryState | None = None
        self.items: dict[int, StoredItem] = {}
        self._rows, self._embedding, self._rules = rows, embedding, rules
        self._words = FingerprintIndex()
        self._index: VectorIndex | None = None

    def look(self) -> dict[int, str]:
        """Take over the newest state.

        Returns:
            The texts of items that have no vector of the model, by id. If there are any, nothing was taken over: put
            their vectors into the rows and look again.
        """
        if self._rows.head() == self.head:
            return {}
        head, ids, fresh = self._rows.read(self.items.keys())
        if self._embedding is not None:
            without = self._look_at_vectors(head, ids, self._embedding)
            if without:
                texts = {n.id: n.item.text for n in (*self.items.values(), *fresh)}
                return {i: texts[i] for i in without}
        for gone in self.items.keys() - set(ids):
            del self.items[gone]
            self._words.remove(gone)
        for named in fresh:
            self.items[named.id] = named
            self._words.add(named.id, TextFingerprint.of(named.item.text))
        self.head = head
        return {}

    def news(self, items: Sequence[MemoryItem], vectors: NDArray[np.float32]) -> NewItems:
        """What of some items is new: says nothing that an item of the memory, or one before it, says.

        Args:
            items: The items.
            vectors: `[items, dimension]`, of length one; not looked at without a model.
        """
        import numpy as np

        new: list[int] = []
        newest = np.empty_like(vectors)  # in its first rows the vectors of what is new
        dropped: Counter[DropReason] = Counter()
        levels: Counter[DuplicateLevel] = Counter()
        taken = FingerprintIndex()
        for i, item in enumerate(items):
            marks = TextFingerprint.of(item.text)
            if not marks.form:
                dropped["empty"] += 1
                continue
            level = self._level(marks, self._words) or self._level(marks, taken)
            if level is None and self._index is not None:
                held = max((cosine for _, cosine in self._index.search(vectors[i], 1)), default=-1.0)
                # not by BLAS, whose threads wait for each other longer than so little takes
                among = np.einsum("ij,j->i", newest[: len(new)], vectors[i]).max(initial=-1.0)
                level = 3 if max(held, among) >= self._rules.cosine else None
            if level is not None:
                dropped["duplicate"] += 1
                levels[level] += 1
            else:
                newest[len(new)] = vectors[i]
                new.append(i)
                taken.add(i, marks)
        return NewItems(tuple(new), dict(dropped), dict(levels))

    def closest(self, text: str, asked: NDArray[np.float32] | None, k: int) -> list[tuple[StoredItem, float]]:
        """The items closest to a text.

        Args:
            text: The text.
            asked: Its vector `[dimension]`, of length one; None compares words.
            k: Most items wanted.

        Returns:
            Items with their cosine or, by words, the share of the text's content words that they have; those above 0
            alone, the closest first.
        """
        if asked is not None and self._index is not None:
            hits = self._index.search(asked, k)
        else:
            words = content_terms(text)
            common = ((i, len(words & terms_of(self._words.marks(i).words))) for i in self.items)
            shares = [(i, n / len(words)) for i, n in common if n]
            hits = sorted(shares, key=lambda hit: (-hit[1], hit[0]))[:k]
        return [(self.items[i], min(1.0, closeness)) for i, closeness in hits if closeness > 0]

    def _look_at_vectors(self, head: MemoryState, ids: Sequence[int], embedding: EmbeddingModel) -> list[int]:
        """Bring the index to a state; if items have no vector, do nothing and return their ids."""
        import numpy as np

        index, place = self._index, self._rows.place
        if index is None:
            index = VectorIndex.load(place, head, embedding.identity, embedding.dimension, ids)
            if index is not None:
                self._index = index
                return []
            index = VectorIndex(embedding.dimension)
        lacking = [i for i in ids if i not in index.ids]
        blobs = self._rows.vectors(embedding.identity, lacking)
        without = [i for i in lacking if len(blobs.get(i, b"")) != 4 * embedding.dimension]
        if without:
            return without
        index.remove(index.ids - set(ids))
        index.add({i: np.frombuffer(blobs[i], dtype="<f4").astype(np.float32) for i in lacking})
        self._index = index
        # the file saves time alone: where it cannot be written, the next process makes the index of the rows
        with contextlib.suppress(OSError, StoreError):
            index.save(place, head, embedding.identity)
        return []

    def _level(self, marks: TextFingerprint, words: FingerprintIndex) -> DuplicateLevel | None:
        return words.level(marks, jaccard_from=self._rules.jaccard, containment_from=self._rules.containment)


MAX_ITEMS = 10_000
_ATTEMPTS = 100
"""How often an operation begins anew because other processes have written meanwhile."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AddResult:
    """What became of items that were to be kept.

    Attributes:
        ids: The items that are new, without those of them that went at once.
        dropped: How many were left out, by reason ("empty" or "duplicate").
        duplicates_by_level: How many of the duplicates were found on each level.
        evicted: Ids of the items that went because there were too many.
    """

    ids: tuple[int, ...] = ()
    dropped: Mapping[DropReason, int] = field(default_factory=dict)
    duplicates_by_level: Mapping[DuplicateLevel, int] = field(default_factory=dict)
    evicted: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RecalledItem:
    """An item that was found.

    Attributes:
        found: The item.
        closeness: Its cosine with what was asked; without embeddings, the share of the asked content words it has.
    """

    found: StoredItem
    closeness: float


class NamedMemory:
    """A memory that outlasts runs.

    Open it with `NamedMemory.open` or `load_memory`. Any number of tasks and processes may use one at a time; each sees
    what the others have written. Cancelling a call leaves it done or not begun.

    Attributes:
        name: Its name.
        kind: "memory".
        identity: Of the state that was last seen: any change to the items gives another, and so does another embedding
            model.
    """

    kind = "memory"

    def __init__(
        self,
        rows: MemoryDatabase,
        thread: ThreadPoolExecutor,
        embedding: EmbeddingModel | None,
        rules: AdmissionRules,
        max_items: int,
    ) -> None:
        self.name = rows.place.name
        self.identity = ""
        self.max_items = max_items
        self._rows, self._thread, self._embedding = rows, thread, embedding
        self._turn = asyncio.Lock()
        self._closed = False
        self._picture = MemorySnapshot(rows, embedding, rules)  # touched on the thread alone

    @classmethod
    async def open(
        cls,
        place: MemoryLocation,
        embedding: EmbeddingModel | None = None,
        *,
        rules: AdmissionRules | None = None,
        max_items: int = MAX_ITEMS,
        create: bool = True,
    ) -> NamedMemory:
        """Open a memory, or make it.

        Args:
            place: Where it lies.
            embedding: Compares meanings; it is not closed by this object. None compares words alone.
            rules: From which likeness on two items are the same.
            max_items: Most items; the least relevant go first, of equal ones the oldest.
            create: Whether to make it if it is not there.

        Raises:
            UserError: `max_items` is not positive, or an embedding model is given and FAISS is not installed.
            UnknownName: It is not there and is not to be made.
            StoreError: It cannot be opened, is held by another process, damaged, or of a newer version of `reason`.
            ReasonError: Items that have no vector of this model could not be embedded.
        """
        if max_items < 1:
            raise UserError(f"max_items = {max_items}: a memory has room for at least 1 item")
        thread = ThreadPoolExecutor(1, thread_name_prefix="reason-memory")
        try:
            opening = asyncio.get_running_loop().run_in_executor(thread, partial(MemoryDatabase, place, create=create))
            try:
                rows = await asyncio.shield(opening)
            except asyncio.CancelledError:
                opening.add_done_callback(_close_unused)
                raise
            memory = cls(rows, thread, embedding, rules or AdmissionRules(), max_items)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        try:
            async with memory._turn:
                await memory._catch_up()
        except BaseException:
            await memory.aclose()
            raise
        return memory

    async def add(self, items: Sequence[MemoryItem], *, run_id: str = "", question: str = "") -> AddResult:
        """Keep items for other runs, but those that say what an item of this memory, or one before them, says.

        Args:
            items: The items.
            run_id: The run that they come from.
            question: What it was asked.

        Raises:
            StoreError: They cannot be written.
            ReasonError: They could not be embedded. Nothing is kept then.
        """
        sound = [_sound(item) for item in items]
        vectors = await self._embed([item.text for item in sound])
        async with self._turn:
            for _ in range(_ATTEMPTS):
                await self._catch_up()
                kept = await self._on_thread(partial(self._try_to_add, sound, vectors, run_id, question))
                if kept is not None:
                    return kept
        raise StoreError(f"memory {self.name!r} is being written by too many processes", hint="try again")

    async def recall(self, text: str, k: int) -> list[RecalledItem]:
        """The items closest to a text.

        Args:
            text: What is looked for, in words.
            k: Most items wanted, at least 1.

        Returns:
            Items that have anything to do with it (a cosine above 0, or a common content word), the closest first.

        Raises:
            UserError: `k` is not positive.
            StoreError: The memory cannot be read.
            ReasonError: The text, or an item that has no vector yet, could not be embedded.
        """
        if k < 1:
            raise UserError(f"k = {k}: at least 1 item must be wanted")
        async with self._turn:
            await self._catch_up()
            if not self._picture.items or not TextFingerprint.of(text).form:
                return []
        asked = None if self._embedding is None else (await self._embedding.embed([text], kind="query"))[0]
        async with self._turn:
            hits = await self._on_thread(partial(self._picture.closest, text, asked, k))
        return [RecalledItem(found, closeness) for found, closeness in hits]

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """See `KnowledgeSource.query`; what is being worked on is not looked at.

        `source_id` is `memory:NAME#ITEM`, followed by the item's own source in brackets if it has one.
        """
        return [
            Snippet(text=hit.found.item.text, source_id=self._cited(hit.found), score=hit.closeness)
            for hit in await self.recall(text, k)
        ]

    async def items(self) -> list[StoredItem]:
        """All items, the oldest first.

        Raises:
            StoreError: They cannot be read.
        """
        async with self._turn:
            return (await self._on_thread(self._rows.read))[2]

    async def remove(self, ids: Sequence[int]) -> None:
        """Take items out: all of them or, if one is not there, none.

        Raises:
            UnknownName: One is not there.
            StoreError: They cannot be removed.
        """
        async with self._turn:
            await self._on_thread(partial(self._rows.remove, ids))
            await self._catch_up()

    async def aclose(self) -> None:
        """Close its file; idempotent."""
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._rows.close)
            self._thread.shutdown(wait=False)

    # -- within

    async def _catch_up(self) -> None:
        """Know the newest state; the caller has the turn."""
        for _ in range(_ATTEMPTS):
            without = await self._on_thread(self._see)
            if not without:
                return
            assert self._embedding is not None
            vectors = await self._embed(list(without.values()))
            blobs = {i: v.astype("<f4").tobytes() for i, v in zip(without, vectors, strict=True)}
            await self._on_thread(partial(self._rows.put_vectors, self._embedding.identity, blobs))
        raise StoreError(f"memory {self.name!r} is being written by too many processes", hint="try again")

    def _see(self) -> dict[int, str]:
        """On the thread: take over the newest state (see `MemorySnapshot.look`)."""
        without = self._picture.look()
        if not without and self._picture.head is not None:
            embedding = self._embedding
            self.identity = f"memory:{self._picture.head.mark}+{embedding.identity if embedding else 'words'}"
        return without

    def _try_to_add(
        self, items: Sequence[MemoryItem], vectors: NDArray[np.float32], run_id: str, question: str
    ) -> AddResult | None:
        """On the thread: put in what is new to this process; None if the memory has changed meanwhile."""
        assert self._picture.head is not None
        news, embedding = self._picture.news(items, vectors), self._embedding
        if not news.new:
            return AddResult((), news.dropped, news.duplicates_by_level)
        written = self._rows.add(
            self._picture.head,
            [(items[i], None if embedding is None else vectors[i].astype("<f4").tobytes()) for i in news.new],
            run_id=run_id,
            question=question,
            embedding="" if embedding is None else embedding.identity,
            most=self.max_items,
        )
        if written is None:
            return None
        self._see()
        ids, gone = written
        return AddResult(tuple(i for i in ids if i not in gone), news.dropped, news.duplicates_by_level, tuple(gone))

    async def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors `[texts, dimension]` of items; of no numbers without a model."""
        import numpy as np

        if self._embedding is None or not texts:
            return np.zeros((len(texts), 0), dtype=np.float32)
        return await self._embedding.embed(texts, kind="document")

    def _cited(self, named: StoredItem) -> str:
        own = named.item.source_id
        return f"memory:{self.name}#{named.id}" + (f" ({own})" if own else "")

    async def _on_thread(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise StoreError(f"memory {self.name!r} is closed", hint="open it anew")
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
    """Open the memory of a name, which lies beside the run store (see `NamedMemory.open`).

    Raises:
        UserError: A memory cannot have that name.
        ReasonError: What `NamedMemory.open` raises.
    """
    place = memory_location(name, settings)
    return await NamedMemory.open(place, embedding, rules=rules, max_items=max_items, create=create)


def _sound(item: MemoryItem) -> MemoryItem:
    """The item under its hash, with a score that can be compared."""
    score = item.score if math.isfinite(item.score) else 0.0
    return item.model_copy(update={"hash": TextFingerprint.of(item.text).hash, "score": score})


def _close_unused(opening: asyncio.Future[MemoryDatabase]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
