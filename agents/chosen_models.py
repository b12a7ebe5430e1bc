"""Which models a run opens: those that the settings name, jurors and chair only where somebody asks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import UserError
from ..core.model_roles import JURY, models_by_role
from ..core.settings import Settings
from ..reasoning.strategy import STRATEGIES
from ..verify.verifier import VERIFIERS, make_verifier


def models_of(settings: Settings, verify_parameters: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, str]:
    """Model strings by role.

    Args:
        settings: Say strategy, verifiers, and who plays which role.
        verify_parameters: The parameters of each verifier; None are the settings'.
    """
    chosen = settings.verifiers if verify_parameters is None else verify_parameters
    return models_by_role(settings, _used(settings.strategy, settings.verify, chosen))


def asks_jury(strategy: str, verify: Sequence[str]) -> bool:
    """Whether a strategy, or one of some verifiers, asks a jury."""
    return JURY in _used(strategy, verify, {})


def verifier_asks_jury(name: str) -> bool:
    """Whether a verifier asks a jury, and so has something to say without any evidence."""
    return JURY in make_verifier(name, {})[0].roles


def refuse_idle_jurors(settings: Settings, jurors: Sequence[str]) -> None:
    """Refuse jurors whom nobody would ask.

    Args:
        settings: Say strategy and verifiers.
        jurors: The models that the caller named.

    Raises:
        UserError: There are some, and neither the strategy nor a verifier asks a jury.
    """
    if not jurors or asks_jury(settings.strategy, settings.verify):
        return
    able = sorted(name for name in STRATEGIES.names() if JURY in STRATEGIES.load(name).roles)
    verifiers = sorted(filter(verifier_asks_jury, VERIFIERS.names()))
    raise UserError(
        f"the strategy {settings.strategy} asks no jury, so it cannot use the juror {jurors[0]}",
        hint=f"take the strategy {' or '.join(able)}, or the verifier {' or '.join(verifiers)}",
    )


def _used(strategy: str, verify: Sequence[str], parameters: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The roles that the strategy and the verifiers ask for."""
    used = set(STRATEGIES.load(strategy).roles)
    for name in verify:
        used.update(make_verifier(name, parameters.get(name, {}))[0].roles)
    return used
