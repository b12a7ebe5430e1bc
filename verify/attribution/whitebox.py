"""`by_relevance`: which parts of the prompt a claim rests on, seen from inside the model (grade I3 of attribution).

The weight is relevance by AttnLRP (Achtibat et al. 2024, arXiv:2402.05602); `detail` shows gradient times input and
attention beside it. Attention is where the model looked, and is told as no cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import JsonValue

from ...core.errors import LimitExceeded
from ...serving.relevance import ExplainsTokens, Relevance
from ..claims import Claim
from ..reports import InternalAttribution
from .context_prompt import Shown
from .segments import Segment


class RelevanceFindings(NamedTuple):
    """What the model's inside has shown.

    Attributes:
        found: For each claim the parts that were shown, the weightiest first; empty where the budget did not reach.
        stopped: Why it is less than was planned; empty if all was done.
    """

    found: list[tuple[InternalAttribution, ...]]
    stopped: str


async def by_relevance(
    claims: Sequence[Claim], segments: Sequence[Segment], model: ExplainsTokens
) -> RelevanceFindings:
    """Weigh the parts of the context, and the question, for each claim.

    The prompt is that of context ablation with all its parts, so that the two grades speak of the same. One call a
    claim, each fitted into the budget by a metered model; the first that does not fit ends the work.

    Args:
        claims: The claims; their texts are explained as a reply.
        segments: The parts of the run.
        model: Must be able to explain; the one that wrote the claims, or it tells of another.

    Raises:
        ReasonError: The model failed or cannot explain, or the prompt does not fit it.
    """
    shown = Shown.of(segments)
    asked = [s for s in segments if s.kind == "question"]
    parts = [*shown.context, *asked]
    prompt = shown.prompt()
    found: list[tuple[InternalAttribution, ...]] = []
    stopped = ""
    for claim in claims if parts else ():
        try:
            relevance = await model.relevance(prompt, [s.text for s in parts], claim.text)
        except LimitExceeded as limit:
            stopped = f"{limit.message}; {len(found)} of {len(claims)} claims were explained"
            break
        found.append(_attributions(parts, relevance))
    return RelevanceFindings([*found, *[()] * (len(claims) - len(found))], stopped)


def _attributions(parts: Sequence[Segment], relevance: Relevance) -> tuple[InternalAttribution, ...]:
    told: dict[str, JsonValue] = {
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
                **told,
                "rank": rank,
                "gradient times input": relevance.gradient[i],
                "attention": relevance.attention[i],
                "tokens": relevance.tokens[i],
            },
        )
        for rank, i in enumerate(order, 1)
    )
