"""`AutoFile`: the arms that `auto` chooses from, in a JSON file with where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from ..core.fitted_files import FittedFile, read_fitted, write_fitted
from ..core.messages import Frozen
from ..reasoning.rlot.navigator_card import QuestionDigest, question_digest
from .arms import Arm
from .feature_space import Space

KIND: Final = "reason auto router"
FORMAT: Final = 1
MADE_BY: Final = "reason train auto-router RUN RUN… --out FILE makes one"


class TrainedOn(Frozen):
    """Where a trained router comes from.

    Attributes:
        models: Model string by role: "main" always, "small" and others where they were there.
        engines: Identity of each by role: weights, number format, engine and its version.
        runs: What the evaluation runs are called.
        datasets: Their datasets, each with its fingerprint.
        questions: Questions it was fitted on.
        seeds: Seeds that these were asked under.
        held_out: Share of all questions that were kept back, by a digest of their text.
        digests: Of each training question.
        version: Version of `reason`.
        made: The day it was made, in UTC.
    """

    models: dict[str, str]
    engines: dict[str, str]
    runs: tuple[str, ...]
    datasets: dict[str, str]
    questions: Annotated[int, Field(ge=1)]
    seeds: tuple[int, ...] = (0,)
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    digests: tuple[QuestionDigest, ...] = ()
    version: str = ""
    made: date

    @model_validator(mode="after")
    def _names_its_model(self) -> Self:
        if "main" not in self.models or "main" not in self.engines:
            raise ValueError("a router must name its main model and the model's identity")
        return self

    def knows(self, question_text: str) -> bool:
        """Whether the router was trained on this question: then its answer to it says nothing about others."""
        return question_digest(question_text) in self.digests

    def other_model(self, identities: Mapping[str, str], role: str = "main") -> str:
        """In what a model differs from the one of training, in words; empty if in nothing.

        Args:
            identities: Of the models that are there, by role.
            role: Which is looked at.
        """
        known = self.engines.get(role)
        if known is None or identities.get(role) == known:
            return ""
        return f"its {role} model is {known}, and this one is {identities.get(role, 'none')}"


class AutoFile(FittedFile):
    """What `auto` chooses by.

    Attributes:
        kind: What the file is.
        format: Version of the file's form.
        name: The file's name without its ending; empty before it lies in one.
        price: What 1000 generated tokens are worth in chance of being right.
        space: The numbers that the arms' lines are over.
        arms: The arms.
        trained: Where it comes from.
    """

    kind: Literal["reason auto router"] = KIND
    format: Literal[1] = FORMAT
    name: str = ""
    price: Annotated[FiniteFloat, Field(ge=0)]
    space: Space
    arms: Annotated[tuple[Arm, ...], Field(min_length=2)]
    trained: TrainedOn

    @model_validator(mode="after")
    def _lines_are_over_the_space(self) -> Self:
        for arm in self.arms:
            if not arm.right.fits(self.space) or not arm.tokens.line.fits(self.space):
                raise ValueError(f"the lines of {arm.label} are over other signals than the file's")
        return self

    def __str__(self) -> str:
        return f"{self.name} ({len(self.arms)} arms, {', '.join(self.trained.datasets)})".lstrip()


def save_trained(file: FittedFile, path: Path) -> None:
    """Write a trained router as JSON, whole or not at all; its name is the file's.

    Raises:
        StoreError: It cannot be written; what was there stays.
    """
    write_fitted(file, path)


def load_auto(path: Path) -> AutoFile:
    """Read an auto-router file.

    Raises:
        DataError: There is no such file, it cannot be read, it is cut short, it is no such file, or one of another
            version or with impossible values; names the file.
    """
    return read_fitted(path, AutoFile, kind=KIND, format=FORMAT, called="auto-router file", made_by=MADE_BY)
