"""Which models a run opens: those that somebody asks, of all that the settings name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import UserError
from ..core.model_roles import CHAIR, JURY, models_by_role
from ..core.settings import Settings
from ..reasoning.strategy import STRATEGIES
from ..verify.verifier import VERIFIERS, make_verifier

VerifyParameters = Mapping[str, Mapping[str, Any]]


def models_of(settings: Settings, verify_parameters: VerifyParameters | None = None) -> dict[str, str]:
    """Model strings by role.

    Args:
        settings: Say strategy, verifiers, and who plays which role.
        verify_parameters: The parameters of each verifier; None are the settings'.
    """
    chosen = settings.verifiers if verify_parameters is None else verify_parameters
    return models_by_role(settings, asked_roles(settings.strategy, settings.verify, chosen))


def asked_roles(strategy: str, verify: Sequence[str], verify_parameters: VerifyParameters) -> set[str]:
    """The roles that a strategy and some verifiers ask, "main" and "jury" among them.

    Args:
        strategy: The strategy's name.
        verify: The verifiers' names.
        verify_parameters: The parameters of each verifier, which may have roles of their own; defaults where none are.
    """
    used = set(STRATEGIES.load(strategy).roles)
    for name in verify:
        used.update(make_verifier(name, verify_parameters.get(name, {}))[0].roles)
    return used


def verifier_asks_jury(name: str) -> bool:
    """Whether a verifier asks a jury, and so has something to say without any evidence."""
    return JURY in make_verifier(name, {})[0].roles


_ROLES = (
    ("small_model", "small", "asks no small model", "small model"),
    ("judge_model", "judge", "asks no judge", "judge"),
    ("reward_model", "reward", "asks no reward model", "reward model"),
    ("jurors", JURY, "asks no jury", "juror"),
    ("chair_model", CHAIR, "has no chair", "chair model"),
)
"""Settings that name models for a role, and how that is said of a strategy that does not ask it."""


def refuse_idle_models(settings: Settings, verify_parameters: VerifyParameters, named: Mapping[str, Any]) -> None:
    """Refuse models that the caller named and nobody would ask: he would believe that they had a part in the answer.

    Models that stand in settings are another thing: those are for all strategies, and wait for one that asks them.

    Args:
        settings: Say strategy and verifiers.
        verify_parameters: The parameters of each verifier.
        named: What the caller said, by the names of settings; what names no model of a role is passed over.

    Raises:
        UserError: Neither the strategy nor a verifier asks one of the models; says which would.
    """
    for param, role, lacks, plays in _ROLES:
        models = named.get(param)
        if models is None or models == ():
            continue
        if role not in asked_roles(settings.strategy, settings.verify, verify_parameters):
            first = models if isinstance(models, str) else models[0]
            raise UserError(
                f"the strategy {settings.strategy} {lacks}, so it cannot use the {plays} {first}",
                hint=_who_asks(role),
                param=param,
            )


def _who_asks(role: str) -> str:
    """The strategies and verifiers that ask a role, for a hint."""
    strategies = sorted(name for name in STRATEGIES.names() if role in STRATEGIES.load(name).roles)
    verifiers = sorted(name for name in VERIFIERS.names() if role in make_verifier(name, {})[0].roles)
    if role == "judge":  # with its defaults it asks none
        verifiers.append("davinci with entailment=judge")
    several = f"{', '.join(strategies[:-1])} or " if strategies[1:] else ""
    others = f", or the verifier {' or '.join(verifiers)}" if verifiers else ""
    return f"take the strategy {several}{strategies[-1]}{others}"
