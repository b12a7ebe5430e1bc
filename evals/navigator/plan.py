"""`TrainingPlan`: everything that decides what a training gives; and `Schedule`, how long it goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from ...core.errors import DataError, UserError
from ...core.messages import Frozen
from ...core.settings import LocalSettings, Settings
from ...reasoning.rlot.learning.learner import Learning
from ...reasoning.rlot.rlot import RLoT
from ...reasoning.strategy import EXAMPLE_REWARD, make_strategy
from ..dotted import dotted
from ..items import Item, TruthfulGold
from ..plan import DatasetUse, seed_of_item
from ..task import Task

RewardKind = Literal["outcome", "prm", "potential"]
Which = Literal["hard", "all"]

NOT_TRAINED = frozenset({"policy", "navigator", "weights", "sequence", "n_votes", "vote_temperature"})
"""Parameters of `rlot` that say who navigates, or what is done with several answers: a training explores by itself."""


class TrainingPlan(Frozen):
    """One training. Two of equal plans give the same navigator, however they were interrupted.

    Attributes:
        datasets: Which questions there are.
        limit: Only that many items of each dataset, the first ones; None is all.
        problems: "hard" trains on those questions of the training half that a direct greedy answer gets wrong, "all" on
            the whole half.
        held_out: Share of the questions that are never trained on, in [0, 1).
        model: The model that reasons.
        reward: What a block earns (see `rewards`).
        reward_model: What scores steps; None where the reward needs none.
        parameters: Parameters of `rlot`, complete.
        direct: Parameters of `cot`, complete: the direct answer that tells hard questions.
        learning: How the navigator learns.
        parallel: Most episodes under way at a time. Episodes share the learner, so their number changes the result.
        validation: Number of held-out questions that are asked from time to time.
        seed: Seed of the weights, of the exploration and of the order of problems; no sample depends on it.
        local: How the embedded engine is set up.
        reuse: Which stored replies may answer a call (see `RunConfig.reuse`).
    """

    datasets: Annotated[tuple[DatasetUse, ...], Field(min_length=1)]
    limit: Annotated[int, Field(ge=1)] | None = None
    problems: Which = "hard"
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.5
    model: str
    reward: RewardKind = "outcome"
    reward_model: str | None = None
    parameters: dict[str, JsonValue]
    direct: dict[str, JsonValue]
    learning: Learning = Learning()
    parallel: Annotated[int, Field(ge=1, le=1024)] = 8
    validation: Annotated[int, Field(ge=0)] = 32
    seed: Annotated[int, Field(ge=0)] = 0
    local: LocalSettings = LocalSettings()
    reuse: str = "store"

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits over all of it, and of the data over what is asked, not where it lies."""
        return _sha256(self._plain())[:12]

    def run_id(self, strategy: str, dataset: str, item: str) -> str:
        """Name of a problem's run in the run store: all visits of the problem by this training are one run."""
        return f"train-{self.digest}-{_sha256([strategy, dataset, item])[:20]}"

    def item_seed(self, item: str) -> int:
        """Seed of a problem's run: that of an evaluation under seed 0, which then finds the same replies."""
        return seed_of_item(item, 0)

    def differs(self, other: TrainingPlan) -> str:
        """The settings in which two plans differ, with both values, in one line; empty if in none."""
        left, right = dotted(self._plain()), dotted(other._plain())
        names = [n for n in dict.fromkeys([*left, *right]) if left.get(n) != right.get(n)]
        return ", ".join(f"{n} {json.dumps(left.get(n))} → {json.dumps(right.get(n))}" for n in names)

    def _plain(self) -> dict[str, JsonValue]:
        plain = self.model_dump(mode="json", exclude={"datasets": True}) | {"local": self.local.decisive}
        kept = {"name", "variant", "fingerprint"}
        return plain | {"datasets": [use.model_dump(mode="json", include=kept) for use in self.datasets]}


class Schedule(Frozen):
    """How long a training goes on, and what it writes meanwhile; another schedule gives no other episodes.

    Attributes:
        episodes: Episodes in all.
        tokens: Most tokens that may be generated, everything included; None is no limit. The training ends before what
            comes next could exceed it. What a killed process generated after its last checkpoint is not counted.
        checkpoint_every: Episodes between two checkpoints.
        validate_every: Episodes between two validations; 0 is never.
    """

    episodes: Annotated[int, Field(ge=1)] = 3000
    tokens: Annotated[int, Field(ge=1)] | None = None
    checkpoint_every: Annotated[int, Field(ge=1)] = 10
    validate_every: Annotated[int, Field(ge=0)] = 250


def make_training_plan(
    tasks: Sequence[Task],
    settings: Settings,
    *,
    parameters: Mapping[str, Any] | None = None,
    limit: int | None = None,
    problems: Which = "hard",
    held_out: float = 0.5,
    reward: RewardKind = "outcome",
    learning: Learning | None = None,
    parallel: int = 8,
    validation: int = 32,
    seed: int = 0,
) -> TrainingPlan:
    """What is decided, from settings and opened datasets; everything that can be refused is refused here.

    Args:
        tasks: The datasets.
        settings: Model, reward model, engine, whose replies may be reused.
        parameters: Parameters of `rlot` that differ from the settings.
        limit: Only that many items of each dataset.
        problems: Whether to train on hard questions alone.
        held_out: Share of the questions that are never trained on.
        reward: What a block earns.
        learning: How the navigator learns; None is as in the paper.
        parallel: Most episodes under way at a time.
        validation: Held-out questions that are asked from time to time.
        seed: Seed of weights, exploration and order.

    Raises:
        UserError: There is no dataset or one is named twice, a parameter is not allowed or has no meaning here, the
            reward needs a reward model and there is none, or no reply may be reused.
        DataError: A dataset has questions whose answers are neither right nor wrong.
    """
    if not tasks:
        raise UserError("no dataset to train on is named", hint="name one with --data, for example --data gsm8k")
    names = [task.use.whole_name for task in tasks]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise UserError(f"the dataset {twice} is named twice")
    for task in tasks:
        if not task.items:
            raise DataError(f"the dataset {task.use.whole_name} is empty")
        shared = next((item for item in task.items.values() if not _is_decided(item)), None)
        if shared is not None:
            raise DataError(
                f"answers to {task.use.whole_name} are neither right nor wrong (item {shared.id!r}), so none can be a "
                "reward",
                hint="train on another dataset, or on another variant",
            )
    if settings.reuse == "none":
        raise UserError(
            "a training finds its own replies again, so they must be reused",
            hint='reuse = "store", or "run" for none of others',
        )
    if reward != "outcome" and settings.reward_model is None:
        raise UserError(
            f"the reward {reward!r} scores steps, and no reward model was given",
            hint=f"name one with --reward-model, for example {EXAMPLE_REWARD}; or take --reward outcome",
        )
    told = {**settings.strategies.get(RLoT.name, {})}
    meaningless = sorted(NOT_TRAINED & set(parameters or {}))
    if meaningless:
        raise UserError(
            f"the parameter {meaningless[0]!r} of {RLoT.name} has no meaning in a training, which explores by itself",
            hint="leave it away",
        )
    chosen = {name: value for name, value in {**told, **(parameters or {})}.items() if name not in NOT_TRAINED}
    _, complete = make_strategy(RLoT.name, chosen)
    _, direct = make_strategy("cot", {})
    return TrainingPlan(
        datasets=tuple(task.use for task in tasks),
        limit=limit,
        problems=problems,
        held_out=held_out,
        model=settings.model,
        reward=reward,
        reward_model=None if reward == "outcome" else settings.reward_model,
        parameters={name: value for name, value in complete.items() if name not in NOT_TRAINED},
        direct=direct,
        learning=learning or Learning(),
        parallel=parallel,
        validation=validation,
        seed=seed,
        local=settings.local,
        reuse=settings.reuse,
    )


def _is_decided(item: Item) -> bool:
    """Whether an answer to the item is right or wrong: neither a share of probability nor a closeness of texts."""
    gold = item.gold
    return not isinstance(gold, TruthfulGold) and gold.type != "evidence" and getattr(gold, "rule", "one") == "one"


def _sha256(value: JsonValue) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
