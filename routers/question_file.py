"""`QuestionFile`: when a question needs the large model, in a JSON file with where it comes from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, FiniteFloat, JsonValue, model_validator

from ..core.answer import Probability
from ..core.errors import UserError
from ..core.fitted_files import FittedFile, read_fitted
from ..core.messages import Frozen
from .auto_file import TrainedOn
from .feature_space import Line, Space
from .thresholds import PARTS

KIND: Final = "reason question router"
FORMAT: Final = 1
MADE_BY: Final = "reason train question-router SMALL_RUN LARGE_RUN --out FILE makes one"


class Chain(Frozen):
    """How one of the two models answers.

    Attributes:
        strategy: Name of the strategy.
        parameters: Its parameters, complete.
        share_right: Mean score in training.
        mean_tokens: Mean generated tokens there.
    """

    strategy: str
    parameters: dict[str, JsonValue]
    share_right: Probability
    mean_tokens: Annotated[FiniteFloat, Field(ge=0)]


class QuestionFile(FittedFile):
    """What `question-router` decides by.

    Attributes:
        kind: What the file is.
        format: Version of the file's form.
        name: The file's name without its ending; empty before it lies in one.
        small: How the small model answers.
        large: How the large model answers.
        space: The numbers that the line is over.
        needed: The log-odds that the large model is right and the small one is not.
        quantiles: The 0, 1/100, …, 1 quantiles of that chance over the training questions, each told by a line that was
            fitted without it (see `thresholds.quantiles_of`).
        rate: The share of the questions that was to go to the large model.
        threshold: The chance from which a question goes there at this rate.
        measured_rate: The share that this threshold really sends there; other than `rate` where many questions have the
            same chance.
        trained: Where it comes from; the small model's role there is "small", the large one's "main".
    """

    kind: Literal["reason question router"] = KIND
    format: Literal[1] = FORMAT
    name: str = ""
    small: Chain
    large: Chain
    space: Space
    needed: Line
    quantiles: Annotated[tuple[Probability, ...], Field(min_length=PARTS + 1, max_length=PARTS + 1)]
    rate: Probability
    threshold: Annotated[FiniteFloat, Field(ge=0)]
    measured_rate: Probability
    trained: TrainedOn

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if "small" not in self.trained.engines:
            raise ValueError("a question router must name the identities of both models")
        if not self.needed.fits(self.space):
            raise ValueError("the line is over other signals than the file's")
        if any(b < a for a, b in pairwise(self.quantiles)):
            raise ValueError("the quantiles must not fall")
        return self

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.trained.datasets)})".lstrip()

    def threshold_for(self, rate: float) -> float:
        """The threshold at another rate (see `threshold_of`)."""
        return threshold_of(self.quantiles, rate)


def threshold_of(quantiles: Sequence[float], rate: float) -> float:
    """The least chance that still goes to the large model at a rate: the (1 - rate) quantile, to a hundredth.

    Args:
        quantiles: The 0, 1/100, …, 1 quantiles of the chances.
        rate: The share wanted, in [0, 1]; at 0 the threshold is just above every chance seen.

    Raises:
        UserError: The rate is outside.
    """
    if not 0 <= rate <= 1:
        raise UserError(f"a rate of {rate:g} is no share of questions", hint="between 0 and 1")
    if rate == 0:
        return math.nextafter(quantiles[-1], math.inf)
    return quantiles[min(math.floor((1 - rate) * PARTS + 1e-9), PARTS - 1)]


def load_question_router(path: Path) -> QuestionFile:
    """Read a question-router file.

    Raises:
        DataError: There is no such file, it cannot be read, it is cut short, it is no such file, or one of another
            version or with impossible values; names the file.
    """
    return read_fitted(path, QuestionFile, kind=KIND, format=FORMAT, called="question-router file", made_by=MADE_BY)
