"""How far the jurors agree on each claim of the final answer: a label and a number, worked out and not written.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stage 4, for the three labels, which a model writes there. Differs:
here each opinion has a stance on each claim, by an entailment, and label, score and confidence follow from the counts.
Agreed is not true: jurors share misconceptions. What is contradicted or uncertain is for a verifier with evidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from ...core.errors import UserError
from ..claims import Claim
from ..entailment.content_words import sentence_scores, sentences
from ..support import Label, Support
from .opinions import Agreement, ClaimLabel

Stance = Literal["support", "contradict", "silent"]

THETA: Final = 2 / 3
"""Share of the jurors that must support a claim for it to be consistent."""
LEAST_SUPPORT: Final = 2
NO_CLAIMS: Final = 0.5
"""Confidence in an answer without claims."""

_STANCES: dict[Label, Stance] = {"supports": "support", "refutes": "contradict", "neutral": "silent"}
_ROUNDING = 1e-9


def stance_of(said: Support) -> Stance:
    """What an opinion says of a claim, from the probabilities of an entailment; of equal ones the more careful."""
    return _STANCES[said.label]


def premise(claim: str, opinion: str) -> str:
    """The part of an opinion that has the most to say of a claim: its best sentence, with the one before it.

    Sentences are compared by their words (see `sentence_scores`). The sentence before is taken along because it names
    what "it" is. Where no sentence shares a word with the claim, the whole opinion is returned.
    """
    places = sentences(opinion)
    scores = sentence_scores(claim, [opinion[start:end] for start, end in places])
    best = max(range(len(places)), key=scores.__getitem__, default=None)
    if best is None or not scores[best]:
        return opinion
    return opinion[places[max(0, best - 1)][0] : places[best][1]]


def label_of(support: int, contradict: int, silent: int, theta: float = THETA) -> Agreement:
    """What counts of stances make of a claim.

    With n of all three: "contradicted" if more contradict than support, or one does and nobody supports; "consistent"
    if nobody contradicts and at least max(2, ceil(theta n)) support; else "uncertain".

    Raises:
        UserError: A count is negative, or theta outside [0, 1].
    """
    if min(support, contradict, silent) < 0 or not 0 <= theta <= 1:
        raise UserError(
            f"no label for {support}, {contradict} and {silent} stances at theta={theta:g}",
            hint="counts are 0 or more, theta is a share",
        )
    quorum = max(LEAST_SUPPORT, math.ceil(theta * (support + contradict + silent) - _ROUNDING))
    if contradict > support or (contradict and not support):
        return "contradicted"
    return "consistent" if not contradict and support >= quorum else "uncertain"


def score_of(support: int, contradict: int) -> float:
    """Agreement: g = (support + 1) / (support + contradict + 2), the posterior mean of agreement under a flat prior."""
    return (support + 1) / (support + contradict + 2)


def label_claim(claim: Claim, stances: Mapping[int, Stance], theta: float = THETA, *, note: str = "") -> ClaimLabel:
    """A claim with who supports it and who contradicts it.

    Args:
        claim: The claim.
        stances: By juror; one whose stance could not be read is not among them, and does not count.
        theta: Share of the jurors that consistency needs.
        note: What a reader should know of it; by default why the label is no surer.
    """
    by_stance = {
        wanted: tuple(sorted(juror for juror, stance in stances.items() if stance == wanted))
        for wanted in _STANCES.values()
    }
    support, contradict, silent = (by_stance[stance] for stance in ("support", "contradict", "silent"))
    label = label_of(len(support), len(contradict), len(silent), theta)
    return ClaimLabel(
        claim=claim,
        label=label,
        support=support,
        contradict=contradict,
        silent=silent,
        score=score_of(len(support), len(contradict)),
        note=note or _why(label, len(support), len(contradict)),
    )


def confidence_of(claims: Sequence[ClaimLabel]) -> float:
    """How far the jurors agree on an answer: mean g of its claims, times the share that is not contradicted.

    Returns:
        A number in [0, 1]; 0.5 if there are no claims.
    """
    if not claims:
        return NO_CLAIMS
    contradicted = sum(claim.label == "contradicted" for claim in claims)
    return math.fsum(claim.score for claim in claims) / len(claims) * (1 - contradicted / len(claims))


def _why(label: Agreement, support: int, contradict: int) -> str:
    if label == "consistent":
        return ""
    if contradict:
        return f"{contradict} of {support + contradict} that speak of it say the opposite"
    return "no opinion says so" if not support else f"only {support} of the opinions {_says(support)} so"


def _says(count: int) -> str:
    return "says" if count == 1 else "say"
