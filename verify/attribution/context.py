"""Attribution of claims to parts of the context, by scoring them without these parts.

Let f(V) be the mean log-probability of the claim's tokens after a prompt with the parts V. Up to 12 parts are left out
one by one, and the weight of part j is f(all) - f(all but j). With more parts, random subsets are scored and a sparse
linear model is fitted to them (`sparse_weights`). f(all) - f(none) is the effect of the complete context on the claim.

Source: Cohen-Wang, Shah, Georgiev, Madry 2024, "ContextCite: Attributing Model Generation to Context",
arXiv:2409.00729, section 3: the logit of the response's probability is fitted by LASSO to the presence of the parts,
over random subsets with each part present with probability 1/2.
Differs: the logit is divided by the claim's number of tokens, so that one penalty suits claims of any length and
weights are in nats per token, as for parts that are left out one by one.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from ...core.concurrency import gather
from ...core.errors import BudgetExceeded
from ...core.messages import Prompt, ScoredContinuation
from ...core.types import Document, Question
from ...reasoning.prompts import question_prompt
from ...serving.model import LanguageModel
from ...serving.quick_calls import without_thought
from ..types import Claim, InternalAttribution
from .segments import Segment, context_segments

BARE = "Say what is known."
"""The question of a claim without a question."""


class ContextPrompt(NamedTuple):
    """The prompt of a run, in parts.

    Attributes:
        system: The system prompt; empty if there was none.
        question: The question, choices included.
        context: The parts of the context, in order (see `context_segments`).
    """

    system: str
    question: str
    context: tuple[Segment, ...]

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> ContextPrompt:
        """The prompt of a run; its steps and samples are not part of it."""
        system = "\n\n".join(s.text for s in segments if s.kind == "system")
        question = "\n\n".join(s.text for s in segments if s.kind == "question")
        return cls(system, question or BARE, tuple(context_segments(segments)))

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
        return question_prompt(Question(text=self.question, documents=documents), system=self.system)


PENALTY = 0.01
"""Weight of the L1 penalty, in nats per token. Fixed: cross-validation over 32 subsets is too noisy to choose
one."""

_MAX_UPDATES = 2_000_000
"""Maximum updates of the descent, which converges far earlier."""
_EXACT = 1e-12
_SWEEPS_PER_SOLVE = 200
"""Sweeps after which the minimum for the current signs is solved for directly."""
_MIN_LOGPROB = -1e-9
"""Upper limit of log-probabilities, since the logit of probability 1 is infinite."""

Mask = tuple[bool, ...]


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


def random_subsets(parts: int, count: int, seed: int) -> list[Mask]:
    """Random subsets of parts, with each part in a subset with probability 1/2.

    Args:
        parts: Number of parts.
        count: Number of subsets, which may repeat.
        seed: Seed of the generator.

    Returns:
        `count` masks of `parts` values: whether the part is kept.
    """
    draws = np.random.default_rng(seed).random((count, parts)) < 0.5
    return [tuple(bool(kept) for kept in row) for row in draws]


def logit_of(logprob: float) -> float:
    """Log-odds for a log-probability, both in nats."""
    cut = min(logprob, _MIN_LOGPROB)
    return cut - math.log(-math.expm1(cut))


def sparse_weights(masks: Sequence[Mask], values: Sequence[float], *, penalty: float = PENALTY) -> Surrogate:
    """Fit `value = intercept + sum of the weights of the present parts` with few nonzero weights.

    Minimizes `|values - prediction|^2 / (2 n) + penalty * sum of |weight * deviation|` by deterministic coordinate
    descent. The deviation is the standard deviation of the part's presence (about 1/2).

    Args:
        masks: `n` subsets as the presence of each part, of equal length; at least one.
        values: The `n` values.
        penalty: Weight of the penalty, at least 0; 0 is least squares.

    Raises:
        ValueError: There are no subsets, or another number of values.
    """
    if not masks or len(masks) != len(values):
        raise ValueError(f"{len(values)} values cannot be fitted to {len(masks)} subsets")
    present = np.asarray(masks, dtype=np.float64)
    target = np.asarray(values, dtype=np.float64)
    mean, spread = present.mean(0), present.std(0)
    varies = spread > 0
    columns = (present[:, varies] - mean[varies]) / spread[varies]
    centred = target - target.mean()
    fitted = _descend(columns, centred, penalty)
    weights = np.zeros(present.shape[1])
    weights[varies] = fitted / spread[varies]
    total = float(centred @ centred)
    residuals = centred - columns @ fitted
    r2 = 1.0 if total <= _EXACT else 1.0 - float(residuals @ residuals) / total
    return Surrogate(
        weights=tuple(float(w) for w in weights),
        intercept=float(target.mean() - mean @ weights),
        r2=r2,
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


MAX_CONCURRENT = 8
"""Maximum prompts that are scored at once."""
MIN_LOGPROB = -100.0
"""Lower limit of a token's log-probability, since differences of infinities are undefined."""


class ClaimScore(NamedTuple):
    """Likelihood of a claim after a prompt, in nats per token.

    Attributes:
        mean: Mean log-probability of its tokens.
        logit: Log-odds of the complete claim, divided by the number of its tokens.
        tokens: Their number.
    """

    mean: float
    logit: float
    tokens: int


class ScoredPrompts(NamedTuple):
    """Scores of claims after several prompts.

    Attributes:
        scores: For each prompt the scores of all claims; None after the budget ran out.
        stopped: Description of the limit that was reached; empty if none was.
    """

    scores: list[tuple[ClaimScore, ...] | None]
    stopped: str


async def score_claims(model: LanguageModel, claims: Sequence[str], prompts: Sequence[Prompt]) -> ScoredPrompts:
    """Score every claim as the beginning of the answer to every prompt, with one call for each prompt.

    The first prompt is scored by itself, so that the others can reuse its KV cache. The first call that exceeds the
    budget of a metered model ends the scoring, and the scores until then are returned.

    Args:
        model: A model that can score.
        claims: The continuations.
        prompts: The prompts.

    Raises:
        ReasonError: The model failed, cannot score, or a prompt is too long for it.
    """
    scores: list[tuple[ClaimScore, ...] | None] = [None] * len(prompts)
    stopped: list[str] = []
    semaphore = asyncio.Semaphore(MAX_CONCURRENT)

    async def one(i: int) -> None:
        async with semaphore:
            if stopped:
                return
            try:
                prompt = without_thought(prompts[i], model.capabilities.profile)
                scores[i] = tuple(_score(s) for s in await model.score(prompt, claims))
            except BudgetExceeded as limit:
                stopped.append(limit.message)

    if claims and prompts:
        await one(0)
        await gather(one(i) for i in range(1, len(prompts)))
    return ScoredPrompts(scores, stopped[0] if stopped else "")


def _score(scored: ScoredContinuation) -> ClaimScore:
    logprobs = [max(logprob, MIN_LOGPROB) for logprob in scored.logprobs]
    tokens = max(1, len(logprobs))
    total = math.fsum(logprobs)
    return ClaimScore(total / tokens, logit_of(total) / tokens, tokens)


DELTA = 0.5
"""Nats per token by which the context must change a claim's log-probability to count as its source."""
ABLATIONS = 32
"""Number of random subsets of a context with many parts."""
MAX_ABLATED = 12
"""Maximum number of parts that are left out one by one."""
MIN_SUBSETS = 8
"""Minimum number of subsets to fit weights to."""
FULL_CONTEXT = "the whole context"
"""Name of all parts together; its weight is f(all) - f(none)."""

ContextSource = Literal["context_driven", "context_contradicted", "parametric"]
Scores = Mapping[Mask, ClaimScore]


class ContextAttributions(NamedTuple):
    """Attributions by context ablation.

    Attributes:
        attributions: For each claim the complete context, then its parts by descending weight.
        stopped: Why some are missing; empty if none is.
    """

    attributions: list[tuple[InternalAttribution, ...]]
    stopped: str


async def attribute_by_context(
    claims: Sequence[Claim],
    segments: Sequence[Segment],
    model: LanguageModel,
    *,
    delta: float = DELTA,
    ablations: int = ABLATIONS,
    seed: int = 0,
    penalty: float = PENALTY,
) -> ContextAttributions:
    """Weigh the context's parts for each claim.

    Each prompt is one call of `model.score` with all claims: m + 2 prompts for m parts up to 12, else `ablations` + 2.
    If the budget runs out, only the parts scored so far have weights; the linear model needs at least 8 subsets.

    Args:
        claims: The claims; their texts are scored as a response.
        segments: The parts of the run; documents, results of tools and citations are left out.
        model: The model that wrote the claims, which must be able to score.
        delta: Minimum nats per token for the context to count as the source.
        ablations: Random subsets of more than 12 parts.
        seed: Seed of the subsets.
        penalty: Penalty of the sparse model (see `sparse_weights`).

    Raises:
        ReasonError: The model failed, cannot score, or the context is too long for it.
    """
    visible = ContextPrompt.of(segments)
    parts = len(visible.context)
    if not claims or not parts:
        return ContextAttributions([() for _ in claims], "")
    all_parts, no_parts = (True,) * parts, (False,) * parts
    one_by_one = parts <= MAX_ABLATED
    subsets = leave_one_out(parts) if one_by_one else random_subsets(parts, ablations, seed)
    masks = list(dict.fromkeys([all_parts, no_parts, *subsets]))
    scored = await score_claims(model, [c.text for c in claims], [visible.prompt(mask) for mask in masks])
    attributions: list[tuple[InternalAttribution, ...]] = []
    for i in range(len(claims)):
        scores = {
            mask: claim_scores[i]
            for mask, claim_scores in zip(masks, scored.scores, strict=True)
            if claim_scores is not None
        }
        if all_parts not in scores or no_parts not in scores:
            attributions.append(())
            continue
        common: dict[str, JsonValue] = {"unit": "nats per token", "model": model.name, "prompts": len(scores)}
        total = _full_context(scores[all_parts].mean, scores[no_parts].mean, delta, common)
        if one_by_one:
            attributions.append((total, *_leave_one_out_attributions(visible.context, scores, subsets, common)))
        else:
            attributions.append((total, *_surrogate_attributions(visible.context, scores, subsets, penalty, common)))
    done = sum(claim_scores is not None for claim_scores in scored.scores)
    stopped = f"{scored.stopped}; {done} of {len(masks)} prompts were scored" if scored.stopped else ""
    return ContextAttributions(attributions, stopped)


def context_source(gap: float, delta: float = DELTA) -> ContextSource:
    """Whether the context made a claim more likely, less likely, or neither.

    Args:
        gap: f(all) - f(none), in nats per token.
        delta: Minimum absolute gap that counts.
    """
    if gap >= delta:
        return "context_driven"
    return "context_contradicted" if gap <= -delta else "parametric"


def leave_one_out(parts: int) -> list[Mask]:
    """The subsets with one part missing, in the order of the missing part."""
    return [tuple(i != j for i in range(parts)) for j in range(parts)]


def _full_context(
    with_context: float, without_context: float, delta: float, common: Mapping[str, JsonValue]
) -> InternalAttribution:
    gap = with_context - without_context
    return InternalAttribution(
        component=FULL_CONTEXT,
        kind="context",
        weight=gap,
        detail={
            "method": "log-probability with all parts minus that with none",
            "source": context_source(gap, delta),
            "delta": delta,
            "with": with_context,
            "without": without_context,
            **common,
        },
    )


def _leave_one_out_attributions(
    context: Sequence[Segment], scores: Scores, subsets: Sequence[Mask], common: Mapping[str, JsonValue]
) -> list[InternalAttribution]:
    all_parts = scores[(True,) * len(context)].mean
    detail: dict[str, JsonValue] = {"method": "log-probability drop without the part", **common}
    weights = {
        s.name: all_parts - scores[mask].mean for s, mask in zip(context, subsets, strict=True) if mask in scores
    }
    return _sorted_by_weight(weights, detail)


def _surrogate_attributions(
    context: Sequence[Segment],
    scores: Scores,
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
