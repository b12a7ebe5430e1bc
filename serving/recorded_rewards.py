"""`RecordedReward`: a reward model that is not there. The run store knows its scores by its identity."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.budget import LimitKind
from ..core.errors import LimitExceeded, StoreError
from ..core.messages import Failure
from .rewards import RewardCapabilities, StepScores, Which


class RecordedReward:
    """Stands for a reward model when a stored run is shown again; the store answers before anything comes here.

    A failed score is not stored, so a finished run may ask for scores that the store does not have: those are told as
    failed again.

    Args:
        name: The model string of the recorded run.
        identity: The identity of its model.
        capabilities: What its model was.
        finished: Whether the run came to its end: what it has no score for could not be scored.
        spent: The limit that ended the run, if one did: what it has no score for, it did not get to.
    """

    def __init__(
        self,
        name: str,
        identity: str,
        capabilities: RewardCapabilities,
        *,
        finished: bool = True,
        spent: LimitKind | None = None,
    ) -> None:
        self.name = name
        self.identity = identity
        self._capabilities = capabilities
        self._finished = finished
        self._spent = spent

    @property
    def capabilities(self) -> RewardCapabilities:
        """What the recorded model was."""
        return self._capabilities

    async def score_steps(
        self, problem: str, solutions: Sequence[Sequence[str]], which: Which = "all"
    ) -> list[StepScores]:
        """Tell that these solutions have no scores.

        Raises:
            LimitExceeded: A limit ended the recorded run.
            StoreError: The recorded run did not come to its end.
        """
        if self._spent is not None:
            raise LimitExceeded(self._spent, 0, 0)
        if not self._finished:
            raise StoreError(
                f"the store holds no score that this run asks of {self.name}",
                hint="the run was not finished, or another version of reason made it: resume it instead",
            )
        why = Failure(code="not_recorded", message="it could not be scored when the run was recorded")
        return [StepScores(passes=0, failure=why) for _ in solutions]

    def most_usd(self, problem: str, solutions: Sequence[Sequence[str]], which: Which = "all") -> float:
        """Nothing: a replay pays nobody."""
        return 0.0

    async def aclose(self) -> None:
        """Do nothing."""
