"""`NamedMemory`: what was learnt in one run and is there in the next, under a name; it is a `Brain` itself.

The items are rows of an SQLite file and are the truth; their vectors lie beside them, so that nothing is embedded
twice. The FAISS index is made of these and made again whenever it does not fit. A process that is killed at any moment
leaves a memory that opens and has every item whose `add` has returned.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from ...core.errors import StoreError, UserError
from ...core.settings import Settings
from ...serving.embeddings import EmbeddingModel
from ..brains.brain import Snippet
from .admission import Reason, Rules
from .duplicates import Level, Marks
from .item import MemoryItem
from .named_picture import Picture
from .named_place import MemoryPlace, memory_place
from .named_rows import MemoryRows, NamedItem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_ITEMS = 10_000
_ATTEMPTS = 100
"""How often an operation begins anew because other processes have written meanwhile."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of items that were to be kept.

    Attributes:
        ids: The items that are new, without those of them that went at once.
        dropped: How many were left out, by reason ("empty" or "duplicate").
        duplicates_by_level: How many of the duplicates were found on each level.
        evicted: Ids of the items that went because there were too many.
    """

    ids: tuple[int, ...] = ()
    dropped: Mapping[Reason, int] = field(default_factory=dict)
    duplicates_by_level: Mapping[Level, int] = field(default_factory=dict)
    evicted: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Recalled:
    """An item that was found.

    Attributes:
        found: The item.
        closeness: Its cosine with what was asked; without embeddings, the share of the asked content words it has.
    """

    found: NamedItem
    closeness: float


class NamedMemory:
    """A memory that outlasts runs.

    Open it with `NamedMemory.open` or `open_memory`. Any number of tasks and processes may use one at a time; each sees
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
        rows: MemoryRows,
        thread: ThreadPoolExecutor,
        embedding: EmbeddingModel | None,
        rules: Rules,
        max_items: int,
    ) -> None:
        self.name = rows.place.name
        self.identity = ""
        self.max_items = max_items
        self._rows, self._thread, self._embedding = rows, thread, embedding
        self._turn = asyncio.Lock()
        self._closed = False
        self._picture = Picture(rows, embedding, rules)  # touched on the thread alone

    @classmethod
    async def open(
        cls,
        place: MemoryPlace,
        embedding: EmbeddingModel | None = None,
        *,
        rules: Rules | None = None,
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
            opening = asyncio.get_running_loop().run_in_executor(thread, partial(MemoryRows, place, create=create))
            try:
                rows = await asyncio.shield(opening)
            except asyncio.CancelledError:
                opening.add_done_callback(_close_unused)
                raise
            memory = cls(rows, thread, embedding, rules or Rules(), max_items)
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

    async def add(self, items: Sequence[MemoryItem], *, run_id: str = "", question: str = "") -> Kept:
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

    async def recall(self, text: str, k: int) -> list[Recalled]:
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
            if not self._picture.items or not Marks.of(text).form:
                return []
        asked = None if self._embedding is None else (await self._embedding.embed([text], kind="query"))[0]
        async with self._turn:
            hits = await self._on_thread(partial(self._picture.closest, text, asked, k))
        return [Recalled(found, closeness) for found, closeness in hits]

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """See `Brain.query`; what is being worked on is not looked at.

        `source_id` is `memory:NAME#ITEM`, followed by the item's own source in brackets if it has one.
        """
        return [
            Snippet(text=hit.found.item.text, source_id=self._cited(hit.found), score=hit.closeness)
            for hit in await self.recall(text, k)
        ]

    async def items(self) -> list[NamedItem]:
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
        """On the thread: take over the newest state (see `Picture.look`)."""
        without = self._picture.look()
        if not without and self._picture.head is not None:
            embedding = self._embedding
            self.identity = f"memory:{self._picture.head.mark}+{embedding.identity if embedding else 'words'}"
        return without

    def _try_to_add(
        self, items: Sequence[MemoryItem], vectors: NDArray[np.float32], run_id: str, question: str
    ) -> Kept | None:
        """On the thread: put in what is new to this process; None if the memory has changed meanwhile."""
        assert self._picture.head is not None
        news, embedding = self._picture.news(items, vectors), self._embedding
        if not news.new:
            return Kept((), news.dropped, news.duplicates_by_level)
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
        return Kept(tuple(i for i in ids if i not in gone), news.dropped, news.duplicates_by_level, tuple(gone))

    async def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors `[texts, dimension]` of items; of no numbers without a model."""
        import numpy as np

        if self._embedding is None or not texts:
            return np.zeros((len(texts), 0), dtype=np.float32)
        return await self._embedding.embed(texts, kind="document")

    def _cited(self, named: NamedItem) -> str:
        own = named.item.source_id
        return f"memory:{self.name}#{named.id}" + (f" ({own})" if own else "")

    async def _on_thread(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise StoreError(f"memory {self.name!r} is closed", hint="open it anew")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


async def open_memory(
    name: str,
    settings: Settings,
    embedding: EmbeddingModel | None = None,
    *,
    rules: Rules | None = None,
    max_items: int = MAX_ITEMS,
    create: bool = True,
) -> NamedMemory:
    """Open the memory of a name, which lies beside the run store (see `NamedMemory.open`).

    Raises:
        UserError: A memory cannot have that name.
        ReasonError: What `NamedMemory.open` raises.
    """
    place = memory_place(name, settings)
    return await NamedMemory.open(place, embedding, rules=rules, max_items=max_items, create=create)


def _sound(item: MemoryItem) -> MemoryItem:
    """The item under its hash, with a score that can be compared."""
    score = item.score if math.isfinite(item.score) else 0.0
    return item.model_copy(update={"hash": Marks.of(item.text).hash, "score": score})


def _close_unused(opening: asyncio.Future[MemoryRows]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
