"""`DocumentSupport`: whether a document supports a claim: the most that one of its chunks does.

Source: Tang, Laban and Durrett, "MiniCheck: Efficient Fact-Checking of LLMs on Grounding Documents" (2024,
arXiv:2404.10774), section on inference: a long document is cut in chunks, each is scored with the claim, and the
largest score is the document's. The model is whatever `Entailment` is given, the paper's own classifiers among them.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...core.errors import UserError
from ..support import Support
from .protocol import Entailment, Pair
from .windows import Judged, cut, judge_parts

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
