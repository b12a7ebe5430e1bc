"""Where a jury stands, read off its events."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..core.jury_events import (
    ClaimLabelled,
    JuryEvent,
    OpinionGiven,
    OpinionsMerged,
    OpinionsRanked,
    ReviewGiven,
)
from .search_figures import plural

LONGEST_CHOICE = 12
"""Characters of a choice that are shown."""


@dataclass
class JuryProgress:
    """Where a jury stands.

    Attributes:
        choices: What each juror chose, in order; "?" where there is no choice, "x" for one that failed.
        reviews: Reviews that could be read.
        unread: Those that could not.
        first: Who is ranked first; None before there is a ranking.
        source: Who made the final answer; empty before there is one.
        labels: How many claims have which label.
    """

    choices: list[str] = field(default_factory=list)
    reviews: int = 0
    unread: int = 0
    first: int | None = None
    source: str = ""
    labels: dict[str, int] = field(default_factory=dict)

    def take(self, event: JuryEvent) -> None:
        """Move on by one event."""
        report = event.report
        match event:
            case OpinionGiven():
                if event.juror == 0:  # asked anew: a repair, or a run that goes on
                    self.choices, self.reviews, self.unread, self.first, self.source = [], 0, 0, None, ""
                    self.labels = {}
                choice = report.get("choice")
                self.choices.append("x" if not report.get("ok") else "?" if choice is None else str(choice))
            case ReviewGiven():
                self.reviews += bool(report.get("ok"))
                self.unread += not report.get("ok")
            case OpinionsRanked():
                standings = report.get("standings")
                best = standings[0] if isinstance(standings, list) and standings else None
                number = best.get("juror") if isinstance(best, dict) else None
                self.first = number if isinstance(number, int) else None
            case OpinionsMerged():
                self.source = str(report.get("source", ""))
            case ClaimLabelled():
                label = str(report.get("label"))
                self.labels[label] = self.labels.get(label, 0) + 1
            case _:
                pass

    def line(self) -> str:
        """It in a line: `B B C; 3 reviews; #0 first; answered by the chair; 2 consistent, 1 uncertain`."""
        parts = [" ".join(c if len(c) <= LONGEST_CHOICE else c[: LONGEST_CHOICE - 1] + "…" for c in self.choices)]
        if self.reviews or self.unread:
            parts.append(plural(self.reviews, "review") + (f", {self.unread} unread" if self.unread else ""))
        if self.first is not None:
            parts.append(f"#{self.first} first")
        if self.source:
            parts.append("answered by the chair" if self.source == "chair" else "answered by the best opinion")
        if self.labels:
            parts.append(", ".join(f"{count} {label}" for label, count in self.labels.items()))
        return "; ".join(filter(None, parts))
