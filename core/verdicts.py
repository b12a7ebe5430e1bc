"""Verdicts in words: the same on a terminal, in error messages and on pages.

`supported (93% sure)`; `not enough evidence (closest: supported, 55%; 80% needed)`; `refuted (computed)`. The viewer's
`text/verdicts.ts` has the same words.
"""

from __future__ import annotations

import math

from .types import CheckedClaim, ClaimCounts, Verdict, Verification

PROGRAM = "program"
"""Source of the evidence that a program computed."""
MAX_CLAIMS = 3
"""Maximum number of claims that `failure_text` names."""
MAX_CLAIM_CHARS = 200
_SEVERITY: tuple[Verdict, ...] = ("refuted", "disputed", "not_enough_evidence", "unparsed", "unchecked")
_NEARLY_CERTAIN = 0.995
_MIN_SURE = 0.5
"""A claim that is open because nothing is likely is not called "34% sure"."""
_ROUNDING = 1e-9


def verdict_name(verdict: Verdict) -> str:
    """A verdict without underscores."""
    return verdict.replace("_", " ")


def is_computed(claim: CheckedClaim) -> bool:
    """Whether a program decided the claim."""
    return bool(claim.evidence) and claim.evidence[0].source == PROGRAM


def verdict_text(claim: CheckedClaim) -> str:
    """A claim's verdict with its probability: `supported (93% sure)`."""
    detail = _detail(claim)
    return f"{verdict_name(claim.verdict)} ({detail})" if detail else verdict_name(claim.verdict)


def _detail(claim: CheckedClaim) -> str:
    if is_computed(claim):
        return "computed"
    if claim.verdict in ("unchecked", "unparsed", "disputed") or not claim.confidence:
        return ""
    if claim.lean is not None and claim.needed is not None:
        needed = math.ceil(100 * claim.needed - _ROUNDING)
        # what is below the threshold never reads as if it reached it
        below = min(math.floor(100 * claim.confidence + 0.5), needed - 1)
        return f"closest: {claim.lean}, {below}%; {needed}% needed"
    return f"{percent(claim.confidence)} sure" if claim.confidence >= _MIN_SURE else ""


def percent(probability: float) -> str:
    """A probability in percent, never 0% or 100%, which no judge can promise: `under 1%`, `over 99%`."""
    if probability >= _NEARLY_CERTAIN:
        return "over 99%"
    rounded = math.floor(100 * probability + 0.5)
    return f"{rounded}%" if rounded else "under 1%"


def counts_text(counts: ClaimCounts) -> str:
    """The claims of an answer in one line: `6 of 8 claims supported, 1 refuted, 1 open`."""
    if not counts.total:
        return "no claim can be checked"
    noun = "claim" if counts.total == 1 else "claims"
    others = [f"{number} {name}" for number, name in ((counts.refuted, "refuted"), (counts.open, "open")) if number]
    return ", ".join([f"{counts.supported} of {counts.total} {noun} supported", *others])


def failure_text(verification: Verification | None) -> str:
    """Why an answer is not verified: the claims that failed, the most severe first.

    `not verified: claim 3, “The bridge opened in 1927.”: refuted (97% sure)`. At most `MAX_CLAIMS` are named.
    """
    if verification is None or not verification.verifiers:
        return "not verified: no verifier checked the answer"
    failed = [(i, claim) for i, claim in enumerate(verification.claims, 1) if claim.verdict != "supported"]
    if not failed:
        return f"not verified: {verdict_name(verification.verdict)}, no claim of the answer can be checked"
    failed.sort(key=lambda item: _SEVERITY.index(item[1].verdict))
    named = [f"claim {i}, “{_shortened(claim.text)}”: {verdict_text(claim)}" for i, claim in failed[:MAX_CLAIMS]]
    others = len(failed) - len(named)
    rest = [f"and {others} other {'claim' if others == 1 else 'claims'}"] if others else []
    return f"not verified: {'; '.join([*named, *rest])}"


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_CLAIM_CHARS else line[: MAX_CLAIM_CHARS - 1] + "…"
