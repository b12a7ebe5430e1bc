"""`open_entailment`: from strings to what tells whether a text supports a claim."""

from __future__ import annotations

from ...core.errors import UnknownName, UserError
from ...core.registry import nearest
from ...core.settings import Settings
from ...serving.encoders.protocols import load_cross_encoder
from ...serving.model import LanguageModel
from ...serving.model_files.downloads import Progress
from .judge import JudgeEntailment
from .lexical import LexicalEntailment
from .nli import NliEntailment
from .protocol import Entailment
from .windows import DocumentSupport

NLI, MINICHECK = "nli/", "minicheck/"
NAMES = ("lexical", "embedded", "judge")


async def open_entailment(
    name: str, settings: Settings, *, model: LanguageModel | None = None, progress: Progress | None = None
) -> Entailment:
    """Open an entailment by its string.

    | string | what judges |
    | --- | --- |
    | `lexical` | shared words; no model |
    | `embedded` | our own small classifier on the default embedding model |
    | `nli/<cross-encoder>` | a classifier of natural language inference |
    | `minicheck/<cross-encoder>` | the same over the chunks of a document, by the most support |
    | `judge` | the language model that is given |

    A cross-encoder has a string of its own, as in `nli/local/cross-encoder/nli-deberta-v3-base`.

    Args:
        name: One of these strings.
        settings: Where files are kept; the section `encoders` for a cross-encoder's own string.
        model: The language model of `judge`: a metered one charges its run. It is not closed with the entailment.
        progress: Told of a fetch, from another thread.

    Raises:
        UnknownName: No entailment has that name.
        UserError: `judge` was given no model, a setting is wrong or an extra is missing.
        DataError: The model's files are damaged, or its labels do not say what they stand for.
        BackendUnavailable: It cannot be had here, or its server cannot be reached.
    """
    if name == "lexical":
        return LexicalEntailment()
    if name == "embedded":
        from .embedded import open_embedded

        return await open_embedded(settings, progress)
    if name == "judge":
        if model is None:
            raise UserError("the entailment 'judge' needs a language model", hint="name one as the role judge")
        return JudgeEntailment(model, name=name)
    for prefix in (NLI, MINICHECK):
        if name.startswith(prefix) and name != prefix:
            classifier = await _classifier(name, name.removeprefix(prefix), settings, progress)
            return DocumentSupport(classifier) if prefix == MINICHECK else classifier
    head, slash, rest = name.partition("/")
    near = (
        tuple(p + rest for p in nearest(head + "/", (NLI, MINICHECK)))
        if slash
        else nearest(name, (*NAMES, NLI, MINICHECK))
    )
    raise UnknownName("entailment", name, near, hint=f"it is {', '.join(NAMES)}, {NLI}… or {MINICHECK}…")


async def _classifier(name: str, encoder_name: str, settings: Settings, progress: Progress | None) -> NliEntailment:
    encoder = await load_cross_encoder(encoder_name, settings, progress)
    try:
        return NliEntailment(name, encoder)
    except BaseException:
        await encoder.aclose()
        raise
