"""`load_entailment`: an entailment by the name of its judge; `resolve_judge`: the judge that `auto` stands for.

A classifier of others is read by `NliEntailment`: the evidence is the premise and the claim the
hypothesis. The label of each output is read from the names in the model's files, never from its position: entailment is
the first class of some models and the last of others.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Sequence
from typing import Final, Literal

from ...core.errors import DataError, InvalidResponse, UnknownName, UserError
from ...core.files import Progress
from ...core.registry import nearest
from ...core.settings import Settings
from ...serving.encoders.cross_encoders import load_cross_encoder
from ...serving.encoders.protocols import CrossEncoder
from ...serving.model_files.catalogue import PREFIX as LOCAL_PREFIX
from ..types import Entailment, Pair, Support, support
from ..verifier import AUTO, LEXICAL, MODEL
from .lexical import LexicalEntailment

BASE: Final = "base"
SMALL: Final = "small"
EMBEDDED: Final[tuple[Literal["base", "small"], ...]] = (BASE, SMALL)
"""The embedded judges, the better one first."""
NLI_PREFIX: Final = "nli/"
NAMES: Final = (AUTO, MODEL, BASE, SMALL, LEXICAL)
CHOICES: Final = "auto, model, base, small, lexical, nli/…"
"""The names of judges, for help texts."""
JUDGE_MODEL_HINT: Final = (
    "name one with --judge-model (judge_model= in Python, judge_model in the settings), or take the judge base or small"
)


def resolve_judge(name: str, settings: Settings, *, has_judge_model: bool) -> str:
    """The name of the judge that a name stands for.

    `auto` is the run's judge model where the run names one, else `base` where its files are on this machine, else
    `small`. A main model that judges by default counts as none named: the author would judge its own text.

    Args:
        name: The name of a judge.
        settings: Where files are cached.
        has_judge_model: Whether a judge model is named.

    Raises:
        UnknownName: There is no such judge.
        UserError: The name is `model`, and no judge model is named.
    """
    if name not in NAMES and not (name.startswith(NLI_PREFIX) and name != NLI_PREFIX):
        head, slash, rest = name.partition("/")
        near = tuple(p + rest for p in nearest(head + "/", [NLI_PREFIX])) if slash else nearest(name, NAMES)
        raise UnknownName("judge", name, near, hint=f"expected one of {CHOICES}")
    if name == MODEL and not has_judge_model:
        raise UserError(f"the judge {MODEL!r} needs a judge model, and none is named", hint=JUDGE_MODEL_HINT)
    if name != AUTO:
        return name
    return MODEL if has_judge_model else find_embedded(settings) or SMALL


async def load_entailment(name: str, settings: Settings, *, progress: Progress | None = None) -> Entailment:
    """Load an entailment other than a language model.

    | name | judge |
    | --- | --- |
    | `auto` | `base` if its files are on this machine, else `small` |
    | `base` | the larger embedded judge: a fine-tuned all-mpnet-base-v2 |
    | `small` | the smaller embedded judge: a fine-tuned all-MiniLM-L6-v2 |
    | `lexical` | shared words; no model |
    | `nli/<hub id or directory>` | a classifier of natural language inference with named labels |

    Args:
        name: One of these names.
        settings: Where files are cached; the section `encoders`.
        progress: Receives the progress of a download, from another thread.

    Raises:
        UnknownName: There is no such judge.
        UserError: The name is `model`, a setting is wrong or an extra is missing.
        DataError: The model's files are missing or damaged, or its labels are unknown.
        BackendUnavailable: The model cannot be fetched, or its server cannot be reached.
    """
    name = resolve_judge(name, settings, has_judge_model=False)
    if name == LEXICAL:
        return LexicalEntailment()
    if name in EMBEDDED:
        from .embedded import load_embedded

        return await load_embedded(settings, progress, size="base" if name == BASE else "small")
    encoder = await load_cross_encoder(LOCAL_PREFIX + name.removeprefix(NLI_PREFIX), settings, progress)
    try:
        return NliEntailment(name, encoder)
    except BaseException:
        await encoder.aclose()
        raise


def find_embedded(settings: Settings) -> Literal["base", "small"] | None:
    """The better embedded judge that can be loaded without a download; None if there is none."""
    if importlib.util.find_spec("torch") is None:
        return None
    from ...serving.encoders.files import has_encoder
    from .embedded import MODELS

    return next((name for name in EMBEDDED if has_encoder(MODELS[name].encoder, settings.cache_dir)), None)


# -- classifiers of others

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
    unsupported) give only the probability of support; the rest is neutral, and such a model never refutes.

    Evidence beyond `max_words` may be cut by the model; `windows.WindowedEntailment` prevents that.

    Args:
        name: Its name in the configuration.
        encoder: The classifier; closed with this object.

    Raises:
        DataError: The names of the outputs do not identify them.
    """

    def __init__(self, name: str, encoder: CrossEncoder) -> None:
        names = tuple(encoder.labels)
        self._positions = _positions(name, names)
        self.name = name
        labels = hashlib.sha256("|".join(names).encode()).hexdigest()[:12]
        self.identity = f"nli-{labels}:{encoder.identity}"
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
