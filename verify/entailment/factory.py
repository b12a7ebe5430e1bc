"""`load_entailment`: an entailment by its string."""

from __future__ import annotations

from ...core.errors import UnknownName, UserError
from ...core.registry import nearest
from ...core.settings import Settings
from ...serving.encoders.factory import load_cross_encoder
from ...serving.model import LanguageModel
from ...serving.model_files.downloads import Progress
from .judge import JudgeEntailment
from .lexical import LexicalEntailment
from .nli import NliEntailment
from .protocol import Entailment
from .windows import DocumentSupport

NLI_PREFIX, MINICHECK_PREFIX = "nli/", "minicheck/"
NAMES = ("lexical", "embedded", "judge")


async def load_entailment(
    name: str, settings: Settings, *, model: LanguageModel | None = None, progress: Progress | None = None
) -> Entailment:
    """Load an entailment.

    | string | entailment |
    | --- | --- |
    | `lexical` | shared words; no model |
    | `embedded` | our own small classifier on the default embedding model |
    | `nli/<cross-encoder>` | a classifier of natural language inference |
    | `minicheck/<cross-encoder>` | the same over the chunks of a document, by maximum support |
    | `judge` | the language model `model` |

    A cross-encoder has a string of its own, as in `nli/local/cross-encoder/nli-deberta-v3-base`.

    Args:
        name: One of these strings.
        settings: Where files are cached; the section `encoders`.
        model: The language model of `judge`, not closed with the entailment; a metered one charges its run.
        progress: Receives the progress of a download, from another thread.

    Raises:
        UnknownName: There is no such entailment.
        UserError: `judge` has no model, a setting is wrong or an extra is missing.
        DataError: The model's files are damaged, or its labels are unknown.
        BackendUnavailable: The model cannot be fetched, or its server cannot be reached.
    """
    if name == "lexical":
        return LexicalEntailment()
    if name == "embedded":
        from .embedded import load_embedded

        return await load_embedded(settings, progress)
    if name == "judge":
        if model is None:
            raise UserError("the entailment 'judge' needs a language model", hint="set a model for the role judge")
        return JudgeEntailment(model, name=name)
    for prefix in (NLI_PREFIX, MINICHECK_PREFIX):
        if name.startswith(prefix) and name != prefix:
            classifier = await _classifier(name, name.removeprefix(prefix), settings, progress)
            return DocumentSupport(classifier) if prefix == MINICHECK_PREFIX else classifier
    head, slash, rest = name.partition("/")
    prefixes = (NLI_PREFIX, MINICHECK_PREFIX)
    near = tuple(p + rest for p in nearest(head + "/", prefixes)) if slash else nearest(name, (*NAMES, *prefixes))
    raise UnknownName(
        "entailment", name, near, hint=f"expected {', '.join(NAMES)}, {NLI_PREFIX}… or {MINICHECK_PREFIX}…"
    )


async def _classifier(name: str, encoder_name: str, settings: Settings, progress: Progress | None) -> NliEntailment:
    encoder = await load_cross_encoder(encoder_name, settings, progress)
    try:
        return NliEntailment(name, encoder)
    except BaseException:
        await encoder.aclose()
        raise
