"""What is done before there are requests: all that they can ask for is loaded, and what nobody could get is refused."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

from .. import agents
from ..agents.reasoner import Reasoner
from ..core.errors import ReasonError, UserError
from ..reasoning.strategy import STRATEGIES
from ..verify.verifier import VERIFIERS
from .offered import bounded, offered_models


def load_kinds() -> None:
    """Load all strategies, verifiers and the graph now: no request waits for that, and none gets half of an upgrade.

    A package that cannot be loaded takes no others along; who asks for what is in it is told.
    """
    for registry in (STRATEGIES, VERIFIERS):
        for name in registry.names():
            with suppress(ReasonError):
                registry.load(name)
    for module in ("graph", "checkpoints"):  # LangGraph, otherwise imported by the first run that verifies
        import_module(f"{agents.__name__}.{module}")


def refuse_aliases(reasoner: Reasoner) -> None:
    """Refuse aliases that no request could be served with, before there are requests. Nothing is opened.

    Raises:
        UserError: A strategy, parameter or verifier of one is none, or its name means something else already.
    """
    settings = reasoner.settings
    offered = offered_models(settings)
    for name, alias in settings.serve.aliases.items():
        setting = f"serve.aliases.{name}"
        if name in offered:
            raise UserError(f"{setting}: {name!r} is the name of a model", hint="call it otherwise", param=setting)
        try:
            reasoner.plan(
                "?",
                strategy=alias.strategy,
                model=alias.model,
                parameters=alias.parameters,
                verify=alias.verify or None,
                budget=bounded(alias.budget, settings.serve, settings.budget),
            )
        except UserError as e:
            raise UserError(f"{setting}: {e.message}", hint=e.hint, param=setting) from e
