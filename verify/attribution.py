"""Internal attribution: where in a run its claims come from, on four levels.

1. Provenance: the parts of the run that share the claim's wording (our own measure: the share of its word 3-grams).
2. Agreement: the samples that entail or contradict the claim. Near to SelfCheckGPT (Manakul, Liusie, Gales 2023,
   arXiv:2303.08896, section 5.4), which averages the probability of contradiction; here each sample has one vote.
3. Context: the claim's probability without parts of the context (`attribute_by_context`).
4. Whitebox: relevance inside the model by AttnLRP (Achtibat et al. 2024, arXiv:2402.05602).

An attribution identifies the source of a claim, not whether it is correct: verdicts are neither read nor written.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from ..core.concurrency import LONG_CHARS, gather, off_loop
from ..core.errors import BackendError, BudgetExceeded, CapabilityMissing, UserError
from ..core.messages import Frozen, Prompt, ScoredContinuation
from ..core.types import Candidate, Document, Question, Solution
from ..reasoning.prompts import LETTERS, question_prompt
from ..reasoning.retrieval.chunking import split_chunks
from ..reasoning.retrieval.words import split_words
from ..reasoning.segmentation import split_steps
from ..serving.model import ExplainsTokens, LanguageModel, Relevance
from ..serving.quick_calls import without_thought
from .entailment.windows import WindowedEntailment
from .types import AttributionKind, Claim, Entailment, InternalAttribution, Label, Pair, Support

# -- the parts of a run

MAX_SEGMENT_WORDS = 120
"""Maximum words of a document's part; a longer document is split between sentences."""

SegmentKind = Literal["question", "document", "citation", "step", "sample"]


class Segment(Frozen):
    """A part of a run. It is data; instructions in it are not followed.

    Attributes:
        name: Its name in a report, unique within a run.
        kind: The question or its choices, a document or a part of one, a citation of a candidate, a step of a
            candidate, or a complete candidate.
        text: Its text.
        source: Name of the document or sample that it is a part of; empty if it is complete.
    """

    name: str
    kind: SegmentKind
    text: str
    source: str = ""


def segments_of(question: Question, solution: Solution | None = None) -> list[Segment]:
    """The parts of a run, in the order of their creation: question, choices, documents, then each candidate's.

    A candidate has citations, steps and its text. A citation is listed once, even if several candidates have it. Blank
    parts are left out.
    """
    segments = [Segment(name="question", kind="question", text=question.text)]
    choices = "\n".join(f"{letter}) {c}" for letter, c in zip(LETTERS, question.choices, strict=False))
    segments.append(Segment(name="choices", kind="question", text=choices))
    for document in question.documents:
        segments += _document_segments(document)
    cited: set[tuple[str, str]] = set()
    for number, candidate in enumerate(solution.candidates if solution else (), 1):
        segments += _candidate_segments(candidate, f"sample {number}", cited)
    return _with_unique_names(s for s in segments if s.text.strip())


def samples_of(segments: Sequence[Segment]) -> list[Segment]:
    """The candidates among the segments."""
    return [s for s in segments if s.kind == "sample"]


def context_segments(segments: Sequence[Segment]) -> list[Segment]:
    """The parts of the prompt besides the question, each text once.

    A citation that is contained in a document is omitted: to leave out one of two copies would change nothing.
    """
    documents = [s for s in segments if s.kind == "document"]
    texts: set[str] = set()
    kept: list[Segment] = []
    for segment in (s for s in segments if s.kind in ("document", "citation")):
        text = segment.text.strip()
        is_copy = text in texts or (segment.kind == "citation" and any(text in other.text for other in documents))
        if not is_copy:
            texts.add(text)
            kept.append(segment)
    return kept


def _document_segments(document: Document) -> list[Segment]:
    name, text = f"document «{document.name}»", document.text
    pieces = split_chunks(text, words=MAX_SEGMENT_WORDS, overlap=0)
    if len(pieces) < 2:
        return [Segment(name=name, kind="document", text=text, source=document.name)]
    return [
        Segment(name=f"{name}, part {i}", kind="document", text=text[piece.start : piece.end], source=document.name)
        for i, piece in enumerate(pieces, 1)
    ]


def _candidate_segments(candidate: Candidate, name: str, cited: set[tuple[str, str]]) -> Iterable[Segment]:
    for evidence in candidate.citations:
        if (evidence.source, evidence.text) not in cited:
            cited.add((evidence.source, evidence.text))
            label = f"citation {len(cited)} («{evidence.source}»)"
            yield Segment(name=label, kind="citation", text=evidence.text, source=evidence.source)
    steps = [s.text for s in candidate.steps] or split_steps(candidate.text)
    if len(steps) > 1:
        for i, step in enumerate(steps, 1):
            yield Segment(name=f"{name}, step {i}", kind="step", text=step, source=name)
    yield Segment(name=name, kind="sample", text=candidate.text)


def _with_unique_names(segments: Iterable[Segment]) -> list[Segment]:
    """The segments with unique names, since two documents may have the same name."""
    named: dict[str, Segment] = {}
    for segment in segments:
        name, number = segment.name, 1
        while name in named:
            number += 1
            name = f"{segment.name} ({number})"
        named[name] = segment.model_copy(update={"name": name})
    return [*named.values()]


# -- all levels

LEVELS: tuple[AttributionKind, ...] = get_args(AttributionKind)
"""All levels, the simplest first."""
NOTHING = "nothing"
"""Component of an attribution that records why a level is missing."""


class Attributions(NamedTuple):
    """The attributions of each claim, and why some are missing; empty if none is."""

    attributions: list[tuple[InternalAttribution, ...]]
    missing: str = ""


async def attribute_claims(
    claims: Sequence[Claim],
    segments: Sequence[Segment],
    *,
    entailment: Entailment | None = None,
    model: LanguageModel | None = None,
    levels: Collection[AttributionKind] = LEVELS,
    seed: int = 0,
) -> list[tuple[InternalAttribution, ...]]:
    """Attribute each claim to parts of the run.

    - "provenance": the parts with the same words; always possible;
    - "agreement": the samples that entail or contradict it; needs an entailment and samples;
    - "context": its probability without parts of the context; needs a model that scores;
    - "whitebox": relevance inside the model; needs the embedded engine and a family that it computes itself.

    A requested level that is not possible, or that exceeds the budget, is an attribution of its kind to "nothing", with
    weight 0 and the reason in `detail`. Every call of a metered model or entailment is checked against the run's
    budget; attributions made before it ran out are kept.

    Args:
        claims: The claims.
        segments: The parts of the run (see `segments_of`).
        entailment: Judges whether samples agree.
        model: The model that wrote the claims; with another model the last two levels are wrong.
        levels: The requested levels.
        seed: Seed of the random subsets of a long context.

    Returns:
        For each claim its attributions, the strongest level first; `detail` records how each was obtained.

    Raises:
        ReasonError: The run store failed. A failure of the model is a missing level.
    """
    samples = samples_of(segments)

    def nothing(reason: str) -> Attributions:
        return Attributions([() for _ in claims], reason)

    async def provenance() -> Attributions:
        is_long = sum(len(segment.text) for segment in segments) > LONG_CHARS
        return Attributions(await off_loop(lambda: attribute_by_provenance(claims, segments), is_long=is_long))

    async def agreement() -> Attributions:
        if entailment is None or not samples:
            return nothing("there is no entailment to judge samples" if samples else "the run has no samples")
        return Attributions(await attribute_by_agreement(claims, samples, entailment))

    async def context() -> Attributions:
        if model is None or not model.capabilities.scoring or not _can_begin_answer(model):
            return nothing(_incapable(model, "score given text"))
        if not context_segments(segments):
            return nothing("the prompt has no context besides the question")
        return await attribute_by_context(claims, segments, model, seed=seed)

    async def whitebox() -> Attributions:
        explainer: object = model
        if model is None or not isinstance(explainer, ExplainsTokens) or not _can_begin_answer(model):
            return nothing(_incapable(model, "look into itself"))
        return await attribute_by_relevance(claims, segments, explainer)

    functions: dict[AttributionKind, Callable[[], Awaitable[Attributions]]] = {
        "provenance": provenance,
        "agreement": agreement,
        "context": context,
        "whitebox": whitebox,
    }
    attributions: list[tuple[InternalAttribution, ...]] = [() for _ in claims]
    for level in LEVELS if claims else ():  # the cheap ones first: the budget may run out
        if level not in levels:
            continue
        try:
            added, missing = await functions[level]()
        except (CapabilityMissing, BudgetExceeded, UserError, BackendError) as error:
            added, missing = nothing(str(error))
        note = (
            (InternalAttribution(component=NOTHING, kind=level, weight=0.0, detail={"left_out": missing}),)
            if missing
            else ()
        )
        attributions = [(*current, *note, *existing) for current, existing in zip(added, attributions, strict=True)]
    return attributions


def _can_begin_answer(model: LanguageModel) -> bool:
    """Whether a claim after a prompt begins the model's answer, and not its thought."""
    profile = model.capabilities.profile
    return not profile.can_think or profile.prefix == "thought"


def _incapable(model: LanguageModel | None, capability: str) -> str:
    return "there is no model" if model is None else f"model {model.name!r} cannot {capability}"


# -- provenance

MIN_CONTAINED = 0.6
"""Minimum share of a claim's sequences in a part that counts as a source."""
SEQUENCE_WORDS = 3
"""Words of a sequence; a shorter claim is one sequence."""

_Sequence = tuple[str, ...]


def attribute_by_provenance(
    claims: Sequence[Claim], segments: Sequence[Segment]
) -> list[tuple[InternalAttribution, ...]]:
    """All parts that contain a claim, in their order; `detail` has the rank, from 1.

    Words are compared without case and accents; punctuation is ignored. Linear in the length of the segments.

    Returns:
        For each claim its sources. The weight is the share of the claim's distinct sequences, in [0, 1].
    """
    claim_sequences = [_claim_sequences(split_words(claim.text)) for claim in claims]
    lengths = {len(next(iter(own))) for own in claim_sequences if own}
    known: set[_Sequence] = set().union(*claim_sequences)
    attributions: list[list[InternalAttribution]] = [[] for _ in claims]
    for segment in segments:
        words = split_words(segment.text)
        contained = {s for length in sorted(lengths) for s in _sequences(words, length) if s in known}
        for own, sources in zip(claim_sequences, attributions, strict=True):
            share = len(own & contained) / len(own) if own else 0.0
            if own and share >= MIN_CONTAINED:
                sources.append(_source(segment, share, len(sources) + 1, len(own)))
    return [tuple(sources) for sources in attributions]


def _source(segment: Segment, share: float, rank: int, sequences: int) -> InternalAttribution:
    return InternalAttribution(
        component=segment.name,
        kind="provenance",
        weight=share,
        detail={
            "method": f"share of the claim's sequences of {SEQUENCE_WORDS} words that are in the part",
            "sequences": sequences,
            "rank": rank,
            "first": rank == 1,
            "part": segment.kind,
        },
    )


def _claim_sequences(words: Sequence[str]) -> frozenset[_Sequence]:
    return frozenset(_sequences(words, min(SEQUENCE_WORDS, len(words)))) if words else frozenset()


def _sequences(words: Sequence[str], length: int) -> Iterator[_Sequence]:
    return zip(*(words[i:] for i in range(length)), strict=False)


# -- agreement

_SIGN: dict[Label, int] = {"supports": 1, "refutes": -1, "neutral": 0}


async def attribute_by_agreement(
    claims: Sequence[Claim], samples: Sequence[Segment], entailment: Entailment
) -> list[tuple[InternalAttribution, ...]]:
    """Whether each sample entails or contradicts each claim, judged in one call.

    A sample longer than the entailment can read is judged in windows, and the most decisive window is used.

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
    signs = [_SIGN[v.label] for _, v in judged]
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


# -- whitebox


async def attribute_by_relevance(
    claims: Sequence[Claim], segments: Sequence[Segment], model: ExplainsTokens
) -> Attributions:
    """Weigh the parts of the context, and the question, for each claim; by descending weight.

    The weight is relevance by AttnLRP. The prompt is that of context ablation with all its parts, so that the two
    levels are comparable. One call for each claim; the first call that exceeds the budget of a metered model ends the
    attribution.

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
        attributions.append(_by_relevance(parts, relevance))
    return Attributions([*attributions, *[()] * (len(claims) - len(attributions))], stopped)


def _by_relevance(parts: Sequence[Segment], relevance: Relevance) -> tuple[InternalAttribution, ...]:
    common: dict[str, JsonValue] = {
        "method": "relevance by AttnLRP, summed over the claim's tokens",
        "unit": "nats",
        "claim": relevance.logprob,
        "rest": relevance.rest,
    }
    order = sorted(range(len(parts)), key=lambda i: -relevance.relevance[i])
    return tuple(
        InternalAttribution(
            component=parts[i].name,
            kind="whitebox",
            weight=relevance.relevance[i],
            detail={**common, "rank": rank, "tokens": relevance.tokens[i]},
        )
        for rank, i in enumerate(order, 1)
    )


# -- context

DELTA = 0.5
"""Nats per token by which the context must change a claim's log-probability to count as its source."""
ABLATIONS = 32
"""Number of random subsets of a context with many parts."""
MAX_ABLATED = 12
"""Maximum number of parts that are left out one by one."""
MIN_SUBSETS = 8
"""Minimum number of subsets to fit weights to."""
MAX_CONCURRENT = 8
"""Maximum prompts that are scored at once."""
MIN_LOGPROB = -100.0
"""Lower limit of a token's log-probability, since differences of infinities are undefined."""
PENALTY = 0.01
"""Weight of the L1 penalty, in nats per token. Fixed: cross-validation over 32 subsets is too noisy to choose one."""
FULL_CONTEXT = "the whole context"
"""Name of all parts together; its weight is f(all) - f(none)."""
BARE = "Say what is known."
"""The question of a claim without a question."""

_MAX_LOGPROB = -1e-9
"""Upper limit of log-probabilities, since the logit of probability 1 is infinite."""

_MAX_UPDATES = 2_000_000
"""Maximum updates of the descent, which converges far earlier."""
_EXACT = 1e-12
_SWEEPS_PER_SOLVE = 200
"""Sweeps after which the minimum for the current signs is solved for directly."""

ContextSource = Literal["context_driven", "context_contradicted", "parametric"]
Mask = tuple[bool, ...]


class ContextPrompt(NamedTuple):
    """The prompt of a run, in parts: the question, choices included, and the context in order."""

    question: str
    context: tuple[Segment, ...]

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> ContextPrompt:
        """The prompt of a run; its steps and samples are not part of it."""
        question = "\n\n".join(s.text for s in segments if s.kind == "question")
        return cls(question or BARE, tuple(context_segments(segments)))

    def prompt(self, kept: Sequence[bool] | None = None) -> Prompt:
        """The prompt with some parts of the context, in the form of strategies (`question_prompt`).

        The context comes first and keeps its order: prompts with the same first parts share their KV cache.

        Args:
            kept: Whether each part is shown; None shows all.
        """
        visible = [s for i, s in enumerate(self.context) if kept is None or kept[i]]
        documents = tuple(
            Document(name=source, text="\n".join(s.text for s in source_segments))
            for source, source_segments in groupby(visible, lambda s: s.source or s.name)
        )
        return question_prompt(Question(text=self.question, documents=documents))


async def attribute_by_context(
    claims: Sequence[Claim],
    segments: Sequence[Segment],
    model: LanguageModel,
    *,
    ablations: int = ABLATIONS,
    seed: int = 0,
    penalty: float = PENALTY,
) -> Attributions:
    """Weigh the context's parts for each claim: the complete context, then its parts by descending weight.

    Let f(V) be the mean log-probability of the claim's tokens after a prompt with the parts V. Up to 12 parts are left
    out one by one, and the weight of part j is f(all) - f(all but j). With more parts, random subsets are scored and a
    sparse linear model is fitted to them (`sparse_weights`). f(all) - f(none) is the effect of the complete context.

    Each prompt is one call of `model.score` with all claims: m + 2 prompts for m parts up to 12, else `ablations` + 2.
    If the budget runs out, only the parts scored so far have weights; the linear model needs at least 8 subsets.

    Source: Cohen-Wang, Shah, Georgiev, Madry 2024, "ContextCite: Attributing Model Generation to Context",
    arXiv:2409.00729, section 3: the logit of the response's probability is fitted by LASSO to the presence of the
    parts, over random subsets with each part present with probability 1/2.
    Differs: the logit is divided by the claim's number of tokens, so that one penalty suits claims of any length and
    weights are in nats per token, as for parts that are left out one by one.

    Raises:
        ReasonError: The model failed, cannot score, or the context is too long for it.
    """
    visible = ContextPrompt.of(segments)
    parts = len(visible.context)
    if not claims or not parts:
        return Attributions([() for _ in claims])
    all_parts, no_parts = (True,) * parts, (False,) * parts
    one_by_one = parts <= MAX_ABLATED
    subsets = _leave_one_out(parts) if one_by_one else random_subsets(parts, ablations, seed)
    masks = list(dict.fromkeys([all_parts, no_parts, *subsets]))
    scored, limit = await score_claims(model, [c.text for c in claims], [visible.prompt(mask) for mask in masks])
    attributions: list[tuple[InternalAttribution, ...]] = []
    for i in range(len(claims)):
        scores = {mask: own[i] for mask, own in zip(masks, scored, strict=True) if own is not None}
        if all_parts not in scores or no_parts not in scores:
            attributions.append(())
            continue
        common: dict[str, JsonValue] = {"unit": "nats per token", "model": model.name, "prompts": len(scores)}
        total = _full_context(scores[all_parts].mean, scores[no_parts].mean, common)
        if one_by_one:
            attributions.append((total, *_by_ablation(visible.context, scores, subsets, common)))
        else:
            attributions.append((total, *_by_surrogate(visible.context, scores, subsets, penalty, common)))
    done = sum(own is not None for own in scored)
    return Attributions(attributions, f"{limit}; {done} of {len(masks)} prompts were scored" if limit else "")


class ClaimScore(NamedTuple):
    """Likelihood of a claim after a prompt, in nats per token.

    Attributes:
        mean: Mean log-probability of its tokens.
        logit: Log-odds of the complete claim, divided by the number of its tokens.
    """

    mean: float
    logit: float


async def score_claims(
    model: LanguageModel, claims: Sequence[str], prompts: Sequence[Prompt]
) -> tuple[list[tuple[ClaimScore, ...] | None], str]:
    """Score every claim as the beginning of the answer to every prompt, with one call for each prompt.

    The first prompt is scored by itself, so that the others can reuse its KV cache. The first call that exceeds the
    budget of a metered model ends the scoring.

    Returns:
        For each prompt the scores of all claims, or None after the budget ran out; and the limit that was reached.
    """
    scores: list[tuple[ClaimScore, ...] | None] = [None] * len(prompts)
    limits: list[str] = []
    semaphore = asyncio.Semaphore(MAX_CONCURRENT)

    async def one(i: int) -> None:
        async with semaphore:
            if limits:
                return
            try:
                prompt = without_thought(prompts[i], model.capabilities.profile)
                scores[i] = tuple(_score(s) for s in await model.score(prompt, claims))
            except BudgetExceeded as limit:
                limits.append(limit.message)

    await one(0)
    await gather(one(i) for i in range(1, len(prompts)))
    return scores, limits[0] if limits else ""


def _score(scored: ScoredContinuation) -> ClaimScore:
    logprobs = [max(logprob, MIN_LOGPROB) for logprob in scored.logprobs]
    tokens = max(1, len(logprobs))
    total = math.fsum(logprobs)
    return ClaimScore(total / tokens, logit_of(total) / tokens)


def logit_of(logprob: float) -> float:
    """Log-odds for a log-probability, both in nats."""
    cut = min(logprob, _MAX_LOGPROB)
    return cut - math.log(-math.expm1(cut))


def context_source(gap: float) -> ContextSource:
    """Whether the context made a claim more likely, less likely, or neither, by f(all) - f(none)."""
    if gap >= DELTA:
        return "context_driven"
    return "context_contradicted" if gap <= -DELTA else "parametric"


def _leave_one_out(parts: int) -> list[Mask]:
    """The subsets with one part missing, in the order of the missing part."""
    return [tuple(i != j for i in range(parts)) for j in range(parts)]


def random_subsets(parts: int, count: int, seed: int) -> list[Mask]:
    """Random subsets of parts, which may repeat, with each part in a subset with probability 1/2."""
    draws = np.random.default_rng(seed).random((count, parts)) < 0.5
    return [tuple(bool(kept) for kept in row) for row in draws]


def _full_context(with_context: float, without_context: float, common: Mapping[str, JsonValue]) -> InternalAttribution:
    gap = with_context - without_context
    return InternalAttribution(
        component=FULL_CONTEXT,
        kind="context",
        weight=gap,
        detail={
            "method": "log-probability with all parts minus that with none",
            "source": context_source(gap),
            "delta": DELTA,
            "with": with_context,
            "without": without_context,
            **common,
        },
    )


def _by_ablation(
    context: Sequence[Segment],
    scores: Mapping[Mask, ClaimScore],
    subsets: Sequence[Mask],
    common: Mapping[str, JsonValue],
) -> list[InternalAttribution]:
    all_parts = scores[(True,) * len(context)].mean
    weights = {
        s.name: all_parts - scores[mask].mean for s, mask in zip(context, subsets, strict=True) if mask in scores
    }
    return _sorted_by_weight(weights, {"method": "log-probability drop without the part", **common})


def _by_surrogate(
    context: Sequence[Segment],
    scores: Mapping[Mask, ClaimScore],
    subsets: Sequence[Mask],
    penalty: float,
    common: Mapping[str, JsonValue],
) -> list[InternalAttribution]:
    reached = [mask for mask in subsets if mask in scores]
    if len(reached) < MIN_SUBSETS:
        return []
    fitted = sparse_weights(reached, [scores[mask].logit for mask in reached], penalty=penalty)
    detail: dict[str, JsonValue] = {
        "method": "sparse linear model of the log-odds over random subsets",
        "subsets": len(reached),
        "penalty": penalty,
        "r2": fitted.r2,
        **common,
    }
    return _sorted_by_weight(dict(zip((s.name for s in context), fitted.weights, strict=True)), detail)


def _sorted_by_weight(weights: Mapping[str, float], detail: dict[str, JsonValue]) -> list[InternalAttribution]:
    order = sorted(weights, key=lambda name: -weights[name])
    return [
        InternalAttribution(component=name, kind="context", weight=weights[name], detail={**detail, "rank": rank})
        for rank, name in enumerate(order, 1)
    ]


class Surrogate(NamedTuple):
    """A fitted linear model.

    Attributes:
        weights: Contribution of each part, in the unit of the values; 0 for a part that is in all subsets or in none.
        intercept: The value without any part.
        r2: Share of the values' variance that the model explains, at most 1; 1 if they are equal.
    """

    weights: tuple[float, ...]
    intercept: float
    r2: float


def sparse_weights(masks: Sequence[Mask], values: Sequence[float], *, penalty: float = PENALTY) -> Surrogate:
    """Fit `value = intercept + sum of the weights of the present parts` with few nonzero weights.

    Minimizes `|values - prediction|^2 / (2 n) + penalty * sum of |weight * deviation|` by deterministic coordinate
    descent. The deviation is the standard deviation of the part's presence (about 1/2).
    """
    present = np.asarray(masks, dtype=np.float64)
    target = np.asarray(values, dtype=np.float64)
    mean, spread = present.mean(0), present.std(0)
    varies = spread > 0
    columns = (present[:, varies] - mean[varies]) / spread[varies]
    centred = target - target.mean()
    fitted = _descend(columns, centred, penalty)
    weights = np.zeros(present.shape[1])
    weights[varies] = fitted / spread[varies]
    residuals, total = centred - columns @ fitted, float(centred @ centred)
    return Surrogate(
        weights=tuple(float(w) for w in weights),
        intercept=float(target.mean() - mean @ weights),
        r2=1.0 - float(residuals @ residuals) / total if total > _EXACT else 1.0,
    )


def _descend(columns: NDArray[np.float64], target: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    """Coordinate descent on columns of mean 0 and variance 1.

    Source: Friedman, Hastie, Tibshirani 2010, "Regularization Paths for Generalized Linear Models via Coordinate
    Descent", section 2.1, equation 5.
    """
    rows, parts = columns.shape
    products = columns.T @ columns / rows
    answers = columns.T @ target / rows
    weights = np.zeros(parts)
    residual_products = answers.copy()
    scale = max(1.0, float(np.abs(answers).max(initial=0.0)))
    for sweep in range(1, 1 + _MAX_UPDATES // max(1, parts)):
        max_change = 0.0
        for j in range(parts):
            previous = float(weights[j])
            partial = float(residual_products[j]) + previous  # the column's own product is 1
            updated = math.copysign(max(abs(partial) - penalty, 0.0), partial)
            if updated != previous:
                weights[j] = updated
                residual_products -= products[j] * (updated - previous)
                max_change = max(max_change, abs(updated - previous))
        if max_change <= _EXACT * scale:
            break
        if sweep % _SWEEPS_PER_SOLVE == 0:
            solved = _solve_active(products, answers, weights, penalty)
            if solved is not None:
                return solved
    return weights


def _solve_active(
    products: NDArray[np.float64], answers: NDArray[np.float64], weights: NDArray[np.float64], penalty: float
) -> NDArray[np.float64] | None:
    """The minimum, if it is found from `weights` by solving for the nonzero weights and dropping those that reach zero.

    Coordinate descent converges slowly where columns nearly coincide. None if other weights would have to join.
    """
    current = weights.copy()
    for _ in range(len(weights)):
        active = np.flatnonzero(current)
        signs = np.sign(current[active])
        system = products[np.ix_(active, active)]
        residual = answers[active] - penalty * signs - system @ current[active]
        step = np.linalg.lstsq(system, residual, rcond=1e-12)[0]
        # Where columns depend on each other, the objective falls linearly in this direction until a weight is zero.
        unbounded = residual - system @ step
        is_unbounded = bool(np.any(np.abs(unbounded) > 1e-10))
        if is_unbounded:
            step = unbounded
        shrinking = np.flatnonzero(current[active] * step < 0)
        lengths = -current[active][shrinking] / step[shrinking]
        if not is_unbounded and np.all(lengths > 1):
            current[active] += step
            pull = answers - products @ current
            is_minimum = np.all(np.abs(pull[active] - penalty * signs) <= 1e-10) and np.all(
                np.abs(pull) <= penalty + 1e-10
            )
            return current if is_minimum else None
        if not len(lengths):
            return None
        current[active] += lengths.min() * step
        current[active[shrinking[lengths.argmin()]]] = 0.0
    return None
