"""`by_agreement`: which of a run's samples say a claim too, and which say the opposite.

Source: our own rule (grade I1 of attribution), near to SelfCheckGPT (Manakul, Liusie, Gales 2023, arXiv:2303.08896,
section 5.4), which averages the probability of contradiction over samples; here each sample has one vote.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue

from ..claims import Claim
from ..entailment.protocol import Entailment, Pair
from ..entailment.windows import WindowedEntailment
from ..reports import InternalAttribution
from ..support import Label, Support
from .segments import Segment

SIGN: dict[Label, int] = {"supports": 1, "refutes": -1, "neutral": 0}


async def by_agreement(
    claims: Sequence[Claim], samples: Sequence[Segment], entailment: Entailment
) -> list[tuple[InternalAttribution, ...]]:
    """What each sample says of each claim, judged in one call.

    A sample longer than the entailment can look at is judged window by window, and the surest window counts.

    Args:
        claims: The claims.
        samples: Complete attempts, or the replies of several agents.
        entailment: What judges; it is not closed.

    Returns:
        For each claim one attribution a sample that could be judged, in order. The weight is 1 if the sample entails
        the claim, -1 if it contradicts it, else 0; `detail` has the share of each sign among them.

    Raises:
        ReasonError: The whole call failed, or did not fit the budget.
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
    read = [(s, v) for s, v in zip(samples, verdicts, strict=True) if v is not None]
    signs = [SIGN[v.label] for _, v in read]
    shares: dict[str, JsonValue] = {
        name: signs.count(sign) / len(signs)
        for name, sign in (("entail", 1), ("contradict", -1), ("neither", 0))
        if signs
    }
    told: dict[str, JsonValue] = {
        "method": "1 if the sample entails the claim, -1 if it contradicts it, else 0",
        "judge": identity,
        "samples": len(read),
        "unread": len(samples) - len(read),
        **shares,
    }
    return tuple(
        InternalAttribution(
            component=sample.name, kind="agreement", weight=float(sign), detail={**told, "probs": list(verdict)}
        )
        for (sample, verdict), sign in zip(read, signs, strict=True)
    )
