"""Stability labels of public names and documented modules, which docs/stability.md explains.

A strategy or verifier has its label as its attribute `stability`, a route in `sidecar.app`; all others are here. What
is in neither, in no `__all__` of the package and on no page of docs/api, is not public and may change at any time.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import get_args

from reason.core.registry import Stability

LABELS: tuple[Stability, ...] = get_args(Stability)
"""From the most stable to the least."""

NAMES: MappingProxyType[str, Stability] = MappingProxyType(
    {
        "Answer": "stable",
        "Budget": "stable",
        "Candidate": "stable",
        "CandidateAdded": "beta",
        "Capabilities": "beta",
        "Completion": "stable",
        "Document": "stable",
        "Event": "beta",
        "LanguageModel": "beta",
        "Message": "stable",
        "Models": "beta",
        "NextTokenDistribution": "beta",
        "Parameters": "stable",
        "Prompt": "stable",
        "Question": "stable",
        "ReasonError": "stable",
        "Reasoner": "stable",
        "Request": "stable",
        "RunFinished": "beta",
        "RunStarted": "beta",
        "RunStoreSaver": "beta",
        "SamplingParams": "stable",
        "Settings": "beta",
        "Solution": "stable",
        "StrategyMiddleware": "beta",
        "tool": "beta",
        "Strategy": "stable",
        "TextDelta": "beta",
        "TextVerification": "beta",
        "Verification": "beta",
        "__version__": "stable",
        "aask": "stable",
        "ask": "stable",
        "astream": "stable",
        "averify_text": "beta",
        "interrupted_run": "beta",
        "verify_text": "beta",
    }
)
"""The names in `reason.__all__`."""

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
"""Members of stable names with another label: what the command line and the sidecar are built on."""

EXPERIMENTAL = frozenset(
    {
        "reason.reasoning.rlot",
        "reason.routers.router_files",
        "reason.routers.auto",
        "reason.routers.features",
    }
)
"""Documented modules and packages whose names are experimental."""


def of_module(module: str) -> Stability:
    """The label of the names of a documented module, given its dotted name.

    A name that `reason` exports too has its own label (`NAMES`) wherever it is imported from.
    """
    parts = module.split(".")
    packages = {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
    return "experimental" if packages & EXPERIMENTAL else "beta"
