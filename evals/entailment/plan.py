"""`EntailmentPlan`: everything that decides what a training of the embedded judge gives."""

from __future__ import annotations

import hashlib
from typing import Annotated

from pydantic import Field

from ...core.messages import Frozen
from .drawing import Mix


class DataUse(Frozen):
    """A file that is used.

    Attributes:
        name: The dataset, or "corpus".
        sha256: Of its bytes.
        licence: What it may be used under.
        claims: Cases read from it; sentences of a corpus.
    """

    name: str
    sha256: str
    licence: str
    claims: int


class EntailmentPlan(Frozen):
    """One training. Equal plans on the same machine give the same weights, however they were interrupted.

    Attributes:
        data: What is trained on, and what is set apart.
        base: Fingerprint of the encoder.
        held: Share of the claims that is kept back.
        epochs: How often each claim is seen.
        seed: Seed of head, drawing, order and dropout.
        batch: Pairs of a step.
        rate: Largest learning rate of the encoder.
        head_rate: Likewise of head and marks.
        warm_up: Share of the training in which the rates rise; they fall to 0 in the rest, linearly.
        decay: Weight decay of matrices.
        dropout: Chance that a number is dropped.
        smoothing: Share of a label's probability that is spread over all.
        clip: Longest gradient.
        bits: Bits of a number of the file.
        mixed: Whether matrices are multiplied in bf16.
        mix: How often each kind of pair is drawn.
    """

    data: tuple[DataUse, ...]
    base: str
    held: Annotated[float, Field(gt=0, lt=0.9)] = 0.2
    epochs: Annotated[int, Field(ge=1)] = 3
    seed: Annotated[int, Field(ge=0)] = 0
    batch: Annotated[int, Field(ge=2)] = 32
    rate: Annotated[float, Field(gt=0)] = 2e-4
    head_rate: Annotated[float, Field(gt=0)] = 1e-3
    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.06
    decay: Annotated[float, Field(ge=0)] = 0.01
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.05
    clip: Annotated[float, Field(gt=0)] = 1.0
    bits: Annotated[int, Field(ge=2, le=8)] = 6
    mixed: bool = False
    mix: Mix = Mix()

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits over all of it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    def share_of_rate(self, progress: float) -> float:
        """What the rates are multiplied by when a share `progress` of the training is done."""
        if progress < self.warm_up:
            return progress / self.warm_up
        return max(0.0, (1 - progress) / (1 - self.warm_up))
