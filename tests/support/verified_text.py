"""A verification with every verdict, made by hand: an answer, its claims, and the record of each."""

from __future__ import annotations

from reason.agents.verification import TextVerification
from reason.core.types import Evidence, RunUsage, Verdict
from reason.reasoning.knowledge import Passage
from reason.verify.davinci.davinci import make_verification
from reason.verify.types import Claim, ClaimReport, InternalAttribution, Label, PairVerdict, Span, as_evidence

ANSWER = "Rain is wet. Snow is warm, and ice is soft. Fog is old. Hail is round. Dew is late."
PLACES: list[tuple[str, Verdict, Label | None]] = [
    ("Rain is wet.", "supported", "supports"),
    ("Snow is warm", "refuted", "refutes"),
    ("ice is soft.", "disputed", "supports"),
    ("Fog is old.", "not_enough_evidence", "neutral"),
    ("Hail is round.", "unchecked", None),
]
PROBS: dict[Label | None, tuple[float, float, float]] = {
    "supports": (0.8, 0.15, 0.05),
    "refutes": (0.1, 0.85, 0.05),
    "neutral": (0.2, 0.2, 0.6),
    None: (0.0, 0.0, 1.0),
}


def report_of(text: str, quoted: str, verdict: Verdict, label: Label | None, source: str = "weather.md") -> ClaimReport:
    """The record of a claim that stands in the answer; its evidence is a passage that says the same between others."""
    start = ANSWER.index(quoted)
    passage = Passage(
        id=f"{source}:{start}", source=source, title="Weather", text=f"Before it. It says: {text} After it.", start=100
    )
    at = passage.text.index(text)
    span = Span(passage=passage.id, start=at, end=at + len(text), text=text)
    decisive = verdict in ("supported", "refuted", "disputed")
    return ClaimReport(
        claim=Claim(text=text, start=start, end=start + len(quoted)),
        verdict=verdict,
        label=label,
        probs=PROBS[label],
        confidence=None if label is None else max(PROBS[label]),
        threshold=0.6,
        passages=(passage,),
        pairs=(PairVerdict(passage=passage.id, probs=PROBS[label], span=span if decisive else None),),
        evidence=(as_evidence(span, passage),) if decisive else (),
        internal=(
            InternalAttribution(component="document «log»", kind="provenance", weight=0.75),
            InternalAttribution(component="nothing", kind="context", weight=0, detail={"left_out": "no model to ask"}),
        ),
        reason="unchecked" if verdict == "unchecked" else "ok",
        backend="by-hand",
        warnings=("unfitted",),
    )


def by_program(detail: str) -> ClaimReport:
    """The record of a claim that a program settled."""
    return ClaimReport(
        claim=Claim(text="Dew is late.", start=ANSWER.index("Dew"), end=len(ANSWER)),
        verdict="supported",
        label="supports",
        probs=(1.0, 0.0, 0.0),
        confidence=1.0,
        evidence=(Evidence(source="program", text=detail),),
        reason="program",
        program=detail,
        backend="program",
    )


def verified(
    *, text: str = "", source: str = "weather.md", question: str = "What is weather?", detail: str = "2 + 2 = 4"
) -> TextVerification:
    """The verification.

    Args:
        text: Added to every claim and so to every passage.
        source: Name of the document.
        question: What was asked.
        detail: What the program says.
    """
    reports = [report_of(quoted + text, quoted, verdict, label, source) for quoted, verdict, label in PLACES]
    reports.append(by_program(detail))
    return TextVerification(
        answer=ANSWER,
        question=question,
        verification=make_verification("davinci", reports),
        reports=tuple(reports),
        usage=RunUsage(reward_calls=6),
        run_id="20261126-000000-abcdef",
        degraded=("a note" + text,),
    )
