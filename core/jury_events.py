"""What happens in a jury, as typed events: opinions, reviews, the ranking, the chair's answer, labels, costs.

Jurors are numbered from 0. A `report` is the whole record, as the class of `verify.edgejury.opinions` that is named
reads it: this layer does not know them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from .event_fields import EventFields

Report = dict[str, JsonValue]


class OpinionGiven(EventFields):
    """A juror has answered, or failed to; `report` is its `Opinion`."""

    type: Literal["jury.opinion"] = "jury.opinion"
    juror: int
    report: Report


class ReviewGiven(EventFields):
    """A juror has reviewed the others' opinions, or failed to; `report` is its `Review`."""

    type: Literal["jury.review"] = "jury.review"
    reviewer: int
    report: Report


class OpinionsRanked(EventFields):
    """The opinions are in order; `report` is the `Ranking`."""

    type: Literal["jury.ranked"] = "jury.ranked"
    report: Report


class OpinionsMerged(EventFields):
    """One answer was made of the opinions, by the chair or in its place; `report` is the `Synthesis`."""

    type: Literal["jury.merged"] = "jury.merged"
    report: Report


class ClaimLabelled(EventFields):
    """How far the jurors agree on a claim of the answer is known. Agreed is not verified.

    Attributes:
        index: Which one, in order of the answer, from 0.
        report: Its `ClaimLabel`.
    """

    type: Literal["jury.claim"] = "jury.claim"
    index: int
    report: Report


class JuryStageEnded(EventFields):
    """A stage of a jury has ended.

    Attributes:
        stage: "answer", "review", "chair" or "agreement".
        asked: How many were asked something.
        replied: How many replied in time with something, whether that could be read or not.
        report: What it cost, a `StageCost`.
    """

    type: Literal["jury.stage"] = "jury.stage"
    stage: str
    asked: int
    replied: int
    report: Report


JuryEvent = OpinionGiven | ReviewGiven | OpinionsRanked | OpinionsMerged | ClaimLabelled | JuryStageEnded
"""Any of them."""
