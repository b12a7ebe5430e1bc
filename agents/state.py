"""What the pipeline carries from stage to stage, and what its stages work with.

The state is plain JSON, since it is checkpointed after every stage; models, run and strategy are no part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from ..core.run import Run
from ..reasoning.strategy import Models
from .verifying import Verifying


class State(TypedDict, total=False):
    """The checkpointed state; every field is the JSON of the noun it is named after.

    Attributes:
        question: `Question`.
        strategy: Name of the strategy, decided by the stage `route`.
        solution: `Solution`, made by `solve`.
        verification: `Verification`, made by `verify`; None if no verifier ran.
        repairs: How often the answer went back to the strategy.
        kept: Solution and verification of the best attempt before, while another one is made.
        usage: `RunUsage` up to the end of the last stage.
        degraded: What could not be done as the method says, up to there.
        answer: `Answer`, made by `finish`.
    """

    question: dict[str, Any]
    strategy: str
    solution: dict[str, Any]
    verification: dict[str, Any] | None
    repairs: int
    kept: dict[str, Any]
    usage: dict[str, Any]
    degraded: list[str]
    answer: dict[str, Any]


@dataclass(frozen=True)
class Pipeline:
    """What the stages work with.

    Attributes:
        run: The run.
        models: Its models, metered.
        parameters: The strategy's parameters.
        verifying: What verifies its answers.
    """

    run: Run
    models: Models
    parameters: Mapping[str, Any]
    verifying: Verifying = field(default_factory=Verifying)
