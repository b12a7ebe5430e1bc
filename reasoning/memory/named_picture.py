"""`Picture`: what one process knows of a named memory, brought up to date before each use. Everything here blocks."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...core.errors import StoreError
from ...serving.embeddings import EmbeddingModel
from .admission import Reason, Rules
from .content_words import content_of, content_words
from .duplicates import Level, Marks
from .item import MemoryItem
from .known_words import KnownWords
from .named_index import Head, VectorIndex
from .named_rows import MemoryRows, NamedItem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class News:
    """What of some items is new to a memory.

    Attributes:
        new: Positions of the items that are.
        dropped: How many are not, by reason ("empty" or "duplicate").
        duplicates_by_level: How many of the duplicates were found on each level.
    """

    new: tuple[int, ...] = ()
    dropped: Mapping[Reason, int] = field(default_factory=dict)
    duplicates_by_level: Mapping[Level, int] = field(default_factory=dict)


class Picture:
    """The items of one state of a memory, what they are known by, and the index over their vectors.

    Args:
        rows: The open file.
        embedding: The model of the vectors, which is not called here; None compares words alone.
        rules: From which likeness on two items are the same.

    Attributes:
        head: The state; None before the first look.
        items: The items by id, the oldest first.
    """

    def __init__(self, rows: MemoryRows, embedding: EmbeddingModel | None, rules: Rules) -> None:
        self.head: Head | None = None
        self.items: dict[int, NamedItem] = {}
        self._rows, self._embedding, self._rules = rows, embedding, rules
        self._words = KnownWords()
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
            self._words.add(named.id, Marks.of(named.item.text))
        self.head = head
        return {}

    def news(self, items: Sequence[MemoryItem], vectors: NDArray[np.float32]) -> News:
        """What of some items is new: says nothing that an item of the memory, or one before it, says.

        Args:
            items: The items.
            vectors: `[items, dimension]`, of length one; not looked at without a model.
        """
        import numpy as np

        new: list[int] = []
        newest = np.empty_like(vectors)  # in its first rows the vectors of what is new
        dropped: Counter[Reason] = Counter()
        levels: Counter[Level] = Counter()
        taken = KnownWords()
        for i, item in enumerate(items):
            marks = Marks.of(item.text)
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
        return News(tuple(new), dict(dropped), dict(levels))

    def closest(self, text: str, asked: NDArray[np.float32] | None, k: int) -> list[tuple[NamedItem, float]]:
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
            words = content_words(text)
            common = ((i, len(words & content_of(self._words.marks(i).words))) for i in self.items)
            shares = [(i, n / len(words)) for i, n in common if n]
            hits = sorted(shares, key=lambda hit: (-hit[1], hit[0]))[:k]
        return [(self.items[i], min(1.0, closeness)) for i, closeness in hits if closeness > 0]

    def _look_at_vectors(self, head: Head, ids: Sequence[int], embedding: EmbeddingModel) -> list[int]:
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

    def _level(self, marks: Marks, words: KnownWords) -> Level | None:
        return words.level(marks, jaccard_from=self._rules.jaccard, containment_from=self._rules.containment)
