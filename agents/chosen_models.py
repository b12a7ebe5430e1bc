"""Which models a run opens: those that the settings name, jurors and chair only where somebody asks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import UserError
from ..core.model_roles import CHAIR, JURY, models_by_role
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


def refuse_idle_jurors(settings: Settings, jurors: Sequence[str], chair: str | None) -> None:
    """Refuse jurors and a chair whom nobody would ask.

    Args:
        settings: Say strategy and verifiers.
        jurors: The models that the caller named.
        chair: The model that the caller named as the chair; None is none.

    Raises:
        UserError: There are jurors and neither the strategy nor a verifier asks a jury, or likewise a chair.
    """
    if jurors and not asks_jury(settings.strategy, settings.verify):
        verifiers = sorted(filter(verifier_asks_jury, VERIFIERS.names()))
        raise UserError(
            f"the strategy {settings.strategy} asks no jury, so it cannot use the juror {jurors[0]}",
            hint=f"take the strategy {_asking(JURY)}, or the verifier {' or '.join(verifiers)}",
        )
    if chair is not None and CHAIR not in _used(settings.strategy, settings.verify, {}):
        raise UserError(
            f"the strategy {settings.strategy} has no chair, so it cannot use the chair model {chair}",
            hint=f"take the strategy {_asking(CHAIR)}",
        )


def _asking(role: str) -> str:
    """The strategies that ask a role, for a hint."""
    return " or ".join(sorted(name for name in STRATEGIES.names() if role in STRATEGIES.load(name).roles))


def _used(strategy: str, verify: Sequence[str], parameters: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The roles that the strategy and the verifiers ask for."""
    used = set(STRATEGIES.load(strategy).roles)
    for name in verify:
        used.update(make_verifier(name, parameters.get(name, {}))[0].roles)
    return used
