"""`CalibrationMap`: a small monotone function from a strategy's stated confidences to calibrated ones, in a file.

`evals/calibration.py` fits one to the results of an evaluation; `Answer.calibrated_confidence` is
its value. Applying one needs neither numpy nor scipy.
"""

from __future__ import annotations

import hashlib
import math
import re
from bisect import bisect_right
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, FiniteFloat, JsonValue, model_validator

from .errors import UserError
from .files import FittedFile, read_fitted_file
from .messages import Effort, Frozen
from .types import Probability

CalibrationMethod = Literal["temperature", "platt", "isotonic"]
KIND: Final = "reason calibration map"
FORMAT: Final = 1
MADE_BY = "reason eval calibrate RUN --out FILE makes one"
MAX_LOG_ODDS = 700.0
"""Bound of negative log-odds: e^700 is still a finite float."""


def shown_identity(identity: str) -> str:
    """A model's identity for messages: of the server's address, which may contain a key, only a digest."""
    return re.sub(r"https?://[^\s|]+", lambda match: hashlib.sha256(match[0].encode()).hexdigest()[:8], identity)


class CalibrationCurve(Frozen):
    """A function from stated to calibrated confidence: monotone, from [0, 1] to [0, 1], finite at 0 and 1.

    "temperature" and "platt" are sigmoid(intercept + slope * logit(c)), with c first clipped to [clip, 1 - clip]; the
    intercept of "temperature" is 0. "isotonic" is linear between its knots and constant outside them.

    Source: Platt 1999, "Probabilistic Outputs for Support Vector Machines", equation 1, here on the log-odds of a
    probability; with the slope alone Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2. Zadrozny
    and Elkan 2002, "Transforming Classifier Scores into Accurate Multiclass Probability Estimates", section 3.

    Attributes:
        intercept: Added to the log-odds, in nats.
        slope: Factor of the log-odds, not negative; 1 over the temperature.
        clip: In [1e-12, 0.5).
        knots: (stated, calibrated) of "isotonic": the first increasing, the second never decreasing.
    """

    method: CalibrationMethod
    intercept: FiniteFloat = 0.0
    slope: Annotated[FiniteFloat, Field(ge=0)] = 1.0
    clip: Annotated[float, Field(ge=1e-12, lt=0.5)] = 1e-6
    knots: tuple[tuple[Probability, Probability], ...] = ()

    @model_validator(mode="after")
    def _parameters_match_method(self) -> Self:
        if (self.method == "isotonic") != bool(self.knots):
            raise ValueError("knots belong to the method isotonic, and it needs at least one")
        if self.method == "temperature" and self.intercept:
            raise ValueError("the method temperature has no intercept")
        if any(b[0] <= a[0] or b[1] < a[1] for a, b in pairwise(self.knots)):
            raise ValueError("the knots must rise")
        return self

    @property
    def constant(self) -> bool:
        """Whether the calibrated confidence is constant: then the stated ones carried no information."""
        if self.method == "isotonic":
            return self.knots[0][1] == self.knots[-1][1]
        return self.slope == 0

    def apply(self, confidence: float) -> float:
        """The calibrated confidence of a stated one, both in [0, 1].

        Raises:
            UserError: The stated one is outside.
        """
        if not 0 <= confidence <= 1:
            raise UserError(f"a confidence of {confidence:g} lies outside [0, 1]")
        if self.method == "isotonic":
            return self._interpolated(confidence)
        c = min(max(confidence, self.clip), 1 - self.clip)
        odds = self.intercept + self.slope * (math.log(c) - math.log1p(-c))
        return 1 / (1 + math.exp(min(-odds, MAX_LOG_ODDS)))

    def _interpolated(self, confidence: float) -> float:
        after = bisect_right(self.knots, confidence, key=lambda knot: knot[0])
        if after == 0:
            return self.knots[0][1]
        x, y = self.knots[after - 1]
        if after == len(self.knots):
            return y
        next_x, next_y = self.knots[after]
        # rounding may carry the end of a segment past its knot, and the function would decrease there
        return min(y + (next_y - y) * ((confidence - x) / (next_x - x)), next_y)


class CalibrationScores(Frozen):
    """Calibration scores of confidences; definitions in docs/statistics.md.

    Attributes:
        ece: Expected calibration error over ten bins of equal width.
        brier: Mean squared difference of confidence and correctness.
        nll: Mean negative log-likelihood, in nats.
    """

    ece: float
    brier: float
    nll: float


class CalibrationMap(FittedFile):
    """A curve with its provenance, what it may be used for, and its scores out of sample.

    Attributes:
        name: The file's stem; empty before it is written to one.
        strategy: The strategy whose confidences it calibrates.
        parameters: Its parameters, complete: the scale of its confidences depends on them.
        verify: Names of the verifiers of the answers; empty if they were not verified. The map applies to answers that
            are verified by the same ones.
        effort: How much the models thought before they answered; None is each model's default.
        thinking_tokens: Maximum tokens of each thought; None is the effort's.
        engines: Identity of each model by role: weights, number format, engine and its version.
        dataset: The dataset it was fitted on, with its variant.
        answers: Answers with a confidence: one per item and seed.
        made: The day it was fitted, in UTC.
        folds: Folds of the cross-validation, split between groups of items.
        before: Scores of the stated confidences.
        after: Scores of the calibrated ones out of sample: each by a curve fitted without the answer's fold.
    """

    kind: Literal["reason calibration map"] = KIND
    format: Literal[1] = FORMAT
    name: str = ""
    curve: CalibrationCurve
    strategy: str
    parameters: dict[str, JsonValue]
    verify: tuple[str, ...] = ()
    effort: Effort | None = None
    thinking_tokens: int | None = None
    models: dict[str, str]
    engines: dict[str, str]
    dataset: str
    fingerprint: str
    items: Annotated[int, Field(ge=1)]
    answers: Annotated[int, Field(ge=1)]
    seeds: tuple[int, ...]
    version: str
    made: date
    folds: Annotated[int, Field(ge=2)]
    before: CalibrationScores
    after: CalibrationScores

    @model_validator(mode="after")
    def _names_its_model(self) -> Self:
        if "main" not in self.models or "main" not in self.engines:
            raise ValueError("a map must name its main model and the model's identity")
        return self

    def __str__(self) -> str:
        return f"{self.name} ({self.curve.method}, {self.dataset})".lstrip()

    def apply(self, confidence: float) -> float:
        """The calibrated confidence of a stated one (`CalibrationCurve.apply`)."""
        return self.curve.apply(confidence)

    @property
    def regressed_scores(self) -> tuple[str, ...]:
        """The scores that are worse out of sample than before: of "ece", "brier", "nll"."""
        return tuple(n for n in ("ece", "brier", "nll") if getattr(self.after, n) > getattr(self.before, n))


def load_calibration_map(path: Path) -> CalibrationMap:
    """Read a map from its file.

    Raises:
        DataError: As `read_fitted_file`.
    """
    return read_fitted_file(path, CalibrationMap, kind=KIND, format=FORMAT, label="calibration map", hint=MADE_BY)
