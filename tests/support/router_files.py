"""Router files with known numbers."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from reason.routers.router_files import GlimpRouterFile, quantiles_of


def make_router(**changed: Any) -> GlimpRouterFile:
    """A thousand entropies 0, 0.002, …, 1.998, of the models `small@1` and `large@1`, at a rate of a quarter."""
    fields: dict[str, Any] = {
        "small": "small",
        "large": "large",
        "engines": {"main": "large@1", "small": "small@1"},
        "entropy": "top_k",
        "k": 20,
        "quantiles": quantiles_of([i / 500 for i in range(1000)]),
        "steps": 1000,
        "questions": 50,
        "rate": 0.25,
        "threshold": 1.5,
        "measured_rate": 0.25,
        "dataset": "sums",
        "fingerprint": "f" * 64,
        "parameters": {},
        "version": "0.0.1",
        "made": date(2026, 11, 1),
    }
    return GlimpRouterFile(**{**fields, **changed})


def write_router(router: GlimpRouterFile, path: Path) -> Path:
    """The same on disk."""
    path.write_text(router.model_dump_json(exclude={"name"}))
    return path
