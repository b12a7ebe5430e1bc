"""What a training notes of its episodes and validations; no times: equal trainings write equal lines."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ...core.messages import Frozen
from ...reasoning.rlot.assessment import State
from ...reasoning.rlot.blocks import LETTERS


class EpisodeRecord(Frozen):
    """One episode of a training.

    Attributes:
        episode: Its number, from 1, in the order in which episodes ended.
        dataset: Where its problem is from.
        item: Name of the problem there.
        blocks: The blocks that ran, by their letters; `Ga` where the answer was chosen or forced.
        length: Blocks that ran before the answer. A reward of steps pays for long chains: keep an eye on it.
        states: The self-assessments, from that of the bare problem on.
        actions: What was chosen, by number; under "substitute" another block may have run.
        rewards: What each earned.
        earned: The discounted sum of them.
        correct: Whether the answer was right.
        answer: The answer that was read; None if none was.
        forced: Whether the answer was asked for because no further block could run.
        scores_asked: Scores that the assessments should have had.
        scores_missing: Those that could not be read, and count as 0.
        unscored: Blocks that the reward model could not score.
        tokens: Tokens of all replies, whether they were generated for it or found in the run store.
        calls: Requests likewise.
        epsilon: The chance of a random action at its last one.
        learning_rate: The learning rate at its end.
        loss: Mean loss of its updates; None if there were none.
        steps: Actions of the training so far.
        error: What ended it before its answer; empty if nothing did. Such an episode earns nothing more.
    """

    episode: Annotated[int, Field(ge=1)]
    dataset: str
    item: str
    blocks: tuple[str, ...]
    length: int
    states: tuple[State, ...]
    actions: tuple[int, ...]
    rewards: tuple[float, ...]
    earned: float
    correct: bool
    answer: str | None = None
    forced: bool = False
    scores_asked: int = 0
    scores_missing: int = 0
    unscored: int = 0
    tokens: int = 0
    calls: int = 0
    epsilon: float = 0.0
    learning_rate: float = 0.0
    loss: float | None = None
    steps: int = 0
    error: str = ""

    @property
    def chain(self) -> str:
        """The blocks in one word, as in `R-Db-Ga`."""
        return "-".join(self.blocks)


class Validation(Frozen):
    """The greedy navigator on held-out problems, at one moment of a training.

    Attributes:
        episode: Episodes before it.
        problems: How many were asked.
        correct: How many of the answers were right.
        earned: Mean discounted reward; rewards are those of the training.
        length: Mean number of blocks before the answer.
        missing: Share of the scores of assessments that could not be read.
        tokens: Mean tokens of a problem's replies.
    """

    episode: int
    problems: int
    correct: int
    earned: float
    length: float
    missing: float
    tokens: float

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.correct / self.problems


def letters_of(blocks: tuple[int, ...]) -> tuple[str, ...]:
    """Blocks by their letters."""
    return tuple(LETTERS[block] for block in blocks)
