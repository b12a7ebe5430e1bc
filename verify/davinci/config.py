"""config."""

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
        str, Field(min_length=1, description="what judges: embedded, lexical, judge, nli/…, minicheck/…")
    ] = DEFAULT_ENTAILMENT
    claims: Annotated[
        Literal["rules", "model"], Field(description="who cuts the answer into claims: rules, or the judge model")
    ] = "rules"
    max_claims: Annotated[int, Field(ge=1, le=1000, description="most claims of an answer")] = 20
    k: Annotated[int, Field(ge=1, le=20, description="passages that are looked at for each claim")] = 5
    evidence_form: Annotated[
        Literal["full", "span"], Field(description="what is judged: whole passages, or the best sentence of each")
    ] = "full"
    aggregation: Annotated[Mode | Literal["concat"], Field(description="how several passages become one verdict")] = (
        "witness"
    )
    tau: Annotated[float, Field(gt=0, description="temperature of the weights by retrieval score that are shown")] = 1.0
    fusion: Annotated[
        str, Field(description="file of fitted fusion parameters; empty takes what belongs to the judge")
    ] = ""
    calibration: Annotated[
        str, Field(description="file of a verdict calibration; empty takes what belongs to the judge, none takes none")
    ] = ""
    threshold: Annotated[
        float | None,
        Field(ge=0, description="least confidence of a decisive verdict; null takes the calibration's, or else 0.6"),
    ] = None
    programs: Annotated[bool, Field(description="check arithmetic, dates and units by program")] = True
    internal: Annotated[
        tuple[InternalLevel, ...], Field(description="how a claim's origin within the run is looked for")
    ] = ("provenance", "agreement")
