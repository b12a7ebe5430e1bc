"""`WindowedEntailment`: entailment over evidence of any length, by its most decisive window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...core.errors import UserError
from ...reasoning.retrieval.chunking import split_chunks
from ..types import Entailment, Pair, Support

_CHARS_PER_WORD = 8
"""Average characters of a word; texts with longer words are measured in characters."""
_OVERLAP_FRACTION = 5
"""A window shares a fifth of its words with the next one by default."""


class WindowVerdict(NamedTuple):
    """The verdict on a text, and the span of the decisive window.

    Attributes:
        support: The probabilities; None if no response could be parsed.
        start: First character of the window in the evidence; 0 if it was not split.
        end: One past its last character.
    """

    support: Support | None
    start: int
    end: int


class WindowedEntailment:
    """An entailment that judges long evidence window by window (see `Entailment`).

    The verdict is that of the most decisive window: the largest of its probabilities to support and to refute, the
    first if equal. So one decisive sentence is detected in a text that is silent elsewhere. The more windows, the
    more likely one of them errs, which a calibration for long texts must account for. Evidence that fits is not split.

    Args:
        entailment: What judges; closed with this object.
        max_words: Maximum words of a window; by default the limit of `entailment`. Without either nothing is split.
        overlap: Maximum words shared with the previous window; by default a fifth of `max_words`.

    Raises:
        UserError: `max_words` is not positive, or `overlap` is not less.
    """

    def __init__(self, entailment: Entailment, *, max_words: int | None = None, overlap: int | None = None) -> None:
        words = entailment.max_words if max_words is None else max_words
        shared = (words or 0) // _OVERLAP_FRACTION if overlap is None else overlap
        if words is not None and (words < 1 or not 0 <= shared < words):
            raise UserError(f"overlap must be in [0, max_words), got overlap {shared} and max_words {words}")
        self._entailment, self._words, self._overlap = entailment, words, shared
        self.name = entailment.name
        self.identity = entailment.identity if words is None else f"{entailment.identity}+windows-{words}-{shared}"
        self.max_words: int | None = None

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """See `Entailment.judge`."""
        return [verdict.support for verdict in await self.judge_windows(pairs)]

    async def judge_windows(self, pairs: Sequence[Pair]) -> list[WindowVerdict]:
        """`judge` with the span of the decisive window."""
        spans = [
            [(0, len(p.evidence))] if self._words is None else window_spans(p.evidence, self._words, self._overlap)
            for p in pairs
        ]
        return await judge_spans(self._entailment, pairs, spans, lambda s: max(s.supports, s.refutes))

    async def aclose(self) -> None:
        """Close the entailment; idempotent."""
        await self._entailment.aclose()


def window_spans(text: str, words: int, overlap: int) -> list[tuple[int, int]]:
    """Spans of the windows of a text, in order; a single one if it fits.

    Where words are long, or not separated by spaces as in Chinese, fewer of them make a window.

    Args:
        text: The text.
        words: Maximum words of a window.
        overlap: Maximum words shared with the previous window.
    """
    all_words = text.split()
    chars = sum(map(len, all_words))
    if len(all_words) <= words and chars <= words * _CHARS_PER_WORD:
        return [(0, len(text))]
    scale = max(1.0, chars / len(all_words) / _CHARS_PER_WORD)
    max_words = max(1, int(words / scale))
    chunks = split_chunks(text, words=max_words, overlap=min(int(overlap / scale), max_words - 1))
    return [(c.start, c.end) for c in chunks]


async def judge_spans(
    entailment: Entailment,
    pairs: Sequence[Pair],
    spans: Sequence[Sequence[tuple[int, int]]],
    weight: Callable[[Support], float],
) -> list[WindowVerdict]:
    """Judge spans of evidence, all of all pairs in one call, and keep the verdict of the largest weight of each pair.

    Args:
        entailment: What judges.
        pairs: Evidence and claims.
        spans: Spans of each evidence, at least one.
        weight: Weight of a verdict; of equals the first wins.

    Returns:
        The verdict and its span for each pair; the complete evidence if no response could be parsed.
    """
    parts = [
        p._replace(evidence=p.evidence[start:end]) for p, own in zip(pairs, spans, strict=True) for start, end in own
    ]
    verdicts = iter(await entailment.judge(parts) if parts else [])
    judged: list[WindowVerdict] = []
    for pair, own in zip(pairs, spans, strict=True):
        parsed = [(verdict, span) for span in own if (verdict := next(verdicts)) is not None]
        if parsed:
            verdict, (start, end) = max(parsed, key=lambda one: weight(one[0]))
            judged.append(WindowVerdict(verdict, start, end))
        else:
            judged.append(WindowVerdict(None, 0, len(pair.evidence)))
    return judged
