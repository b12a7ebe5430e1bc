"""One training run of a navigator: select the problems, train, validate, save the navigator with its card.

| file of the run directory | contents |
| --- | --- |
| `training.json` | plan, data, trainer config, models, versions |
| `problems.jsonl` | every question: its split, and whether the direct answer was right |
| `held_out.jsonl` | the questions that are never trained on, as a custom dataset |
| `checkpoint.safetensors` | the state between two rounds |
| `usage.json` | tokens generated, and tokens reused from the run store |
| `episodes.jsonl`, `validations.jsonl` | a line for each |
| `tensorboard/`, `curve.svg` | the same for viewing |
| `store.sqlite3` | the run store, unless another one is used |

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140, which trains only on hard problems: those that the
model gets wrong when it answers directly, with one greedy chain of thought.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from ....core.errors import BudgetExceeded, DataError, UserError
from ....core.events import Event
from ....core.files import Progress, write_file
from ....core.settings import Settings
from ....core.types import Answer
from ....core.version import __version__
from ....reasoning.rlot.assessment import State
from ....reasoning.rlot.learner import Learner
from ....reasoning.rlot.navigator import Navigator, NavigatorCard, save_navigator
from ....reasoning.strategy import Models, create_strategy
from ...plan import DatasetSource, software_versions
from ...task import Task
from ..loop import StopReason, run_training
from ..run_directory import (
    CHECKPOINT,
    TrainingDirectory,
    TrainingManifest,
    check_writable,
    load_checkpoint,
    save_checkpoint,
)
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
    NavigatorTrainerConfig,
    Problem,
    ProblemSplit,
    read_problems,
    split_problems,
    write_held_out,
    write_problems,
)
from .trainer import NavigatorState, NavigatorTrainer, TrainingProgress

PROBLEMS: Final = "problems.jsonl"
HELD_OUT: Final = "held_out.jsonl"
USAGE: Final = "usage.json"
CURVE: Final = "curve.svg"
STORE: Final = "store.sqlite3"
LAST_EPISODES: Final = 100
"""Episodes at the end that the card averages over."""
MAX_STATES: Final = 12
"""States that the card lists."""

_USAGE: TypeAdapter[TrainingUsage] = TypeAdapter(TrainingUsage)


class NavigatorManifest(TrainingManifest):
    """What `training.json` holds.

    Attributes:
        plan: The plan.
        sources: Where the datasets are opened from, in the plan's order.
        config: The trainer config of the last process.
        out: The navigator's file.
        store: The run store's file; relative if it is in the directory.
        environment: Versions of `reason`, the engines and the machine's software.
    """

    plan: NavigatorPlan
    sources: tuple[DatasetSource, ...]
    config: NavigatorTrainerConfig
    out: Path
    store: str = STORE
    environment: dict[str, str] = Field(default_factory=dict)


class TrainingObserver:
    """Receives the progress of a training run; its methods must be quick. This one ignores everything."""

    def begin_direct(self, problems: int) -> None:
        """That many problems are answered directly, to select the hard ones."""

    def direct_answer(self, correct: bool) -> None:
        """One of them was answered."""

    def begin(self, episodes: int, records: Sequence[EpisodeRecord], problems: int) -> None:
        """Episodes begin: their number in all, those that are finished, and the number of problems."""

    def episode(self, record: EpisodeRecord) -> None:
        """An episode ended."""

    def begin_validation(self, problems: int) -> None:
        """A validation begins."""

    def end_validation(self, result: ValidationResult) -> None:
        """A validation ended."""

    def event(self, event: Event) -> None:
        """An event of a problem's run."""


@dataclass(frozen=True)
class TrainedNavigator:
    """The result of a training run.

    Attributes:
        navigator: The navigator, as it is in `out`.
        out: Its file.
        stopped: Why the training ended.
        records: Its episodes.
        validations: Its validations.
        problems: Number of training problems.
        held_out: Number of problems it never saw.
        usage: Tokens generated and reused.
    """

    navigator: Navigator
    out: Path
    stopped: StopReason
    records: tuple[EpisodeRecord, ...]
    validations: tuple[ValidationResult, ...]
    problems: int
    held_out: int
    usage: TrainingUsage


async def train_navigator(
    plan: NavigatorPlan,
    tasks: Sequence[Task],
    sources: Sequence[DatasetSource],
    run_dir: Path,
    out: Path,
    settings: Settings,
    *,
    config: NavigatorTrainerConfig | None = None,
    resume: bool = False,
    store: Path | None = None,
    observer: TrainingObserver | None = None,
    progress: Progress | None = None,
) -> TrainedNavigator:
    """Train a navigator, or resume a training run.

    Cancelling saves the state after the last complete round. Resuming gives what an undisturbed run gives, bit for bit,
    if the model gives the same completions; those that were paid are in the run store.

    Args:
        tasks: The datasets that the plan was made for, in its order.
        sources: Where they were opened from.
        store: The run store; None is one in the run directory.
        progress: Reports the download of model files; called from another thread.

    Raises:
        UserError: The directory holds another training, no question is hard, a split is empty, the model is not the one
            that the training began with, or a package is missing.
        DataError: The directory is damaged, or the datasets are not the plan's.
        StoreError: Something cannot be written.
        BudgetExceeded: The token limit ended it before its first episode.
        BackendError: The model failed; the state is saved.
    """
    require_extra()
    if [task.info.fingerprint for task in tasks] != [info.fingerprint for info in plan.datasets]:
        raise DataError("the datasets are not those that the training began with", hint="use the same data")
    config, observer = config or NavigatorTrainerConfig(), observer or TrainingObserver()
    split = split_problems(plan, tasks)
    check_writable(out)
    with TrainingDirectory(run_dir) as directory:
        store_path = store or run_dir / STORE
        manifest = NavigatorManifest(
            plan=plan,
            sources=tuple(sources),
            config=config,
            out=out,
            store=STORE if store_path == run_dir / STORE else str(store_path),
            environment=software_versions(),
        )
        state = None
        if resume and directory.has_checkpoint:
            state = NavigatorState.from_checkpoint(load_checkpoint(run_dir / CHECKPOINT))
        directory.begin(manifest, resume=resume)
        write_held_out(run_dir / HELD_OUT, split.held_out)
        usage = _read_usage(run_dir / USAGE)
        async with open_episode_resources(
            plan,
            tasks,
            settings,
            store_path,
            sinks=(observer.event,),
            usage=usage,
            max_tokens=config.max_tokens,
            progress=progress,
        ) as resources:
            try:
                return await _Training(resources, split, run_dir, config, out, observer, state).run()
            finally:
                _write_usage(run_dir / USAGE, usage)


class _Training:
    """A training run whose models are open and whose directory is locked; the loop's `Trainer` while it runs."""

    def __init__(
        self,
        resources: EpisodeResources,
        split: ProblemSplit,
        run_dir: Path,
        config: NavigatorTrainerConfig,
        out: Path,
        observer: TrainingObserver,
        state: NavigatorState | None,
    ) -> None:
        self._resources, self._split, self._run_dir = resources, split, run_dir
        self._config, self._out, self._observer = config, out, observer
        self._validated = -1 if state is None else state.validated
        self._resumed, self._restored = state, state is None
        if state is not None:
            _check_same_training(state, resources)
        self._learner = Learner(resources.plan.learning, resources.plan.seed)
        self._trainer: NavigatorTrainer
        self._logs: TrainingLogs

    async def run(self) -> TrainedNavigator:
        """Train to the end, and save the navigator."""
        plan, config, state = self._resources.plan, self._config, self._resumed
        problems = await self._select_problems()
        if state is not None:
            self._learner.load_state(state.learner)
        self._trainer = NavigatorTrainer(
            problems,
            self._learner,
            self._start_episode,
            parallel=plan.parallel,
            episodes=config.episodes,
            seed=plan.seed,
            progress=None if state is None else state.progress,
        )
        lines = (0, 0) if state is None else (state.progress.finished, state.validations)
        with TrainingLogs(self._run_dir, *lines) as logs:
            self._logs = logs
            self._observer.begin(config.episodes, logs.records, len(problems))
            try:
                stopped = await run_training(self, config)
            finally:
                self._draw_curve()
            if stopped == "tokens" and not logs.records:
                raise BudgetExceeded("tokens", self._resources.usage.tokens, config.max_tokens or 0)
            navigator = Navigator(
                self._learner.online, navigator_card(self._resources, problems, logs.records, logs.validations)
            )
            save_navigator(navigator, self._out)
            return TrainedNavigator(
                navigator=navigator,
                out=self._out,
                stopped=stopped,
                records=tuple(logs.records),
                validations=tuple(logs.validations),
                problems=len(problems),
                held_out=len(self._split.held_out),
                usage=self._resources.usage,
            )

    @property
    def num_finished(self) -> int:
        return self._trainer.finished

    @property
    def is_done(self) -> bool:
        return self._trainer.done

    async def restore(self) -> None:
        await self._trainer.restore()
        self._restored = True

    def is_validation_due(self, every: int) -> bool:
        """Before the first episode, after every so many, and after the last."""
        finished, last = self._trainer.finished, self._validated
        if not self._resources.plan.validation or finished == last:
            return False
        return last < 0 or self._trainer.done or finished // every > last // every

    async def validate(self) -> None:
        plan, finished = self._resources.plan, self._trainer.finished
        problems = validation_problems(self._split.held_out, plan.validation)
        self._observer.begin_validation(len(problems))
        navigator = Navigator(self._learner.online)
        result = await validate_navigator(navigator, problems, self._start_episode, plan.parallel, episode=finished)
        self._validated = finished
        self._logs.validation(result)
        self._observer.end_validation(result)

    async def step(self) -> None:
        for record in await self._trainer.round():
            self._logs.episode(record, self._resources.usage)
            self._observer.episode(record)

    def snapshot(self) -> Callable[[], None]:
        state = self._resumed
        if self._restored or state is None:
            state = self._state(self._trainer.progress())
        checkpoint = state.to_checkpoint()

        def save() -> None:
            self._logs.flush()
            save_checkpoint(checkpoint, self._run_dir / CHECKPOINT)
            _write_usage(self._run_dir / USAGE, self._resources.usage)

        return save

    async def close(self) -> None:
        await self._trainer.close()

    def _state(self, progress: TrainingProgress) -> NavigatorState:
        return NavigatorState(
            plan=self._resources.plan.digest,
            learner=self._learner.state_dict(),
            progress=progress,
            validated=self._validated,
            validations=len(self._logs.validations),
            identities=self._resources.identities,
        )

    async def _select_problems(self) -> tuple[Problem, ...]:
        """The training problems: selected once, and read again when the run resumes."""
        resources, split, path = self._resources, self._split, self._run_dir / PROBLEMS
        selected = read_problems(path, split)
        if selected is not None:
            return selected
        direct: dict[tuple[str, str], bool] = {}
        selected = split.train
        if resources.plan.problems == "hard":
            self._observer.begin_direct(len(selected))
            direct = await direct_answers(
                selected,
                resources,
                resources.plan.parallel,
                lambda problem, correct: self._observer.direct_answer(correct),
            )
            selected = hard_problems(selected, direct)
        write_problems(path, split, direct, selected)
        return selected

    def _start_episode(self, problem: Problem) -> TrainingEpisode:
        return TrainingEpisode(self._resources, problem)

    def _draw_curve(self) -> None:
        if self._logs.records:
            title = f"{self._resources.plan.model}, reward {self._resources.plan.reward}"
            curve = learning_curve(self._logs.records, self._logs.validations, title)
            write_file(self._run_dir / CURVE, curve.encode())


def _check_same_training(state: NavigatorState, resources: EpisodeResources) -> None:
    """Refuse the checkpoint of another training, or of other models.

    Raises:
        UserError: It is one; names the difference.
    """
    if state.plan != resources.plan.digest:
        raise UserError(
            "the checkpoint is of another training than the directory's plan", hint="train again in another directory"
        )
    for role, identity in resources.identities.items():
        known = state.identities.get(role)
        if known != identity:
            raise UserError(
                f"the {role} model is {identity}, and the training began with {known}",
                hint="resume with that one, or train again in another directory",
            )


def read_navigator_manifest(run_dir: Path) -> NavigatorManifest:
    """The manifest of a navigator training.

    Raises:
        DataError: There is none, or it is damaged or of another version.
    """
    from ..run_directory import read_manifest

    return read_manifest(run_dir, NavigatorManifest)


def _read_usage(path: Path) -> TrainingUsage:
    """What earlier processes used for this training."""
    try:
        return _USAGE.validate_json(path.read_bytes())
    except FileNotFoundError:
        return TrainingUsage()
    except (OSError, ValidationError) as e:
        raise DataError(f"{path} is damaged", hint="remove it: tokens are then counted from 0") from e


def _write_usage(path: Path, usage: TrainingUsage) -> None:
    write_file(path, _USAGE.dump_json(TrainingUsage(**asdict(usage))) + b"\n")


async def direct_answers(
    problems: Sequence[Problem],
    resources: EpisodeResources,
    concurrency: int,
    on_answer: Callable[[Problem, bool], None] = lambda problem, correct: None,
) -> dict[tuple[str, str], bool]:
    """Whether the direct answer to each problem is right, by the problem's key.

    Raises:
        BudgetExceeded: The token limit does not cover the next answer; earlier ones are in the store.
        BackendError: The model failed.
    """
    strategy, parameters = create_strategy("cot", resources.plan.direct)
    max_tokens = parameters.get("max_tokens")

    async def answer_directly(problem: Problem) -> bool:
        with resources.reserve(max_tokens if isinstance(max_tokens, int) else 0):
            run = resources.problem_run(problem, "cot", parameters)
            await resources.begin(run)
            answer: Answer | None = None
            correct = False
            try:
                solution = await strategy.solve(problem.item.question, Models({"main": run.main}), run.run)
                if solution.best is not None:
                    answer, score = await resources.score(run, solution.best)
                    correct = score.correct is True
            except EPISODE_ERRORS:
                pass  # no answer is not a right one
            except BaseException:
                await resources.end(run, "interrupted")
                raise
        await resources.end(run, "finished", answer)
        on_answer(problem, correct)
        return correct

    correct = await map_concurrently(problems, answer_directly, concurrency)
    return {problem.key: value for problem, value in zip(problems, correct, strict=True)}


def hard_problems(problems: Sequence[Problem], correct: dict[tuple[str, str], bool]) -> tuple[Problem, ...]:
    """The problems whose direct answer is wrong.

    Raises:
        UserError: There are none.
    """
    hard = tuple(problem for problem in problems if not correct[problem.key])
    if not hard:
        raise UserError(
            f"the model answers all {len(problems)} training questions right when it answers directly: none is hard",
            hint="train on harder questions, on more of them, or with --problems all",
        )
    return hard


async def validate_navigator(
    navigator: Navigator, problems: Sequence[Problem], start_episode: EpisodeFactory, concurrency: int, *, episode: int
) -> ValidationResult:
    """Let a navigator choose all blocks greedily on at least one problem.

    Args:
        episode: Training episodes so far.

    Raises:
        ReasonError: As `TrainingEpisode.begin` and `act`.
    """
    records = await map_concurrently(
        problems, lambda problem: greedy_episode(navigator, start_episode(problem)), concurrency
    )
    requested = sum(r.scores_requested for r in records)
    return ValidationResult(
        episode=episode,
        problems=len(records),
        correct=sum(r.correct for r in records),
        episode_return=sum(r.episode_return for r in records) / len(records),
        length=sum(r.length for r in records) / len(records),
        missing=sum(r.scores_missing for r in records) / requested if requested else 0.0,
        tokens=sum(r.tokens for r in records) / len(records),
    )


async def greedy_episode(navigator: Navigator, episode: TrainingEpisode) -> EpisodeRecord:
    """One episode by the highest legal values."""
    try:
        await episode.begin()
        while not episode.done:
            await episode.act(navigator.choose(episode.state, episode.legal))
        return episode.record(1)
    finally:
        await episode.close()


def validation_problems(held_out: Sequence[Problem], count: int) -> tuple[Problem, ...]:
    """The held-out problems of the lowest digests: the same ones in any order of the data."""
    return tuple(sorted(held_out, key=lambda problem: (problem.digest, problem.key))[:count])


def navigator_card(
    resources: EpisodeResources,
    problems: Sequence[Problem],
    records: Sequence[EpisodeRecord],
    validations: Sequence[ValidationResult],
) -> NavigatorCard:
    """The card of a trained navigator.

    All training questions are listed by digest, used in an episode or not. The notes have the means of the last
    episodes, the last validation, the usage, the most common states and the warnings of the data.
    """
    plan = resources.plan
    config = resources.config
    return NavigatorCard(
        name=f"{plan.model.rpartition('/')[2]}-{'+'.join(info.name for info in plan.datasets)}-{plan.reward}",
        model=plan.model,
        model_identity=resources.model.identity,
        reward=plan.reward,
        reward_model=plan.reward_model or "",
        datasets=tuple(info.full_name for info in plan.datasets),
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
        notes=_notes(resources, records, validations),
    )


def common_states(records: Sequence[EpisodeRecord], limit: int = MAX_STATES) -> list[tuple[State, int]]:
    """The states in which a block was chosen, with their counts, most common first, ties in ascending order."""
    counts = Counter(state for r in records for state in r.states[: len(r.actions)])
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:limit]


def _notes(
    resources: EpisodeResources, records: Sequence[EpisodeRecord], validations: Sequence[ValidationResult]
) -> dict[str, JsonValue]:
    plan, last = resources.plan, records[-LAST_EPISODES:]
    notes: dict[str, JsonValue] = {
        "problems": plan.problems,
        "held_out_share": plan.holdout,
        "learning": plan.learning.model_dump(mode="json"),
        "parallel": plan.parallel,
        "generated_tokens": resources.usage.tokens,
        "reused_completions": resources.usage.reused_completions,
        "common_states": [[list(state), count] for state, count in common_states(records)],
    }
    if last:
        notes["last_episodes"] = {
            "episodes": len(last),
            "return": sum(r.episode_return for r in last) / len(last),
            "accuracy": sum(r.correct for r in last) / len(last),
            "length": sum(r.length for r in last) / len(last),
        }
        requested = sum(r.scores_requested for r in records)
        notes["missing_scores"] = sum(r.scores_missing for r in records) / requested if requested else 0.0
    if validations:
        notes["validation"] = validations[-1].model_dump(mode="json")
    warnings = [info.warning for info in plan.datasets if info.warning]
    if warnings:
        notes["warnings"] = list(warnings)
    return notes
