"""The effort "auto": how much the main model thinks about a question, by what evaluation runs have shown.

    effort = argmax P(right | question, effort) - price * expected tokens / 1000

The arms are those of `auto`, here evaluations of one model that differ in their effort; the features, fits and file are
`auto`'s too. It is off until it is trained.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from ..core.errors import BudgetExceeded, UserError
from ..core.events import StrategyNote
from ..core.messages import Effort
from ..core.run import Run
from ..core.settings import default_store
from ..core.types import Question
from ..reasoning.strategy import Models
from .auto import exceeded_limit, identities_of, rank_arms
from .router_files import Arm, AutoRouterFile, load_auto_router_file, question_row

NOTE: Final = "effort.chosen"


def effort_router_path(model: str) -> Path:
    """The file from which the efforts of a model are chosen, in the directory of the default run store.

    Args:
        model: Model string.
    """
    name = re.sub(r"[^A-Za-z0-9.]+", "-", model).strip("-.")
    return default_store().parent / "effort-routers" / f"{name}.json"


async def choose_effort(question: Question, models: Models, run: Run) -> Effort | None:
    """The effort that is worth most for a question.

    Of arms of several strategies, those of the run's count, if they differ in their effort. An arm is not affordable if
    its mean cost exceeds the remaining tokens, calls or reward calls; if none is, the cheapest counts.

    Returns:
        The effort; None is the model's default, if an arm was evaluated with it.

    Raises:
        UserError: The model does not think, nothing was trained for it, or its weights are others than those of the
            training.
        DataError: The file is damaged.
    """
    model = models.main
    if not model.profile.can_think:
        raise UserError(
            f"effort auto: model {model.name!r} does not think before it answers",
            hint="leave the effort unset, or choose a model that thinks",
            param="effort",
        )
    path = effort_router_path(model.name)
    training = (
        f"evaluate it with several efforts (reason eval DATASET -m {model.name} --effort low --out RUN_LOW, and so "
        f"on), then: reason train auto-router RUN_LOW RUN_HIGH --out {path}"
    )
    if not path.is_file():
        raise UserError(
            f"effort auto: nothing was trained for model {model.name!r}, {path} does not exist",
            hint=training,
            param="effort",
        )
    file = load_auto_router_file(path)
    other = file.trained.difference(identities_of(models))
    if other:
        raise UserError(f"effort auto: {path} was trained for another model: {other}", hint=training, param="effort")
    arms = _arms(file, run.config.strategy, models)
    if len({arm.effort for arm in arms}) < 2:
        raise UserError(
            f"effort auto: the arms of {path} do not differ in an effort that model {model.name!r} accepts",
            hint=training,
            param="effort",
        )
    cheapest = min(arms, key=lambda arm: arm.cost * arm.mean_tokens)
    try:
        row = await question_row(question, models, run, file, model)
    except BudgetExceeded as e:
        run.record_limit(e)
        return cheapest.effort
    estimates = rank_arms(arms, file.space, row, file.price)
    refused = {e.arm.label: why for e in estimates if (why := exceeded_limit(e.arm, e.tokens, run))}
    chosen = next((e.arm for e in estimates if e.arm.label not in refused), None)
    if chosen is None:
        chosen = cheapest
        run.degrade(f"effort auto: the budget covers no arm of {path}; the cheapest, {chosen.label}, was chosen")
    arm_notes: list[JsonValue] = [
        {
            "arm": e.arm.label,
            "right": round(e.right, 4),
            "tokens": round(e.tokens, 1),
            "worth": round(e.worth, 4),
            "refused": refused.get(e.arm.label, ""),
        }
        for e in estimates
    ]
    data: dict[str, JsonValue] = {"effort": chosen.effort, "arm": chosen.label, "price": file.price, "arms": arm_notes}
    run.emit(StrategyNote(strategy=run.config.strategy, name=NOTE, data=data))
    return chosen.effort


def _arms(file: AutoRouterFile, strategy: str, models: Models) -> list[Arm]:
    """The arms of the main model whose effort it accepts: those of the run's strategy if they have several efforts."""
    efforts = models.main.profile.efforts
    arms = [arm for arm in file.arms if arm.role == "main" and (arm.effort is None or arm.effort in efforts)]
    own = [arm for arm in arms if arm.strategy == strategy]
    return own if len({arm.effort for arm in own}) > 1 else arms
