"""The parameters of `davinci`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ...reasoning.limits import MAX_WEIGHT
from ...reasoning.strategy import Parameters
from ..fusion import Mode

InternalLevel = Literal["provenance", "agreement", "context", "whitebox"]


class DavinciConfig(Parameters):
    """Parameters of `davinci`."""

    judge: Annotated[
        str,
        Field(
            min_length=1,
            description="judge of evidence: auto (the run's judge model if one is named, else base if it is on this "
            "machine, else small), model, base, small, lexical, nli/… or cross/…",
        ),
    ] = "auto"
    claims: Annotated[
        Literal["rules", "model"], Field(description="claim splitting: by rules or by the judge model")
    ] = "rules"
    max_claims: Annotated[int, Field(ge=1, le=1000, description="maximum claims of an answer")] = 20
    k: Annotated[int, Field(ge=1, le=20, description="passages retrieved for each claim")] = 5
    evidence_form: Annotated[
        Literal["full", "span"], Field(description="judged text: complete passages, or the best sentence of each")
    ] = "full"
    aggregation: Annotated[
        Mode | Literal["concat"],
        Field(description="aggregation of several passages where no verdict model is used; only witness has one"),
    ] = "witness"
    tau: Annotated[
        float, Field(gt=0, le=MAX_WEIGHT, description="temperature of the displayed weights by retrieval score")
    ] = 1.0
    verdicts: Annotated[
        str,
        Field(
            description="file of a fitted verdict model; empty for the one shipped for the judge, none for the "
            "unfitted one"
        ),
    ] = ""
    threshold: Annotated[
        float | None,
        Field(ge=0, le=1, description="minimum probability of a decisive verdict; null for the verdict model's own"),
    ] = None
    programs: Annotated[bool, Field(description="check of arithmetic, dates and units by program")] = True
    internal: Annotated[
        tuple[InternalLevel, ...], Field(max_length=4, description="levels of attribution within the run")
    ] = (
        "provenance",
        "agreement",
    )
