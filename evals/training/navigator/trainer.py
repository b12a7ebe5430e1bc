"""`Trainer`: episodes in lock-step rounds, from which one learner learns.

A round: empty places get new problems; the learner chooses an action for every episode, in the order of the places; all
blocks run at the same time, so that the engine batches their calls; and the learner is told what came of them, in the
same order. So what is learned follows from the seed and the replies, however long each block took.

After each round everything is known that is needed to go on: the learner's state, and for every episode under way its
problem and its actions. To go on, those actions are taken again; their replies are in the run store.

The navigator as it is, greedy, on held-out problems.

Which problems are hard: those that the model gets wrong when it answers directly, with one greedy chain of thought.

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140, which trains on these alone.

The card of a trained navigator: what it was trained with, on what, and how that went.

Checkpoints of a training: one `.npz` file, replaced whole or not at all, from which it goes on bit for bit.

Arrays are the learner's weights, moments and transitions. Everything else is JSON in one of them: numbers that Python
wrote are read back as they were. Nothing is pickled.

`WorkFolder`: a training on disk. `training.json` says what was decided, the other files what has come of it.

| file | holds |
| --- | --- |
| `training.json` | plan, data, schedule, models, versions |
| `problems.jsonl` | every question: its half, and whether the direct answer was right |
| `held_out.jsonl` | the questions that are never trained on, as a dataset of one's own |
| `checkpoint.npz` | from where the training goes on |
| `spent.json` | what was generated and what was found in the run store |
| `episodes.jsonl`, `validations.jsonl` | a line for each |
| `tensorboard/`, `curve.svg` | the same to look at |
| `store.sqlite3` | the run store, unless another one was given |

`TrainingLogs`: what a training notes while it goes on: lines of JSON, and scalars for TensorBoard.

The learning curve of a training as one SVG: rewards and accuracy, the chains' length, how much is explored.

One training from its plan to its navigator: problems, episodes, validations, checkpoints, the file in the end.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from ....core.answer import Answer
from ....core.errors import DataError, LimitExceeded, StoreError, UserError
from ....core.events import Event
from ....core.messages import Frozen
from ....core.settings import Settings
from ....core.together import gather
from ....core.version import __version__
from ....core.whole_files import write_file
from ....reasoning.rlot.assessment import State
from ....reasoning.rlot.learning.learner import Learner
from ....reasoning.rlot.learning.transition import Transition
from ....reasoning.rlot.navigator import Navigator, NavigatorCard, save_navigator
from ....reasoning.strategy import Models, create_strategy
from ....serving.model_files.downloads import Progress as Pulling
from ...plan import TaskSource, environment
from ...run_directory import HeldFolder, write_whole
from ...statistics.outcomes import Array
from ...task import Task
from .episodes import EPISODE_FAILS, Desk, EpisodeRecord, Navigate, Navigation, Spent, Validation, each, open_desk
from .plan import Halves, Problem, Schedule, TrainingPlan, halves_of, read_problems, write_held_out, write_problems


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

        await gather([bring(at, place) for at, place in enumerate(self._before.places) if place is not None])

    async def round(self) -> list[EpisodeRecord]:
        """One block of every episode.

        Returns:
            The episodes that ended with it, in the order of their places.

        Raises:
            ReasonError: As `Navigation.begin` and `act`; the trainer cannot be gone on with then.
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
        """Give back the runs of the episodes under way; idempotent."""
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
        await gather([navigation.close() for navigation in ended])
        return records


async def validate(
    navigator: Navigator, problems: Sequence[Problem], navigate: Navigate, concurrency: int, *, episode: int
) -> Validation:
    """Let a navigator choose all blocks on each of some problems.

    Args:
        navigator: What chooses.
        problems: At least one.
        navigate: Makes an episode.
        concurrency: Most episodes under way at a time.
        episode: Episodes of the training so far.

    Raises:
        ReasonError: As `Navigation.begin` and `act`.
    """
    records = await each(problems, lambda problem: greedy_episode(navigator, navigate(problem)), concurrency)
    asked = sum(r.scores_asked for r in records)
    return Validation(
        episode=episode,
        problems=len(records),
        correct=sum(r.correct for r in records),
        earned=sum(r.earned for r in records) / len(records),
        length=sum(r.length for r in records) / len(records),
        missing=sum(r.scores_missing for r in records) / asked if asked else 0.0,
        tokens=sum(r.tokens for r in records) / len(records),
    )


async def greedy_episode(navigator: Navigator, navigation: Navigation) -> EpisodeRecord:
    """One episode by the highest legal values."""
    try:
        await navigation.begin()
        while not navigation.done:
            await navigation.act(navigator.choose(navigation.state, navigation.legal))
        return navigation.record(1)
    finally:
        await navigation.close()


def chosen_for_validation(held_out: Sequence[Problem], count: int) -> tuple[Problem, ...]:
    """The held-out problems that are asked: those of the lowest digests, so the same ones in any order of the data."""
    return tuple(sorted(held_out, key=lambda problem: (problem.digest, problem.key))[:count])


async def direct_answers(
    problems: Sequence[Problem],
    desk: Desk,
    concurrency: int,
    told: Callable[[Problem, bool], None] = lambda _problem, _correct: None,
) -> dict[tuple[str, str], bool]:
    """Whether the direct answer to each problem is right, by the problem's key.

    Args:
        problems: The problems.
        desk: Models, store and judges.
        concurrency: Most under way at a time.
        told: Told of each answer as it comes.

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
            except EPISODE_FAILS:
                pass  # no answer is no right one
            except BaseException:
                await desk.end(visit, "interrupted")
                raise
        await desk.end(visit, "finished", answer)
        told(problem, correct)
        return correct

    found = await each(problems, ask, concurrency)
    return {problem.key: correct for problem, correct in zip(problems, found, strict=True)}


def hard_ones(problems: Sequence[Problem], right: dict[tuple[str, str], bool]) -> tuple[Problem, ...]:
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


def card_of(
    desk: Desk, problems: Sequence[Problem], records: Sequence[EpisodeRecord], validations: Sequence[Validation]
) -> NavigatorCard:
    """The card of a training's navigator.

    Its notes have the means of the last episodes, the last validation, what was spent, the most common states with
    their number, and the data's warnings. All questions of the training are listed by digest, drawn or not.

    Args:
        desk: Models, plan and what was spent.
        problems: What it was trained on.
        records: Its episodes.
        validations: Its validations.
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


def _notes(desk: Desk, records: Sequence[EpisodeRecord], validations: Sequence[Validation]) -> dict[str, JsonValue]:
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
        asked = sum(r.scores_asked for r in records)
        notes["missing_scores"] = sum(r.scores_missing for r in records) / asked if asked else 0.0
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
    progress: Progress
    validated: int
    validations: int
    identities: Mapping[str, str]


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint, whole or not at all; it is on the disk when this returns.

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
            raise DataError(f"{path} is a checkpoint of another version of reason", hint="train anew in another folder")
        learner = {name.removeprefix(_LEARNER): array for name, array in arrays.items()}
        return Checkpoint(
            plan=meta["plan"],
            learner={**meta["learner"], **learner},
            progress=Progress.model_validate(meta["progress"]),
            validated=int(meta["validated"]),
            validations=int(meta["validations"]),
            identities=dict(meta["identities"]),
        )
    except FileNotFoundError as e:
        raise DataError(f"there is no checkpoint {path}", hint="train without --resume") from e
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, ValidationError) as e:
        raise DataError(f"the checkpoint {path} is damaged", hint="train anew in another folder") from e


MANIFEST = "training.json"
PROBLEMS = "problems.jsonl"
HELD_OUT = "held_out.jsonl"
CHECKPOINT = "checkpoint.npz"
SPENT = "spent.json"
EPISODES = "episodes.jsonl"
VALIDATIONS = "validations.jsonl"
TENSORBOARD = "tensorboard"
CURVE = "curve.svg"
STORE = "store.sqlite3"

_SPENT: TypeAdapter[Spent] = TypeAdapter(Spent)


class TrainingManifest(Frozen):
    """What `training.json` holds.

    Attributes:
        plan: What was decided.
        sources: Where the datasets are opened from, in the plan's order.
        schedule: How long it goes on; the last one that was asked for.
        out: The navigator's file.
        store: The run store's file, relative to the folder where it lies inside.
        environment: Version of `reason`, of the engines and of the machine's software.
    """

    plan: TrainingPlan
    sources: tuple[TaskSource, ...]
    schedule: Schedule
    out: Path
    store: str = STORE
    environment: dict[str, str] = Field(default_factory=dict)


class WorkFolder(HeldFolder):
    """The folder of one training, held by this process: a context manager.

    Args:
        path: The folder.

    Raises:
        UserError: Another process works in it.
        StoreError: It cannot be written to.
    """

    option = "--work"

    def begin(self, manifest: TrainingManifest, *, resume: bool) -> None:
        """Begin a training, or go on with the one that is there.

        Raises:
            UserError: There is one already and it is not to be resumed, or it is another one; names what differs.
            DataError: There is none to resume, or its file is damaged.
        """
        if resume:
            before = read_training(self.path)
            if before.plan.digest != manifest.plan.digest:
                raise UserError(
                    f"{self.path} holds another training: {before.plan.differs(manifest.plan)}",
                    hint="go on with it by --resume --work alone; or choose another --work",
                )
        elif (self.path / MANIFEST).exists():
            raise UserError(
                f"{self.path} holds a training already", hint="--resume goes on with it; or choose another --work"
            )
        self.write(manifest)

    def write(self, manifest: TrainingManifest) -> None:
        """Note what was decided.

        Raises:
            StoreError: It cannot be written.
        """
        write_whole(self.path / MANIFEST, manifest.model_dump_json(indent=2) + "\n")

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint."""
        return (self.path / CHECKPOINT).exists()

    def read_spent(self) -> Spent:
        """What earlier processes have spent on this training."""
        try:
            return _SPENT.validate_json((self.path / SPENT).read_bytes())
        except FileNotFoundError:
            return Spent()
        except (OSError, ValidationError) as e:
            raise DataError(f"{self.path / SPENT} is damaged", hint="remove it: tokens are counted anew then") from e

    def write_spent(self, spent: Spent) -> None:
        """Note what was spent.

        Raises:
            StoreError: It cannot be written.
        """
        write_whole(self.path / SPENT, _SPENT.dump_json(Spent(**asdict(spent))).decode() + "\n")


class LineFile:
    """A file of JSON lines that a training adds to; a context manager.

    Args:
        path: The file.
        keep: Lines that stand; what comes behind them was written after the checkpoint, and is written anew.

    Raises:
        DataError: It has fewer lines.
        StoreError: It cannot be written.
    """

    def __init__(self, path: Path, keep: int) -> None:
        self._path = path
        try:
            raw = path.read_bytes() if path.exists() else b""
            lines = raw.split(b"\n")[:-1]  # what stands behind the last line break is torn
            if len(lines) < keep:
                raise DataError(
                    f"{path} has {len(lines)} lines, and the checkpoint stands behind {keep}",
                    hint="put the file back, or train anew in another folder",
                )
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.ftruncate(self._file, sum(len(line) + 1 for line in lines[:keep]))
        except OSError as e:
            raise StoreError(f"cannot write {path}: {e.strerror}", hint="choose another --work") from e

    def add(self, line: Frozen) -> None:
        """Write a line: one write of one whole line.

        Raises:
            StoreError: It cannot be written.
        """
        content = (line.model_dump_json() + "\n").encode("utf-8", "surrogatepass")
        try:
            if os.write(self._file, content) < len(content):
                raise StoreError(f"no space left for {self._path}", hint="free some space, then --resume")
        except OSError as e:
            raise StoreError(f"cannot write {self._path}: {e.strerror}", hint="free some space, then --resume") from e

    def sync(self) -> None:
        """Bring all lines to the disk.

        Raises:
            StoreError: That fails.
        """
        try:
            os.fsync(self._file)
        except OSError as e:
            raise StoreError(f"cannot write {self._path}: {e.strerror}", hint="free some space, then --resume") from e

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)


def read_training(folder: Path) -> TrainingManifest:
    """What a training decided.

    Raises:
        DataError: There is none in the folder, or its file is damaged or of another version.
    """
    path = folder / MANIFEST
    try:
        return TrainingManifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as e:
        raise DataError(f"{folder} holds no training", hint=f"a training's folder has a file {MANIFEST}") from e
    except OSError as e:
        raise DataError(f"cannot read {path}: {e.strerror}") from e
    except ValidationError as e:
        raise DataError(f"{path} is damaged or of another version of reason", hint="train anew") from e


def refuse_unwritable(path: Path) -> None:
    """Refuse a file that could not be written in the end, before anything is spent on it.

    Raises:
        StoreError: Its folder cannot be made or written to, or it is a folder itself.
    """
    probe = path.parent / f".{path.name}.probe"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise StoreError(f"cannot write {path}: it is a folder", hint="choose another --out")
        probe.touch()
        probe.unlink()
    except OSError as e:
        raise StoreError(f"cannot write {path}: {e.strerror}", hint="choose another --out") from e


LineT = TypeVar("LineT", bound=Frozen)

WINDOW = 100
"""Episodes that a moving mean is over."""


class TrainingLogs:
    """The logs of one training; a context manager.

    Args:
        folder: The training's folder.
        episodes: Episodes that stand: those up to the checkpoint from which it goes on.
        validations: Validations likewise.

    Raises:
        UserError: tensorboardX is not installed.
        DataError: A file has fewer lines than that.
        StoreError: Something cannot be written.
    """

    def __init__(self, folder: Path, episodes: int, validations: int) -> None:
        require_extra()
        from tensorboardX import SummaryWriter

        self.records = read_records(folder / EPISODES)[:episodes]
        self.validations = read_validations(folder / VALIDATIONS)[:validations]
        self._episodes = LineFile(folder / EPISODES, episodes)
        self._validations = LineFile(folder / VALIDATIONS, validations)
        board = folder / TENSORBOARD
        try:
            before = len(list(board.iterdir())) if board.is_dir() else 0
            # files are named by the second, and read in the order of their names; scalars behind the checkpoint, which
            # a killed process left, are not shown
            self._board: Any = SummaryWriter(
                str(board), purge_step=episodes + 1 if episodes else None, filename_suffix=f".{before:05}"
            )
        except OSError as e:
            raise StoreError(f"cannot write {board}: {e.strerror}", hint="choose another --work") from e
        self._recent: deque[EpisodeRecord] = deque(self.records[-WINDOW:], maxlen=WINDOW)

    def episode(self, record: EpisodeRecord, spent: Spent) -> None:
        """Note an episode, and what was spent until then.

        Raises:
            StoreError: It cannot be written.
        """
        self.records.append(record)
        self._recent.append(record)
        self._episodes.add(record)
        scalars = {
            "episode/return": record.earned,
            "episode/correct": float(record.correct),
            "episode/length": record.length,
            "episode/tokens": record.tokens,
            f"mean_of_{WINDOW}/return": sum(r.earned for r in self._recent) / len(self._recent),
            f"mean_of_{WINDOW}/accuracy": sum(r.correct for r in self._recent) / len(self._recent),
            f"mean_of_{WINDOW}/length": sum(r.length for r in self._recent) / len(self._recent),
            "learning/epsilon": record.epsilon,
            "learning/rate": record.learning_rate,
            "learning/steps": record.steps,
            "spent/generated_tokens": spent.tokens,
            "spent/reused_replies": spent.reused_replies,
        }
        if record.loss is not None:
            scalars["learning/loss"] = record.loss
        if record.scores_asked:
            scalars["episode/missing_scores"] = record.scores_missing / record.scores_asked
        for name, value in scalars.items():
            self._board.add_scalar(name, value, record.episode)

    def validation(self, found: Validation) -> None:
        """Note a validation.

        Raises:
            StoreError: It cannot be written.
        """
        self.validations.append(found)
        self._validations.add(found)
        for name in ("accuracy", "earned", "length", "missing", "tokens"):
            self._board.add_scalar(f"validation/{name}", getattr(found, name), found.episode)

    def flush(self) -> None:
        """Bring all of it to the disk."""
        self._board.flush()
        self._episodes.sync()
        self._validations.sync()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._board.close()
        self._validations.__exit__(kind, error, trace)
        self._episodes.__exit__(kind, error, trace)


def require_extra() -> None:
    """Refuse a training whose logs could not be written.

    Raises:
        UserError: A package of the extra is missing.
    """
    for package in ("tensorboardX", "matplotlib"):
        try:
            __import__(package)
        except ModuleNotFoundError as e:
            raise UserError(f"training needs {package}", hint="pip install 'reason-orchestrator[train]'") from e


def read_records(path: Path) -> list[EpisodeRecord]:
    """The episodes of a training; a torn last line is passed over, a file that is not there has none.

    Raises:
        DataError: A line is something else; names it.
    """
    return _read(path, EpisodeRecord)


def read_validations(path: Path) -> list[Validation]:
    """The validations of a training likewise."""
    return _read(path, Validation)


def _read(path: Path, kind: type[LineT]) -> list[LineT]:
    try:
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    except OSError as e:
        raise DataError(f"cannot read {path}: {e.strerror}") from e
    found: list[LineT] = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(kind.model_validate_json(line))
        except ValidationError as e:
            raise DataError(f"{path}:{number}: not a line of a training", hint="the file is damaged") from e
    return found


ACCURACY, EARNED, LENGTH, EPSILON, VALIDATION_COLOR = "#3a9d5d", "#4269d0", "#d9822b", "#7a7f87", "#b5487a"
"""Colours that can be told apart on white and on near-black; the page behind is left as it is."""
INK = "#6b7280"


def learning_curve(records: Sequence[EpisodeRecord], validations: Sequence[Validation], title: str = "") -> str:
    """Draw a training.

    The lines are means over the last `WINDOW` episodes, or as many as there are; a long chain is no good chain (see
    `EpisodeRecord.length`), so the two stand beside each other.

    Args:
        records: Its episodes, in order.
        validations: Its validations.
        title: What stands above.

    Returns:
        The SVG's text; the same for the same training.

    Raises:
        UserError: matplotlib is not installed.
    """
    require_extra()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 6.6), layout="constrained")
    figure.patch.set_alpha(0)
    above, middle, below = figure.subplots(3, 1, sharex=True)
    x = [r.episode for r in records]
    at = [v.episode for v in validations]
    above.plot(x, moving_mean([float(r.correct) for r in records]), color=ACCURACY, label="right answers")
    above.plot(x, moving_mean([r.earned for r in records]), color=EARNED, label="return")
    middle.plot(x, moving_mean([float(r.length) for r in records]), color=LENGTH, label="blocks before the answer")
    below.plot(x, [r.epsilon for r in records], color=EPSILON, label="random actions (epsilon)")
    if validations:
        mark = {"color": VALIDATION_COLOR, "marker": "o", "markersize": 4, "linewidth": 1}
        above.plot(at, [v.accuracy for v in validations], label="right answers, held out, greedy", **mark)
        middle.plot(at, [v.length for v in validations], label="blocks, held out, greedy", **mark)
    below.set_xlabel("episode")
    below.set_ylim(-0.02, 1.02)
    middle.set_ylim(bottom=0)
    for axes in (above, middle, below):
        _style(axes)
    if title:
        figure.suptitle(title, fontsize=10, color=INK)
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "reason", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def moving_mean(values: Sequence[float], window: int = WINDOW) -> Array:
    """The mean of each value and those before it, of at most `window` in all; as many means as values."""
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=np.float64))])
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(0, ends - window)
    means: Array = (sums[ends] - sums[begins]) / (ends - begins)
    return means


def _style(axes: Any) -> None:
    axes.patch.set_alpha(0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
    axes.tick_params(colors=INK, labelsize=8)
    axes.xaxis.label.set_color(INK)
    axes.grid(visible=True, axis="y", color=INK, alpha=0.25, linewidth=0.6)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="best")


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

    def validated(self, found: Validation) -> None:
        """Do nothing."""

    def event(self, event: Event) -> None:
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
