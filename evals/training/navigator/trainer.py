"""`NavigatorTrainer`: episodes in lock-step rounds, from which one learner learns.

A round: empty places get new problems; the learner chooses an action for every episode, in the order of the places; all
blocks run at the same time, so that the engine batches their calls; and the learner is told what came of them, in the
same order. So what is learned follows from the seed and the responses, however long each block took.

After each round everything is known that is needed to continue: the learner's state, and for every episode in flight its
problem and its actions. To continue, those actions are taken again; their responses are in the run store.

The navigator as it is, greedy, on held-out problems.

Which problems are hard: those that the model gets wrong when it answers directly, with one greedy chain of thought.

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140, which trains on these only.

The card of a trained navigator: what it was trained with, on what, and how that went.

Checkpoints of a training: one `.npz` file, replaced completely or not at all, from which it continues bit for bit.

Arrays are the learner's weights, moments and transitions. Everything else is JSON in one of them: numbers that Python
wrote are read back as they were. Nothing is pickled.

`TrainingDirectory`: a training on disk. `training.json` states the plan, the other files what has come of it.

| file | holds |
| --- | --- |
| `training.json` | plan, data, schedule, models, versions |
| `problems.jsonl` | every question: its half, and whether the direct answer was right |
| `held_out.jsonl` | the questions that are never trained on, as a dataset of one's own |
| `checkpoint.npz` | from where the training continues |
| `spent.json` | what was generated and what was found in the run store |
| `episodes.jsonl`, `validations.jsonl` | a line for each |
| `tensorboard/`, `curve.svg` | the same to look at |
| `store.sqlite3` | the run store, unless another one was given |

`TrainingLogs`: what a training notes while it continues: lines of JSON, and scalars for TensorBoard.

The learning curve of a training as one SVG: rewards and accuracy, the chains' length, how much is explored.

One training from its plan to its navigator: problems, episodes, validations, checkpoints, the file in the end.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from ....core.concurrency import gather
from ....core.errors import DataError, LimitExceeded, UserError
from ....core.events import Event
from ....core.files import write_file
from ....core.messages import Frozen
from ....core.settings import Settings
from ....core.types import Answer
from ....core.version import __version__
from ....reasoning.rlot.assessment import State
from ....reasoning.rlot.learner import Learner, Transition
from ....reasoning.rlot.navigator import Navigator, NavigatorCard, save_navigator
from ....reasoning.strategy import Models, create_strategy
from ....serving.model_files.downloads import Progress as Pulling
from ...plan import DatasetSource, software_versions
from ...run_directory import write_whole
from ...task import Task
from ..run_directory import CHECKPOINT, TrainingDirectory, TrainingManifest, check_writable
from .episodes import (
    EPISODE_ERRORS,
    EpisodeFactory,
    EpisodeRecord,
    EpisodeResources,
    TrainingEpisode,
    TrainingUsage,
    ValidationResult,
    map_concurrently,
    open_episode_resources,
)
from .logs import TrainingLogs, learning_curve, require_extra
from .plan import (
    NavigatorPlan,
    Problem,
    ProblemSplit,
    Schedule,
    read_problems,
    split_problems,
    write_held_out,
    write_problems,
)


class EpisodeState(Frozen):
    """An episode in flight, as a checkpoint has it.

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


class TrainingProgress(Frozen):
    """Where a training is between two rounds.

    Attributes:
        begun: Episodes begun.
        finished: Episodes that ended.
        steps: Actions taken.
        places: The episodes in flight; None is an empty place.
    """

    begun: int = 0
    finished: int = 0
    steps: int = 0
    places: tuple[EpisodeState | None, ...] = Field(default=())


@dataclass
class _Under:
    """An episode in flight."""

    problem: Problem
    navigation: TrainingEpisode
    losses: list[float] = field(default_factory=list)
    epsilon: float = 1.0


class NavigatorTrainer:
    """Runs the episodes of a training.

    Args:
        parallel: Maximum number of episodes in flight; never more than there are problems.
        seed: Seed of the order of problems.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        learner: Learner,
        navigate: EpisodeFactory,
        *,
        parallel: int,
        episodes: int,
        seed: int,
        progress: TrainingProgress | None = None,
    ) -> None:
        self._problems = tuple(problems)
        self._learner = learner
        self._navigate = navigate
        self._episodes = episodes
        self._seed = seed
        width = min(parallel, len(self._problems))
        self._before = progress or TrainingProgress(places=(None,) * width)
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
        """Maximum number of episodes in flight."""
        return len(self._places)

    def progress(self) -> TrainingProgress:
        """Where it is; only between two rounds."""
        return TrainingProgress(
            begun=self._begun,
            finished=self._finished,
            steps=self._steps,
            places=tuple(
                None
                if under is None
                else EpisodeState(
                    problem=under.problem.key,
                    actions=tuple(under.navigation.actions),
                    losses=tuple(under.losses),
                    epsilon=under.epsilon,
                )
                for under in self._places
            ),
        )

    async def restore(self) -> None:
        """Bring the episodes that were in flight to where they stood: their actions are taken again.

        Raises:
            DataError: A problem is not among those of the training, or an episode ended earlier than it had.
            ReasonError: As `TrainingEpisode.begin` and `act`.
        """
        known = {problem.key: problem for problem in self._problems}

        async def bring(at: int, position: EpisodeState) -> None:
            problem = known.get(position.problem)
            if problem is None:
                raise DataError(
                    f"the training was at {position.problem[0]} {position.problem[1]!r}, which is none of its problems",
                    hint="train again in another directory",
                )
            navigation = self._navigate(problem)
            self._places[at] = _Under(problem, navigation, list(position.losses), position.epsilon)
            await navigation.begin()
            for action in position.actions:
                if navigation.done:
                    raise DataError(
                        f"the episode on {problem.dataset} {problem.item.id!r} ends earlier than it did: its replies "
                        "are other ones",
                        hint="give the run store that the training began with, or train again in another directory",
                    )
                await navigation.act(action)

        await gather([bring(at, position) for at, position in enumerate(self._before.places) if position is not None])

    async def round(self) -> list[EpisodeRecord]:
        """One block of every episode.

        Returns:
            The episodes that ended with it, in the order of their places.

        Raises:
            ReasonError: As `TrainingEpisode.begin` and `act`; the trainer cannot be continued then.
        """
        fresh = self._fill()
        await gather([under.navigation.begin() for under in fresh])
        under_way = [(at, under) for at, under in enumerate(self._places) if under is not None]
        acting = [under for _, under in under_way if not under.navigation.done]
        actions: list[int] = []
        for under in acting:  # one after another: each sees the epsilon of its own step
            under.epsilon = self._learner.epsilon
            actions += self._learner.act([under.navigation.state], [under.navigation.legal])
        before = [under.navigation.state for under in acting]
        moved = await gather([under.navigation.act(action) for under, action in zip(acting, actions, strict=True)])
        for under, state, action, move in zip(acting, before, actions, moved, strict=True):
            self._observe(under, Transition(state, action, move.reward, move.done, move.state, move.legal))
        return await self._collect(under_way)

    async def close(self) -> None:
        """Give back the runs of the episodes in flight; idempotent."""
        under_way = [under for under in self._places if under is not None]
        self._places = [None] * len(self._places)
        await gather([under.navigation.close() for under in under_way])

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
        """The problem of the next episode: any that is not in flight, a function of seed and number of the episode."""
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
        ended: list[TrainingEpisode] = []
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
        await gather([navigation.close() for navigation in ended])
        return records


async def validate(
    navigator: Navigator, problems: Sequence[Problem], navigate: EpisodeFactory, concurrency: int, *, episode: int
) -> ValidationResult:
    """Let a navigator choose all blocks on each of some problems.

    Args:
        problems: At least one.

    Raises:
        ReasonError: As `TrainingEpisode.begin` and `act`.
    """
    records = await map_concurrently(
        problems, lambda problem: greedy_episode(navigator, navigate(problem)), concurrency
    )
    request = sum(r.scores_asked for r in records)
    return ValidationResult(
        episode=episode,
        problems=len(records),
        correct=sum(r.correct for r in records),
        earned=sum(r.earned for r in records) / len(records),
        length=sum(r.length for r in records) / len(records),
        missing=sum(r.scores_missing for r in records) / request if request else 0.0,
        tokens=sum(r.tokens for r in records) / len(records),
    )


async def greedy_episode(navigator: Navigator, navigation: TrainingEpisode) -> EpisodeRecord:
    """One episode by the highest legal values."""
    try:
        await navigation.begin()
        while not navigation.done:
            await navigation.act(navigator.choose(navigation.state, navigation.legal))
        return navigation.record(1)
    finally:
        await navigation.close()


def validation_problems(held_out: Sequence[Problem], count: int) -> tuple[Problem, ...]:
    """The held-out problems that are posed: those of the lowest digests, so the same ones in any order of the data."""
    return tuple(sorted(held_out, key=lambda problem: (problem.digest, problem.key))[:count])


async def direct_answers(
    problems: Sequence[Problem],
    desk: EpisodeResources,
    concurrency: int,
    told: Callable[[Problem, bool], None] = lambda _problem, _correct: None,
) -> dict[tuple[str, str], bool]:
    """Whether the direct answer to each problem is right, by the problem's key.

    Raises:
        LimitExceeded: The tokens of the training do not cover the next answer; what was answered is in the store.
        BackendError: The model failed.
    """
    strategy, parameters = create_strategy("cot", desk.plan.direct)
    longest = parameters.get("max_tokens")

    async def ask(problem: Problem) -> bool:
        with desk.reserve(longest if isinstance(longest, int) else 0):
            visit = desk.visit(problem, "cot", parameters)
            await desk.begin(visit)
            answer: Answer | None = None
            correct = False
            try:
                solution = await strategy.solve(problem.item.question, Models({"main": visit.main}), visit.run)
                if solution.best is not None:
                    answer, score = await desk.judge(visit, solution.best)
                    correct = score.correct is True
            except EPISODE_ERRORS:
                pass  # no answer is no right one
            except BaseException:
                await desk.end(visit, "interrupted")
                raise
        await desk.end(visit, "finished", answer)
        told(problem, correct)
        return correct

    result = await map_concurrently(problems, ask, concurrency)
    return {problem.key: correct for problem, correct in zip(problems, result, strict=True)}


def hard_problems(problems: Sequence[Problem], right: dict[tuple[str, str], bool]) -> tuple[Problem, ...]:
    """The problems whose direct answer is wrong.

    Raises:
        UserError: There are none.
    """
    hard = tuple(problem for problem in problems if not right[problem.key])
    if not hard:
        raise UserError(
            f"the model answers all {len(problems)} training questions right when asked directly: none is hard",
            hint="train on harder questions, on more of them, or on --problems all",
        )
    return hard


LAST = 100
"""Episodes at the end over which the card gives means."""
STATES = 12
"""Most common states that the card names."""


def navigator_card(
    desk: EpisodeResources,
    problems: Sequence[Problem],
    records: Sequence[EpisodeRecord],
    validations: Sequence[ValidationResult],
) -> NavigatorCard:
    """The card of a training's navigator.

    Its notes have the means of the last episodes, the last validation, what was spent, the most common states with
    their number, and the data's warnings. All questions of the training are listed by digest, sampled or not.
    """
    plan = desk.plan
    config = desk.config
    return NavigatorCard(
        name=f"{plan.model.rpartition('/')[2]}-{'+'.join(use.name for use in plan.datasets)}-{plan.reward}",
        model=plan.model,
        model_identity=desk.model.identity,
        reward=plan.reward,
        reward_model=plan.reward_model or "",
        datasets=tuple(use.whole_name for use in plan.datasets),
        episodes=len(records),
        steps=records[-1].steps if records else 0,
        problems=len(problems),
        seed=plan.seed,
        gamma=plan.learning.gamma,
        max_blocks=config.max_blocks,
        mask_mode=config.mask_mode,
        refine_mode=config.refine_mode,
        parameters=plan.parameters,
        trained_on=tuple(sorted({problem.digest for problem in problems})),
        created=datetime.now(UTC).date().isoformat(),
        version=__version__,
        notes=_notes(desk, records, validations),
    )


def common_states(records: Sequence[EpisodeRecord], most: int = STATES) -> list[tuple[State, int]]:
    """The states in which a block was chosen, with how often, most first; equally common ones in ascending order."""
    counts = Counter(state for r in records for state in r.states[: len(r.actions)])
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:most]


def _notes(
    desk: EpisodeResources, records: Sequence[EpisodeRecord], validations: Sequence[ValidationResult]
) -> dict[str, JsonValue]:
    last = records[-LAST:]
    notes: dict[str, JsonValue] = {
        "problems": desk.plan.problems,
        "held_out_share": desk.plan.held_out,
        "learning": desk.plan.learning.model_dump(mode="json"),
        "parallel": desk.plan.parallel,
        "generated_tokens": desk.spent.tokens,
        "reused_replies": desk.spent.reused_replies,
        "common_states": [[list(state), count] for state, count in common_states(records)],
    }
    if last:
        notes["last_episodes"] = {
            "episodes": len(last),
            "return": sum(r.earned for r in last) / len(last),
            "accuracy": sum(r.correct for r in last) / len(last),
            "length": sum(r.length for r in last) / len(last),
        }
        request = sum(r.scores_asked for r in records)
        notes["missing_scores"] = sum(r.scores_missing for r in records) / request if request else 0.0
    if validations:
        notes["validation"] = validations[-1].model_dump(mode="json")
    warnings = [use.warning for use in desk.plan.datasets if use.warning]
    if warnings:
        notes["warnings"] = list(warnings)
    return notes


FORMAT = 1
_META = "checkpoint"
_LEARNER = "learner/"


@dataclass(frozen=True)
class Checkpoint:
    """A training between two rounds.

    Attributes:
        plan: Digest of the plan.
        learner: The learner's state.
        progress: Where the episodes stand.
        validated: Episodes before the last validation; -1 if there was none.
        validations: Lines of the validations' file.
        identities: What each model is, by role.
    """

    plan: str
    learner: Mapping[str, NDArray[Any] | JsonValue]
    progress: TrainingProgress
    validated: int
    validations: int
    identities: Mapping[str, str]


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint, completely or not at all; it is on the disk when this returns.

    Raises:
        StoreError: It cannot be written; what was there stays.
    """
    arrays = {_LEARNER + name: value for name, value in checkpoint.learner.items() if isinstance(value, np.ndarray)}
    plain = {name: value for name, value in checkpoint.learner.items() if not isinstance(value, np.ndarray)}
    meta = {
        "format": FORMAT,
        "plan": checkpoint.plan,
        "learner": plain,
        "progress": checkpoint.progress.model_dump(mode="json"),
        "validated": checkpoint.validated,
        "validations": checkpoint.validations,
        "identities": dict(checkpoint.identities),
    }
    buffer = io.BytesIO()
    arrays[_META] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    np.savez(buffer, allow_pickle=False, **arrays)
    write_file(path, buffer.getvalue())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        DataError: There is none, or it is damaged or of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays.pop(_META).tobytes())
        if meta["format"] != FORMAT:
            raise DataError(
                f"{path} is a checkpoint of another version of reason", hint="train again in another directory"
            )
        learner = {name.removeprefix(_LEARNER): array for name, array in arrays.items()}
        return Checkpoint(
            plan=meta["plan"],
            learner={**meta["learner"], **learner},
            progress=TrainingProgress.model_validate(meta["progress"]),
            validated=int(meta["validated"]),
            validations=int(meta["validations"]),
            identities=dict(meta["identities"]),
        )
    except FileNotFoundError as e:
        raise DataError(f"there is no checkpoint {path}", hint="train without --resume") from e
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, ValidationError) as e:
        raise DataError(f"the checkpoint {path} is damaged", hint="train again in another directory") from e


PROBLEMS = "problems.jsonl"
HELD_OUT = "held_out.jsonl"
SPENT = "spent.json"
EPISODES = "episodes.jsonl"
VALIDATIONS = "validations.jsonl"
TENSORBOARD = "tensorboard"
CURVE = "curve.svg"
STORE = "store.sqlite3"

_SPENT: TypeAdapter[TrainingUsage] = TypeAdapter(TrainingUsage)


TrainingEnd = Literal["done", "tokens"]
"""Why a training ended: all episodes ended, or the next step could have exceeded the limit of tokens."""


class TrainingObserver(Protocol):
    """Receives a training continues; must be quick."""

    def asking(self, problems: int) -> None:
        """So many problems are posed directly, to find the hard ones."""

    def asked(self, correct: bool) -> None:
        """One of them was answered."""

    def begin(self, episodes: int, records: Sequence[EpisodeRecord], problems: int) -> None:
        """Episodes begin, on so many problems: so many in all, and these are there."""

    def episode(self, record: EpisodeRecord) -> None:
        """An episode ended."""

    def validating(self, problems: int) -> None:
        """So many held-out problems are posed."""

    def validated(self, result: ValidationResult) -> None:
        """A validation ended."""

    def event(self, event: Event) -> None:
        """Something happened in a problem's run."""


class NobodyWatches:
    """A watcher that does not look."""

    def asking(self, problems: int) -> None:
        """Do nothing."""

    def asked(self, correct: bool) -> None:
        """Do nothing."""

    def begin(self, episodes: int, records: Sequence[EpisodeRecord], problems: int) -> None:
        """Do nothing."""

    def episode(self, record: EpisodeRecord) -> None:
        """Do nothing."""

    def validating(self, problems: int) -> None:
        """Do nothing."""

    def validated(self, result: ValidationResult) -> None:
        """Do nothing."""

    def event(self, event: Event) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class TrainedNavigator:
    """What a training gave.

    Attributes:
        navigator: The navigator, as it is in its file.
        out: The file.
        stopped: Why it ended.
        records: Its episodes.
        validations: Its validations.
        problems: Problems that it was trained on.
        held_out: Problems that it never saw.
        spent: What it has cost.
    """

    navigator: Navigator
    out: Path
    stopped: TrainingEnd
    records: tuple[EpisodeRecord, ...]
    validations: tuple[ValidationResult, ...]
    problems: int
    held_out: int
    spent: TrainingUsage


async def train_navigator(
    plan: NavigatorPlan,
    tasks: Sequence[Task],
    sources: Sequence[DatasetSource],
    work: Path,
    out: Path,
    settings: Settings,
    *,
    schedule: Schedule | None = None,
    resume: bool = False,
    store: Path | None = None,
    watcher: TrainingObserver | None = None,
    progress: Pulling | None = None,
) -> TrainedNavigator:
    """Train a navigator, or continue a training.

    Cancelling writes a checkpoint of the last whole round. Going on from there gives what an undisturbed training
    gives, bit for bit, where the model gives the same responses; those that were made are in the run store.

    Args:
        tasks: The datasets, those that the plan was made for, in its order.
        store: The run store; None is one in the directory.
        progress: Reports the download of model files; called from another thread.

    Raises:
        UserError: The directory holds another training, no question is hard, a half is empty, the model is another one
            than the training began with, or a package is missing.
        DataError: The directory is damaged, or the datasets are not the plan's.
        StoreError: Something cannot be written.
        LimitExceeded: The limit of tokens ended it before its first episode.
        BackendError: The model failed altogether; what there is is saved.
    """
    require_extra()
    if [task.use.fingerprint for task in tasks] != [use.fingerprint for use in plan.datasets]:
        raise DataError("the datasets are not those that the training began with", hint="give the same data")
    schedule, watcher = schedule or Schedule(), watcher or NobodyWatches()
    halves = split_problems(plan, tasks)
    check_writable(out)
    with TrainingDirectory(work) as directory:
        position = store or work / STORE
        manifest = TrainingManifest(
            plan=plan,
            sources=tuple(sources),
            schedule=schedule,
            out=out,
            store=STORE if position == work / STORE else str(position),
            environment=software_versions(),
        )
        checkpoint = load_checkpoint(work / CHECKPOINT) if resume and directory.has_checkpoint else None
        directory.begin(manifest, resume=resume)
        write_held_out(work / HELD_OUT, halves.held_out)
        spent = directory.read_spent()
        async with open_episode_resources(
            plan,
            tasks,
            settings,
            position,
            sinks=(watcher.event,),
            spent=spent,
            limit=schedule.tokens,
            progress=progress,
        ) as desk:
            try:
                return await _Training(desk, halves, directory, schedule, out, watcher, checkpoint).run()
            finally:
                directory.write_spent(spent)


class _Training:
    """A training whose models are open and whose directory is held."""

    def __init__(
        self,
        desk: EpisodeResources,
        halves: ProblemSplit,
        directory: TrainingDirectory,
        schedule: Schedule,
        out: Path,
        watcher: TrainingObserver,
        checkpoint: Checkpoint | None,
    ) -> None:
        self._desk, self._halves, self._folder = desk, halves, directory
        self._schedule, self._out, self._watcher = schedule, out, watcher
        self._validated = -1 if checkpoint is None else checkpoint.validated
        self._checkpoint = checkpoint
        if checkpoint is not None:
            _refuse_other(checkpoint, desk)

    async def run(self) -> TrainedNavigator:
        """Train to the end."""
        plan, schedule = self._desk.plan, self._schedule
        problems = await self._chosen()
        before = self._checkpoint
        learner = Learner(plan.learning, plan.seed)
        if before is not None:
            learner.load_state(before.learner)
        progress = None if before is None else before.progress
        trainer = NavigatorTrainer(
            problems,
            learner,
            self._navigate,
            parallel=plan.parallel,
            episodes=schedule.episodes,
            seed=plan.seed,
            progress=progress,
        )
        counts = (0, 0) if before is None else (before.progress.finished, before.validations)
        with TrainingLogs(self._folder.path, *counts) as logs:
            self._watcher.begin(schedule.episodes, logs.records, len(problems))
            try:
                stopped = await self._episodes(trainer, learner, logs)
            finally:
                self._draw(logs)
            if stopped == "tokens" and not logs.records:
                raise LimitExceeded("tokens", self._desk.spent.tokens, schedule.tokens or 0)
            navigator = Navigator(learner.online, navigator_card(self._desk, problems, logs.records, logs.validations))
            save_navigator(navigator, self._out)
            return TrainedNavigator(
                navigator=navigator,
                out=self._out,
                stopped=stopped,
                records=tuple(logs.records),
                validations=tuple(logs.validations),
                problems=len(problems),
                held_out=len(self._halves.held_out),
                spent=self._desk.spent,
            )

    async def _episodes(self, trainer: NavigatorTrainer, learner: Learner, logs: TrainingLogs) -> TrainingEnd:
        """Run episodes until all have ended, or the tokens have; whatever ends it, the last whole round is saved."""
        schedule = self._schedule
        saved = trainer.finished
        boundary = self._boundary(learner, trainer.progress(), logs) if self._checkpoint is None else self._checkpoint
        try:
            await trainer.restore()
            while True:
                boundary = self._boundary(learner, trainer.progress(), logs)
                if self._validation_is_due(trainer):
                    await self._validate(trainer, learner, logs)
                    boundary = self._boundary(learner, trainer.progress(), logs)
                if trainer.done:
                    return "done"
                if trainer.finished >= saved + schedule.checkpoint_every:
                    self._save(boundary, logs)
                    saved = trainer.finished
                for record in await trainer.round():
                    logs.episode(record, self._desk.spent)
                    self._watcher.episode(record)
        except LimitExceeded:
            return "tokens"
        finally:
            try:
                self._save(boundary, logs)
            finally:
                await trainer.close()

    def _validation_is_due(self, trainer: NavigatorTrainer) -> bool:
        """Whether to validate: before the first episode, after every so many, and after the last."""
        every, finished, last = self._schedule.validate_every, trainer.finished, self._validated
        if not every or not self._desk.plan.validation or finished == last:
            return False
        return last < 0 or trainer.done or finished // every > last // every

    async def _validate(self, trainer: NavigatorTrainer, learner: Learner, logs: TrainingLogs) -> None:
        plan, finished = self._desk.plan, trainer.finished
        problems = validation_problems(self._halves.held_out, plan.validation)
        navigator = Navigator(learner.online)
        self._watcher.validating(len(problems))
        result = await validate(navigator, problems, self._navigate, plan.parallel, episode=finished)
        self._validated = finished
        logs.validation(result)
        self._watcher.validated(result)

    async def _chosen(self) -> tuple[Problem, ...]:
        """The problems that are trained on: decided once, and read again when the training continues."""
        desk, halves, path = self._desk, self._halves, self._folder.path / PROBLEMS
        decided = read_problems(path, halves)
        if decided is not None:
            return decided
        direct: dict[tuple[str, str], bool] = {}
        chosen = halves.training
        if desk.plan.problems == "hard":
            self._watcher.asking(len(chosen))
            direct = await direct_answers(
                chosen, desk, desk.plan.parallel, lambda _problem, correct: self._watcher.asked(correct)
            )
            chosen = hard_problems(chosen, direct)
        write_problems(path, halves, direct, chosen)
        return chosen

    def _navigate(self, problem: Problem) -> TrainingEpisode:
        return TrainingEpisode(self._desk, problem)

    def _boundary(self, learner: Learner, progress: TrainingProgress, logs: TrainingLogs) -> Checkpoint:
        """The training as it is between two rounds."""
        return Checkpoint(
            plan=self._desk.plan.digest,
            learner=learner.state_dict(),
            progress=progress,
            validated=self._validated,
            validations=len(logs.validations),
            identities=self._desk.identities,
        )

    def _save(self, boundary: Checkpoint, logs: TrainingLogs) -> None:
        logs.flush()
        save_checkpoint(boundary, self._folder.path / CHECKPOINT)
        self._folder.write_spent(self._desk.spent)

    def _draw(self, logs: TrainingLogs) -> None:
        if logs.records:
            title = f"{self._desk.plan.model}, reward {self._desk.plan.reward}"
            write_whole(self._folder.path / CURVE, learning_curve(logs.records, logs.validations, title))


def _refuse_other(checkpoint: Checkpoint, desk: EpisodeResources) -> None:
    """Refuse to continue from the checkpoint of another training, or with other models.

    Raises:
        UserError: It is one; names what differs.
    """
    if checkpoint.plan != desk.plan.digest:
        raise UserError(
            "the checkpoint is of another training than the directory's plan", hint="train again in another directory"
        )
    for role, identity in desk.identities.items():
        known = checkpoint.identities.get(role)
        if known != identity:
            raise UserError(
                f"the {role} model is {identity}, and the training began with {known}",
                hint="continue that one, or train again in another directory",
            )
