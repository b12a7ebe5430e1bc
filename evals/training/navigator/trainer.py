"""`NavigatorTrainer`: episodes in lockstep rounds that feed one learner.

    round:
        start an episode in each empty slot
        the learner chooses an action for every episode, in slot order
        run all blocks concurrently, so that the engine batches their calls
        the learner observes the transitions, in slot order

So the result follows from the seed and the completions, however long each block takes. Between two rounds the learner's
state, and the problem and actions of every episode in flight, are all that is needed to resume: the actions are taken
again, and their completions are in the run store.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue, ValidationError

from ....core.concurrency import gather
from ....core.errors import DataError
from ....core.messages import Frozen
from ....reasoning.rlot.learner import Learner, Transition
from ..run_directory import Checkpoint
from .episodes import EpisodeFactory, EpisodeRecord, TrainingEpisode
from .plan import Problem


class EpisodeState(Frozen):
    """An episode in flight, as a checkpoint holds it.

    Attributes:
        problem: Dataset and item id.
        actions: Actions so far.
        losses: Losses of the updates that its transitions led to.
        epsilon: Probability of a random action at its last one.
    """

    problem: tuple[str, str]
    actions: tuple[int, ...] = ()
    losses: tuple[float, ...] = ()
    epsilon: float = 1.0


class TrainingProgress(Frozen):
    """A training run between two rounds.

    Attributes:
        begun: Episodes started.
        finished: Episodes that ended.
        steps: Actions taken.
        slots: The episodes in flight; None is an empty slot.
    """

    begun: int = 0
    finished: int = 0
    steps: int = 0
    slots: tuple[EpisodeState | None, ...] = Field(default=())


@dataclass(frozen=True)
class NavigatorState:
    """Everything that a checkpoint holds.

    Attributes:
        plan: Digest of the plan.
        learner: State of the learner.
        progress: The episodes.
        validated: Episodes before the last validation; -1 before the first.
        validations: Number of validations.
        identities: Identity of each model by role.
    """

    plan: str
    learner: Mapping[str, NDArray[Any] | JsonValue]
    progress: TrainingProgress
    validated: int
    validations: int
    identities: Mapping[str, str]

    def to_checkpoint(self) -> Checkpoint:
        """The state as arrays and JSON."""
        return Checkpoint(
            plan=self.plan,
            state={
                "learner": {n: v for n, v in self.learner.items() if not isinstance(v, np.ndarray)},
                "progress": self.progress.model_dump(mode="json"),
                "validated": self.validated,
                "validations": self.validations,
                "identities": dict(self.identities),
            },
            arrays={name: value for name, value in self.learner.items() if isinstance(value, np.ndarray)},
        )

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> NavigatorState:
        """The state that a checkpoint holds.

        Raises:
            DataError: It is the checkpoint of another kind of training.
        """
        state: Mapping[str, Any] = checkpoint.state
        try:
            return cls(
                plan=checkpoint.plan,
                learner={**state["learner"], **checkpoint.arrays},
                progress=TrainingProgress.model_validate(state["progress"]),
                validated=int(state["validated"]),
                validations=int(state["validations"]),
                identities=dict(state["identities"]),
            )
        except (KeyError, TypeError, ValueError, ValidationError) as e:
            raise DataError(
                "the checkpoint is damaged: it holds no navigator", hint="train again in another directory"
            ) from e


@dataclass
class _Slot:
    """An episode in flight."""

    problem: Problem
    episode: TrainingEpisode
    losses: list[float] = field(default_factory=list)
    epsilon: float = 1.0


class NavigatorTrainer:
    """Runs the episodes of a training run.

    Args:
        problems: The training problems; one is in flight once at a time, and may come again later.
        learner: The learner.
        start_episode: Creates an episode.
        parallel: Maximum number of episodes in flight; never more than there are problems.
        episodes: Number of episodes in all.
        seed: Seed of the order of problems.
        progress: Where to resume.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        learner: Learner,
        start_episode: EpisodeFactory,
        *,
        parallel: int,
        episodes: int,
        seed: int,
        progress: TrainingProgress | None = None,
    ) -> None:
        self._problems = tuple(problems)
        self._learner = learner
        self._start_episode = start_episode
        self._episodes = episodes
        self._seed = seed
        width = min(parallel, len(self._problems))
        self._before = progress or TrainingProgress(slots=(None,) * width)
        self._slots: list[_Slot | None] = [None] * len(self._before.slots)
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
        """Number of slots."""
        return len(self._slots)

    def progress(self) -> TrainingProgress:
        """The state of the episodes; only between two rounds."""
        return TrainingProgress(
            begun=self._begun,
            finished=self._finished,
            steps=self._steps,
            slots=tuple(
                None
                if slot is None
                else EpisodeState(
                    problem=slot.problem.key,
                    actions=tuple(slot.episode.actions),
                    losses=tuple(slot.losses),
                    epsilon=slot.epsilon,
                )
                for slot in self._slots
            ),
        )

    async def restore(self) -> None:
        """Take the actions of the episodes in flight again.

        Raises:
            DataError: A problem is not among those of the training, or an episode ends earlier than it did.
            ReasonError: As `TrainingEpisode.begin` and `act`.
        """
        known = {problem.key: problem for problem in self._problems}

        async def resume(index: int, state: EpisodeState) -> None:
            problem = known.get(state.problem)
            if problem is None:
                raise DataError(
                    f"the training was at {state.problem[0]} {state.problem[1]!r}, which is none of its problems",
                    hint="train again in another directory",
                )
            episode = self._start_episode(problem)
            self._slots[index] = _Slot(problem, episode, list(state.losses), state.epsilon)
            await episode.begin()
            for action in state.actions:
                if episode.done:
                    raise DataError(
                        f"the episode on {problem.dataset} {problem.item.id!r} ends earlier than it did: its "
                        "completions differ",
                        hint="use the run store that the training began with, or train again in another directory",
                    )
                await episode.act(action)

        await gather([resume(index, state) for index, state in enumerate(self._before.slots) if state is not None])

    async def round(self) -> list[EpisodeRecord]:
        """One block of every episode.

        Returns:
            The episodes that ended with it, in slot order.

        Raises:
            ReasonError: As `TrainingEpisode.begin` and `act`; the trainer cannot be used after it.
        """
        started = self._fill()
        await gather([slot.episode.begin() for slot in started])
        in_flight = [(index, slot) for index, slot in enumerate(self._slots) if slot is not None]
        acting = [slot for _, slot in in_flight if not slot.episode.done]
        actions: list[int] = []
        for slot in acting:  # in turn: each uses the epsilon of its own step
            slot.epsilon = self._learner.epsilon
            actions += self._learner.act([slot.episode.state], [slot.episode.legal])
        before = [slot.episode.state for slot in acting]
        results = await gather([slot.episode.act(action) for slot, action in zip(acting, actions, strict=True)])
        for slot, state, action, step in zip(acting, before, actions, results, strict=True):
            self._observe(slot, Transition(state, action, step.reward, step.done, step.state, step.legal))
        return await self._collect(in_flight)

    async def close(self) -> None:
        """Release the runs of the episodes in flight; idempotent."""
        in_flight = [slot for slot in self._slots if slot is not None]
        self._slots = [None] * len(self._slots)
        await gather([slot.episode.close() for slot in in_flight])

    def _fill(self) -> list[_Slot]:
        """Start an episode in each empty slot while there are any to start."""
        started: list[_Slot] = []
        for index, slot in enumerate(self._slots):
            if slot is None and self._begun < self._episodes:
                problem = self._choose_problem()
                new = _Slot(problem, self._start_episode(problem))
                self._slots[index] = new
                self._begun += 1
                started.append(new)
        return started

    def _choose_problem(self) -> Problem:
        """A problem that is not in flight: a function of the seed and the number of the episode."""
        busy = {slot.problem.key for slot in self._slots if slot is not None}
        free = [problem for problem in self._problems if problem.key not in busy]
        digest = hashlib.sha256(f"{self._seed}\x1fproblem\x1f{self._begun}".encode()).digest()
        return random.Random(digest).choice(free)  # noqa: S311 (a reproducible choice, no secret)

    def _observe(self, slot: _Slot, transition: Transition) -> None:
        self._steps += 1
        loss = self._learner.observe(transition)
        if loss is not None:
            slot.losses.append(loss)

    async def _collect(self, in_flight: Sequence[tuple[int, _Slot]]) -> list[EpisodeRecord]:
        """Record and close the episodes that have ended."""
        records: list[EpisodeRecord] = []
        ended: list[TrainingEpisode] = []
        for index, slot in in_flight:
            if not slot.episode.done:
                continue
            self._finished += 1
            rate = self._learner.learning_rate
            self._learner.end_episode()
            records.append(
                slot.episode.record(
                    self._finished,
                    epsilon=slot.epsilon,
                    learning_rate=rate,
                    loss=sum(slot.losses) / len(slot.losses) if slot.losses else None,
                    steps=self._steps,
                )
            )
            self._slots[index] = None
            ended.append(slot.episode)
        await gather([episode.close() for episode in ended])
        return records
