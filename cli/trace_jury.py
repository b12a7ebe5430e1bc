"""What happens in a jury, a line each on the trace page."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import JsonValue

from ..core.jury_events import (
    ClaimLabelled,
    JuryEvent,
    JuryStageEnded,
    OpinionGiven,
    OpinionsMerged,
    OpinionsRanked,
    ReviewGiven,
)

_STYLES = {"consistent": "", "uncertain": "", "contradicted": "warn"}


class JuryLine(NamedTuple):
    """One event of a jury: what kind it is, what it says in a line, and how that is coloured."""

    kind: str
    what: str
    style: str = ""


def jury_line(event: JuryEvent) -> JuryLine:
    """An event of a jury in a line; the whole record stands below it."""
    report = event.report
    match event:
        case OpinionGiven():
            return _opinion(event.juror, report)
        case ReviewGiven():
            return _review(event.reviewer, report)
        case OpinionsRanked():
            return JuryLine("ranking", f"by {report.get('rule')}: {_ranked(report)}")
        case OpinionsMerged():
            choice = f"{report.get('choice')}: " if report.get("choice") else ""
            by = "the chair" if report.get("source") == "chair" else "the best opinion, in the place of the chair"
            return JuryLine("jury's answer", f"{choice}{report.get('answer', '')} (by {by})")
        case ClaimLabelled():
            label, claim = str(report.get("label")), report.get("claim")
            text = claim.get("text") if isinstance(claim, dict) else ""
            counts = ", ".join(f"{_count(report, name)} {name}" for name in ("support", "contradict", "silent"))
            return JuryLine(f"agreement {event.index + 1}", f"{label} ({counts}): {text}", _STYLES.get(label, ""))
        case JuryStageEnded():
            return _stage(event)


def _opinion(juror: int, report: dict[str, JsonValue]) -> JuryLine:
    who = f"{report.get('model')}{_as_role(report)}"
    if not report.get("ok"):
        return JuryLine(f"opinion #{juror}", f"{who}: none, {report.get('failure')}", "bad")
    choice = report.get("choice")
    return JuryLine(f"opinion #{juror}", f"{who}: {report.get('text') if choice is None else choice}")


def _as_role(report: dict[str, JsonValue]) -> str:
    return f" as {report['role']}" if report.get("role") else ""


def _review(reviewer: int, report: dict[str, JsonValue]) -> JuryLine:
    kind = f"review by #{reviewer}"
    if not report.get("ok"):
        return JuryLine(kind, f"none that can be read: {report.get('failure') or 'no marks'}", "warn")
    scores, issues = report.get("scores"), report.get("issues")
    marks = [
        f"#{number} {s.get('accuracy')}/{s.get('insight')}/{s.get('clarity')}"
        for s in (scores if isinstance(scores, list) else [])
        if isinstance(s, dict) and isinstance(number := s.get("candidate"), int)
    ]
    named = len(issues) if isinstance(issues, list) else 0
    return JuryLine(kind, ", ".join(marks) + (f"; {named} issue{'s' if named != 1 else ''}" if named else ""))


def _ranked(report: dict[str, JsonValue]) -> str:
    standings = report.get("standings")
    told = [
        f"#{number} {score:.2f}"
        for s in (standings if isinstance(standings, list) else [])
        if isinstance(s, dict) and isinstance(number := s.get("juror"), int)
        if isinstance(score := s.get("score"), int | float)
    ]
    return " > ".join(told)


def _stage(event: JuryStageEnded) -> JuryLine:
    report = event.report
    took = report.get("latency_ms")
    parts = [f"{event.replied} of {event.asked} replied"]
    parts.append(f"{_amount(report, 'calls')} calls, {_amount(report, 'completion_tokens')} tokens")
    parts.append(f"{took / 1000:.2f} s" if isinstance(took, int | float) else "")
    price = report.get("cost_usd")
    parts.append("price unknown" if price is None else f"{price:.4f} USD" if isinstance(price, float) and price else "")
    return JuryLine(f"{event.stage} stage", ", ".join(filter(None, parts)))


def _amount(report: dict[str, JsonValue], name: str) -> str:
    value = report.get(name)
    return f"{value:,}" if isinstance(value, int) else "?"


def _count(report: dict[str, JsonValue], name: str) -> int:
    jurors = report.get(name)
    return len(jurors) if isinstance(jurors, list) else 0
