"""`Arm`: one way to answer, with how likely it is right and what it costs, told from a question; and the choice of one.

    worth of an arm = P(right | question) - price * expected tokens / 1000

P is a logistic function and the logarithm of the tokens a linear one of the same numbers (`feature_space`), each fitted
on evaluation runs. The price is what 1000 generated tokens are worth in chance of being right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, FiniteFloat, JsonValue

from ..core.answer import Probability
from ..core.errors import ReasonError
from ..core.messages import Frozen
from ..reasoning.strategy import make_strategy
from .feature_space import Line, Space

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PlayedBy = Literal["main", "small"]
NotNegative = Annotated[FiniteFloat, Field(ge=0)]
STEEPEST = 700.0
"""Largest exponent taken: e^700 is still a number."""


class TokenModel(Frozen):
    """The generated tokens that an arm is expected to take: smear * e^line - 1, within what it took in training.

    The line is over ln(1 + tokens). Its exponential alone is too small for a mean; `smear`, the mean of the exponential
    of what the line missed, corrects it without a distribution being assumed.

    Source: Duan 1983, "Smearing Estimate: A Nonparametric Retransformation Method".

    Attributes:
        line: Over ln(1 + tokens).
        smear: At least 1 where the line was fitted by least squares.
        least: Fewest tokens of a training question.
        most: Most.
    """

    line: Line
    smear: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    least: NotNegative
    most: NotNegative

    def expected(self, space: Space, row: NDArray[np.float64]) -> float:
        """Expected generated tokens."""
        found = self.smear * math.exp(min(self.line.value(space, row), STEEPEST)) - 1
        return min(max(found, self.least), self.most)


class Arm(Frozen):
    """One way to answer.

    Attributes:
        label: The strategy with the parameters that differ from its defaults, and who plays it, for people.
        strategy: Name of the strategy.
        parameters: Its parameters, complete.
        role: Whose model plays the strategy's main part: the run's main model, or its small one.
        needs: Roles besides that need a model of their own: "small", "judge", "reward".
        right: The log-odds of a right answer.
        tokens: Generated tokens, all models together.
        cost: What a token of this arm counts, tokens of the main model counting 1.
        calls: Mean model calls.
        reward_calls: Mean passes of a reward model.
        share_right: Mean score in training.
        mean_tokens: Mean tokens there.
    """

    label: str
    strategy: str
    parameters: dict[str, JsonValue]
    role: PlayedBy = "main"
    needs: tuple[str, ...] = ()
    right: Line
    tokens: TokenModel
    cost: NotNegative = 1.0
    calls: NotNegative = 1.0
    reward_calls: NotNegative = 0.0
    share_right: Probability
    mean_tokens: NotNegative


@dataclass(frozen=True)
class Estimate:
    """What an arm is worth for one question.

    Attributes:
        arm: The arm.
        right: P(right).
        tokens: Expected generated tokens.
        worth: P(right) less the price of the tokens.
        shares: What each signal adds to the log-odds of the average question.
    """

    arm: Arm
    right: float
    tokens: float
    worth: float
    shares: dict[str, float]


def chance_of(log_odds: float) -> float:
    """The chance that has these log-odds, in [0, 1]."""
    return 1 / (1 + math.exp(min(-log_odds, STEEPEST)))


def estimate(arm: Arm, space: Space, row: NDArray[np.float64], price: float) -> Estimate:
    """What an arm is worth.

    Args:
        arm: The arm.
        space: What the row is of.
        row: The question's numbers.
        price: Of 1000 tokens, in chance of being right.
    """
    right = chance_of(arm.right.value(space, row))
    tokens = arm.tokens.expected(space, row)
    return Estimate(arm, right, tokens, right - price * arm.cost * tokens / 1000, arm.right.shares(space, row))


def ranked(arms: Sequence[Arm], space: Space, row: NDArray[np.float64], price: float) -> list[Estimate]:
    """All arms, the one worth most first; of equal ones that of fewer tokens, then that named first."""
    found = [estimate(arm, space, row, price) for arm in arms]
    return sorted(found, key=lambda one: (-one.worth, one.arm.cost * one.tokens))


def arm_label(strategy: str, parameters: dict[str, JsonValue], role: PlayedBy = "main") -> str:
    """A strategy with the parameters that differ from its defaults, and who plays it: `cot max_tokens=256, small`."""
    try:
        _, usual = make_strategy(strategy, {})
    except ReasonError:  # of a package that is gone, or one without defaults
        usual = {}
    words = [
        f"{name}={value}" for name, value in parameters.items() if usual and (name not in usual or usual[name] != value)
    ]
    said = " ".join([strategy, *words])
    return said if role == "main" else f"{said}, {role}"
