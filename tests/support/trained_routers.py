"""Trained routers with known numbers, and evaluation runs to train one on, without a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from reason.core.files import question_digest
from reason.core.types import Question
from reason.evals.datasets.loading import open_dataset
from reason.evals.plan import DatasetSource, EvalPlan
from reason.evals.results import ResultRow, RowLedger
from reason.evals.run_directory import EvalRun, RunDirectory, RunManifest
from reason.reasoning.strategy import create_strategy
from reason.routers.features import ENTROPY, FeatureSpace, LinearModel
from reason.routers.router_files import (
    Arm,
    AutoRouterFile,
    TokenModel,
    TrainedOn,
    arm_label,
)

SPACE = FeatureSpace(names=("length", ENTROPY), means=(4.0, 1.0), scales=(0.5, 0.25), support="full")
"""Of a question with as many characters as e^4 - 1 and an entropy of 1 nat the numbers are 0."""
BARE = FeatureSpace(names=("length",), means=(4.0,), scales=(0.5,))


def line(intercept: float, *named: float) -> LinearModel:
    return LinearModel(intercept=intercept, named=named)


def arm(
    strategy: str,
    right: LinearModel,
    tokens: float,
    *,
    parameters: Mapping[str, Any] | None = None,
    role: Any = "main",
    **changed: Any,
) -> Arm:
    """An arm that takes the same tokens for every question."""
    _, complete = create_strategy(strategy, dict(parameters or {}))
    fields: dict[str, Any] = {
        "label": arm_label(strategy, complete, role),
        "strategy": strategy,
        "parameters": complete,
        "role": role,
        "right": right,
        "tokens": TokenModel(line=LinearModel(intercept=0.0), smear=tokens + 1, min_tokens=tokens, max_tokens=tokens),
        "share_right": 0.5,
        "mean_tokens": tokens,
    }
    return Arm(**{**fields, **changed})


def trained_on(*questions: str, **changed: Any) -> TrainedOn:
    fields: dict[str, Any] = {
        "models": {"main": "scripted"},
        "engines": {"main": "scripted@1"},
        "runs": ("a", "b"),
        "datasets": {"sums": "f" * 64},
        "questions": 60,
        "digests": tuple(question_digest(q) for q in questions),
        "version": "0.0.1",
        "made": date(2026, 7, 1),
    }
    return TrainedOn(**{**fields, **changed})


def auto_file(
    *arms: Arm, space: FeatureSpace = BARE, price: float = 0.0, trained: TrainedOn | None = None
) -> AutoRouterFile:
    return AutoRouterFile(price=price, space=space, arms=arms, trained=trained or trained_on())


# -- evaluation runs


def sums_file(path: Path, items: int) -> Path:
    """Questions of two kinds: short ones, and every third a long one."""
    rows = [{"id": f"s{i:03}", "question": question_text(i), "answer": str(2 * i + 1)} for i in range(items)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def question_text(i: int) -> str:
    return f"What is {i} + {i + 1}?" + (" Think of all that could go wrong, and take your time." * 3 if hard(i) else "")


def hard(i: int) -> bool:
    return i % 3 == 0


def write_way(
    folder: Path,
    data: Path,
    strategy: str,
    right: Callable[[int], float],
    tokens: Callable[[int], int],
    *,
    parameters: Mapping[str, Any] | None = None,
    models: Mapping[str, str] | None = None,
    seeds: Sequence[int] = (0,),
    **changed: Any,
) -> Path:
    """A finished run of a strategy, whose scores and tokens are functions of the question's number."""
    run = way(data, strategy, right, tokens, parameters=parameters, models=models, seeds=seeds, **changed)
    with RunDirectory(folder) as opened:
        opened.begin(run.manifest, resume=False)
        opened.finish(run.manifest, run.rows)
    return folder


def way(
    data: Path,
    strategy: str,
    right: Callable[[int], float],
    tokens: Callable[[int], int],
    *,
    parameters: Mapping[str, Any] | None = None,
    models: Mapping[str, str] | None = None,
    seeds: Sequence[int] = (0,),
    **changed: Any,
) -> EvalRun:
    """The same, not written."""
    source = DatasetSource(dataset=str(data))
    dataset = open_dataset(source)
    named = dict(models or {"main": "scripted"})
    _, complete = create_strategy(strategy, dict(parameters or {}))
    fields: dict[str, Any] = {
        "dataset": dataset.info,
        "strategy": strategy,
        "parameters": complete,
        "models": named,
        "seeds": tuple(seeds),
    }
    plan = EvalPlan(**{**fields, **changed})
    rows = [
        ResultRow(
            id=item.id,
            seed=seed,
            item_seed=seed,
            run_id=f"run-{item.id}-{seed}",
            question=item.question.text,
            strategy=strategy,
            models=named,
            engines={role: f"{model}@1" for role, model in named.items()},
            version="0.0.1",
            value=right(i),
            correct=right(i) >= 1,
            parsed=True,
            ledger=RowLedger(
                completion_tokens=tokens(i), model_calls=1, tokens_by_role={f"main:{named['main']}": tokens(i)}
            ),
        )
        for seed in seeds
        for i, item in enumerate(dataset.items)
    ]
    manifest = RunManifest(plan=plan, source=source, label=strategy, keys=tuple(row.key for row in rows), complete=True)
    return EvalRun(Path("nowhere"), manifest, rows)


def asked(i: int) -> Question:
    return Question(text=question_text(i), kind="number")
