"""Internal attribution: where in a run its claims come from, on four levels.

1. Provenance: the parts of the run that share the claim's wording (our own measure: the share of its word 3-grams).
2. Agreement: the samples that entail or contradict the claim. Near to SelfCheckGPT (Manakul, Liusie, Gales 2023,
   arXiv:2303.08896, section 5.4), which averages the probability of contradiction; here each sample has one vote.
3. Context: the claim's probability without parts of the context (`context`).
4. Whitebox: relevance inside the model by AttnLRP (Achtibat et al. 2024, arXiv:2402.05602).

An attribution identifies the source of a claim, not whether it is correct: verdicts are neither read nor written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from typing import Literal, NamedTuple, get_args

from pydantic import JsonValue

from ...core.concurrency import LONG_CHARS, off_loop
from ...core.errors import BackendError, BudgetExceeded, CapabilityMissing, UserError
from ...reasoning.retrieval.words import split_words
from ...serving.model import ExplainsTokens, LanguageModel, Relevance
from ...serving.quick_calls import without_thought
from ..entailment.windows import WindowedEntailment
from ..types import AttributionKind, Claim, Entailment, InternalAttribution, Label, Pair, Support
from .context import ABLATIONS, DELTA, ContextPrompt, attribute_by_context
from .segments import Segment, context_segments, samples_of

SIGN: dict[Label, int] = {"supports": 1, "refutes": -1, "neutral": 0}


async def attribute_by_agreement(
    claims: Sequence[Claim], samples: Sequence[Segment], entailment: Entailment
) -> list[tuple[InternalAttribution, ...]]:
    """Whether each sample entails or contradicts each claim, judged in one call.

    A sample longer than the entailment can read is judged in windows, and the most decisive window is used.

    Args:
        claims: The claims.
        samples: Complete attempts, or the responses of several agents.
        entailment: The judge; it is not closed.

    Returns:
        For each claim one attribution for each sample that could be judged, in order. The weight is 1 if the sample
        entails the claim, -1 if it contradicts it, else 0; `detail` has the share of each sign among them.

    Raises:
        ReasonError: The call failed, or exceeds the budget.
    """
    pairs = [Pair(sample.text, claim.text) for claim in claims for sample in samples]
    verdicts = await WindowedEntailment(entailment).judge(pairs) if pairs else []
    width = len(samples)
    return [
        _votes(samples, verdicts[row * width : (row + 1) * width], entailment.identity) for row in range(len(claims))
    ]


def _votes(
    samples: Sequence[Segment], verdicts: Sequence[Support | None], identity: str
) -> tuple[InternalAttribution, ...]:
    judged = [(s, v) for s, v in zip(samples, verdicts, strict=True) if v is not None]
    signs = [SIGN[v.label] for _, v in judged]
    shares: dict[str, JsonValue] = {
        name: signs.count(sign) / len(signs)
        for name, sign in (("entail", 1), ("contradict", -1), ("neither", 0))
        if signs
    }
    common: dict[str, JsonValue] = {
        "method": "1 if the sample entails the claim, -1 if it contradicts it, else 0",
        "judge": identity,
        "samples": len(judged),
        "unread": len(samples) - len(judged),
        **shares,
    }
    return tuple(
        InternalAttribution(
            component=sample.name, kind="agreement", weight=float(sign), detail={**common, "probs": list(verdict)}
        )
        for (sample, verdict), sign in zip(judged, signs, strict=True)
    )


CONTAINED = 0.6
"""Minimum share of a claim's sequences in a part that counts as a source."""
LENGTH = 3
"""Words of a sequence; a shorter claim is one sequence."""

Gram = tuple[str, ...]


def attribute_by_provenance(
    claims: Sequence[Claim], segments: Sequence[Segment], *, contained: float = CONTAINED
) -> list[tuple[InternalAttribution, ...]]:
    """All parts that contain a claim, with their rank.

    Words are compared without case and accents; punctuation is ignored. Linear in the length of the segments for each
    length of a sequence, of which there are at most three.

    Args:
        claims: The claims.
        segments: The parts of the run, in the order of their creation.
        contained: Minimum share of the claim's distinct sequences, in (0, 1].

    Returns:
        For each claim its sources in that order. The weight is the share, in [0, 1]; `detail` has the rank, from 1.
    """
    claim_grams = [_grams(split_words(claim.text)) for claim in claims]
    lengths = {len(next(iter(grams))) for grams in claim_grams if grams}
    all_grams: set[Gram] = set().union(*claim_grams)
    attributions: list[list[InternalAttribution]] = [[] for _ in claims]
    for segment in segments:
        words = split_words(segment.text)
        contained_grams = {
            gram for length in sorted(lengths) for gram in _sequences(words, length) if gram in all_grams
        }
        for grams, sources in zip(claim_grams, attributions, strict=True):
            share = len(grams & contained_grams) / len(grams) if grams else 0.0
            if grams and share >= contained:
                sources.append(_source(segment, share, len(sources) + 1, len(grams)))
    return [tuple(sources) for sources in attributions]


def containment(claim: str, text: str) -> float:
    """Share of a claim's distinct three-word sequences in a text, in [0, 1]; 0 for a claim without words."""
    grams = _grams(split_words(claim))
    if not grams:
        return 0.0
    return len(grams & set(_sequences(split_words(text), len(next(iter(grams)))))) / len(grams)


def _source(segment: Segment, share: float, rank: int, grams: int) -> InternalAttribution:
    return InternalAttribution(
        component=segment.name,
        kind="provenance",
        weight=share,
        detail={
            "method": f"share of the claim's sequences of {LENGTH} words that are in the part",
            "sequences": grams,
            "rank": rank,
            "first": rank == 1,
            "part": segment.kind,
        },
    )


def _grams(words: Sequence[str]) -> frozenset[Gram]:
    return frozenset(_sequences(words, min(LENGTH, len(words)))) if words else frozenset()


def _sequences(words: Sequence[str], length: int) -> Iterator[Gram]:
    return zip(*(words[i:] for i in range(length)), strict=False)


class RelevanceAttributions(NamedTuple):
    """Attributions by relevance.

    Attributes:
        attributions: For each claim the parts of the prompt by descending weight; empty after the budget ran out.
        stopped: Why claims are missing; empty if none is.
    """

    attributions: list[tuple[InternalAttribution, ...]]
    stopped: str


async def attribute_by_relevance(
    claims: Sequence[Claim], segments: Sequence[Segment], model: ExplainsTokens
) -> RelevanceAttributions:
    """Weigh the parts of the context, and the question, for each claim.

    The weight is relevance by AttnLRP; `detail` has gradient times input and attention too. The prompt is that of
    context ablation with all its parts, so that the two levels are comparable. One call for each claim; the first call
    that exceeds the budget of a metered model ends the attribution.

    Args:
        claims: The claims; their texts are explained as a response.
        segments: The parts of the run.
        model: The model that wrote the claims, which must be able to explain.

    Raises:
        ReasonError: The model failed or cannot explain, or the prompt is too long for it.
    """
    prompt_parts = ContextPrompt.of(segments)
    questions = [s for s in segments if s.kind == "question"]
    parts = [*prompt_parts.context, *questions]
    prompt = prompt_parts.prompt()
    if isinstance(model, LanguageModel):
        prompt = without_thought(prompt, model.capabilities.profile)
    attributions: list[tuple[InternalAttribution, ...]] = []
    stopped = ""
    for claim in claims if parts else ():
        try:
            relevance = await model.relevance(prompt, [s.text for s in parts], claim.text)
        except BudgetExceeded as limit:
            stopped = f"{limit.message}; {len(attributions)} of {len(claims)} claims were explained"
            break
        attributions.append(_attributions(parts, relevance))
    return RelevanceAttributions([*attributions, *[()] * (len(claims) - len(attributions))], stopped)


def _attributions(parts: Sequence[Segment], relevance: Relevance) -> tuple[InternalAttribution, ...]:
    common: dict[str, JsonValue] = {
        "method": "relevance by AttnLRP, summed over the claim's tokens",
        "unit": "nats",
        "claim": relevance.logprob,
        "rest": relevance.rest,
        "attention is": "where the model looked, not a cause",
    }
    order = sorted(range(len(parts)), key=lambda i: -relevance.relevance[i])
    return tuple(
        InternalAttribution(
            component=parts[i].name,
            kind="whitebox",
            weight=relevance.relevance[i],
            detail={
                **common,
                "rank": rank,
                "gradient times input": relevance.gradient[i],
                "attention": relevance.attention[i],
                "tokens": relevance.tokens[i],
            },
        )
        for rank, i in enumerate(order, 1)
    )


LEVELS: tuple[AttributionKind, ...] = get_args(AttributionKind)
"""All levels, the simplest first."""
NOTHING = "nothing"
"""Component of an attribution that records why a level is missing."""

Outcome = tuple[list[tuple[InternalAttribution, ...]], str]
"""Attributions of each claim, and why some are missing (or empty)."""


async def attribute_claims(
    claims: Sequence[Claim],
    segments: Sequence[Segment],
    *,
    samples: Sequence[Segment] | None = None,
    entailment: Entailment | None = None,
    model: LanguageModel | None = None,
    levels: Collection[AttributionKind] = LEVELS,
    seed: int = 0,
    delta: float = DELTA,
    ablations: int = ABLATIONS,
) -> list[tuple[InternalAttribution, ...]]:
    """Attribute each claim to parts of the run.

    - "provenance": the parts with the same words; always possible;
    - "agreement": the samples that entail or contradict it; needs an entailment and samples;
    - "context": its probability without parts of the context; needs a model that scores;
    - "whitebox": relevance inside the model; needs the embedded engine and a family that it computes itself.

    A requested level that is not possible, or that exceeds the budget, is an attribution of its kind to "nothing", with
    weight 0 and the reason in `detail` (see `missing_levels`). Every call of a metered model or entailment is checked
    against the run's budget; attributions made before it ran out are kept.

    Args:
        claims: The claims.
        segments: The parts of the run (see `segments_of`).
        samples: Complete attempts that vote; the samples among the segments by default.
        entailment: Judges whether samples agree.
        model: The model that wrote the claims; with another model the last two levels are wrong.
        levels: The requested levels.
        seed: Seed of the random subsets.
        delta: Nats per token by which the context must change a claim to count as its source.
        ablations: Random subsets of a context with more than 12 parts.

    Returns:
        For each claim its attributions, the strongest level first; `detail` records how each was obtained.

    Raises:
        UserError: A level is unknown, or a number is out of range.
        ReasonError: The run store failed. A failure of the model is a missing level.
    """
    if unknown := set(levels) - set(LEVELS):
        raise UserError(f"unknown attribution level {', '.join(sorted(unknown))}", hint=f"use {', '.join(LEVELS)}")
    if ablations < 1 or delta <= 0:
        raise UserError(
            f"ablations must be at least 1 and delta positive, got {ablations} and {delta:g}",
        )
    voters = samples_of(segments) if samples is None else samples

    async def provenance() -> Outcome:
        is_long = sum(len(segment.text) for segment in segments) > LONG_CHARS
        return await off_loop(lambda: attribute_by_provenance(claims, segments), is_long=is_long), ""

    async def agreement() -> Outcome:
        if entailment is None or not voters:
            return _no_attributions(
                claims, "there is no entailment to judge samples" if entailment is None else "the run has no samples"
            )
        return await attribute_by_agreement(claims, voters, entailment), ""

    async def context() -> Outcome:
        if model is None or not model.capabilities.scoring or not _can_begin_answer(model):
            return _no_attributions(claims, _missing_capability(model, "score given text"))
        if not context_segments(segments):
            return _no_attributions(claims, "the prompt has no context besides the question")
        return await attribute_by_context(claims, segments, model, delta=delta, ablations=ablations, seed=seed)

    async def whitebox() -> Outcome:
        explainer: object = model
        if model is None or not isinstance(explainer, ExplainsTokens) or not _can_begin_answer(model):
            return _no_attributions(claims, _missing_capability(model, "look into itself"))
        return await attribute_by_relevance(claims, segments, explainer)

    functions: dict[AttributionKind, Callable[[], Awaitable[Outcome]]] = {
        "provenance": provenance,
        "agreement": agreement,
        "context": context,
        "whitebox": whitebox,
    }
    attributions: list[tuple[InternalAttribution, ...]] = [() for _ in claims]
    for level in LEVELS if claims else ():  # the cheap ones first: the budget may run out
        if level in levels:
            added, missing = await _attribute_level(claims, functions[level])
            note = (_missing(level, missing),) if missing else ()
            attributions = [(*current, *note, *existing) for current, existing in zip(added, attributions, strict=True)]
    return attributions


def missing_levels(attributions: Sequence[InternalAttribution]) -> tuple[str, ...]:
    """The levels of a claim's attribution that are missing or incomplete, and why, for people."""
    return tuple(f"{a.kind}: {a.detail['left_out']}" for a in attributions if a.component == NOTHING)


async def _attribute_level(claims: Sequence[Claim], attribute: Callable[[], Awaitable[Outcome]]) -> Outcome:
    """The attributions of a level; one that fails is missing and does not stop the others."""
    try:
        return await attribute()
    except (CapabilityMissing, BudgetExceeded, UserError, BackendError) as error:
        return _no_attributions(claims, str(error))


def _no_attributions(claims: Sequence[Claim], reason: str) -> Outcome:
    return [() for _ in claims], reason


def _missing(level: AttributionKind, reason: str) -> InternalAttribution:
    return InternalAttribution(component=NOTHING, kind=level, weight=0.0, detail={"left_out": reason})


def _can_begin_answer(model: LanguageModel) -> bool:
    """Whether a claim after a prompt begins the model's answer, and not its thought."""
    profile = model.capabilities.profile
    return not profile.can_think or profile.prefix == "thought"


def _missing_capability(
    model: LanguageModel | None, capability: Literal["score given text", "look into itself"]
) -> str:
    return "there is no model" if model is None else f"model {model.name!r} cannot {capability}"
