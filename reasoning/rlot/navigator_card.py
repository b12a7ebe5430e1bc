"""`NavigatorCard`: where a navigator comes from, what it was trained for, and which questions it has seen."""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal

from pydantic import Field, FiniteFloat, JsonValue

from ...core.messages import Frozen
from .blocks import MaskMode

FORMAT: Final = 1
RefineMode = Literal["append", "replace"]
QuestionDigest = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]


class NavigatorCard(Frozen):
    """What is known of a navigator; everything has a default, so that one made by hand needs no card.

    Attributes:
        format: Version of the card's form.
        name: The navigator's name; the file's name without its ending where it has none.
        model: The model string of the LLM it was trained with.
        model_identity: Weights, number format and engine of that model, as the run store names them.
        reward: How it was rewarded: "prm", "outcome" or "potential".
        reward_model: The process reward model; empty where there was none.
        datasets: The datasets that its problems are from.
        episodes: Episodes of its training.
        steps: Blocks of its training.
        problems: Different problems that it was trained on.
        seed: Seed of its training.
        gamma: Discount of later rewards.
        max_blocks: Most blocks before the answer.
        mask_mode: What became of blocks that may not run.
        refine_mode: Whether a refined step stood beside the old one or in its place.
        parameters: The strategy's parameters during training.
        trained_on: `question_digest` of each problem.
        created: When training ended, ISO 8601.
        version: Version of `reason`.
        notes: Whatever else is worth knowing.
    """

    format: Literal[1] = FORMAT
    name: str = ""
    model: str = ""
    model_identity: str = ""
    reward: str = ""
    reward_model: str = ""
    datasets: tuple[str, ...] = ()
    episodes: Annotated[int, Field(ge=0)] = 0
    steps: Annotated[int, Field(ge=0)] = 0
    problems: Annotated[int, Field(ge=0)] = 0
    seed: int = 0
    gamma: Annotated[FiniteFloat, Field(ge=0, le=1)] = 0.9
    max_blocks: Annotated[int, Field(ge=1)] = 5
    mask_mode: MaskMode = "mask"
    refine_mode: RefineMode = "append"
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    trained_on: tuple[QuestionDigest, ...] = ()
    created: str = ""
    version: str = ""
    notes: dict[str, JsonValue] = Field(default_factory=dict)


def question_digest(text: str) -> str:
    """Sixteen hexadecimal digits of a question's text; case and the number and kind of blanks make no difference."""
    plain = " ".join(text.casefold().split())
    return hashlib.sha256(plain.encode(errors="surrogatepass")).hexdigest()[:16]
