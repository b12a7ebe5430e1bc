"""`FittedFusion`: parameters of fusion in a file, with whose verdicts they were fitted to; it refuses others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, FiniteFloat

from ...core.errors import DataError
from ...core.fitted_files import FittedFile, read_fitted, write_fitted
from .parameters import FusionParameters

KIND: Final = "reason evidence fusion"
FORMAT: Final = 1
MADE_BY: Final = "fit one to this verifier's verdicts on development data with evidence of this source"


class FittedFusion(FittedFile):
    """Parameters with what they may be used for.

    Attributes:
        kind: What the file is.
        format: Version of the file's form.
        name: The file's name without its ending; empty before it lies in one.
        verifier: Identity of what judged the pairs, with its prompt.
        source: Where the evidence came from, such as "gold" or "bm25@5": the share of irrelevant pieces, which `a`
            makes up for, depends on it.
        parameters: What was fitted.
        data: Hash of the examples.
        examples: Examples whose likelihood was looked at.
        disputed: Disputed examples, by which the threshold of conflict was chosen; 0 leaves it as it was.
        nll_before: Mean negative log-likelihood with the parameters it began from, in nats.
        nll: The same with the fitted ones, on the same data; never more.
        version: Version of `reason`.
    """

    kind: Literal["reason evidence fusion"] = KIND
    format: Literal[1] = FORMAT
    name: str = ""
    verifier: str
    source: str
    parameters: FusionParameters
    data: str
    examples: Annotated[int, Field(ge=1)]
    disputed: Annotated[int, Field(ge=0)]
    nll_before: FiniteFloat
    nll: FiniteFloat
    version: str

    def __str__(self) -> str:
        return f"{self.name} ({self.parameters.mode}, {self.examples} examples)".lstrip()

    def parameters_for(self, *, verifier: str, source: str) -> FusionParameters:
        """The parameters, with the file's digest, for the verifier and source that they were fitted to.

        Args:
            verifier: Identity of what judges the pairs now.
            source: Where the evidence comes from now.

        Raises:
            DataError: One of them is another; names both.
        """
        for called, own, other in (("verifier", self.verifier, verifier), ("evidence", self.source, source)):
            if own != other:
                raise DataError(f"the fusion {self} was fitted to the {called} {own!r}, not to {other!r}", hint=MADE_BY)
        return self.parameters.model_copy(update={"fitted": self.digest})


def save_fusion(fitted: FittedFusion, path: Path) -> None:
    """Write fitted parameters as JSON, whole or not at all; their name is the file's.

    Raises:
        StoreError: It cannot be written; what was there stays.
    """
    write_fitted(fitted, path)


def load_fusion(path: Path) -> FittedFusion:
    """Read fitted parameters from their file.

    Raises:
        DataError: There is no such file, it cannot be read, it is cut short, it holds something else, or it is of
            another version or has impossible values; names the file.
    """
    return read_fitted(path, FittedFusion, kind=KIND, format=FORMAT, called="evidence fusion", made_by=MADE_BY)
