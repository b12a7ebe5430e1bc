"""What a navigator is trained on: `NavigatorPlan`, the split of its problems, and their files.

The split follows from the normalized text of the question: the same question is in the same split whatever dataset,
order, copy or choices it comes with, so no training question is ever held out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, ValidationError

from ....core.errors import DataError, UserError
from ....core.files import question_digest, write_file
from ....core.messages import Frozen
from ....core.settings import LocalSettings, Settings
from ....reasoning.rlot.learner import LearningConfig
from ....reasoning.rlot.rlot import RLoT
from ....reasoning.strategy import EXAMPLE_REWARD, create_strategy
from ...datasets.items import ChoiceGold, Item, LabelGold, MathGold, TextGold, TruthfulGold, is_held_out
from ...plan import DatasetInfo, derive_item_seed, flatten
from ...task import Task
from ..loop import TrainerConfig

RewardKind = Literal["outcome", "prm", "potential"]
ProblemFilter = Literal["hard", "all"]

INFERENCE_ONLY_PARAMETERS = frozenset({"policy", "navigator", "weights", "sequence", "n_votes", "vote_temperature"})
"""Parameters of `rlot` that select the policy or combine several answers: a training run explores by itself."""


class NavigatorPlan(Frozen):
    """One training run. Equal plans give the same navigator, however the runs were interrupted.

    Attributes:
        datasets: The datasets.
        limit: Number of items of each dataset, the first ones; None for all.
        problems: "hard" trains on those training questions that a direct greedy answer gets wrong, "all" on all.
        holdout: Share of the questions that are never trained on, in [0, 1).
        model: The main model.
        reward: The reward of a block (see `episodes`).
        reward_model: The model that scores steps; None if the reward needs none.
        parameters: Parameters of `rlot`, complete.
        direct: Parameters of `cot`, complete, for the direct answers that select hard questions.
        learning: Hyperparameters of the learner.
        parallel: Maximum number of episodes in flight. Episodes share the learner, so their number changes the result.
        validation: Number of held-out questions of a validation.
        seed: Seed of the weights, of the exploration and of the order of problems; no sample depends on it.
        local: Settings of the embedded engine.
        reuse: Which stored completions may answer a call (see `RunConfig.reuse`).
    """

    datasets: Annotated[tuple[DatasetInfo, ...], Field(min_length=1)]
    limit: Annotated[int, Field(ge=1)] | None = None
    problems: ProblemFilter = "hard"
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    model: str
    reward: RewardKind = "outcome"
    reward_model: str | None = None
    parameters: dict[str, JsonValue]
    direct: dict[str, JsonValue]
    learning: LearningConfig = LearningConfig()
    parallel: Annotated[int, Field(ge=1, le=1024)] = 8
    validation: Annotated[int, Field(ge=0)] = 32
    seed: Annotated[int, Field(ge=0)] = 0
    local: LocalSettings = LocalSettings()
    reuse: str = "store"

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits over all settings; of the data over its content, not its location."""
        return _sha256(self._plain())[:12]

    def run_id(self, strategy: str, dataset: str, item: str) -> str:
        """Name of a problem's run in the run store: all episodes of this training on the problem are one run."""
        return f"train-{self.digest}-{_sha256([strategy, dataset, item])[:20]}"

    def item_seed(self, item: str) -> int:
        """Seed of a problem's run: that of an evaluation under seed 0, which then reuses the completions."""
        return derive_item_seed(item, 0)

    def differences(self, other: NavigatorPlan) -> str:
        """The settings in which two plans differ, with both values, in one line; empty if in none."""
        left, right = flatten(self._plain()), flatten(other._plain())
        names = [n for n in dict.fromkeys([*left, *right]) if left.get(n) != right.get(n)]
        return ", ".join(f"{n} {json.dumps(left.get(n))} → {json.dumps(right.get(n))}" for n in names)

    def _plain(self) -> dict[str, JsonValue]:
        plain = self.model_dump(mode="json", exclude={"datasets": True}) | {"local": self.local.output_affecting}
        kept = {"name", "variant", "fingerprint"}
        return plain | {"datasets": [use.model_dump(mode="json", include=kept) for use in self.datasets]}


class NavigatorTrainerConfig(TrainerConfig):
    """When a navigator training validates, saves and stops; all counts are episodes.

    The training stops before a step that could exceed `max_tokens`; what a killed process generated after its last
    checkpoint is not counted.

    Attributes:
        episodes: Number of episodes in all; more of them continue a finished training.
    """

    episodes: Annotated[int, Field(ge=1)] = 3000
    checkpoint_every: Annotated[int, Field(ge=1)] = 10
    validate_every: Annotated[int, Field(ge=0)] = 250


def make_navigator_plan(
    tasks: Sequence[Task],
    settings: Settings,
    *,
    parameters: Mapping[str, Any] | None = None,
    limit: int | None = None,
    problems: ProblemFilter = "hard",
    holdout: float = 0.5,
    reward: RewardKind = "outcome",
    learning: LearningConfig | None = None,
    parallel: int = 8,
    validation: int = 32,
    seed: int = 0,
) -> NavigatorPlan:
    """A plan from settings and opened datasets; everything that can be refused is refused here.

    Args:
        parameters: Parameters of `rlot` that differ from the settings.
        learning: Hyperparameters of the learner; None for those of the paper.

    Raises:
        UserError: There is no dataset or one is named twice, a parameter is not allowed here, the reward needs a reward
            model and there is none, or completions may not be reused.
        DataError: A dataset has questions whose answers are neither right nor wrong.
    """
    if not tasks:
        raise UserError("no dataset to train on is named", hint="name one with --data, for example --data gsm8k")
    names = [task.info.full_name for task in tasks]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise UserError(f"the dataset {twice} is named twice")
    for task in tasks:
        if not task.items:
            raise DataError(f"the dataset {task.info.full_name} is empty")
        shared = next((item for item in task.items.values() if not _is_decided(item)), None)
        if shared is not None:
            raise DataError(
                f"answers to {task.info.full_name} are neither right nor wrong (item {shared.id!r}), so none can be a "
                "reward",
                hint="train on another dataset, or on another variant",
            )
    if settings.reuse == "none":
        raise UserError(
            "a training reuses its own completions, so reuse must be allowed",
            hint='set reuse = "store", or "run" to reuse only those of the run',
        )
    if reward != "outcome" and settings.reward_model is None:
        raise UserError(
            f"the reward {reward!r} scores steps, and no reward model is set",
            hint=f"name one with --reward-model, for example {EXAMPLE_REWARD}; or use --reward outcome",
        )
    values = {**settings.strategies.get(RLoT.name, {})}
    meaningless = sorted(INFERENCE_ONLY_PARAMETERS & set(parameters or {}))
    if meaningless:
        raise UserError(
            f"the parameter {meaningless[0]!r} of {RLoT.name} cannot be set for a training, which explores by itself",
            hint="leave it out",
        )
    chosen = {
        name: value for name, value in {**values, **(parameters or {})}.items() if name not in INFERENCE_ONLY_PARAMETERS
    }
    _, complete = create_strategy(RLoT.name, chosen)
    _, direct = create_strategy("cot", {})
    return NavigatorPlan(
        datasets=tuple(task.info for task in tasks),
        limit=limit,
        problems=problems,
        holdout=holdout,
        model=settings.model,
        reward=reward,
        reward_model=None if reward == "outcome" else settings.reward_model,
        parameters={name: value for name, value in complete.items() if name not in INFERENCE_ONLY_PARAMETERS},
        direct=direct,
        learning=learning or LearningConfig(),
        parallel=parallel,
        validation=validation,
        seed=seed,
        local=settings.local,
        reuse=settings.reuse,
    )


def _is_decided(item: Item) -> bool:
    """Whether an answer to the item is right or wrong, rather than scored by probability or overlap."""
    gold = item.gold
    return not isinstance(gold, TruthfulGold) and gold.type != "evidence" and getattr(gold, "rule", "one") == "one"


def _sha256(value: JsonValue) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Problem:
    """A question that can be trained on.

    Attributes:
        dataset: Name of its dataset.
        item: The question with its right answer.
        digest: Digest of its text.
    """

    dataset: str
    item: Item
    digest: str

    @property
    def key(self) -> tuple[str, str]:
        """Dataset and item id."""
        return self.dataset, self.item.id


@dataclass(frozen=True, slots=True)
class ProblemSplit:
    """The problems of a training: those that may be trained on, and those that never are."""

    train: tuple[Problem, ...]
    held_out: tuple[Problem, ...]


def split_by_digest(problems: Iterable[Problem], share: float) -> ProblemSplit:
    """Split problems by the digests of their questions."""
    training: list[Problem] = []
    held_out: list[Problem] = []
    for problem in problems:
        (held_out if is_held_out(problem.digest, share) else training).append(problem)
    return ProblemSplit(tuple(training), tuple(held_out))


def as_problems(dataset: str, items: Iterable[Item]) -> list[Problem]:
    """The items of a dataset as problems."""
    return [Problem(dataset, item, question_digest(item.question.text)) for item in items]


def split_problems(plan: NavigatorPlan, tasks: Sequence[Task]) -> ProblemSplit:
    """The problems of a plan, split.

    Raises:
        UserError: A split that is needed is empty.
    """
    results = [
        problem
        for task in tasks
        for problem in as_problems(task.info.full_name, list(task.items.values())[: plan.limit])
    ]
    split = split_by_digest(results, plan.holdout)
    if not split.train:
        raise UserError(
            f"none of the {len(results)} questions is in the training split",
            hint="train on more questions, or lower --holdout",
        )
    if plan.validation and not split.held_out:
        raise UserError(
            f"none of the {len(results)} questions is held out, so there is nothing to validate on",
            hint="train on more questions, raise --holdout, or use --validation 0",
        )
    return split


Key = tuple[str, str]


class ProblemLine(Frozen):
    """A line of `problems.jsonl`.

    Attributes:
        dataset: Dataset of the question.
        item: Its item id.
        digest: Digest of its text, which decides the split.
        split: "train" or "held-out".
        direct: Whether the direct answer was right; None if it was not requested.
        trained_on: Whether it is a training problem.
    """

    dataset: str
    item: str
    digest: str
    split: str
    direct: bool | None = None
    trained_on: bool = False


def write_problems(path: Path, split: ProblemSplit, direct: Mapping[Key, bool], selected: Sequence[Problem]) -> None:
    """Write all problems.

    Raises:
        StoreError: It cannot be written.
    """
    trained = {problem.key for problem in selected}
    lines = [
        ProblemLine(
            dataset=problem.dataset,
            item=problem.item.id,
            digest=problem.digest,
            split=name,
            direct=direct.get(problem.key),
            trained_on=problem.key in trained,
        )
        for name, problems in (("train", split.train), ("held-out", split.held_out))
        for problem in problems
    ]
    write_file(path, ("".join(line.model_dump_json() + "\n" for line in lines)).encode("utf-8", "surrogatepass"))


def read_problems(path: Path, split: ProblemSplit) -> tuple[Problem, ...] | None:
    """The selected problems of a training; None if they are not selected yet.

    Raises:
        DataError: The file is damaged, or not of these problems.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise DataError(f"cannot read {path}: {e.strerror}") from e
    try:
        lines = [ProblemLine.model_validate_json(line) for line in raw.split(b"\n") if line]
    except ValidationError as e:
        raise DataError(f"{path} is damaged", hint="train again in another directory") from e
    known = {problem.key: problem for problem in split.train}
    requested = [line for line in lines if line.trained_on]
    if not requested or any((line.dataset, line.item) not in known for line in requested):
        raise DataError(f"{path} is not of the questions of this training", hint="train again in another directory")
    return tuple(known[line.dataset, line.item] for line in requested)


def write_held_out(path: Path, problems: Sequence[Problem]) -> None:
    """Write the held-out problems as a custom dataset, which `reason eval` reads.

    Raises:
        StoreError: It cannot be written.
    """
    records = [custom_record(problem) for problem in problems]
    write_file(
        path,
        ("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)).encode("utf-8", "surrogatepass"),
    )


def custom_record(problem: Problem) -> dict[str, JsonValue]:
    """A problem as a line of a custom dataset (`datasets.custom`)."""
    item = problem.item
    question = item.question
    record: dict[str, JsonValue] = {
        "id": f"{problem.dataset}/{item.id}",
        "question": question.text,
        "answer": _answer(item),
    }
    if question.choices:
        record["choices"] = list(question.choices)
    elif question.kind != "auto":
        record["answer_kind"] = question.kind
    if question.documents:
        record["documents"] = [{"name": d.name, "text": d.text} for d in question.documents]
    if item.subject:
        record["subject"] = item.subject
    if item.group:
        record["group"] = item.group
    return record


def _answer(item: Item) -> JsonValue:
    """The right answer as a custom dataset has it: with choices an index, else all accepted answers."""
    gold = item.gold
    if item.gold_positions and item.question.choices:
        return item.gold_positions[0]
    match gold:
        case MathGold():
            answers = (gold.answer, *gold.equivalents)
        case TextGold():
            answers = gold.answers
        case LabelGold():
            answers = (gold.label,)
        case ChoiceGold():
            answers = tuple(item.question.choices[i] for i in gold.correct)
        case _:
            return ""
    return list(answers) if len(answers) > 1 else answers[0]
