"""Calibration maps and rows of evaluations with known numbers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from reason.core.calibration import CalibrationCurve, CalibrationMap, CalibrationScores
from reason.core.messages import Failure
from reason.evals.plan import DatasetInfo, DatasetSource, EvalPlan
from reason.evals.results import ResultRow
from reason.evals.run_directory import EvalRun, RunDirectory, RunManifest
from reason.reasoning.strategy import create_strategy

_, PARAMETERS = create_strategy("self-consistency", {"n": 8, "max_tokens": 60})
"""Those of self-consistency, complete."""
HALVED = CalibrationCurve(method="isotonic", knots=((0.0, 0.0), (1.0, 0.5)))


def make_map(**changed: Any) -> CalibrationMap:
    """A map that halves a confidence, of self-consistency on the model `scripted`."""
    fields: dict[str, Any] = {
        "curve": HALVED,
        "strategy": "self-consistency",
        "parameters": PARAMETERS,
        "models": {"main": "scripted"},
        "engines": {"main": "scripted@1"},
        "dataset": "sums",
        "fingerprint": "f" * 64,
        "items": 30,
        "answers": 60,
        "seeds": (0, 1),
        "version": "0.0.1",
        "made": date(2026, 7, 1),
        "folds": 5,
        "before": CalibrationScores(ece=0.2, brier=0.25, nll=0.7),
        "after": CalibrationScores(ece=0.1, brier=0.2, nll=0.6),
    }
    return CalibrationMap(**{**fields, **changed})


def make_row(name: str, confidence: float | None, correct: bool | None, seed: int = 0, **changed: Any) -> ResultRow:
    fields: dict[str, Any] = {
        "id": name,
        "seed": seed,
        "item_seed": seed,
        "run_id": f"run-{name}-{seed}",
        "question": "What?",
        "strategy": "self-consistency",
        "models": {"main": "scripted"},
        "engines": {"main": "scripted@1"},
        "version": "0.0.1",
        "confidence": confidence,
        "value": float(bool(correct)),
        "correct": correct,
        "parsed": True,
    }
    return ResultRow(**{**fields, **changed})


def failed_row(name: str, confidence: float | None) -> ResultRow:
    """A row that ended with an error."""
    return make_row(name, confidence, None, parsed=False, error=Failure(code="backend_error", message="gone"))


def make_plan(seeds: Sequence[int] = (0,), **changed: Any) -> EvalPlan:
    fields: dict[str, Any] = {
        "dataset": DatasetInfo(name="sums", source="made up", fingerprint="f" * 64, size=40),
        "strategy": "self-consistency",
        "parameters": PARAMETERS,
        "models": {"main": "scripted"},
        "seeds": tuple(seeds),
    }
    return EvalPlan(**{**fields, **changed})


def make_run(rows: Sequence[ResultRow], path: Path = Path("nowhere"), **changed: Any) -> EvalRun:
    """A finished run of these rows."""
    plan = make_plan(sorted({r.seed for r in rows}) or [0], **changed)
    manifest = RunManifest(
        plan=plan,
        source=DatasetSource(dataset="sums"),
        label="votes",
        keys=tuple(r.key for r in rows),
        complete=True,
    )
    return EvalRun(path, manifest, list(rows))


def write_run(rows: Sequence[ResultRow], path: Path, **changed: Any) -> Path:
    """The same on disk."""
    run = make_run(rows, path, **changed)
    with RunDirectory(path) as folder:
        folder.begin(run.manifest, resume=False)
        folder.finish(run.manifest, rows)
    return path
