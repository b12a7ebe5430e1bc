"""`ArmTable`: runs of the same questions as a table, one column an arm.

An arm is an action: a strategy with its parameters, the effort of its models, and the model that plays its main part.
Evaluation runs of one arm on other datasets fill the same column; the rows are the questions that every
column has.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from pydantic import JsonValue
from reason.core.errors import DataError, UserError
from reason.core.files import question_digest
from reason.core.messages import Effort
from reason.core.settings import jurors_of
from reason.core.types import Question
from reason.evals.calibration import engine_identities
from reason.evals.datasets.loading import open_dataset
from reason.evals.results import ResultRow
from reason.evals.run_directory import EvalRun
from reason.evals.statistics.outcomes import Array, Index, number_groups
from reason.routers.nested_strategy import ROUTING
from reason.routers.router_files import AUTO_MADE_BY, PlayedBy, arm_label


@dataclass(frozen=True)
class ArmSpec:
    """What makes runs those of one arm, a column.

    Attributes:
        strategy: Name of the strategy.
        parameters: Its parameters, complete.
        role: Role of the model of its main part.
        needs: Other roles with models of their own.
        effort: Effort of the models; None is their default.
        calls: Mean model calls.
        reward_calls: Mean passes of a reward model.
    """

    strategy: str
    parameters: dict[str, JsonValue]
    role: PlayedBy
    needs: tuple[str, ...]
    effort: Effort | None
    calls: float = 0.0
    reward_calls: float = 0.0

    @property
    def label(self) -> str:
        """The arm's name."""
        return arm_label(self.strategy, self.parameters, self.role, self.effort)


class Sample(NamedTuple):
    """A run of one question.

    Attributes:
        score: In [0, 1].
        tokens: Generated tokens, all models together.
        cost: The same in tokens of the main model.
    """

    score: float
    tokens: float
    cost: float


@dataclass(frozen=True)
class ArmTable:
    """Scores and costs of questions by arm.

    Attributes:
        questions: The questions.
        digests: Digest of each question's text.
        groups: Group of each question: the dataset's own, else its text. Questions of one group are never in two folds.
        arms: The columns.
        samples: The fields of each `Sample`, `[questions, arms, seeds, fields]`; NaN where there is none. Every
            question has one of some arm.
        models: Model string by role.
        engines: Identity of each by role.
        runs: Names of the runs.
        datasets: Fingerprint of each dataset by name.
        seeds: The seeds.
        left_out: Questions that some column lacks.
    """

    questions: tuple[Question, ...]
    digests: tuple[str, ...]
    groups: tuple[str, ...]
    arms: tuple[ArmSpec, ...]
    samples: Array
    models: dict[str, str]
    engines: dict[str, str]
    runs: tuple[str, ...]
    datasets: dict[str, str]
    seeds: tuple[int, ...]
    left_out: int = 0

    def field(self, name: str) -> Array:
        """A field of all samples, `[questions, arms, seeds]`."""
        result: Array = self.samples[..., Sample._fields.index(name)]
        return result

    @cached_property
    def right(self) -> Array:
        """Mean score over seeds, `[questions, arms]`."""
        return over_seeds(self.field("score"))

    @cached_property
    def tokens(self) -> Array:
        """Mean generated tokens over seeds, `[questions, arms]`."""
        return over_seeds(self.field("tokens"))

    @cached_property
    def cost(self) -> Array:
        """Mean cost over seeds, `[questions, arms]`."""
        return over_seeds(self.field("cost"))

    @cached_property
    def clusters(self) -> Index:
        """The groups, numbered from 0, `[questions]`."""
        return number_groups(self.groups)

    def only(self, kept: Sequence[int]) -> ArmTable:
        """The same with some of the questions, in this order."""
        rows = list(kept)
        return replace(
            self,
            questions=tuple(self.questions[i] for i in rows),
            digests=tuple(self.digests[i] for i in rows),
            groups=tuple(self.groups[i] for i in rows),
            samples=self.samples[rows],
        )


def over_seeds(values: Array) -> Array:
    """The mean over the last axis, without NaN; NaN where there is nothing else."""
    known = ~np.isnan(values)
    counts = known.sum(axis=-1)
    sums = np.where(known, values, 0.0).sum(axis=-1)
    result: Array = np.divide(sums, counts, out=np.full(counts.shape, np.nan), where=counts > 0)
    return result


def arm_table(
    runs: Sequence[EvalRun],
    *,
    main: str | None = None,
    small: str | None = None,
    small_cost: float = 1.0,
    fewest: int = 40,
) -> ArmTable:
    """Join runs into a table.

    Args:
        main: Model string of the main model; None where all runs have one.
        small: Model string of the small model, whose own runs are arms of it; None is that of the runs with two.
        small_cost: Cost of a token of the small model, those of the main model counting 1.

    Raises:
        UserError: There are too few arms or questions, a run cannot be a arm, or the models do not match.
        DataError: A dataset cannot be read, or has changed.
    """
    main, small = _models(runs, main, small)
    arms: dict[str, ArmSpec] = {}
    cells: dict[str, dict[Key, list[Sample]]] = {}
    calls: dict[str, list[tuple[int, int]]] = {}
    for run in runs:
        plan = run.manifest.plan
        _refuse_unfit(run)
        role: PlayedBy = "main" if plan.models["main"] == main else "small"
        needs = tuple(r for r in ("small", "judge", "reward") if r in plan.models) if role == "main" else ()
        arm = ArmSpec(plan.strategy, plan.parameters, role, needs, plan.effort)
        name = json.dumps(vars(arm), sort_keys=True)
        arms.setdefault(name, arm)
        column = cells.setdefault(name, {})
        others = set(column)
        for row in run.rows:
            key = plan.dataset.fingerprint, row.id
            if key in others:
                raise UserError(
                    f"two runs of {arm.label} have the question {row.id!r}",
                    hint="give one of them; or their seeds as one run",
                )
            column.setdefault(key, []).append(_sample(row, role, small_cost))
            calls.setdefault(name, []).append((row.ledger.model_calls, row.ledger.reward_calls))
    if len(arms) < 2:
        raise UserError("a choice needs at least two arms to answer, and these runs have one", hint=AUTO_MADE_BY)
    columns = list(cells.values())
    shared = [key for key in columns[0] if all(key in column for column in columns)]
    if len(shared) < fewest:
        raise UserError(
            f"{len(shared)} questions were answered in each of the {len(arms)} arms; at least {fewest} are needed",
            hint="evaluate all of them on the same questions: reason eval sweep",
        )
    known = _questions(runs, {fingerprint for fingerprint, _ in shared})
    questions = tuple(known[key] for key in shared)
    digests = tuple(question_digest(question.text) for question in questions)
    own = {(run.manifest.plan.dataset.fingerprint, row.id): row.group for run in runs for row in run.rows}
    most = max(len(column[key]) for column in columns for key in shared)
    samples = np.full((len(shared), len(columns), most, len(Sample._fields)), np.nan)
    for i, key in enumerate(shared):
        for a, column in enumerate(columns):
            samples[i, a, : len(column[key])] = column[key]
    means = [np.mean(calls[name], axis=0) for name in arms]
    return ArmTable(
        questions=questions,
        digests=digests,
        groups=tuple(
            f"{key[0]}:{own[key]}" if own[key] else digest for key, digest in zip(shared, digests, strict=True)
        ),
        arms=tuple(
            replace(arm, calls=float(of[0]), reward_calls=float(of[1]))
            for arm, of in zip(arms.values(), means, strict=True)
        ),
        samples=samples,
        models={"main": main, **({} if small is None else {"small": small})} | _others(runs),
        engines=_engines(runs, main),
        runs=tuple(run.label for run in runs),
        datasets={run.manifest.plan.dataset.full_name: run.manifest.plan.dataset.fingerprint for run in runs},
        seeds=tuple(sorted({seed for run in runs for seed in run.manifest.plan.seeds})),
        left_out=len({key for column in columns for key in column}) - len(shared),
    )


Key = tuple[str, str]
"""Identifies a question: its dataset's fingerprint and its id."""


def _sample(row: ResultRow, role: PlayedBy, small_cost: float) -> Sample:
    tokens = row.ledger.completion_tokens
    by_small = sum(n for name, n in row.ledger.tokens_by_role.items() if name.startswith("small:"))
    return Sample(
        score=row.value,
        tokens=tokens,
        cost=small_cost * tokens if role == "small" else tokens - (1 - small_cost) * by_small,
    )


def _models(runs: Sequence[EvalRun], main: str | None, small: str | None) -> tuple[str, str | None]:
    """Strings of the main and the small model."""
    names = list(dict.fromkeys(run.manifest.plan.models["main"] for run in runs))
    smalls = list(dict.fromkeys(m for run in runs if (m := run.manifest.plan.models.get("small")) is not None))
    if small is None and len(smalls) == 1:
        (small,) = smalls
    if main is None:
        rest = [name for name in names if name != small] or names
        if len(rest) > 1:
            raise UserError(
                f"the runs have several main models: {', '.join(names)}",
                hint="say which is which: -m and --small-model",
            )
        (main,) = rest
    strange = sorted({*names, *smalls} - {main, small})
    if strange:
        raise UserError(
            f"the runs have the model {strange[0]}, which is neither the main model {main} nor the small one "
            f"{small or '(none)'}",
            hint="say which is which: -m and --small-model",
        )
    return main, small


def _refuse_unfit(run: EvalRun) -> None:
    """Refuse a run that an arm cannot repeat."""
    plan = run.manifest.plan
    why = ""
    if plan.strategy in ROUTING:
        why = f"its strategy {plan.strategy} hands questions on itself"
    elif plan.context:
        why = "it looked things up"
    elif plan.budget.model_dump(exclude_none=True):
        why = "it had a budget, which is none of the strategy's parameters"
    elif jurors_of(plan.models):
        why = "it had jurors of its own, which a router does not open"
    if why:
        raise UserError(f"the run {run.label} ({run.path}) can be no arm: {why}", hint="leave it away")


def _engines(runs: Sequence[EvalRun], main: str) -> dict[str, str]:
    """The identity of each model by role, the same in all runs."""
    results: dict[str, str] = {}
    for run in runs:
        is_main = run.manifest.plan.models["main"] == main
        for role, identity in engine_identities(run.rows).items():
            own = role if is_main or role != "main" else "small"
            if own in ("main", "small", "judge", "reward") and results.setdefault(own, identity) != identity:
                raise UserError(
                    f"the runs come from several {own} models: {results[own]}, {identity}",
                    hint="run the evaluations again with one",
                )
    if "main" not in results:
        raise UserError(f"no run has the model {main}", hint="name another with -m")
    return results


def _others(runs: Sequence[EvalRun]) -> dict[str, str]:
    """Model strings of judges and reward models."""
    return {
        role: name for run in runs for role, name in run.manifest.plan.models.items() if role not in ("main", "small")
    }


def _questions(runs: Sequence[EvalRun], fingerprints: set[str]) -> dict[tuple[str, str], Question]:
    """The questions with documents and answer kind, which rows do not have."""
    results: dict[tuple[str, str], Question] = {}
    for run in runs:
        fingerprint = run.manifest.plan.dataset.fingerprint
        if fingerprint not in fingerprints or any(key[0] == fingerprint for key in results):
            continue
        dataset = open_dataset(run.manifest.source)
        if dataset.fingerprint != fingerprint:
            raise DataError(
                f"{dataset.source} no longer has the rows of the run in {run.path}",
                hint="give the same data",
            )
        results |= {(fingerprint, name): item.question for name, item in dataset.by_id.items()}
    return results
