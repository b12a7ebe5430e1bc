"""`attribute_internally`: where in a run its claims come from, by the best means that the run's model allows.

Four grades, from the same words to the inside of the model; each that can be done is done. It tells where a claim comes
from and never whether it is right: no verdict is read here or written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Literal, get_args

from ...core.errors import BackendError, CapabilityMissing, LimitExceeded, UserError
from ...serving.model import LanguageModel
from ...serving.relevance import ExplainsTokens
from ..claims import Claim
from ..entailment.protocol import Entailment
from ..reports import AttributionKind, InternalAttribution
from .agreement import by_agreement
from .context import ABLATIONS, DELTA, by_context
from .provenance import by_provenance
from .segments import Segment, given, samples_of
from .whitebox import by_relevance

GRADES: tuple[AttributionKind, ...] = get_args(AttributionKind)
"""All grades, the simplest first."""
NOTHING = "nothing"
"""Component of an attribution that tells why a grade is missing."""

Outcome = tuple[list[tuple[InternalAttribution, ...]], str]
"""Attributions of each claim, and why they are not all that was planned (or empty)."""


async def attribute_internally(
    claims: Sequence[Claim],
    segments: Sequence[Segment],
    *,
    samples: Sequence[Segment] | None = None,
    entailment: Entailment | None = None,
    model: LanguageModel | None = None,
    levels: Collection[AttributionKind] = GRADES,
    seed: int = 0,
    delta: float = DELTA,
    ablations: int = ABLATIONS,
) -> list[tuple[InternalAttribution, ...]]:
    """Attribute each claim to parts of the run.

    - "provenance": which parts say it in the same words; always possible;
    - "agreement": which samples entail or contradict it; needs an entailment and samples;
    - "context": what becomes of its probability without parts of the context; needs a model that scores;
    - "whitebox": relevance inside the model; needs the embedded engine and a family that it computes itself.

    A grade that is wanted and cannot be done, or that the budget ended, is named by an attribution of its kind to
    "nothing", with weight 0 and the reason in `detail` (see `left_out`). A metered model and entailment fit every call
    into the run's budget; what was found before it ended is kept.

    Args:
        claims: The claims.
        segments: The parts of the run (see `segments_of`).
        samples: Complete attempts that vote; the samples among the segments by default.
        entailment: Judges whether samples agree.
        model: The model that wrote the claims; with another one the two last grades tell of that.
        levels: Grades that are wanted.
        seed: Seed of what is random.
        delta: Nats per token by which the context must change a claim to count as its source.
        ablations: Random subsets of a context with more than 12 parts.

    Returns:
        For each claim its attributions, the best grade first; each says in `detail` how it was obtained.

    Raises:
        UserError: A grade has no such name, or a number is out of its range.
        ReasonError: The run store failed. A model that fails is a missing grade.
    """
    if unknown := set(levels) - set(GRADES):
        raise UserError(f"there is no attribution {', '.join(sorted(unknown))}", hint=f"one of {', '.join(GRADES)}")
    if ablations < 1 or delta <= 0:
        raise UserError(
            f"{ablations} ablations and a delta of {delta:g} attribute nothing",
            hint="ablations is at least 1, delta is positive",
        )
    voters = samples_of(segments) if samples is None else samples

    async def provenance() -> Outcome:
        return by_provenance(claims, segments), ""

    async def agreement() -> Outcome:
        if entailment is None or not voters:
            return _none(claims, "nothing judges samples" if entailment is None else "the run has no samples")
        return await by_agreement(claims, voters, entailment), ""

    async def context() -> Outcome:
        if model is None or not model.capabilities.scoring:
            return _none(claims, _lacks(model, "score given text"))
        if not given(segments):
            return _none(claims, "nothing was put before the model beside the question")
        return await by_context(claims, segments, model, delta=delta, ablations=ablations, seed=seed)

    async def whitebox() -> Outcome:
        inside: object = model
        if not isinstance(inside, ExplainsTokens):
            return _none(claims, _lacks(model, "look into itself"))
        return await by_relevance(claims, segments, inside)

    ways: dict[AttributionKind, Callable[[], Awaitable[Outcome]]] = {
        "provenance": provenance,
        "agreement": agreement,
        "context": context,
        "whitebox": whitebox,
    }
    found: list[tuple[InternalAttribution, ...]] = [() for _ in claims]
    for grade in GRADES if claims else ():  # the cheap ones first: the budget may end
        if grade in levels:
            of_grade, missing = await _tried(claims, ways[grade])
            told = (_missing(grade, missing),) if missing else ()
            found = [(*new, *told, *old) for new, old in zip(of_grade, found, strict=True)]
    return found


def left_out(attributions: Sequence[InternalAttribution]) -> tuple[str, ...]:
    """Which grades of a claim's attribution are missing or cut short, and why, for people to read."""
    return tuple(f"{a.kind}: {a.detail['left_out']}" for a in attributions if a.component == NOTHING)


async def _tried(claims: Sequence[Claim], way: Callable[[], Awaitable[Outcome]]) -> Outcome:
    """What a grade gives; one that fails is missing, and the others go on."""
    try:
        return await way()
    except (CapabilityMissing, LimitExceeded, UserError, BackendError) as error:
        return _none(claims, str(error))


def _none(claims: Sequence[Claim], why: str) -> Outcome:
    return [() for _ in claims], why


def _missing(grade: AttributionKind, why: str) -> InternalAttribution:
    return InternalAttribution(component=NOTHING, kind=grade, weight=0.0, detail={"left_out": why})


def _lacks(model: LanguageModel | None, what: Literal["score given text", "look into itself"]) -> str:
    return "there is no model to ask" if model is None else f"model {model.name!r} cannot {what}"
