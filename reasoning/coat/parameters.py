"""`ThoughtParameters`: the parameters of tree search over thoughts, with association or without."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field

from ...core.run import Run
from ..search.limits import Limits
from ..search.monte_carlo import MonteCarloOptions
from ..strategy import Parameters

Judging = Literal["merged", "separate", "digits"]


class ThoughtParameters(Parameters, MonteCarloOptions):
    """Parameters of `mcts`; `coat` has those of association beside them."""

    max_step_tokens: Annotated[int, Field(ge=1, description="most tokens of a step")] = 160
    temperature: Annotated[float, Field(gt=0, le=100, description="sampling temperature of steps")] = 0.8
    top_p: Annotated[float, Field(gt=0, le=1, description="nucleus mass")] = 1.0
    score: Annotated[
        Literal["judge", "reward"], Field(description="what scores a step: the judge, or the reward model")
    ] = "judge"
    judging: Annotated[
        Judging,
        Field(
            description="merged: one reply with all scores; separate: one each; digits: the mean of the digit that "
            "comes next, without generating"
        ),
    ] = "merged"
    judge_tokens: Annotated[int, Field(ge=4, description="most tokens of the judge's reply")] = 32
    select: Annotated[
        Literal["best", "vote"], Field(description="among solutions: the best, or the answer with most weight")
    ] = "best"
    instruction: Annotated[str | None, Field(description="text behind the question; by default: a step at a time")] = (
        None
    )
    system: Annotated[str, Field(description="system message; empty leaves it to the model")] = ""

    def options(self, run: Run) -> MonteCarloOptions:
        """The search's own part, within what the run may spend."""
        chosen: dict[str, Any] = {name: getattr(self, name) for name in MonteCarloOptions.model_fields}
        left = run.ledger.left("tokens")
        if left < math.inf:
            finish = min(self.limits.finish_tokens, max(1, int(left) // 4))
            chosen["limits"] = Limits.model_validate(self.limits.model_dump() | {"finish_tokens": finish})
        return MonteCarloOptions.model_validate(chosen)
