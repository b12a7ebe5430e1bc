"""`attribute_by_context`: how much a claim rests on each part of the context, seen by leaving parts out (grade I2).

With f(V) the mean log-probability of the claim's tokens where the parts V are shown: up to 12 parts are left out one by
one, and the weight of part j is f(all) - f(all but j). Of more parts, random subsets are shown, and a sparse linear
model of them has the weights (`surrogate`). Either way f(all) - f(none) says whether the context made the claim
likelier at all. It says where a claim comes from, never whether it is right: a context may be wrong.

Source: Cohen-Wang, Shah, Georgiev, Madry 2024, "ContextCite: Attributing Model Generation to Context",
arXiv:2409.00729, section 3, for the random subsets; leaving one out is its counterpart for few parts.

`ContextPrompt`: how a part of a run's context is put before a model again, so that a claim can be scored behind it.

`sparse_weights`: a sparse linear model of what a text's parts add, fitted to what is left when some are taken away.

Source: Cohen-Wang, Shah, Georgiev, Madry 2024, "ContextCite: Attributing Model Generation to Context",
arXiv:2409.00729, section 3: the logit of the response's probability is fitted by LASSO on which parts are there, over
random subsets of them in which each stands with probability 1/2.
Differs: the logit is divided by the number of the claim's tokens before it is fitted, so that one penalty goes for
claims of any length, and weights are in nats per token, as those of leaving one out are.

`score_claims`: log-probabilities of claims behind several prompts, as far as the run's budget goes.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Mapping, Sequence
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
from ..types import Claim, InternalAttribution
from .segments import Segment, context_segments

BARE = "Say what is known."
"""What is asked where a claim came without a question."""


class ContextPrompt(NamedTuple):
    """What a run put before its model.

    Attributes:
        system: The system prompt; empty if there was none.
        question: The question, choices included.
        context: The parts of the context, in order (see `segments.given`).
    """

    system: str
    question: str
    context: tuple[Segment, ...]

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> ContextPrompt:
        """What the parts of a run say that was shown; steps and samples came later, and are no part of it."""
        system = "\n\n".join(s.text for s in segments if s.kind == "system")
        question = "\n\n".join(s.text for s in segments if s.kind == "question")
        return cls(system, question or BARE, tuple(context_segments(segments)))

    def prompt(self, kept: Sequence[bool] | None = None) -> Prompt:
        """The prompt with some parts of the context, as strategies put a question with documents (`prompts.ask`).

        The context comes first and keeps its order: prompts that begin with the same parts share their keys and values.

        Args:
            kept: Whether each part is shown; None shows all.
        """
        shown = [s for i, s in enumerate(self.context) if kept is None or kept[i]]
        documents = tuple(
            Document(name=source, text="\n".join(s.text for s in of_one))
            for source, of_one in groupby(shown, lambda s: s.source or s.name)
        )
        return question_prompt(Question(text=self.question, documents=documents), system=self.system)


PENALTY = 0.01
"""Weight of the L1 penalty, in nats per token. Fixed: a penalty chosen by cross-validation over 32 subsets would
itself be a throw of the dice."""

_MOST_STEPS = 2_000_000
"""Most steps of the descent, one part each; it ends by itself long before that."""
_EXACT = 1e-12
_LEAST_LOGPROB = -1e-9
"""Nearest to 0 that a log-probability is taken: the logit of a probability of 1 is infinite."""

Mask = tuple[bool, ...]


class Surrogate(NamedTuple):
    """A fitted linear model.

    Attributes:
        weights: What each part adds, in the unit of the values; 0 for a part that was always there or never.
        constant: The value without any part.
        explained: Share of the values' variance that the model explains, at most 1; 1 where they do not vary.
    """

    weights: tuple[float, ...]
    constant: float
    explained: float


def random_subsets(parts: int, count: int, seed: int) -> list[Mask]:
    """Random subsets of parts, each part in one with probability 1/2.

    Args:
        parts: Number of parts.
        count: Number of subsets; equal ones may be among them.
        seed: Seed of their generator.

    Returns:
        `count` masks of `parts` values: whether the part is kept.
    """
    draws = np.random.default_rng(seed).random((count, parts)) < 0.5
    return [tuple(bool(kept) for kept in row) for row in draws]


def logit_of(logprob: float) -> float:
    """The log-odds of an event, of its log-probability (both in nats)."""
    cut = min(logprob, _LEAST_LOGPROB)
    return cut - math.log(-math.expm1(cut))


def sparse_weights(masks: Sequence[Mask], values: Sequence[float], *, penalty: float = PENALTY) -> Surrogate:
    """Fit `value = constant + sum of the weights of the parts that are there` with few weights that are not 0.

    Minimises `|values - prediction|^2 / (2 n) + penalty * sum of |weight * spread of its part|` by coordinate descent,
    part by part in their order until nothing moves: a convex problem, solved the same way every time. The spread is the
    standard deviation of whether the part is there (about 1/2).

    Args:
        masks: `n` subsets, each telling which parts are there; all of one length, at least one subset.
        values: The `n` values.
        penalty: Weight of the penalty, at least 0; 0 is least squares.

    Raises:
        ValueError: There are no subsets, or not as many values.
    """
    if not masks or len(masks) != len(values):
        raise ValueError(f"{len(values)} values cannot be fitted to {len(masks)} subsets")
    there = np.asarray(masks, dtype=np.float64)
    target = np.asarray(values, dtype=np.float64)
    mean, spread = there.mean(0), there.std(0)
    varies = spread > 0
    columns = (there[:, varies] - mean[varies]) / spread[varies]
    centred = target - target.mean()
    found = _descend(columns, centred, penalty)
    weights = np.zeros(there.shape[1])
    weights[varies] = found / spread[varies]
    total = float(centred @ centred)
    left = centred - columns @ found
    explained = 1.0 if total <= _EXACT else 1.0 - float(left @ left) / total
    return Surrogate(
        weights=tuple(float(w) for w in weights),
        constant=float(target.mean() - mean @ weights),
        explained=explained,
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
    left = answers.copy()  # what the other columns' weights leave of each answer
    scale = max(1.0, float(np.abs(answers).max(initial=0.0)))
    for _ in range(_MOST_STEPS // max(1, parts)):
        moved = 0.0
        for j in range(parts):
            old = float(weights[j])
            alone = float(left[j]) + old  # the column's own product is 1
            new = math.copysign(max(abs(alone) - penalty, 0.0), alone)
            if new != old:
                weights[j] = new
                left -= products[j] * (new - old)
                moved = max(moved, abs(new - old))
        if moved <= _EXACT * scale:
            break
    return weights


ABREAST = 8
"""Most prompts that are asked for at once."""
LEAST_LOGPROB = -100.0
"""What a token's log-probability is taken for where it is smaller: differences of infinities say nothing."""


class ClaimScore(NamedTuple):
    """How likely a claim is behind a prompt, in nats per token.

    Attributes:
        mean: Mean log-probability of its tokens.
        logit: Log-odds of the claim as a whole, divided by the number of its tokens.
        tokens: Their number.
    """

    mean: float
    logit: float
    tokens: int


class ScoredPrompts(NamedTuple):
    """Claims behind prompts.

    Attributes:
        scores: For each prompt the scores of all claims; None for one that the budget did not reach.
        stopped: The limit that was met, in words; empty if none was.
    """

    scores: list[tuple[ClaimScore, ...] | None]
    stopped: str


async def score_claims(model: LanguageModel, claims: Sequence[str], prompts: Sequence[Prompt]) -> ScoredPrompts:
    """Score every claim behind every prompt, one call a prompt.

    The first prompt is scored alone, so that the others find the keys and values of what they share with it; they
    follow some at a time, in order. A metered model fits each call into the budget before it is made: the first that
    does not fit ends the work, and what is there by then is returned.

    Args:
        model: Must be able to score.
        claims: The continuations.
        prompts: What they stand behind.

    Raises:
        ReasonError: The model failed, cannot score, or a prompt does not fit it.
    """
    scores: list[tuple[ClaimScore, ...] | None] = [None] * len(prompts)
    stopped: list[str] = []
    abreast = asyncio.Semaphore(ABREAST)

    async def one(i: int) -> None:
        async with abreast:
            if stopped:
                return
            try:
                scores[i] = tuple(_score(s) for s in await model.score(prompts[i], claims))
            except BudgetExceeded as limit:
                stopped.append(limit.message)

    if claims and prompts:
        await one(0)
        await gather(one(i) for i in range(1, len(prompts)))
    return ScoredPrompts(scores, stopped[0] if stopped else "")


def _score(scored: ScoredContinuation) -> ClaimScore:
    logprobs = [max(logprob, LEAST_LOGPROB) for logprob in scored.logprobs]
    tokens = max(1, len(logprobs))
    total = math.fsum(logprobs)
    return ClaimScore(total / tokens, logit_of(total) / tokens, tokens)


DELTA = 0.5
"""Nats per token by which the context must change a claim's log-probability to be called its source."""
ABLATIONS = 32
"""Random subsets of a context of many parts."""
MAX_ABLATED = 12
"""Most parts that are left out one by one."""
MIN_SUBSETS = 8
"""Fewest subsets that weights are fitted to, where the budget ends the work early."""
FULL_CONTEXT = "the whole context"
"""Name of all parts together; its weight is f(all) - f(none)."""

ContextSource = Literal["context_driven", "context_contradicted", "parametric"]
Scores = Mapping[Mask, ClaimScore]


class ContextAttributions(NamedTuple):
    """What leaving parts out has shown.

    Attributes:
        found: For each claim the whole context, then its parts, the weightiest first.
        stopped: Why it is less than was planned; empty if all was done.
    """

    found: list[tuple[InternalAttribution, ...]]
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

    It takes one call of `model.score` a prompt, with all claims behind it: m + 2 prompts for m parts up to 12, else
    `ablations` + 2. The budget is asked before each. Where it ends, parts that were left out have weights and the
    others have none; a linear model is fitted if there are at least 8 subsets.

    Args:
        claims: The claims; their texts are scored as a reply.
        segments: The parts of the run; documents, results of tools and citations are what is left out.
        model: Must be able to score: the one that wrote the claims, or it tells of another.
        delta: Nats per token from which on the context counts as the source.
        ablations: Random subsets of more than 12 parts.
        seed: Seed of the subsets.
        penalty: Of the sparse model (see `sparse_weights`).

    Raises:
        ReasonError: The model failed, cannot score, or the context does not fit it.
    """
    shown = ContextPrompt.of(segments)
    parts = len(shown.context)
    if not claims or not parts:
        return ContextAttributions([() for _ in claims], "")
    everything, nothing = (True,) * parts, (False,) * parts
    one_by_one = parts <= MAX_ABLATED
    drawn = leave_one_out(parts) if one_by_one else random_subsets(parts, ablations, seed)
    masks = list(dict.fromkeys([everything, nothing, *drawn]))
    scored = await score_claims(model, [c.text for c in claims], [shown.prompt(mask) for mask in masks])
    found: list[tuple[InternalAttribution, ...]] = []
    for i in range(len(claims)):
        scores = {mask: of_all[i] for mask, of_all in zip(masks, scored.scores, strict=True) if of_all is not None}
        if everything not in scores or nothing not in scores:
            found.append(())
            continue
        told: dict[str, JsonValue] = {"unit": "nats per token", "model": model.name, "prompts": len(scores)}
        whole = _whole(scores[everything].mean, scores[nothing].mean, delta, told)
        if one_by_one:
            found.append((whole, *_one_by_one(shown.context, scores, drawn, told)))
        else:
            found.append((whole, *_surrogate(shown.context, scores, drawn, penalty, told)))
    done = sum(of_all is not None for of_all in scored.scores)
    stopped = f"{scored.stopped}; {done} of {len(masks)} prompts were scored" if scored.stopped else ""
    return ContextAttributions(found, stopped)


def context_source(gap: float, delta: float = DELTA) -> ContextSource:
    """Whether the context made a claim likelier, less likely, or neither.

    Args:
        gap: f(all) - f(none), in nats per token.
        delta: How much counts; that much does.
    """
    if gap >= delta:
        return "context_driven"
    return "context_contradicted" if gap <= -delta else "parametric"


def leave_one_out(parts: int) -> list[Mask]:
    """The subsets in which one part is missing, the first part first."""
    return [tuple(i != j for i in range(parts)) for j in range(parts)]


async def log_prob_drop(
    claim: str, segments: Sequence[Segment], model: LanguageModel, removed: Collection[str]
) -> float | None:
    """How much less likely a claim becomes where parts of the context are removed, in nats per token.

    It measures an attribution: what was called the source should be missed most.

    Source: ContextCite (see above), its top-k log-probability drop; here per token.

    Args:
        claim: The claim.
        segments: The parts of the run.
        model: Must be able to score.
        removed: Names of the parts to remove.

    Returns:
        f(all) - f(all but these); None if the budget does not cover the two prompts.

    Raises:
        ValueError: The context has no part of such a name.
        ReasonError: As `attribute_by_context`.
    """
    shown = ContextPrompt.of(segments)
    if unknown := set(removed) - {s.name for s in shown.context}:
        raise ValueError(f"{sorted(unknown)} are no parts of the context")
    prompts = [shown.prompt(), shown.prompt([s.name not in removed for s in shown.context])]
    whole, less = (await score_claims(model, [claim], prompts)).scores
    return None if whole is None or less is None else whole[0].mean - less[0].mean


def _whole(shown: float, hidden: float, delta: float, told: Mapping[str, JsonValue]) -> InternalAttribution:
    gap = shown - hidden
    return InternalAttribution(
        component=FULL_CONTEXT,
        kind="context",
        weight=gap,
        detail={
            "method": "log-probability with all parts less that with none",
            "source": context_source(gap, delta),
            "delta": delta,
            "with": shown,
            "without": hidden,
            **told,
        },
    )


def _one_by_one(
    context: Sequence[Segment], scores: Scores, drawn: Sequence[Mask], told: Mapping[str, JsonValue]
) -> list[InternalAttribution]:
    everything = scores[(True,) * len(context)].mean
    detail: dict[str, JsonValue] = {"method": "leaving the part out", **told}
    weights = {s.name: everything - scores[mask].mean for s, mask in zip(context, drawn, strict=True) if mask in scores}
    return _heaviest_first(weights, detail)


def _surrogate(
    context: Sequence[Segment],
    scores: Scores,
    drawn: Sequence[Mask],
    penalty: float,
    told: Mapping[str, JsonValue],
) -> list[InternalAttribution]:
    reached = [mask for mask in drawn if mask in scores]
    if len(reached) < MIN_SUBSETS:
        return []
    fitted = sparse_weights(reached, [scores[mask].logit for mask in reached], penalty=penalty)
    detail: dict[str, JsonValue] = {
        "method": "sparse linear model of the log-odds over random subsets",
        "subsets": len(reached),
        "penalty": penalty,
        "explained": fitted.explained,
        **told,
    }
    return _heaviest_first(dict(zip((s.name for s in context), fitted.weights, strict=True)), detail)


def _heaviest_first(weights: Mapping[str, float], detail: dict[str, JsonValue]) -> list[InternalAttribution]:
    order = sorted(weights, key=lambda name: -weights[name])
    return [
        InternalAttribution(component=name, kind="context", weight=weights[name], detail={**detail, "rank": rank})
        for rank, name in enumerate(order, 1)
    ]
