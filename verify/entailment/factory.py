"""`load_entailment`: an entailment by the name of its judge; `resolve_judge`: the judge that `auto` stands for."""

from __future__ import annotations

import importlib.util
from typing import Final, Literal

from ...core.errors import UnknownName, UserError
from ...core.files import Progress
from ...core.registry import nearest
from ...core.settings import Settings
from ...serving.encoders.factory import SERVED_PREFIX, load_cross_encoder
from ...serving.model_files.catalogue import PREFIX as LOCAL_PREFIX
from ..types import Entailment
from ..verifier import AUTO, LEXICAL, MODEL
from .lexical import LexicalEntailment
from .nli import NliEntailment

BASE: Final = "base"
SMALL: Final = "small"
EMBEDDED: Final[tuple[Literal["base", "small"], ...]] = (BASE, SMALL)
"""The embedded judges, the better one first."""
NLI_PREFIX, CROSS_PREFIX = "nli/", "cross/"
PREFIXES: Final = (NLI_PREFIX, CROSS_PREFIX)
NAMES: Final = (AUTO, MODEL, BASE, SMALL, LEXICAL)
CHOICES: Final = "auto, model, base, small, lexical, nli/…, cross/…"
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
    if name not in NAMES and not _prefix_of(name):
        raise _unknown(name)
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
    | `cross/<hub id or directory>` | a cross-encoder with one output, or with named labels |

    `nli/` and `cross/` also take a served model, as in `nli/hosted_vllm_pooling/<served name>`.

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
    prefix = _prefix_of(name)
    rest = name.removeprefix(prefix)
    encoder = await load_cross_encoder(
        rest if rest.startswith(SERVED_PREFIX) else LOCAL_PREFIX + rest, settings, progress
    )
    try:
        return NliEntailment(name, encoder, may_score=prefix == CROSS_PREFIX)
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


def _prefix_of(name: str) -> str:
    """The prefix of a name that has one and something after it; empty otherwise."""
    return next((prefix for prefix in PREFIXES if name.startswith(prefix) and name != prefix), "")


def _unknown(name: str) -> UnknownName:
    head, slash, rest = name.partition("/")
    near = tuple(p + rest for p in nearest(head + "/", PREFIXES)) if slash else nearest(name, (*NAMES, *PREFIXES))
    return UnknownName("judge", name, near, hint=f"expected one of {CHOICES}")
