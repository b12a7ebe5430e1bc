"""`WindowedEntailment`: any `Entailment` over evidence of any length, in overlapping windows of whole sentences.

`DocumentSupport`: whether a document supports a claim: the most that one of its chunks does.

Source: Tang, Laban and Durrett, "MiniCheck: Efficient Fact-Checking of LLMs on Grounding Documents" (2024,
arXiv:2404.10774), section on inference: a long document is cut in chunks, each is scored with the claim, and the
largest score is the document's. The model is whatever `Entailment` is given, the paper's own classifiers among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...core.errors import UserError
from ...reasoning.retrieval.chunking import split_chunks
from ..types import Support
from .protocol import Entailment, Pair

_CHARS_PER_WORD = 8
"""Characters that a word has on average in text that is counted in words; text of longer ones is counted by them."""
_OVERLAP = 5
"""A window shares a fifth of its words with the next one, unless told otherwise."""


class Judged(NamedTuple):
    """What a text says of a claim, and where it says it.

    Attributes:
        support: The probabilities; None if no part's reply could be read.
        start: First character, in the evidence, of the part that was decisive; 0 if it was looked at as a whole.
        end: One past its last character.
    """

    support: Support | None
    start: int
    end: int


class WindowedEntailment:
    """An entailment that looks at long evidence window by window (see `Entailment`).

    The verdict is that of the window that is surest of something: the largest of its probabilities to support and to
    refute, of equals the first. So one sentence that decides is found in a text that is silent elsewhere; and the more
    windows, the likelier one of them errs, which a calibration for long texts has to know.
    Evidence that fits is passed on as it is.

    Args:
        entailment: What judges; closed with this object.
        max_words: Most words of a window; what `entailment` can look at, by default. Without either nothing is cut.
        overlap: Most words that a window shares with the one before it; a fifth of `max_words` by default.

    Raises:
        UserError: A window has no words, or would share all of them.
    """

    def __init__(self, entailment: Entailment, *, max_words: int | None = None, overlap: int | None = None) -> None:
        words = entailment.max_words if max_words is None else max_words
        shared = (words or 0) // _OVERLAP if overlap is None else overlap
        if words is not None and (words < 1 or not 0 <= shared < words):
            raise UserError(
                f"windows of {words} words cannot share {shared}",
                hint="overlap is less than max_words, which is positive",
            )
        self._entailment, self._words, self._overlap = entailment, words, shared
        self.name = entailment.name
        self.identity = entailment.identity if words is None else f"{entailment.identity}+windows-{words}-{shared}"
        self.max_words: int | None = None

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """What each evidence says of its claim, in order (see `Entailment.judge`)."""
        return [judged.support for judged in await self.judge_in_place(pairs)]

    async def judge_in_place(self, pairs: Sequence[Pair]) -> list[Judged]:
        """The same with the place of the window that was decisive. Raises as `Entailment.judge`."""
        cuts = [
            [(0, len(p.evidence))] if self._words is None else cut(p.evidence, self._words, self._overlap)
            for p in pairs
        ]
        return await judge_parts(self._entailment, pairs, cuts, lambda s: max(s.supports, s.refutes))

    async def aclose(self) -> None:
        """Close what judges; idempotent."""
        await self._entailment.aclose()


def cut(text: str, words: int, overlap: int) -> list[tuple[int, int]]:
    """Places of the parts of a text that are looked at one by one.

    Where words are long, or not parted by blanks as in Chinese, fewer of them make a part.

    Args:
        text: The text.
        words: Most words of a part.
        overlap: Most words that a part shares with the one before it.

    Returns:
        (start, end) of each part, in order; the whole text alone if it fits.
    """
    found = text.split()
    chars = sum(map(len, found))
    if len(found) <= words and chars <= words * _CHARS_PER_WORD:
        return [(0, len(text))]
    long = max(1.0, chars / len(found) / _CHARS_PER_WORD)
    most = max(1, int(words / long))
    return [(c.start, c.end) for c in split_chunks(text, words=most, overlap=min(int(overlap / long), most - 1))]


async def judge_parts(
    entailment: Entailment,
    pairs: Sequence[Pair],
    cuts: Sequence[Sequence[tuple[int, int]]],
    weight: Callable[[Support], float],
) -> list[Judged]:
    """Judge parts of evidence, all of all pairs in one call, and keep the weightiest verdict of each pair.

    Args:
        entailment: What judges.
        pairs: Evidence and claims.
        cuts: Places of the parts of each evidence, at least one.
        weight: What a verdict is chosen by, the largest; of equals the first part's.

    Returns:
        The chosen verdict of each pair and its part's place; the whole's place if no reply about a pair could be read.
    """
    parts = [
        p._replace(evidence=p.evidence[start:end])
        for p, places in zip(pairs, cuts, strict=True)
        for start, end in places
    ]
    verdicts = iter(await entailment.judge(parts) if parts else [])
    judged: list[Judged] = []
    for pair, places in zip(pairs, cuts, strict=True):
        read = [(verdict, place) for place in places if (verdict := next(verdicts)) is not None]
        if read:
            verdict, (start, end) = max(read, key=lambda found: weight(found[0]))
            judged.append(Judged(verdict, start, end))
        else:
            judged.append(Judged(None, 0, len(pair.evidence)))
    return judged


WORDS = 350
"""Words of a chunk where the model sets no limit of its own."""


class DocumentSupport:
    """Support by the chunk that supports most (see `Entailment`).

    Chunks are whole sentences, one after another without overlap. Other than `WindowedEntailment`, a chunk that refutes
    does not stand against one that supports: the question is whether the document has what the claim says anywhere.

    Args:
        entailment: What judges a chunk and the claim; closed with this object.
        name: The string it was opened by; that of `entailment` by default.
        max_words: Most words of a chunk; what `entailment` can look at by default, and at most 350.

    Raises:
        UserError: A chunk has no words.
    """

    def __init__(self, entailment: Entailment, *, name: str = "", max_words: int | None = None) -> None:
        words = min(WORDS, entailment.max_words or WORDS) if max_words is None else max_words
        if words < 1:
            raise UserError(f"chunks of {words} words hold nothing", hint="max_words is positive")
        self._entailment, self._words = entailment, words
        self.name = name or entailment.name
        self.identity = f"{entailment.identity}+chunks-{words}"
        self.max_words: int | None = None

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """What each document says of its claim, in order (see `Entailment.judge`)."""
        return [judged.support for judged in await self.judge_in_place(pairs)]

    async def judge_in_place(self, pairs: Sequence[Pair]) -> list[Judged]:
        """The same with the place of the chunk that supports most. Raises as `Entailment.judge`."""
        cuts = [cut(pair.evidence, self._words, 0) for pair in pairs]
        return await judge_parts(self._entailment, pairs, cuts, lambda s: s.supports)

    async def aclose(self) -> None:
        """Close what judges; idempotent."""
        await self._entailment.aclose()
