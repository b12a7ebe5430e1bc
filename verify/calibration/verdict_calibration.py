"""`VerdictCalibration`: what a verifier's probabilities turned out to be worth, in a file; it refuses other verifiers.

Applying one never changes what is likeliest, and needs no scipy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from ...core.calibration import CalibrationCurve, CalibrationMethod, CalibrationScores
from ...core.errors import DataError
from ...core.fitted_files import FittedFile, read_fitted, write_fitted
from ..support import Support
from .curves import mapped

KIND: Final = "reason verdict calibration"
FORMAT: Final = 1
MADE_BY: Final = "fit one to this verifier's verdicts on development data"


class VerdictCalibration(FittedFile):
    """A map of three-way supports, with what it may be used for and how well it did.

    "temperature" raises all three probabilities to 1/T. "platt" and "isotonic" map the probability of the likeliest
    label, and the others share the rest in their old proportion. One map of the top label, and not one for each label,
    because the gate looks at nothing else, and because renormalising three maps would undo each of them.

    Attributes:
        kind: What the file is.
        format: Version of the file's form.
        name: The file's name without its ending; empty before it lies in one.
        method: Which function.
        temperature: T of "temperature", above 0; 1 otherwise.
        curve: The function of "platt" and "isotonic"; None otherwise.
        threshold: The gate's threshold that was chosen on the same data after this map; None if none was.
        backend: Identity of what judged the pairs of evidence and claim.
        prompt: Id of the prompt it was asked by; empty if it has none.
        aggregation: How verdicts on pieces of evidence became one: its name and parameters.
        data: Hash of the examples that it was fitted to.
        examples: How many they were.
        version: Version of `reason`.
        before: ECE and Brier of the likeliest label's confidence, and NLL of the right label, as they came.
        after: The same, each example by a map that was fitted without its part of the data.
    """

    kind: Literal["reason verdict calibration"] = KIND
    format: Literal[1] = FORMAT
    name: str = ""
    method: CalibrationMethod
    temperature: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    curve: CalibrationCurve | None = None
    threshold: Annotated[FiniteFloat, Field(ge=0)] | None = None
    backend: str
    prompt: str = ""
    aggregation: str
    data: str
    examples: Annotated[int, Field(ge=1)]
    version: str
    before: CalibrationScores
    after: CalibrationScores

    @model_validator(mode="after")
    def _is_one_function(self) -> Self:
        if (self.method == "temperature") != (self.curve is None):
            raise ValueError("a curve belongs to the methods platt and isotonic, and they need one")
        if self.curve is not None and (self.curve.method != self.method or self.temperature != 1):
            raise ValueError(f"the curve is not what the method {self.method} says")
        return self

    def __str__(self) -> str:
        return f"{self.name} ({self.method}, {self.examples} examples)".lstrip()

    def apply(self, support: Support) -> Support:
        """The calibrated probabilities; the likeliest label stays the likeliest."""
        return mapped(support, self.temperature, self.curve)

    def refuse_other(self, *, backend: str, aggregation: str, prompt: str = "") -> None:
        """Refuse to calibrate what this was not fitted for.

        Args:
            backend: Identity of what judges the pairs now.
            aggregation: How their verdicts become one now.
            prompt: Id of the prompt now.

        Raises:
            DataError: One of them is another; names both.
        """
        for called, own, other in (
            ("backend", self.backend, backend),
            ("prompt", self.prompt, prompt),
            ("aggregation", self.aggregation, aggregation),
        ):
            if own != other:
                raise DataError(
                    f"the calibration {self} was fitted for the {called} {own!r}, not for {other!r}", hint=MADE_BY
                )


def save_calibration(calibration: VerdictCalibration, path: Path) -> None:
    """Write a calibration as JSON, whole or not at all; its name is the file's.

    Raises:
        StoreError: It cannot be written; what was there stays.
    """
    write_fitted(calibration, path)


def load_calibration(path: Path) -> VerdictCalibration:
    """Read a calibration from its file.

    Raises:
        DataError: There is no such file, it cannot be read, it is cut short, it is no calibration of verdicts, or one
            of another version or with impossible values; names the file.
    """
    return read_fitted(
        path, VerdictCalibration, kind=KIND, format=FORMAT, called="verdict calibration", made_by=MADE_BY
    )
