"""The parameters of `davinci`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ...reasoning.strategy import Parameters
from ..fusion import Mode

InternalLevel = Literal["provenance", "agreement", "context", "whitebox"]

DEFAULT_ENTAILMENT = "embedded"


class DavinciConfig(Parameters):
    """Parameters of `davinci`."""

    entailment: Annotated[
        str, Field(min_length=1, description="entailment: embedded, lexical, judge, nli/…, minicheck/…")
    ] = DEFAULT_ENTAILMENT
    claims: Annotated[
        Literal["rules", "model"], Field(description="claim splitting: by rules or by the judge model")
    ] = "rules"
    max_claims: Annotated[int, Field(ge=1, le=1000, description="maximum claims of an answer")] = 20
    k: Annotated[int, Field(ge=1, le=20, description="passages retrieved for each claim")] = 5
    evidence_form: Annotated[
        Literal["full", "span"], Field(description="judged text: complete passages, or the best sentence of each")
    ] = "full"
    aggregation: Annotated[Mode | Literal["concat"], Field(description="aggregation of several passages")] = "witness"
    tau: Annotated[float, Field(gt=0, description="temperature of the displayed weights by retrieval score")] = 1.0
    fusion: Annotated[
        str, Field(description="file of fitted fusion parameters; empty for those shipped for the entailment")
    ] = ""
    calibration: Annotated[
        str,
        Field(description="file of a verdict calibration; empty for the one shipped for the entailment, none for none"),
    ] = ""
    threshold: Annotated[
        float | None,
        Field(ge=0, description="minimum confidence of a decisive verdict; null for the calibration's, or else 0.6"),
    ] = None
    programs: Annotated[bool, Field(description="check of arithmetic, dates and units by program")] = True
    internal: Annotated[tuple[InternalLevel, ...], Field(description="levels of attribution within the run")] = (
        "provenance",
        "agreement",
    )
