"""`Trainer`: episodes in lock-step rounds, from which one learner learns.

A round: empty places get new problems; the learner chooses an action for every episode, in the order of the places; all
blocks run at the same time, so that the engine batches their calls; and the learner is told what came of them, in the
same order. So what is learned follows from the seed and the replies, however long each block took.

After each round everything is known that is needed to go on: the learner's state, and for every episode under way its
problem and its actions. To go on, those actions are taken again; their replies are in the run store.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import Field

from ...core.errors import DataError
from ...core.messages import Frozen
from ...core.together import together
from ...reasoning.rlot.learning.learner import Learner
from ...reasoning.rlot.learning.transition import Transition
from .navigation import Navigate, Navigation
from .problems import Problem
from .records import EpisodeRecord


class Place(Frozen):
    """An episode under way, as a checkpoint has it.

    Attributes:
        problem: Dataset and name of its problem.
        actions: Its actions so far.
        losses: Losses of the updates that it led to.
        epsilon: The chance of a random action at its last one.
    """

    problem: tuple[str, str]
    actions: tuple[int, ...] = ()
    losses: tuple[float, ...] = ()
    epsilon: float = 1.0


class Progress(Frozen):
    """Where a training stands between two rounds.

    Attributes:
        begun: Episodes begun.
        finished: Episodes that ended.
        steps: Actions taken.
        places: The episodes under way; None is an empty place.
    """

    begun: int = 0
    finished: int = 0
    steps: int = 0
    places: tuple[Place | None, ...] = Field(default=())


@dataclass
class _Under:
    """An episode under way."""

    problem: Problem
    navigation: Navigation
    losses: list[float] = field(default_factory=list)
    epsilon: float = 1.0


class Trainer:
    """Runs the episodes of a training.

    Args:
        problems: What is trained on; a problem is under way once at a time, and may come again after that.
        learner: Learns.
        navigate: Makes an episode.
        parallel: Most episodes under way at a time; never more than there are problems.
        episodes: Episodes in all.
        seed: Seed of the order of problems.
        progress: Where an interrupted training stood.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        learner: Learner,
        navigate: Navigate,
        *,
        parallel: int,
        episodes: int,
        seed: int,
        progress: Progress | None = None,
    ) -> None:
        self._problems = tuple(problems)
        self._learner = learner
        self._navigate = navigate
        self._episodes = episodes
        self._seed = seed
        width = min(parallel, len(self._problems))
        self._before = progress or Progress(places=(None,) * width)
        self._places: list[_Under | None] = [None] * len(self._before.places)
        self._begun, self._finished, self._steps = self._before.begun, self._before.finished, self._before.steps

    @property
    def finished(self) -> int:
        """Episodes that ended."""
        return self._finished

    @property
    def done(self) -> bool:
        """Whether all episodes have ended."""
        return self._finished >= self._episodes

    @property
    def width(self) -> int:
        """Most episodes under way at a time."""
        return len(self._places)

    def progress(self) -> Progress:
        """Where it stands; only between two rounds."""
        return Progress(
            begun=self._begun,
            finished=self._finished,
            steps=self._steps,
            places=tuple(
                None
                if under is None
                else Place(
                    problem=under.problem.key,
                    actions=tuple(under.navigation.actions),
                    losses=tuple(under.losses),
                    epsilon=under.epsilon,
                )
                for under in self._places
            ),
        )

    async def restore(self) -> None:
        """Bring the episodes that were under way to where they stood: their actions are taken again.

        Raises:
            DataError: A problem is not among those of the training, or an episode ended earlier than it had.
            ReasonError: As `Navigation.begin` and `act`.
        """
        known = {problem.key: problem for problem in self._problems}

        async def bring(at: int, place: Place) -> None:
            problem = known.get(place.problem)
            if problem is None:
                raise DataError(
                    f"the training was at {place.problem[0]} {place.problem[1]!r}, which is none of its problems",
                    hint="train anew in another folder",
                )
            navigation = self._navigate(problem)
            self._places[at] = _Under(problem, navigation, list(place.losses), place.epsilon)
            await navigation.begin()
            for action in place.actions:
                if navigation.done:
                    raise DataError(
                        f"the episode on {problem.dataset} {problem.item.id!r} ends earlier than it did: its replies "
                        "are other ones",
                        hint="give the run store that the training began with, or train anew in another folder",
                    )
                await navigation.act(action)

        await together([bring(at, place) for at, place in enumerate(self._before.places) if place is not None])

    async def round(self) -> list[EpisodeRecord]:
        """One block of every episode.

        Returns:
            The episodes that ended with it, in the order of their places.

        Raises:
            ReasonError: As `Navigation.begin` and `act`; the trainer cannot be gone on with then.
        """
        fresh = self._fill()
        await together([under.navigation.begin() for under in fresh])
        under_way = [(at, under) for at, under in enumerate(self._places) if under is not None]
        acting = [under for _, under in under_way if not under.navigation.done]
        actions: list[int] = []
        for under in acting:  # one after another: each sees the epsilon of its own step
            under.epsilon = self._learner.epsilon
            actions += self._learner.act([under.navigation.state], [under.navigation.legal])
        before = [under.navigation.state for under in acting]
        moved = await together([under.navigation.act(action) for under, action in zip(acting, actions, strict=True)])
        for under, state, action, move in zip(acting, before, actions, moved, strict=True):
            self._observe(under, Transition(state, action, move.reward, move.done, move.state, move.legal))
        return await self._collect(under_way)

    async def close(self) -> None:
        """Give back the runs of the episodes under way; idempotent."""
        under_way = [under for under in self._places if under is not None]
        self._places = [None] * len(self._places)
        await together([under.navigation.close() for under in under_way])

    def _fill(self) -> list[_Under]:
        """Put a new episode into each empty place, as long as there are any to begin."""
        fresh: list[_Under] = []
        for at, under in enumerate(self._places):
            if under is None and self._begun < self._episodes:
                problem = self._draw()
                new = _Under(problem, self._navigate(problem))
                self._places[at] = new
                self._begun += 1
                fresh.append(new)
        return fresh

    def _draw(self) -> Problem:
        """The problem of the next episode: any that is not under way, a function of seed and number of the episode."""
        busy = {under.problem.key for under in self._places if under is not None}
        free = [problem for problem in self._problems if problem.key not in busy]
        digest = hashlib.sha256(f"{self._seed}\x1fproblem\x1f{self._begun}".encode()).digest()
        return random.Random(digest).choice(free)  # noqa: S311 (a reproducible choice, no secret)

    def _observe(self, under: _Under, transition: Transition) -> None:
        self._steps += 1
        loss = self._learner.observe(transition)
        if loss is not None:
            under.losses.append(loss)

    async def _collect(self, under_way: Sequence[tuple[int, _Under]]) -> list[EpisodeRecord]:
        """Note and close the episodes that have ended."""
        records: list[EpisodeRecord] = []
        ended: list[Navigation] = []
        for at, under in under_way:
            if not under.navigation.done:
                continue
            self._finished += 1
            rate = self._learner.learning_rate
            self._learner.end_episode()
            records.append(
                under.navigation.record(
                    self._finished,
                    epsilon=under.epsilon,
                    learning_rate=rate,
                    loss=sum(under.losses) / len(under.losses) if under.losses else None,
                    steps=self._steps,
                )
            )
            self._places[at] = None
            ended.append(under.navigation)
        await together([navigation.close() for navigation in ended])
        return records
