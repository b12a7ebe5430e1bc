"""`WindowedEntailment`: entailment over evidence of any length, by its most decisive window."""

from __future__ import annotations

from collections.abc import Sequence

from ...reasoning.retrieval.chunking import split_chunks
from ..types import Entailment, Pair, Support

_CHARS_PER_WORD = 8
"""Average characters of a word; texts with longer words are measured in characters."""
_OVERLAP_FRACTION = 5
"""A window shares a fifth of its words with the next one."""


class WindowedEntailment:
    """An entailment that judges evidence beyond its limit window by window (see `Entailment`).

    The verdict is that of the most decisive window: the largest of its probabilities to support and to refute, the
    first if equal. So one decisive sentence is detected in a text that is silent elsewhere. The more windows, the
    more likely one of them errs, which a calibration for long texts must account for. Evidence that fits is not split.

    Args:
        entailment: What judges; closed with this object.
    """

    def __init__(self, entailment: Entailment) -> None:
        words = entailment.max_words
        self._entailment, self._words, self._overlap = entailment, words, (words or 0) // _OVERLAP_FRACTION
        self.name = entailment.name
        self.identity = entailment.identity
        if words is not None:
            self.identity += f"+windows-{words}-{self._overlap}"
        self.max_words: int | None = None

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """See `Entailment.judge`; all windows of all pairs are judged in one call."""
        if self._words is None:
            return await self._entailment.judge(pairs) if pairs else []
        spans = [window_spans(pair.evidence, self._words, self._overlap) for pair in pairs]
        windows = [
            pair._replace(evidence=pair.evidence[start:end])
            for pair, own in zip(pairs, spans, strict=True)
            for start, end in own
        ]
        verdicts = iter(await self._entailment.judge(windows) if windows else [])
        by_pair = [[next(verdicts) for _ in own] for own in spans]
        return [max((one for one in own if one), key=_decisiveness, default=None) for own in by_pair]

    async def aclose(self) -> None:
        """Close the entailment; idempotent."""
        await self._entailment.aclose()


def _decisiveness(support: Support) -> float:
    return max(support.supports, support.refutes)


def window_spans(text: str, words: int, overlap: int) -> list[tuple[int, int]]:
    """Spans of the windows of a text, in order; a single one if it fits.

    Where words are long, or not separated by spaces as in Chinese, fewer than `words` of them make a window; `overlap`
    is the maximum of words shared with the previous one.
    """
    all_words = text.split()
    chars = sum(map(len, all_words))
    if len(all_words) <= words and chars <= words * _CHARS_PER_WORD:
        return [(0, len(text))]
    scale = max(1.0, chars / len(all_words) / _CHARS_PER_WORD)
    max_words = max(1, int(words / scale))
    chunks = split_chunks(text, words=max_words, overlap=min(int(overlap / scale), max_words - 1))
    return [(c.start, c.end) for c in chunks]
