"""`NamedMemory`: a memory that persists across runs; it is a `KnowledgeSource` itself.

A memory is one SQLite file, `memory/NAME.sqlite3` next to the run store, with its items and their vectors by embedding
model, so that none is embedded twice. Search is exact. Every operation is one transaction: any number of tasks and
processes may use a memory, and a process killed at any moment leaves every item whose `add` has returned.
"""

from __future__ import annotations

import asyncio
import math
import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from pydantic import ValidationError

from ...core.errors import StoreError, UnknownName, UserError
from ...core.messages import Frozen
from ...core.registry import nearest
from ...core.settings import Settings
from ...serving.encoders.protocols import EmbeddingModel
from ..knowledge import MemoryItem, Snippet
from ..retrieval.deduplication import TextFingerprint, is_duplicate
from ..retrieval.words import content_terms
from .admission import MIN_COSINE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_ITEMS: Final = 10_000
"""Maximum items of a memory; the least relevant are evicted first, the oldest among ties."""
BUSY_TIMEOUT_S = 10.0
"""Maximum seconds that another process may be writing before an operation fails."""
SCHEMA_VERSION: Final = 2

_SUFFIX = ".sqlite3"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,78}[a-z0-9])?")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?")
"""Names that Windows reserves."""
_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS items (
    id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL, hash TEXT NOT NULL UNIQUE, source_id TEXT NOT NULL,
    source_kind TEXT NOT NULL, query TEXT NOT NULL, node_id INTEGER NOT NULL, score REAL NOT NULL,
    tokens INTEGER NOT NULL, run_id TEXT NOT NULL, question TEXT NOT NULL, created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS vectors (
    item_id INTEGER NOT NULL REFERENCES items (id) ON DELETE CASCADE, embedding TEXT NOT NULL, vector BLOB NOT NULL,
    PRIMARY KEY (item_id, embedding)
);
CREATE TABLE IF NOT EXISTS state (file TEXT NOT NULL, token TEXT NOT NULL, changed REAL NOT NULL);
INSERT INTO state SELECT hex(randomblob(16)), 'new', 0 WHERE NOT EXISTS (SELECT 1 FROM state);
PRAGMA user_version = 2;
COMMIT;
"""
_COLUMNS = "id, text, hash, source_id, source_kind, query, node_id, score, tokens, run_id, question, created"

T = TypeVar("T")


class MemoryDamaged(StoreError):
    """The items of a memory cannot be read."""

    code = "memory_damaged"


class StoredItem(Frozen):
    """An item of a named memory.

    Attributes:
        id: Its number in that memory, from 1; never reused.
        item: The item.
        run_id: The run that it comes from; empty if none.
        question: The question of that run.
        created: When it was added, in seconds since 1970.
    """

    id: int
    item: MemoryItem
    run_id: str = ""
    question: str = ""
    created: float


class MemorySummary(Frozen):
    """A row of the list of memories; the numbers of one whose items cannot be read ("damaged") are 0.

    Attributes:
        items: Number of items.
        changed: Time of the last change, in seconds since 1970.
        size_bytes: Bytes on disk.
    """

    name: str
    state: Literal["ready", "damaged"]
    items: int = 0
    changed: float = 0.0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RecalledItem:
    """An item and its similarity: the cosine or, without embeddings, the share of the query's content words it has."""

    stored: StoredItem
    similarity: float


def memory_path(name: str, settings: Settings) -> Path:
    """The file of a memory, which need not exist.

    Raises:
        UserError: The name is not valid.
    """
    if not _NAME.fullmatch(name) or _RESERVED.fullmatch(name):
        quoted_name = repr(name) if len(name) <= 100 else repr(name[:97]) + "…"
        raise UserError(
            f"{quoted_name} is not a valid name of a memory",
            hint="a name is 1 to 80 of a-z, 0-9, '.', '_' and '-', the first and last a letter or digit, and no "
            "reserved file name",
        )
    return settings.data_dir / "memory" / f"{name}{_SUFFIX}"


def list_memories(settings: Settings) -> list[Path]:
    """The files of the existing memories, by name."""
    return sorted((settings.data_dir / "memory").glob(f"*{_SUFFIX}"))


def find_memory(name: str, settings: Settings) -> Path:
    """The file of an existing memory.

    Raises:
        UserError: The name is not valid.
        UnknownName: There is no such memory.
    """
    path = memory_path(name, settings)
    if not path.is_file():
        suggestions = nearest(name, [other.stem for other in list_memories(settings)])
        raise UnknownName("memory", name, suggestions, hint="`reason memory list` shows the existing ones")
    return path


def remove_memory(path: Path) -> None:
    """Remove a memory with all its items.

    Raises:
        StoreError: It cannot be removed.
    """
    try:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
    except OSError as e:
        raise StoreError(f"cannot remove {path}: {e.strerror or e}") from e


def summarize_memory(path: Path) -> MemorySummary:
    """The summary of a memory, damaged or not."""
    size = sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
    try:
        with _transaction(path, writes=False) as db:
            ((items, changed),) = db.execute("SELECT (SELECT COUNT(*) FROM items), changed FROM state").fetchall()
    except MemoryDamaged:
        return MemorySummary(name=path.stem, state="damaged", size_bytes=size)
    return MemorySummary(name=path.stem, state="ready", items=items, changed=changed, size_bytes=size)


async def load_memory(
    name: str, settings: Settings, embedding: EmbeddingModel | None = None, *, create: bool = True
) -> NamedMemory:
    """Open the memory of a name, which is next to the run store.

    Args:
        embedding: Compares meanings; not closed by this object. None compares content words only.
        create: Whether to create it if it does not exist.

    Raises:
        UserError: The name is not valid.
        UnknownName: It does not exist and is not to be created.
        StoreError: It cannot be opened, is locked by another process, damaged, or of another version of `reason`.
        ReasonError: Items that have no vector of this model could not be embedded.
    """
    path = memory_path(name, settings) if create else find_memory(name, settings)
    memory = NamedMemory(path, embedding)
    await asyncio.to_thread(_create, path)
    await memory.items()
    return memory


class NamedMemory:
    """A memory that persists across runs; open it with `load_memory`.

    Any number of tasks and processes may use one concurrently; each sees what the others have written. A cancelled call
    has either completed or had no effect.

    Attributes:
        name: Its name.
        kind: "memory".
        identity: Changes with every change to the items, and with the embedding model.
    """

    kind = "memory"

    def __init__(self, path: Path, embedding: EmbeddingModel | None) -> None:
        self.name, self.identity = path.stem, ""
        self._path, self._embedding = path, embedding
        self._lock = asyncio.Lock()
        # one thread, so that the next operation waits for one that was cancelled
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reason-memory")
        self._file = ""
        # of the items as last read
        self._items: dict[int, StoredItem] = {}
        self._fingerprints: dict[int, TextFingerprint] = {}
        self._terms: dict[int, frozenset[str]] = {}
        self._vectors: dict[int, NDArray[np.float32]] = {}

    async def add(self, items: Sequence[MemoryItem], *, run_id: str = "", question: str = "") -> tuple[int, ...]:
        """Add the items that duplicate no item of this memory, and none before them; returns their numbers.

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
        return await self._transact(lambda db: self._add(db, valid, vectors, run_id, question), writes=True)

    async def recall(self, text: str, k: int) -> list[RecalledItem]:
        """Up to `k` items with a similarity above 0 to a text, most similar first.

        Raises:
            UserError: `k` is not positive.
            StoreError: The memory cannot be read.
            ReasonError: The text, or an item that has no vector yet, could not be embedded.
        """
        if k < 1:
            raise UserError(f"k must be at least 1, got {k}")
        if not TextFingerprint.of(text).form or not await self.items():
            return []
        vector = None if self._embedding is None else (await self._embedding.embed([text], kind="query"))[0]
        return await self._transact(lambda db: self._nearest(text, vector, k))

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """See `KnowledgeSource.query`; the context is not used.

        `source_id` is `memory:NAME#ITEM`, followed by the item's own source in brackets if it has one.
        """
        snippets = []
        for hit in await self.recall(text, k):
            item = hit.stored.item
            source_id = f"memory:{self.name}#{hit.stored.id}" + (f" ({item.source_id})" if item.source_id else "")
            snippets.append(Snippet(text=item.text, source_id=source_id, score=hit.similarity))
        return snippets

    async def items(self) -> list[StoredItem]:
        """All items, oldest first.

        Raises:
            StoreError: They cannot be read.
        """
        return await self._transact(lambda db: list(self._items.values()))

    async def remove(self, ids: Sequence[int]) -> None:
        """Remove items: all of them or, if one does not exist, none.

        Raises:
            UnknownName: One does not exist.
            StoreError: They cannot be removed.
        """

        def work(db: sqlite3.Connection) -> None:
            for i in dict.fromkeys(ids):
                if db.execute("DELETE FROM items WHERE id = ?", (i,)).rowcount == 0:
                    hint = f"`reason memory show {self.name}` lists the items"
                    raise UnknownName("item", f"{self.name} {i}", hint=hint)
            self._set_changed(db, time.time())

        await self._transact(work, writes=True)

    async def aclose(self) -> None:
        """Do nothing: the file is open during operations only."""

    async def _transact(self, work: Callable[[sqlite3.Connection], T], *, writes: bool = False) -> T:
        """Run `work` in a transaction in which all items are known, with their vectors."""

        def attempt() -> T:
            with _transaction(self._path, writes=writes) as db:
                self._refresh(db)
                return work(db)

        def missing_vectors() -> dict[int, str]:
            with _transaction(self._path, writes=False) as db:
                return self._refresh(db)

        run = partial(asyncio.get_running_loop().run_in_executor, self._thread)
        async with self._lock:
            if self._embedding is not None and (missing := await run(missing_vectors)):
                vectors = await self._embed(list(missing.values()))
                await run(self._store_vectors, dict(zip(missing, vectors, strict=True)))
            return await run(attempt)

    def _refresh(self, db: sqlite3.Connection) -> dict[int, str]:
        """Read what has changed; returns the texts of items without a vector of the model."""
        ((file, token),) = db.execute("SELECT file, token FROM state").fetchall()
        if self._file not in ("", file):
            raise _removed(self._path)
        self._file = file
        ids = [int(i) for (i,) in db.execute("SELECT id FROM items ORDER BY id")]
        for removed in self._items.keys() - set(ids):
            for known in (self._items, self._fingerprints, self._terms, self._vectors):
                known.pop(removed, None)
        if len(self._items) < len(ids):
            known_ids = self._items.keys()
            for row in db.execute(f"SELECT {_COLUMNS} FROM items ORDER BY id").fetchall():  # noqa: S608
                if row[0] not in known_ids:
                    stored = _stored_item(self._path, row)
                    self._items[stored.id] = stored
                    self._fingerprints[stored.id] = TextFingerprint.of(stored.item.text)
                    self._terms[stored.id] = content_terms(stored.item.text)
        embedding = self._embedding
        self.identity = f"memory:{token}+{embedding.identity if embedding else 'words'}"
        if embedding is None or len(self._vectors) == len(ids):
            return {}
        import numpy as np

        for i, blob in db.execute("SELECT item_id, vector FROM vectors WHERE embedding = ?", (embedding.identity,)):
            if i not in self._vectors and len(blob) == 4 * embedding.dimension:
                self._vectors[i] = np.frombuffer(blob, dtype="<f4").astype(np.float32)
        return {i: self._items[i].item.text for i in ids if i not in self._vectors}

    def _store_vectors(self, vectors: Mapping[int, NDArray[np.float32]]) -> None:
        assert self._embedding is not None
        with _transaction(self._path) as db:
            db.executemany(
                "INSERT OR REPLACE INTO vectors SELECT id, ?, ? FROM items WHERE id = ?",
                [(self._embedding.identity, vector.astype("<f4").tobytes(), i) for i, vector in vectors.items()],
            )

    def _add(
        self,
        db: sqlite3.Connection,
        items: Sequence[MemoryItem],
        vectors: NDArray[np.float32],
        run_id: str,
        question: str,
    ) -> tuple[int, ...]:
        known = list(self._fingerprints.values())
        known_vectors = list(self._vectors.values())
        new: list[int] = []
        now = time.time()
        for item, vector in zip(items, vectors, strict=True):
            fingerprint = TextFingerprint.of(item.text)
            if not fingerprint.form or self._is_duplicate(fingerprint, vector, known, known_vectors):
                continue
            known.append(fingerprint)
            known_vectors.append(vector)
            values = (item.text, item.hash, item.source_id, item.source_kind, item.query, item.node_id, item.score)
            cursor = db.execute(
                f"INSERT INTO items ({_COLUMNS}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                (*values, item.tokens, run_id, question, now),
            )
            assert cursor.lastrowid is not None
            new.append(cursor.lastrowid)
            if self._embedding is not None:
                blob = vector.astype("<f4").tobytes()
                db.execute("INSERT INTO vectors VALUES (?, ?, ?)", (new[-1], self._embedding.identity, blob))
        evicted: list[int] = []
        if new:
            excess = max(0, len(self._items) + len(new) - MAX_ITEMS)
            evicted = [int(i) for (i,) in db.execute("SELECT id FROM items ORDER BY score, id LIMIT ?", (excess,))]
            db.executemany("DELETE FROM items WHERE id = ?", [(i,) for i in evicted])
            self._set_changed(db, now)
        return tuple(i for i in new if i not in evicted)

    def _is_duplicate(
        self,
        item: TextFingerprint,
        vector: NDArray[np.float32],
        known: Sequence[TextFingerprint],
        known_vectors: Sequence[NDArray[np.float32]],
    ) -> bool:
        return is_duplicate(item, known) or (
            self._embedding is not None and max(_cosines(known_vectors, vector), default=-1.0) >= MIN_COSINE
        )

    def _nearest(self, text: str, vector: NDArray[np.float32] | None, k: int) -> list[RecalledItem]:
        if vector is None:
            terms = content_terms(text)
            similarities = {i: len(terms & own) / max(1, len(terms)) for i, own in self._terms.items()}
        else:
            similarities = dict(zip(self._vectors, _cosines(list(self._vectors.values()), vector), strict=True))
        best = sorted(similarities, key=lambda i: (-similarities[i], i))[:k]
        return [RecalledItem(self._items[i], min(1.0, similarities[i])) for i in best if similarities[i] > 0]

    async def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors `[texts, dimension]`; of dimension 0 without a model."""
        if self._embedding is not None and texts:
            return await self._embedding.embed(texts, kind="document")
        import numpy as np

        return np.zeros((len(texts), 0), dtype=np.float32)

    def _set_changed(self, db: sqlite3.Connection, now: float) -> None:
        token = secrets.token_hex(16)
        db.execute("UPDATE state SET token = ?, changed = ?", (token, now))
        self.identity = f"memory:{token}+{self._embedding.identity if self._embedding else 'words'}"


def _cosines(vectors: Sequence[NDArray[np.float32]], vector: NDArray[np.float32]) -> list[float]:
    import numpy as np

    if not vectors:
        return []
    # not by BLAS, whose threads wait for each other longer than this small product takes
    cosines: list[float] = np.einsum("ij,j->i", np.stack(vectors), vector).tolist()
    return cosines


def _valid(item: MemoryItem) -> MemoryItem:
    """The item with its hash and a finite score."""
    score = item.score if math.isfinite(item.score) else 0.0
    return item.model_copy(update={"hash": TextFingerprint.of(item.text).hash, "score": score})


def _create(path: Path) -> None:
    """Create the file if it does not exist, readable by its owner only: questions may be private."""
    with _errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as db:
            ((version,),) = db.execute("PRAGMA user_version").fetchall()
            if version not in (0, SCHEMA_VERSION):
                raise StoreError(
                    f"memory {path.stem!r} was written by another version of reason (schema {version})",
                    hint="use that version, or choose another name",
                )
            if not version:
                db.execute("PRAGMA journal_mode=WAL")
                db.executescript(_SCHEMA)


@contextmanager
def _transaction(path: Path, *, writes: bool = True) -> Iterator[sqlite3.Connection]:
    """A transaction on a memory's file, committed unless an error is raised."""
    if not path.is_file():
        raise _removed(path)
    with _errors(path), closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA foreign_keys=ON")
        db.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        yield db
        db.execute("COMMIT")


def _removed(path: Path) -> StoreError:
    return StoreError(f"memory {path.stem!r} was removed by another process", hint="open it again")


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise StoreError(
            f"cannot use the directory {path.parent} of memory {path.stem!r}: {e.strerror or e}", hint="set --store"
        ) from e
    except sqlite3.OperationalError as e:
        code = e.sqlite_errorcode & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreError(f"memory {path.stem!r} is being written by another process", hint="try again") from e
        if code == sqlite3.SQLITE_FULL:
            raise StoreError(
                f"no space left for memory {path.stem!r} in {path.parent}", hint="free some disk space"
            ) from e
        if code == sqlite3.SQLITE_ERROR:  # no such table or column
            raise _damaged(path, e) from e
        raise StoreError(f"cannot use memory {path.stem!r} in {path.parent}: {e}", hint="set --store") from e
    except sqlite3.DatabaseError as e:
        raise _damaged(path, e) from e


def _damaged(path: Path, reason: object) -> MemoryDamaged:
    return MemoryDamaged(
        f"memory {path.stem!r} is damaged: {reason}",
        hint=f"restore a copy of {path}, or run `reason memory rm {path.stem}`",
    )


def _stored_item(path: Path, row: Sequence[object]) -> StoredItem:
    values = dict(zip(_COLUMNS.split(", "), row, strict=True))
    item = {key: values.pop(key) for key in MemoryItem.model_fields}
    try:
        return StoredItem.model_validate({**values, "item": item})
    except ValidationError as e:
        raise _damaged(path, f"item {values['id']}: {e.errors()[0]['msg']}") from e
