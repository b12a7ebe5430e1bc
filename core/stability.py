"""How far a name can be relied on: one set of labels for names, modules, strategies, verifiers and routes.

What each label promises, and how a name is deprecated, is told in docs/stability.md. A strategy or verifier carries its
label as its attribute `stability`, a route in `sidecar/app`, and the rest is here. What is in none of these
places, in no `__all__` of the package and on no page of docs/api, is not public and may change at any time.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal, get_args

Stability = Literal["stable", "beta", "experimental"]
LABELS: tuple[Stability, ...] = get_args(Stability)
"""From what changes least to what changes most."""

NAMES: MappingProxyType[str, Stability] = MappingProxyType(
    {
        "Answer": "stable",
        "Budget": "stable",
        "Candidate": "stable",
        "Capabilities": "beta",
        "Completion": "stable",
        "Document": "stable",
        "LanguageModel": "beta",
        "Message": "stable",
        "Models": "beta",
        "NextToken": "beta",
        "Parameters": "stable",
        "Prompt": "stable",
        "Question": "stable",
        "ReasonError": "stable",
        "Reasoner": "stable",
        "Request": "stable",
        "Sampling": "stable",
        "Settings": "beta",
        "Solution": "stable",
        "Strategy": "stable",
        "TextVerification": "beta",
        "Verification": "beta",
        "__version__": "stable",
        "aask": "stable",
        "ask": "stable",
        "astream": "stable",
        "averify_text": "beta",
        "verify_text": "beta",
    }
)
"""The names of `reason` itself, those of `reason.__all__`."""

MEMBERS: MappingProxyType[str, Stability] = MappingProxyType(
    {
        "Reasoner.aresume": "beta",
        "Reasoner.arun": "beta",
        "Reasoner.open_store": "beta",
        "Reasoner.loaded_models": "beta",
        "Reasoner.plan": "beta",
        "Reasoner.variant": "beta",
    }
)
"""Members of stable names that are less than stable themselves: what the command line and the sidecar are built on."""

EXPERIMENTAL = frozenset(
    {
        "reason.evals.navigator",
        "reason.evals.routing",
        "reason.reasoning.rlot",
        "reason.routers.router_files",
        "reason.routers.auto",
        "reason.routers.features",
        "reason.routers.logistic",
        "reason.routers.question_router",
    }
)
"""Documented modules, and packages with all that is in them, whose names are experimental."""


def of_module(module: str) -> Stability:
    """The label of the names of a documented module, as they are imported from there.

    A name that `reason` has too keeps its own label (`NAMES`) wherever it is imported from.

    Args:
        module: Its dotted name, for example "reason.reasoning.segmentation".
    """
    parts = module.split(".")
    inside = {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
    return "experimental" if inside & EXPERIMENTAL else "beta"
