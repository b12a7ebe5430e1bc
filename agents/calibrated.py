"""Which calibration map a run uses, and whether it may: a map is for one strategy and one main model.

The curve itself and its file are in `core/calibration.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from ..core.calibration import CalibrationMap, load_map
from ..core.errors import UserError
from ..core.model_roles import JURY, jurors_of
from ..core.run import RunConfig
from ..core.settings import Settings
from ..reasoning.strategy import STRATEGIES, make_strategy

NO_MAP = "none"
"""Asks for no map where the settings name one."""


def chosen_map(settings: Settings, choice: CalibrationMap | Path | str | None = None) -> CalibrationMap | None:
    """The map for the strategy of the settings.

    Args:
        settings: Say the strategy, and its map's file.
        choice: A map, or its file, instead of the settings'; "none" is no map.

    Raises:
        DataError: The file is missing or holds no map.
        UserError: The map is for another strategy.
    """
    if choice is None:
        choice = settings.calibration.get(settings.strategy)
    if choice is None or str(choice) == NO_MAP:
        return None
    found = choice if isinstance(choice, CalibrationMap) else load_map(Path(choice))
    if found.strategy != settings.strategy:
        raise UserError(
            f"the calibration map {found} was fitted to strategy {found.strategy!r}, not to {settings.strategy!r}",
            hint="calibrate a run of this strategy, or leave the map away (calibration none)",
        )
    return found


def refuse_other_model(config: RunConfig, identity: str) -> None:
    """Refuse a map that was fitted to another main model, before anything is spent.

    Args:
        config: Holds the map, if the run uses one.
        identity: The main model's identity, as it was opened.

    Raises:
        UserError: It is another; names both.
    """
    found = config.calibration
    if found is None or found.engines["main"] == identity:
        return
    raise UserError(
        f"the calibration map {found} was fitted to the model {found.models['main']} ({found.engines['main']}), not to "
        f"{config.models['main']} ({identity})",
        hint="calibrate a run of this model, or leave the map away (calibration none)",
    )


def doubts(config: RunConfig, identities: Mapping[str, str]) -> str:
    """In what else a run differs from the one that its map was fitted to, as a note; empty if in nothing.

    The scale of a strategy's confidence depends on its parameters, the verifiers and its other models. A parameter that
    the strategy did not have when the map was fitted was at its default, which is what it did then.
    """
    found = config.calibration
    if found is None:
        return ""
    then_parameters = {**make_strategy(config.strategy, {})[1], **found.parameters}
    differing = [
        f"{name} was {_shown(then_parameters.get(name))} and is {_shown(config.parameters.get(name))}"
        for name in dict.fromkeys([*then_parameters, *config.parameters])
        if then_parameters.get(name) != config.parameters.get(name)
    ]
    if found.verify != config.verify:
        differing.append(f"verify was {_shown(list(found.verify))} and is {_shown(list(config.verify))}")
    for role in STRATEGIES.load(config.strategy).roles:
        if role in ("embedding", "brain"):  # no map notes them
            continue
        then, now = _player(role, found.engines), _player(role, identities)
        if then != now:
            differing.append(f"the {role} model was {then} and is {now}")
    if not differing:
        return ""
    return f"the calibration map {found} was fitted under other settings: {'; '.join(differing)}"


def _player(role: str, identities: Mapping[str, str]) -> str:
    """Who plays a role: without a model of its own the main one, which cannot be the reward model."""
    if role == JURY:
        return ", ".join(jurors_of(identities)) or identities["main"]
    return identities.get(role) or ("none" if role == "reward" else identities["main"])


def _shown(value: JsonValue) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= 40 else text[:39] + "…"
