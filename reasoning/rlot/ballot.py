"""`Ballot`: the attempts at one problem, made side by side, and the answer on which most of them agree."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from pydantic import JsonValue

from ...core.answer import Candidate, Solution
from ...core.errors import BackendError, ReasonError, StoreError
from ...core.events import CandidateFound
from ...core.question import Question
from ...core.run import Run
from ..sampler import leader
from ..weighed_vote import weighed_vote
from .affording import at_once
from .attempt import Attempt

MISSING = 0.05
"""Share of missing scores above which an answer says that the navigator saw too little."""
LOST = "an attempt failed; the others voted without it"


class Ballot:
    """Makes attempts and counts their answers.

    Attempts go on side by side where nothing but time limits the run; under another limit they are made one after
    another, each with what the ones before have left, so that a replay asks what the run asked.

    Args:
        question: The problem.
        run: The run.
        attempts: The attempts; a single one does not vote.
    """

    def __init__(self, question: Question, run: Run, attempts: Sequence[Attempt]) -> None:
        self._question, self._run, self._attempts = question, run, list(attempts)
        self._counted = self._attempts
        for attempt in self._attempts:
            attempt.told = self._offer

    async def make(self) -> None:
        """Make all attempts; the best so far is offered to the run while they go on.

        Raises:
            BackendError: All of them failed.
        """
        made = await at_once([partial(self._make, attempt) for attempt in self._attempts], self._run)
        failed: list[ReasonError] = []
        counted: list[Attempt] = []
        for attempt, error in zip(self._attempts, made, strict=True):
            if error is None:
                counted.append(attempt)
            elif isinstance(error, BackendError) or (isinstance(error, StoreError) and not self._run.recording):
                failed.append(error)  # a replay finds nothing stored where the run had a failure
            else:
                raise error
        if failed and not any(attempt.begun for attempt in counted):
            raise failed[0]
        if failed:
            self._run.degrade(LOST)
        self._counted = counted

    async def _make(self, attempt: Attempt) -> None:
        if attempt.vote == 0 or attempt.covered():
            await attempt.make()

    async def solution(self) -> Solution:
        """What they came to."""
        run, counted = self._run, [attempt for attempt in self._counted if attempt.begun]
        candidates = tuple(attempt.candidate() for attempt in counted)
        for i, candidate in enumerate(candidates):
            run.emit(CandidateFound(index=i, answer=candidate.answer))
        chosen: int | None = 0 if candidates else None
        confidence: float | None = None
        if len(self._attempts) > 1 and candidates:
            voted = await weighed_vote(candidates, [1.0] * len(candidates), self._question, run)
            chosen, confidence = (0, 0.0) if voted is None else (voted.chosen, voted.share)
        scores = self._tell_missing()
        facts = {} if chosen is None else counted[chosen].facts()
        if len(self._attempts) > 1:
            facts |= {"votes": len(candidates), "chains": [list(attempt.chain) for attempt in counted]}
        return Solution(
            chosen=chosen,
            candidates=candidates,
            confidence=confidence,
            stopped="budget" if any(attempt.spent for attempt in self._attempts) else "done",
            notes=facts | scores,
        )

    def _tell_missing(self) -> dict[str, JsonValue]:
        """Scores asked for and missing, over all attempts; where too many are missing, the answer says so."""
        asked = sum(attempt.episode.runner.scores_asked for attempt in self._attempts)
        missing = sum(attempt.episode.runner.scores_missing for attempt in self._attempts)
        if missing > MISSING * asked:
            self._run.degrade(
                f"{missing} of {asked} scores of the model's self-assessments could not be read; the navigator took "
                "them for 0, not involved"
            )
        return {"scores_asked": asked, "scores_missing": missing}

    def _offer(self) -> None:
        begun = [attempt for attempt in self._attempts if attempt.begun]
        if not begun:
            return
        finished = [attempt for attempt in begun if attempt.episode.done]
        candidates: list[Candidate] = [attempt.candidate() for attempt in finished or begun]
        best = leader(candidates)
        if len(self._attempts) == 1:
            best = best.model_copy(update={"confidence": None})
        self._run.offer(best.model_copy(update={"stopped": "cancelled"}))
