"""`by_context`: how much a claim rests on each part of the context, seen by leaving parts out (grade I2).

With f(V) the mean log-probability of the claim's tokens where the parts V are shown: up to 12 parts are left out one by
one, and the weight of part j is f(all) - f(all but j). Of more parts, random subsets are shown, and a sparse linear
model of them has the weights (`surrogate`). Either way f(all) - f(none) says whether the context made the claim
likelier at all. It says where a claim comes from, never whether it is right: a context may be wrong.

Source: Cohen-Wang, Shah, Georgiev, Madry 2024, "ContextCite: Attributing Model Generation to Context",
arXiv:2409.00729, section 3, for the random subsets; leaving one out is its counterpart for few parts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple

from pydantic import JsonValue

from ...serving.model import LanguageModel
from ..claims import Claim
from ..reports import InternalAttribution
from .context_prompt import Shown
from .scoring import ClaimScore, claims_scored
from .segments import Segment
from .surrogate import PENALTY, Mask, random_subsets, sparse_weights

DELTA = 0.5
"""Nats per token by which the context must change a claim's log-probability to be called its source."""
ABLATIONS = 32
"""Random subsets of a context of many parts."""
MOST_LEFT_OUT = 12
"""Most parts that are left out one by one."""
FEWEST_SUBSETS = 8
"""Fewest subsets that weights are fitted to, where the budget ends the work early."""
WHOLE = "the whole context"
"""Name of all parts together; its weight is f(all) - f(none)."""

ContextSource = Literal["context_driven", "context_contradicted", "parametric"]
Scores = Mapping[Mask, ClaimScore]


class ContextFindings(NamedTuple):
    """What leaving parts out has shown.

    Attributes:
        found: For each claim the whole context, then its parts, the weightiest first.
        stopped: Why it is less than was planned; empty if all was done.
    """

    found: list[tuple[InternalAttribution, ...]]
    stopped: str


async def by_context(
    claims: Sequence[Claim],
    segments: Sequence[Segment],
    model: LanguageModel,
    *,
    delta: float = DELTA,
    ablations: int = ABLATIONS,
    seed: int = 0,
    penalty: float = PENALTY,
) -> ContextFindings:
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
    shown = Shown.of(segments)
    parts = len(shown.context)
    if not claims or not parts:
        return ContextFindings([() for _ in claims], "")
    everything, nothing = (True,) * parts, (False,) * parts
    one_by_one = parts <= MOST_LEFT_OUT
    drawn = each_left_out(parts) if one_by_one else random_subsets(parts, ablations, seed)
    masks = list(dict.fromkeys([everything, nothing, *drawn]))
    scored = await claims_scored(model, [c.text for c in claims], [shown.prompt(mask) for mask in masks])
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
    return ContextFindings(found, stopped)


def source_of(gap: float, delta: float = DELTA) -> ContextSource:
    """Whether the context made a claim likelier, less likely, or neither.

    Args:
        gap: f(all) - f(none), in nats per token.
        delta: How much counts; that much does.
    """
    if gap >= delta:
        return "context_driven"
    return "context_contradicted" if gap <= -delta else "parametric"


def each_left_out(parts: int) -> list[Mask]:
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
        ReasonError: As `by_context`.
    """
    shown = Shown.of(segments)
    if unknown := set(removed) - {s.name for s in shown.context}:
        raise ValueError(f"{sorted(unknown)} are no parts of the context")
    prompts = [shown.prompt(), shown.prompt([s.name not in removed for s in shown.context])]
    whole, less = (await claims_scored(model, [claim], prompts)).scores
    return None if whole is None or less is None else whole[0].mean - less[0].mean


def _whole(shown: float, hidden: float, delta: float, told: Mapping[str, JsonValue]) -> InternalAttribution:
    gap = shown - hidden
    return InternalAttribution(
        component=WHOLE,
        kind="context",
        weight=gap,
        detail={
            "method": "log-probability with all parts less that with none",
            "source": source_of(gap, delta),
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
    if len(reached) < FEWEST_SUBSETS:
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
