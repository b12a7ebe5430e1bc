"""What the reports on its claims say of a whole answer."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.answer import CheckedClaim, Verdict, Verification
from ..reports import ClaimReport

_CHECKED: tuple[Verdict, ...] = ("supported", "refuted", "disputed", "not_enough_evidence")


def overall(reports: Sequence[ClaimReport]) -> Verdict:
    """The verdict on an answer: refuted if a claim of it is; supported if all are; else what is missing.

    Nothing that was not looked at counts as supported: with a claim left unchecked or unread the answer is so, unless
    another is refuted.
    """
    verdicts = {report.verdict for report in reports}
    if not verdicts:
        return "unchecked"
    if "refuted" in verdicts:
        return "refuted"
    return next(
        (v for v in ("disputed", "unparsed", "unchecked", "not_enough_evidence") if v in verdicts),
        "supported",
    )


def confidence_of(reports: Sequence[ClaimReport]) -> float | None:
    """The probability that the answer holds: that of its weakest claim; None if no claim was checked.

    All claims have to hold, so it is at most the least of theirs; their product would take them to be independent,
    which claims of one answer on one topic are not.
    """
    checked = [report.probs[0] for report in reports if report.verdict in _CHECKED]
    return min(checked) if checked else None


def verification_of(name: str, reports: Sequence[ClaimReport]) -> Verification:
    """The record that goes with an answer."""
    return Verification(
        verdict=overall(reports),
        confidence=confidence_of(reports),
        claims=tuple(checked(report) for report in reports),
        verifiers=(name,),
    )


def checked(report: ClaimReport) -> CheckedClaim:
    """A report in short."""
    return CheckedClaim(
        text=report.claim.text,
        verdict=report.verdict,
        confidence=report.confidence,
        evidence=report.evidence,
        note=note_of(report),
        start=report.claim.start,
        end=report.claim.end,
        probs=report.probs if report.label is not None else None,
        origins=tuple(origin.component for origin in report.internal if origin.weight > 0),
    )


def note_of(report: ClaimReport) -> str:
    """Why the verdict is what it is, in a few words; empty where it needs none."""
    if report.program:
        return report.program
    said = {
        "no_evidence": "nothing was found to check it against",
        "irrelevant": "what was found does not speak of it",
        "conflict": "the evidence contradicts itself",
        "unchecked": "the budget did not reach it",
        "verifier_failed": "it could not be judged",
    }.get(report.reason, "")
    if report.downgraded and report.label is not None:
        leaning = "it is supported" if report.label == "supports" else "it is refuted"
        return f"the evidence leans towards saying that {leaning}, not surely enough"
    return said
