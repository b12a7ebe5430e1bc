"""`PairTokens`: a text and a claim as the embedded judge's network reads them: tokens, sides, marks and features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ...core.errors import DataError
from .embedded_reading import MOST_CHARS, Marked, read_pair
from .protocol import Pair

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_TOKENS: Final = 128
"""Tokens of a pair; the evidence's end is cut where there are more."""
MOST_CLAIM_TOKENS: Final = 56
"""Tokens of a claim; the rest of it is cut."""
MOST_TITLE_TOKENS: Final = 16
"""Tokens of a title likewise."""

_SPECIAL = ("[CLS]", "[SEP]", ":")


@dataclass(frozen=True, slots=True)
class Row:
    """A pair in numbers: `[CLS] title : evidence [SEP] claim [SEP]`.

    Attributes:
        ids: Tokens.
        marks: Mark of each token, a place in `MARKS`.
        claim: Place of the claim's first token; what comes before is the first side.
        features: A number for each of `FEATURES`.
    """

    ids: tuple[int, ...]
    marks: tuple[int, ...]
    claim: int
    features: tuple[float, ...]


@dataclass(frozen=True)
class Batch:
    """Rows side by side, padded to the longest.

    Attributes:
        ids: int64 `[rows, tokens]`; padding is 0.
        types: int64 `[rows, tokens]`: 1 from the claim on.
        marks: int64 `[rows, tokens]`.
        real: bool `[rows, tokens]`: what is no padding.
        claim: bool `[rows, tokens]`: the claim's tokens.
        evidence: bool `[rows, tokens]`: title and evidence.
        features: fp32 `[rows, features]`.
    """

    ids: NDArray[np.int64]
    types: NDArray[np.int64]
    marks: NDArray[np.int64]
    real: NDArray[np.bool_]
    claim: NDArray[np.bool_]
    evidence: NDArray[np.bool_]
    features: NDArray[np.float32]


class PairTokens:
    """Turns pairs into rows.

    Args:
        folder: The model's folder, with `tokenizer.json`.

    Raises:
        DataError: The file cannot be read, or lacks the tokens that stand between the texts.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        try:
            tokenizer: Any = Tokenizer.from_file(str(path))
        except Exception as e:
            raise DataError(f"cannot read the tokenizer {path}: {e}") from e
        tokenizer.no_truncation()
        tokenizer.no_padding()
        special = [tokenizer.token_to_id(token) for token in _SPECIAL]
        if None in special:
            raise DataError(f"the tokenizer {path} lacks one of the tokens {', '.join(_SPECIAL)}")
        self._cls, self._sep, self._colon = special
        self._tokenizer = tokenizer

    def rows(self, pairs: Sequence[Pair]) -> list[Row]:
        """The rows of pairs, in order."""
        texts = [part[:MOST_CHARS] for pair in pairs for part in (pair.title, pair.evidence, pair.claim)]
        encoded = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        return [self._row(pair, encoded[3 * i : 3 * i + 3]) for i, pair in enumerate(pairs)]

    def _row(self, pair: Pair, encoded: Sequence[Any]) -> Row:
        reading = read_pair(pair)
        title, evidence, claim = (
            _marked(one, marks)
            for one, marks in zip(encoded, (reading.title, reading.evidence, reading.claim), strict=True)
        )
        title, claim = title[:MOST_TITLE_TOKENS], claim[:MOST_CLAIM_TOKENS]
        head = [(self._cls, 0), *title, *([(self._colon, 0)] if title else [])]
        room = MOST_TOKENS - len(head) - len(claim) - 2
        first = [*head, *evidence[:room], (self._sep, 0)]
        tokens = [*first, *claim, (self._sep, 0)]
        return Row(
            ids=tuple(token for token, _ in tokens),
            marks=tuple(mark for _, mark in tokens),
            claim=len(first),
            features=reading.features,
        )


def batch_of(rows: Sequence[Row]) -> Batch:
    """Rows side by side."""
    import numpy as np

    width = max(len(row.ids) for row in rows)
    shape = (len(rows), width)
    ids, marks = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    place = np.arange(width)[None, :]
    length = np.array([len(row.ids) for row in rows])[:, None]
    begin = np.array([row.claim for row in rows])[:, None]
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = row.ids
        marks[i, : len(row.ids)] = row.marks
    claim = (place >= begin) & (place < length - 1)
    return Batch(
        ids=ids,
        types=((place >= begin) & (place < length)).astype(np.int64),
        marks=marks,
        real=place < length,
        claim=claim | ((length - 1 == begin) & (place == begin)),  # an empty claim is its closing token
        evidence=(place > 0) & (place < begin),
        features=np.array([row.features for row in rows], dtype=np.float32),
    )


def _marked(encoded: Any, marks: Sequence[Marked]) -> list[tuple[int, int]]:
    """Tokens with the mark of the word that they begin in; both are in the text's order."""
    found, at = [], 0
    for token, (start, _) in zip(encoded.ids, encoded.offsets, strict=True):
        while at < len(marks) and marks[at].end <= start:
            at += 1
        inside = at < len(marks) and marks[at].start <= start
        found.append((token, marks[at].mark if inside else 0))
    return found
