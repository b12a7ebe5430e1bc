"""Entailment by a cross-encoder over named labels, or over a single output.

The evidence is the premise and the claim the hypothesis. The label of each output is read from the names in the model's
files, never from its position: entailment is the first class of some models and the last of others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from ...core.errors import DataError, InvalidResponse
from ...serving.encoders.protocols import CrossEncoder
from ..types import Pair, Support, support

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
_NOT_SUPPORTED = frozenset([
    "not entailment", "non entailment", "not entailed", "unsupported", "not supported", "inconsistent",
])
# fmt: on
_NOT_A_LETTER = re.compile(r"[^a-z0-9]+")
_OTHER_TOKENS = 96
"""Tokens reserved for the claim, the title and the separators."""
_TOKENS_PER_WORD = 1.5


class NliEntailment:
    """A sequence classifier that reads evidence and claim (see `Entailment`).

    Models with three labels give three probabilities. Models with two (entailment and not entailment, supported and
    unsupported), and those with one output, the log-odds of support, give only the probability of support; the rest is
    neutral, and such a model never refutes. With one output are models of factual consistency like the first version of
    Vectara's HHEM; later ones need code of their own, which is not run.

    Evidence beyond `max_words` may be cut by the model; `windows.WindowedEntailment` prevents that.

    Args:
        name: Its name in the configuration.
        encoder: The classifier; closed with this object.
        may_score: Whether the classifier may have one output, whose name says nothing.

    Raises:
        DataError: The names of the outputs do not identify them.
    """

    def __init__(self, name: str, encoder: CrossEncoder, *, may_score: bool = False) -> None:
        names = tuple(encoder.labels)
        is_score = may_score and len(names) == 1
        self._positions = (0, None, 1) if is_score else _positions(name, names)
        self.name = name
        labels = hashlib.sha256("|".join(names).encode()).hexdigest()[:12]
        self.identity = f"{'cross-score' if is_score else f'nli-{labels}'}:{encoder.identity}"
        self.max_words: int | None = _max_words(encoder)
        self._encoder = encoder

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """The support of each pair, in order; never None (see `Entailment.judge`).

        Raises:
            InvalidResponse: An output is not a number.
        """
        if not pairs:
            return []
        import numpy as np

        logits = (await self._encoder.logits([(premise(p), p.claim) for p in pairs])).astype(np.float64)
        if not np.isfinite(logits).all():
            raise InvalidResponse(
                f"{self.name} returned outputs that are not numbers", hint="check its weights and dtype"
            )
        if logits.shape[1] == 1:  # the sigmoid of a single output, and the rest
            logits = np.concatenate([logits, np.zeros_like(logits)], 1)
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        rows: list[list[float]] = (exponentials / exponentials.sum(1, keepdims=True)).tolist()
        supports, refutes, neutral = self._positions
        return [support((row[supports], 0.0 if refutes is None else row[refutes], row[neutral])) for row in rows]

    async def aclose(self) -> None:
        """Close the classifier; idempotent."""
        await self._encoder.aclose()


def _max_words(encoder: CrossEncoder) -> int | None:
    """Words of evidence that fit next to a claim."""
    if encoder.max_tokens is None:
        return None
    return max(1, int(max(0, encoder.max_tokens - _OTHER_TOKENS) / _TOKENS_PER_WORD))


def premise(pair: Pair) -> str:
    """The evidence with its title, unless it starts with it."""
    if not pair.title or pair.evidence.startswith(pair.title):
        return pair.evidence
    return f"{pair.title}\n{pair.evidence}"


def _positions(name: str, labels: Sequence[str]) -> tuple[int, int | None, int]:
    """Positions of supports, refutes (None if the model has no such label) and neutral."""
    normalized = [_NOT_A_LETTER.sub(" ", label.casefold()).strip() for label in labels]
    positions = {
        kind: [i for i, label in enumerate(normalized) if label in words]
        for kind, words in (("s", _SUPPORTS), ("r", _REFUTES), ("n", _NEUTRAL), ("rest", _NOT_SUPPORTED))
    }
    counts = tuple(len(positions[kind]) for kind in ("s", "r", "n", "rest"))
    if len(labels) == 3 and counts == (1, 1, 1, 0):
        return positions["s"][0], positions["r"][0], positions["n"][0]
    if len(labels) == 2 and counts == (1, 0, 0, 1):
        return positions["s"][0], None, positions["rest"][0]
    raise DataError(
        f"the outputs of {name} have unknown labels {', '.join(map(repr, labels))}",
        hint="id2label in the model's config.json should have entailment, neutral and contradiction, or entailment and "
        "not_entailment",
    )
