"""`NliEntailment`: a classifier of natural language inference as an `Entailment`.

The evidence is the premise and the claim the hypothesis. What each output of the model stands for is read from the
names in the model's own files, never from its place: entailment is the first class of some models and the last of
others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from ...core.errors import DataError, InvalidResponse
from ...serving.encoders.protocols import CrossEncoder
from ..types import Support, support
from .protocol import Pair

# fmt: off
_SUPPORTS = frozenset([
    "entailment", "entails", "entailed", "support", "supports", "supported", "consistent",
])
_REFUTES = frozenset([
    "contradiction", "contradicts", "contradictory", "refute", "refutes", "refuted",
])
_NEUTRAL = frozenset([
    "neutral", "nei", "not enough info", "not enough information", "not enough evidence",
])
_THE_REST = frozenset([
    "not entailment", "non entailment", "not entailed", "unsupported", "not supported", "inconsistent",
])
# fmt: on
_NOT_A_LETTER = re.compile(r"[^a-z0-9]+")
_OTHER_TOKENS = 96
"""Tokens left for the claim, the title and the tokens between them."""
_TOKENS_PER_WORD = 1.5


class NliEntailment:
    """A sequence classifier that reads evidence and claim (see `Entailment`).

    Models of three labels give three probabilities. Models of two (entailment and not entailment, supported and
    unsupported) tell support alone: all the rest is neutral, and such a model never refutes.

    Evidence beyond `max_words` may be cut by the model: `windows.WindowedEntailment` keeps it from that.

    Args:
        name: The string it was opened by.
        encoder: The classifier.
        labels: Names of its outputs by somebody who knows them, in order; those of the model's files by default.
        owns: Whether closing this closes the classifier.

    Raises:
        DataError: The names do not say what the outputs stand for.
    """

    def __init__(
        self, name: str, encoder: CrossEncoder, *, labels: Sequence[str] | None = None, owns: bool = True
    ) -> None:
        given = tuple(encoder.labels if labels is None else labels)
        if len(given) != len(encoder.labels):
            raise DataError(f"{name} has {len(encoder.labels)} outputs, and {len(given)} names were given")
        self._places = _places(name, given)
        self.name = name
        self.identity = f"nli-{hashlib.sha256('|'.join(given).encode()).hexdigest()[:12]}:{encoder.identity}"
        self.max_words: int | None = None
        if encoder.max_tokens is not None:
            self.max_words = max(1, int(max(0, encoder.max_tokens - _OTHER_TOKENS) / _TOKENS_PER_WORD))
        self._encoder, self._owns = encoder, owns

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """What each evidence says of its claim, in order; never None (see `Entailment.judge`).

        Raises:
            InvalidResponse: The model gave something that is no number.
        """
        if not pairs:
            return []
        import numpy as np

        logits = (await self._encoder.logits([(premise(p), p.claim) for p in pairs])).astype(np.float64)
        if not np.isfinite(logits).all():
            raise InvalidResponse(
                f"{self.name} gave outputs that are no numbers", hint="its weights or its dtype are at fault"
            )
        raised = np.exp(logits - logits.max(1, keepdims=True))
        chances = raised / raised.sum(1, keepdims=True)
        return [self._support([float(p) for p in row]) for row in chances]

    async def aclose(self) -> None:
        """Close the classifier, if it is this object's own; idempotent."""
        if self._owns:
            await self._encoder.aclose()

    def _support(self, chances: Sequence[float]) -> Support:
        supports, refutes, neutral = self._places
        return support((chances[supports], 0.0 if refutes is None else chances[refutes], chances[neutral]))


def premise(pair: Pair) -> str:
    """The evidence as a model reads it: its title before it, unless it begins with that."""
    if not pair.title or pair.evidence.startswith(pair.title):
        return pair.evidence
    return f"{pair.title}\n{pair.evidence}"


def _places(name: str, labels: Sequence[str]) -> tuple[int, int | None, int]:
    """Which outputs are supports, refutes (None: the model has no such label) and neutral."""
    plain = [_NOT_A_LETTER.sub(" ", label.casefold()).strip() for label in labels]
    found = {
        kind: [i for i, label in enumerate(plain) if label in words]
        for kind, words in (("s", _SUPPORTS), ("r", _REFUTES), ("n", _NEUTRAL), ("rest", _THE_REST))
    }
    counts = tuple(len(found[kind]) for kind in ("s", "r", "n", "rest"))
    if len(labels) == 3 and counts == (1, 1, 1, 0):
        return found["s"][0], found["r"][0], found["n"][0]
    if len(labels) == 2 and counts == (1, 0, 0, 1):
        return found["s"][0], None, found["rest"][0]
    raise DataError(
        f"{name} calls its outputs {', '.join(map(repr, labels))}, which does not say which of them supports",
        hint="id2label in the model's config.json should have entailment, neutral and contradiction, or entailment and "
        "not_entailment",
    )
