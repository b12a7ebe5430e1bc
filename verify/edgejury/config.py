"""`JuryConfig`: the parameters of a jury, of the strategy and the verifier alike."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ...core.errors import DataError
from ...reasoning.strategy import Parameters
from .jurors import load_reliability
from .requests import Form
from .types import Aggregate

DEFAULT_ENTAILMENT = "embedded"

EarlyExit = Literal["closed", "always", "never"]
Unchaired = Literal["vote", "top"]

Temperature = Annotated[float, Field(ge=0, le=100)]
Tokens = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PanelConfig(Parameters):
    """How jurors are asked: parameters that strategy and verifier share."""

    n: Annotated[
        int | None, Field(ge=1, le=26, description="jurors; null is one for each model given, and at least 3")
    ] = None
    roles: Annotated[bool, Field(description="each juror works in a role of its own")] = True
    role_names: Annotated[
        tuple[str, ...], Field(description="the roles, taken in turn: names or .toml files; empty is the four shipped")
    ] = ()
    anonymise: Annotated[
        bool, Field(description="reviewers see letters for names, and nothing that tells who wrote an answer")
    ] = True
    exclude_self: Annotated[bool, Field(description="nobody reviews its own answer")] = True
    shuffle: Annotated[bool, Field(description="each reader sees the answers in an order of its own")] = True
    permute_choices: Annotated[bool, Field(description="each juror sees the options in an order of its own")] = True
    aggregate: Annotated[Aggregate, Field(description="how reviews become a ranking")] = "borda"
    weights: Annotated[
        tuple[Weight, Weight, Weight], Field(description="weights of accuracy, insight and clarity in a review's mark")
    ] = (0.6, 0.2, 0.2)
    concordance: Annotated[
        bool, Field(description="a reviewer counts as far as it agrees with the others about pairs of answers")
    ] = True
    reliability: Annotated[
        str, Field(description="file of how often jurors were right before, by which they are weighed; empty is none")
    ] = ""
    reliability_digest: Annotated[
        str, Field(description="digest of that file, noted by itself: a run goes on with no other")
    ] = ""
    form: Annotated[
        Form, Field(description="what reviewers and chair write: json, or lines for models that manage no JSON")
    ] = "json"
    conclude: Annotated[bool, Field(description="ask a juror for the answer alone where its text states none")] = True
    theta: Annotated[float, Field(gt=0, le=1, description="share of the jurors that a consistent claim needs")] = 2 / 3
    max_claims: Annotated[int, Field(ge=1, le=1000, description="most claims of an answer")] = 8
    stances: Annotated[
        Literal["entailment", "model"],
        Field(description="what tells what an opinion says of a claim: an entailment, or the judge model"),
    ] = "entailment"
    entailment: Annotated[
        str, Field(min_length=1, description="the entailment: embedded, lexical, judge, nli/…, minicheck/…")
    ] = DEFAULT_ENTAILMENT
    deadline_s: Annotated[
        float | None,
        Field(gt=0, allow_inf_nan=False, description="seconds of a stage after which nobody is waited for any more"),
    ] = None
    quorum: Annotated[
        int | None, Field(ge=1, description="replies in a stage that are enough; the others are cancelled then")
    ] = None
    answer_temperature: Annotated[Temperature, Field(description="sampling temperature of opinions")] = 0.7
    review_temperature: Annotated[Temperature, Field(description="sampling temperature of reviews")] = 0.3
    answer_tokens: Annotated[Tokens, Field(description="most tokens of an opinion")] = 400
    review_tokens: Annotated[Tokens, Field(description="most tokens of a review")] = 500

    @field_validator("weights")
    @classmethod
    def _something_counts(cls, weights: tuple[float, float, float]) -> tuple[float, float, float]:
        if not any(weights):
            raise ValueError("not all may be 0")
        return weights

    @model_validator(mode="before")
    @classmethod
    def _note_digest(cls, given: Any) -> Any:
        """Note which reliability it is: a file may change under its name."""
        name = given.get("reliability") if isinstance(given, Mapping) else None
        if not isinstance(name, str) or not name or given.get("reliability_digest"):
            return given
        with contextlib.suppress(DataError):  # told where it is needed
            return {**given, "reliability_digest": load_reliability(Path(name).expanduser()).digest}
        return given


class JuryConfig(PanelConfig):
    """Parameters of `edgejury`."""

    review: Annotated[bool, Field(description="jurors review one another")] = True
    chair: Annotated[bool, Field(description="a chair makes one answer of the opinions")] = True
    without_chair: Annotated[
        Unchaired,
        Field(description="what stands where there is no chair: the weighted vote on closed questions, or the top one"),
    ] = "vote"
    blind_chair: Annotated[bool, Field(description="the chair sees neither models nor roles")] = True
    early_exit: Annotated[EarlyExit, Field(description="which questions end with stage 1 where all jurors agree")] = (
        "closed"
    )
    exit_min: Annotated[int, Field(ge=2, description="opinions that an early exit needs")] = 3
    distribution: Annotated[
        bool, Field(description="multiple choice: ask each juror how sure it is of every option, and vote with that")
    ] = False
    insist: Annotated[
        bool, Field(description="ask the chair once more where it passes over what several reviewers named")
    ] = True
    label: Annotated[bool, Field(description="label the answer's claims by how far the jurors agree")] = True
    claims: Annotated[
        Literal["rules", "model"], Field(description="who cuts the answer into claims: rules, or the judge model")
    ] = "rules"
    revise: Annotated[bool, Field(description="have the chair answer again where a claim is contradicted")] = False
    chair_temperature: Annotated[Temperature, Field(description="sampling temperature of the chair")] = 0.5
    chair_tokens: Annotated[Tokens, Field(description="most tokens of the chair's answer")] = 1000
