"""`JuryConfig`: the parameters of a jury; `PanelConfig`: those that the strategy and the verifier share."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ...core.errors import DataError
from ...core.settings import Seconds
from ...reasoning.limits import MAX_TOKENS
from ...reasoning.strategy import Parameters
from ..entailment.factory import CHOICES
from ..verifier import AUTO
from .jurors import load_reliability
from .panel import Form
from .types import Aggregate

ANSWER_TEMPERATURE = 0.7
REVIEW_TEMPERATURE = 0.3
CHAIR_TEMPERATURE = 0.5

Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]


class PanelConfig(Parameters):
    """Parameters of answering, reviewing and comparing, shared by strategy and verifier."""

    n: Annotated[
        int | None, Field(ge=1, le=26, description="number of jurors; null is one for each given model, at least 3")
    ] = None
    roles: Annotated[
        bool | Annotated[tuple[str, ...], Field(max_length=26)],
        Field(description="roles of the jurors, in turn: true for the four bundled ones, or names and .toml files"),
    ] = True
    anonymise: Annotated[bool, Field(description="hide the authors of the answers from the reviewers")] = True
    exclude_self: Annotated[bool, Field(description="jurors do not review their own answers")] = True
    shuffle: Annotated[bool, Field(description="each reader sees the answers in its own order")] = True
    permute_choices: Annotated[bool, Field(description="each juror sees the options in its own order")] = True
    aggregate: Annotated[Aggregate, Field(description="rule by which reviews become a ranking")] = "borda"
    comparisons: Annotated[
        bool,
        Field(description="rank by the reviewers' comparisons of answers in both orders, instead of by their marks"),
    ] = False
    concordance: Annotated[
        bool, Field(description="weight reviewers by their agreement with the others on pairs of answers")
    ] = True
    reliability: Annotated[
        str, Field(description="file of the jurors' past accuracy, by which they are weighted; empty is none")
    ] = ""
    reliability_digest: Annotated[
        str, Field(description="digest of that file, recorded automatically: a run resumes only with it")
    ] = ""
    form: Annotated[
        Form, Field(description="form of reviews and the chair's answer: json, or lines for models without JSON")
    ] = "json"
    theta: Annotated[float, Field(gt=0, le=1, description="share of the jurors that a consistent claim needs")] = 2 / 3
    max_claims: Annotated[int, Field(ge=1, le=1000, description="maximum claims of an answer")] = 8
    judge: Annotated[
        str, Field(min_length=1, description=f"what compares answers with claims, and claims with evidence: {CHOICES}")
    ] = AUTO
    deadline_s: Annotated[
        Seconds | None,
        Field(description="maximum time of a stage in seconds, after which calls are cancelled"),
    ] = None
    quorum: Annotated[
        int | None, Field(ge=1, le=26, description="responses that complete a stage; the other calls are cancelled")
    ] = None
    answer_temperature: Annotated[
        float | None,
        Field(ge=0, le=100, description="sampling temperature of opinions; null for 0.7 where the model takes one"),
    ] = None
    answer_tokens: Annotated[Tokens, Field(description="maximum tokens of an opinion")] = 400
    review_tokens: Annotated[Tokens, Field(description="maximum tokens of a review")] = 500

    @model_validator(mode="after")
    def _check_comparisons(self) -> Self:
        if self.comparisons and self.aggregate == "points":
            raise ValueError("aggregate=points adds up marks, so comparisons=true needs borda, copeland or schulze")
        return self

    @model_validator(mode="before")
    @classmethod
    def _record_digest(cls, data: Any) -> Any:
        """Record the reliability file's digest: the file may change under its name."""
        name = data.get("reliability") if isinstance(data, Mapping) else None
        if not isinstance(name, str) or not name or data.get("reliability_digest"):
            return data
        with contextlib.suppress(DataError):  # reported when the file is loaded
            return {**data, "reliability_digest": load_reliability(Path(name).expanduser()).digest}
        return data


class JuryConfig(PanelConfig):
    """Parameters of `edgejury`."""

    review: Annotated[bool, Field(description="jurors review one another")] = True
    decision: Annotated[
        Literal["chair", "vote", "top"],
        Field(
            description="final answer: the chair's, the weighted vote on closed questions, or the best-ranked opinion"
        ),
    ] = "chair"
    blind_chair: Annotated[bool, Field(description="hide models and roles from the chair")] = True
    early_exit: Annotated[
        Literal["closed", "always", "never"],
        Field(description="questions that end with stage 1 if all jurors agree"),
    ] = "closed"
    distribution: Annotated[
        bool, Field(description="multiple choice: vote with each juror's probabilities of the options")
    ] = False
    claims: Annotated[
        Literal["rules", "model", "none"],
        Field(description="how the answer is split into labelled claims: by rules, by the judge model, or no labels"),
    ] = "rules"
    revise: Annotated[bool, Field(description="request another answer of the chair if a claim is contradicted")] = False
    chair_tokens: Annotated[Tokens, Field(description="maximum tokens of the chair's answer")] = 1000
