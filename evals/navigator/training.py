"""One training from its plan to its navigator: problems, episodes, validations, checkpoints, the file in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from ...core.errors import DataError, LimitExceeded, UserError
from ...core.events import EventFields
from ...core.settings import Settings
from ...reasoning.rlot.learning.learner import Learner
from ...reasoning.rlot.navigator import Navigator, save_navigator
from ...serving.pulling import Progress as Pulling
from ..environment import environment
from ..folder import write_whole
from ..plan import TaskSource
from ..task import Task
from .card import card_of
from .checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from .curve import learning_curve
from .desk import Desk, Spent, open_desk
from .direct import direct_answers, hard_ones
from .logs import TrainingLogs, require_extra
from .navigation import Navigation
from .plan import Schedule, TrainingPlan
from .problem_files import read_problems, write_held_out, write_problems
from .problems import Halves, Problem, halves_of
from .records import EpisodeRecord, Validation
from .trainer import Progress, Trainer
from .validation import chosen_for_validation, validate
from .work_folder import CHECKPOINT, CURVE, HELD_OUT, PROBLEMS, STORE, TrainingManifest, WorkFolder, refuse_unwritable

TrainingEnd = Literal["done", "tokens"]
"""Why a training ended: all episodes ended, or the next step could have exceeded the limit of tokens."""


class TrainingWatcher(Protocol):
    """Hears how a training goes on; must be quick."""

    def asking(self, problems: int) -> None:
        """So many problems are asked directly, to find the hard ones."""

    def asked(self, correct: bool) -> None:
        """One of them was answered."""

    def begin(self, episodes: int, records: Sequence[EpisodeRecord], problems: int) -> None:
        """Episodes begin, on so many problems: so many in all, and these are there."""

    def episode(self, record: EpisodeRecord) -> None:
        """An episode ended."""

    def validating(self, problems: int) -> None:
        """So many held-out problems are asked."""

    def validated(self, found: Validation) -> None:
        """A validation ended."""

    def event(self, event: EventFields) -> None:
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

    def validated(self, found: Validation) -> None:
        """Do nothing."""

    def event(self, event: EventFields) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Trained:
    """What a training gave.

    Attributes:
        navigator: The navigator, as it lies in its file.
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
    validations: tuple[Validation, ...]
    problems: int
    held_out: int
    spent: Spent


async def train(
    plan: TrainingPlan,
    tasks: Sequence[Task],
    sources: Sequence[TaskSource],
    work: Path,
    out: Path,
    settings: Settings,
    *,
    schedule: Schedule | None = None,
    resume: bool = False,
    store: Path | None = None,
    watcher: TrainingWatcher | None = None,
    progress: Pulling | None = None,
) -> Trained:
    """Train a navigator, or go on with a training.

    Cancelling writes a checkpoint of the last whole round. Going on from there gives what an undisturbed training
    gives, bit for bit, where the model gives the same replies; those that were made are in the run store.

    Args:
        plan: What was decided.
        tasks: The datasets, those that the plan was made for, in its order.
        sources: Where they were opened from.
        work: The training's folder.
        out: The navigator's file.
        settings: How backends are set up.
        schedule: How long it goes on.
        resume: Whether to go on with what the folder holds.
        store: The run store; None is one in the folder.
        watcher: Hears how it goes on.
        progress: Told how far a model's files are; called from another thread.

    Raises:
        UserError: The folder holds another training, no question is hard, a half is empty, the model is another one
            than the training began with, or a package is missing.
        DataError: The folder is damaged, or the datasets are not the plan's.
        StoreError: Something cannot be written.
        LimitExceeded: The limit of tokens ended it before its first episode.
        BackendError: The model failed altogether; what there is is saved.
    """
    require_extra()
    if [task.use.fingerprint for task in tasks] != [use.fingerprint for use in plan.datasets]:
        raise DataError("the datasets are not those that the training began with", hint="give the same data")
    schedule, watcher = schedule or Schedule(), watcher or NobodyWatches()
    halves = halves_of(plan, tasks)
    refuse_unwritable(out)
    with WorkFolder(work) as folder:
        place = store or work / STORE
        manifest = TrainingManifest(
            plan=plan,
            sources=tuple(sources),
            schedule=schedule,
            out=out,
            store=STORE if place == work / STORE else str(place),
            environment=environment(),
        )
        checkpoint = load_checkpoint(work / CHECKPOINT) if resume and folder.has_checkpoint else None
        folder.begin(manifest, resume=resume)
        write_held_out(work / HELD_OUT, halves.held_out)
        spent = folder.read_spent()
        async with open_desk(
            plan,
            tasks,
            settings,
            place,
            sinks=(watcher.event,),
            spent=spent,
            limit=schedule.tokens,
            progress=progress,
        ) as desk:
            try:
                return await _Training(desk, halves, folder, schedule, out, watcher, checkpoint).run()
            finally:
                folder.write_spent(spent)


class _Training:
    """A training whose models are open and whose folder is held."""

    def __init__(
        self,
        desk: Desk,
        halves: Halves,
        folder: WorkFolder,
        schedule: Schedule,
        out: Path,
        watcher: TrainingWatcher,
        checkpoint: Checkpoint | None,
    ) -> None:
        self._desk, self._halves, self._folder = desk, halves, folder
        self._schedule, self._out, self._watcher = schedule, out, watcher
        self._validated = -1 if checkpoint is None else checkpoint.validated
        self._checkpoint = checkpoint
        if checkpoint is not None:
            _refuse_other(checkpoint, desk)

    async def run(self) -> Trained:
        """Train to the end."""
        plan, schedule = self._desk.plan, self._schedule
        problems = await self._chosen()
        before = self._checkpoint
        learner = Learner(plan.learning, plan.seed)
        if before is not None:
            learner.load_state(before.learner)
        progress = None if before is None else before.progress
        trainer = Trainer(
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
            navigator = Navigator(learner.online, card_of(self._desk, problems, logs.records, logs.validations))
            save_navigator(navigator, self._out)
            return Trained(
                navigator=navigator,
                out=self._out,
                stopped=stopped,
                records=tuple(logs.records),
                validations=tuple(logs.validations),
                problems=len(problems),
                held_out=len(self._halves.held_out),
                spent=self._desk.spent,
            )

    async def _episodes(self, trainer: Trainer, learner: Learner, logs: TrainingLogs) -> TrainingEnd:
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

    def _validation_is_due(self, trainer: Trainer) -> bool:
        """Whether to validate: before the first episode, after every so many, and after the last."""
        every, finished, last = self._schedule.validate_every, trainer.finished, self._validated
        if not every or not self._desk.plan.validation or finished == last:
            return False
        return last < 0 or trainer.done or finished // every > last // every

    async def _validate(self, trainer: Trainer, learner: Learner, logs: TrainingLogs) -> None:
        plan, finished = self._desk.plan, trainer.finished
        problems = chosen_for_validation(self._halves.held_out, plan.validation)
        navigator = Navigator(learner.online)
        self._watcher.validating(len(problems))
        found = await validate(navigator, problems, self._navigate, plan.parallel, episode=finished)
        self._validated = finished
        logs.validation(found)
        self._watcher.validated(found)

    async def _chosen(self) -> tuple[Problem, ...]:
        """The problems that are trained on: decided once, and read again when the training goes on."""
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
            chosen = hard_ones(chosen, direct)
        write_problems(path, halves, direct, chosen)
        return chosen

    def _navigate(self, problem: Problem) -> Navigation:
        return Navigation(self._desk, problem)

    def _boundary(self, learner: Learner, progress: Progress, logs: TrainingLogs) -> Checkpoint:
        """The training as it stands between two rounds."""
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


def _refuse_other(checkpoint: Checkpoint, desk: Desk) -> None:
    """Refuse to go on from the checkpoint of another training, or with other models.

    Raises:
        UserError: It is one; names what differs.
    """
    if checkpoint.plan != desk.plan.digest:
        raise UserError(
            "the checkpoint is of another training than the folder's plan", hint="train anew in another folder"
        )
    for role, identity in desk.identities.items():
        known = checkpoint.identities.get(role)
        if known != identity:
            raise UserError(
                f"the {role} model is {identity}, and the training began with {known}",
                hint="go on with that one, or train anew in another folder",
            )
