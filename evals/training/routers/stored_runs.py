"""The runs of a run store as a table for `auto`, and what shadow mode recorded in them.

A run trains the router if it has a label, in this order:

    graded      its question is an item of a given dataset, whose scorer grades the answer
    verified    its verifiers supported (1) or refuted (0) the answer, as the strategy gave it, before any repair

A run of `auto`, or of the effort "auto", is one of the action that was chosen.

The label of verified runs is the verifiers' verdict, not the truth, and they decide only some runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from typing import Final, Literal, TypeVar

import numpy as np
from pydantic import JsonValue

from ....core.errors import UserError
from ....core.events import CallFinished, Event, SolutionFinished, StageFinished, StrategyNote, VerificationFinished
from ....core.files import question_digest
from ....core.messages import AUTO_EFFORT, EFFORTS
from ....core.run import RunConfig, read_config
from ....core.settings import CHAIR, jurors_of
from ....core.store.protocol import RunRecord, RunStore
from ....core.types import Answer, Solution
from ....reasoning.strategy import STRATEGIES
from ....routers.auto import EFFORT_NOTE, NOTE, SHADOW_NOTE, Auto
from ....routers.nested_strategy import ROUTING
from ....routers.router_files import Action, PlayedBy
from ...statistics.outcomes import number_groups
from ...task import AnswerScorer, Task
from .arm_table import ActionSpec, ArmTable, Column, Key, Sample, make_table, weighted_cost
from .policies import ScoreDifference, score_difference

Label = Literal["graded", "verified"]
EventT = TypeVar("EventT", bound=Event)
MAX_RUNS: Final = 100_000
_PAGE: Final = 500
_ROLES: Final = ("main", "small", "judge", "reward")


@dataclass(frozen=True)
class LoggedRun:
    """A finished run.

    Attributes:
        id: Its name.
        config: Its configuration.
        engines: Identity of each model by role.
        value: Its label, in [0, 1]; None without one.
        label: Where the label comes from.
        dataset: Name and fingerprint of the dataset that graded it.
        group: The question's group there; empty if it stands alone.
        tokens: Generated tokens of the strategy, without those of verifiers and repairs.
        by_role: The same by "role:model".
        calls: Model calls.
        reward_calls: Passes of a reward model.
        solution: The strategy's first solution.
        shadow: What shadow mode recorded; None if it was off.
        action: What the main model did; None if that was no single action.
        unfit: Why it can be no arm; empty if it can.
    """

    id: str
    config: RunConfig
    engines: dict[str, str]
    value: float | None
    label: Label | None
    dataset: tuple[str, str] | None
    group: str
    tokens: int
    by_role: dict[str, int]
    calls: int
    reward_calls: int
    solution: Solution
    shadow: dict[str, JsonValue] | None
    action: ActionSpec | None
    unfit: str

    @cached_property
    def question_key(self) -> Key:
        """Equal for equal questions."""
        question = self.config.question
        return "", question.model_dump_json(exclude={"metadata"})


@dataclass(frozen=True)
class StoredTable:
    """The table of a store's runs.

    Attributes:
        table: The table.
        labels: Runs by the source of their label.
        left_out: Runs that are not in it, by the reason.
    """

    table: ArmTable
    labels: dict[Label, int]
    left_out: dict[str, int]


async def read_runs(store: RunStore, tasks: Sequence[Task] = (), max_runs: int = MAX_RUNS) -> list[LoggedRun]:
    """The newest finished runs of a store, the newest first.

    Args:
        tasks: Datasets that grade the answers to their questions.

    Raises:
        StoreError: The store failed.
    """
    async with AsyncExitStack() as stack:
        graders: dict[tuple[str, tuple[str, ...]], _Grader] = {}
        for task in tasks:
            scorer = await stack.enter_async_context(task.open_scorer())
            for name, item in task.items.items():
                graders.setdefault((item.question.text, item.question.choices), _Grader(task, name, scorer))
        return [
            logged
            async for record in _records(store, max_runs)
            if (logged := await _logged(record, store, graders)) is not None
        ]


@dataclass(frozen=True)
class _Grader:
    task: Task
    item: str
    scorer: AnswerScorer


async def _records(store: RunStore, max_runs: int) -> AsyncIterator[RunRecord]:
    after, left = None, max_runs
    while left > 0:
        page = await store.list_runs(min(_PAGE, left), after=after, status="finished")
        for listed in page:
            yield await store.get_run(listed.id, exact=True)
        if len(page) < min(_PAGE, left):
            return
        after, left = page[-1].id, left - len(page)


async def _logged(
    record: RunRecord, store: RunStore, graders: dict[tuple[str, tuple[str, ...]], _Grader]
) -> LoggedRun | None:
    """A run as the router sees it; None for one that answered nothing."""
    if record.answer is None or record.strategy not in STRATEGIES.names():
        return None
    config, answer = read_config(record), Answer.model_validate(record.answer)
    events = await store.list_events(record.id)
    solved = list(takewhile(lambda event: not _ends_solve(event), events))
    solution = next((event.solution for event in solved if isinstance(event, SolutionFinished)), None)
    if solution is None:
        return None
    calls = [event for event in solved if isinstance(event, CallFinished)]
    by_role: Counter[str] = Counter()
    for call in calls:
        by_role[f"{call.role}:{call.model}"] += call.tokens
    value: float | None = None
    label: Label | None = None
    grader = graders.get((config.question.text, config.question.choices))
    if grader is not None:
        item = grader.task.items[grader.item]
        given = answer if len(_of(events, SolutionFinished)) == 1 else _as_answer(answer, solution)
        value, label = (await grader.scorer.score(item, given)).value, "graded"
    elif (verdicts := _of(events, VerificationFinished)) and verdicts[0].verification.verdict in _DECISIVE:
        value, label = float(verdicts[0].verification.verdict == "supported"), "verified"
    notes = {event.name: event.data for event in solved if isinstance(event, StrategyNote)}
    action = _action(config, notes)
    return LoggedRun(
        id=record.id,
        config=config,
        engines={
            role: str(identity["identity"])
            for role, identity in record.identities.items()
            if role in _ROLES and isinstance(identity, dict) and "identity" in identity
        },
        value=value,
        label=label,
        dataset=None if grader is None else (grader.task.info.full_name, grader.task.info.fingerprint),
        group="" if grader is None else grader.task.items[grader.item].group,
        tokens=sum(by_role.values()),
        by_role=dict(by_role),
        calls=sum(call.role != "reward" for call in calls),
        reward_calls=sum(call.role == "reward" for call in calls),
        solution=solution,
        shadow=notes.get(SHADOW_NOTE),
        action=action,
        unfit=_unfit(config, answer, action),
    )


_DECISIVE: Final = ("supported", "refuted")


def _ends_solve(event: Event) -> bool:
    return isinstance(event, StageFinished) and event.stage == "solve"


def _of(events: Sequence[Event], kind: type[EventT]) -> list[EventT]:
    return [event for event in events if isinstance(event, kind)]


def _as_answer(answer: Answer, solution: Solution) -> Answer:
    """The answer as it was before it was repaired."""
    best = solution.best
    text, value = ("", None) if best is None else (best.text, best.answer)
    return answer.model_copy(update={"text": text, "answer": value, "confidence": solution.confidence})


def _action(config: RunConfig, notes: dict[str, dict[str, JsonValue]]) -> ActionSpec | None:
    """The action of the main model that answered.

    Args:
        notes: Those of the strategy, by name.
    """
    if config.strategy == Auto.name and "action" in notes.get(NOTE, {}):
        chosen = Action.model_validate(notes[NOTE]["action"])
        spec = ActionSpec(chosen.strategy, chosen.parameters, chosen.role, chosen.needs, chosen.effort)
        return spec if spec.role == "main" else None
    if config.strategy in ROUTING or (config.effort == AUTO_EFFORT and EFFORT_NOTE not in notes):
        return None
    recorded = notes[EFFORT_NOTE]["effort"] if config.effort == AUTO_EFFORT else config.effort
    effort = next((one for one in EFFORTS if one == recorded), None)
    needs = tuple(name for name in _ROLES[1:] if name in config.models)
    return ActionSpec(config.strategy, config.parameters, "main", needs, effort)


def _unfit(config: RunConfig, answer: Answer, action: ActionSpec | None) -> str:
    """Why a run says nothing of an arm; empty if it does."""
    if action is None:
        return f"{config.strategy} handed the question on" if config.strategy in ROUTING else "its effort is not known"
    if config.context or config.memory:
        return "knowledge was looked up"
    if CHAIR in config.models or jurors_of(config.models):
        return "a jury answered"
    if answer.stopped != "done":
        return "it was stopped before it was done"
    return ""


def stored_table(
    runs: Sequence[LoggedRun],
    *,
    main: str | None = None,
    small: str | None = None,
    small_cost: float = 1.0,
    fewest: int = 40,
) -> StoredTable:
    """The labelled runs of one main model, and of one small one, as a table.

    A question need not have a run of every arm.

    Args:
        main: Model string of the main model; None is that of most runs.
        small: Model string of the small model, whose own runs are arms of it; None is that of the runs with two.
        small_cost: Cost of a token of the small model, those of the main model counting 1.
        fewest: Labelled questions that an arm needs.

    Raises:
        UserError: There are fewer than two arms with as many.
    """
    left_out: Counter[str] = Counter()
    usable = []
    for run in runs:
        why = run.unfit or ("" if run.value is not None else "neither graded nor verified")
        if why:
            left_out[why] += 1
        else:
            usable.append(run)
    main = main or _most(run.config.models["main"] for run in usable)
    small = small or _most(run.config.models.get("small") for run in usable if run.config.models["main"] == main)
    engines: dict[str, str] = {}
    columns: dict[str, Column] = {}
    kept: list[tuple[LoggedRun, Column]] = []
    for run in usable:  # the newest first: its models are those that the router is for
        own = run.config.models["main"]
        if own not in (main, small):
            left_out[f"the main model was {own}"] += 1
            continue
        role: PlayedBy = "main" if own == main else "small"
        theirs = run.engines if role == "main" else {"small": run.engines.get("main", "")}
        if any(engines.setdefault(name, identity) != identity for name, identity in theirs.items()):
            left_out["a model had other weights, or another engine"] += 1
            continue
        assert run.action is not None
        action = replace(run.action, role=role, needs=run.action.needs if role == "main" else ())
        column = columns.setdefault(action.key, Column(action))
        assert run.value is not None
        sample = Sample(
            score=run.value,
            tokens=run.tokens,
            cost=weighted_cost(run.tokens, run.by_role, role, small_cost),
            confidence=np.nan if run.solution.confidence is None else run.solution.confidence,
            length=sum(candidate.tokens for candidate in run.solution.candidates),
            answered=float(run.solution.best is not None and run.solution.best.answer is not None),
        )
        column.add(run.question_key, sample, run.calls, run.reward_calls)
        kept.append((run, column))
    enough = [column for column in columns.values() if len(column.cells) >= fewest]
    few = sum(len(samples) for column in columns.values() if column not in enough for samples in column.cells.values())
    if few:
        left_out[f"its arm has fewer than {fewest} labelled questions"] = few
    kept = [(run, column) for run, column in kept if column in enough]
    if len(enough) < 2:
        counts = ", ".join(f"{column.arm().label}: {len(column.cells)}" for column in columns.values()) or "none"
        raise UserError(
            f"the store has {len(enough)} arms with {fewest} labelled questions or more (questions by arm: {counts})",
            hint="name the dataset that grades them (--data), verify runs (--verify), or train on evaluations: reason "
            "train auto RUN RUN…",
        )
    questions = {run.question_key: run.config.question for run, _ in kept}
    return StoredTable(
        table=make_table(
            enough,
            questions,
            groups={run.question_key: run.group for run, _ in kept if run.group},
            models={"main": str(main), **({} if small is None else {"small": small})},
            engines=engines,
            runs=(),
            datasets=dict(run.dataset for run, _ in kept if run.dataset is not None) or {"run store": ""},
            seeds=(),
        ),
        labels=dict(Counter(run.label for run, _ in kept if run.label is not None)),
        left_out=dict(left_out),
    )


def _most(values: Iterable[str | None]) -> str | None:
    counted = Counter(value for value in values if value is not None)
    return counted.most_common(1)[0][0] if counted else None


# -- shadow mode


@dataclass(frozen=True)
class ShadowReport:
    """What `auto` would have chosen, next to what was done.

    Attributes:
        runs: Runs with a recorded choice.
        failed: Runs for which there was no choice, by the reason.
        same: Share of the runs that did what was chosen.
        tokens: Mean generated tokens.
        expected_tokens: Mean tokens that were expected of the choice.
        saved: Tokens less expected tokens.
        labelled: Runs with a label.
        right: Mean label of these.
        expected_right: Mean probability of being right that was expected of the choice, on these.
        over_done: The expected probability less the label; 0 where the choice is what was done.
        choices: Runs by chosen arm.
        done: Runs by what was done.
    """

    runs: int
    failed: dict[str, int]
    same: float
    tokens: float
    expected_tokens: float
    saved: ScoreDifference
    labelled: int
    right: float | None
    expected_right: float | None
    over_done: ScoreDifference | None
    choices: dict[str, int]
    done: dict[str, int]


def shadow_report(runs: Sequence[LoggedRun]) -> ShadowReport:
    """Compare the recorded choices with what was done.

    Expectations are the router's own; where the choice is what was done, tokens and label are those of the run.

    Raises:
        UserError: No run has a recorded choice.
    """
    failed: Counter[str] = Counter()
    chosen: list[str] = []
    done: list[str] = []
    kept: list[LoggedRun] = []
    expected: list[tuple[float, float]] = []
    for run in runs:
        if run.shadow is None:
            continue
        if "why_not" in run.shadow:
            failed[str(run.shadow["why_not"])] += 1
            continue
        name = str(run.shadow["selected_strategy"])
        arms = run.shadow["arms"]
        assert isinstance(arms, list)
        arm = next(arm for arm in arms if isinstance(arm, dict) and arm["arm"] == name)
        kept.append(run)
        chosen.append(name)
        done.append(run.config.strategy if run.action is None else run.action.label)
        expected.append((float(arm["tokens"]), float(arm["right"])))  # type: ignore[arg-type]
    if not kept:
        raise UserError(
            "no run of the store has a choice that shadow mode recorded"
            + (f" ({'; '.join(failed)})" if failed else ""),
            hint="train a router (reason train auto) and ask with --shadow",
        )
    same = np.array(chosen) == np.array(done)
    tokens = np.array([run.tokens for run in kept], dtype=float)
    right = np.array([np.nan if run.value is None else run.value for run in kept])
    of_choice = np.array(expected)
    expected_tokens, expected_right = np.where(same, tokens, of_choice[:, 0]), np.where(same, right, of_choice[:, 1])
    digests = [question_digest(run.config.question.text) for run in kept]
    known = np.flatnonzero(~np.isnan(right))
    return ShadowReport(
        runs=len(kept),
        failed=dict(failed),
        same=float(same.mean()),
        tokens=float(tokens.mean()),
        expected_tokens=float(expected_tokens.mean()),
        saved=score_difference(tokens - expected_tokens, number_groups(digests)),
        labelled=len(known),
        right=float(right[known].mean()) if len(known) else None,
        expected_right=float(expected_right[known].mean()) if len(known) else None,
        over_done=score_difference(
            expected_right[known] - right[known], number_groups([digests[i] for i in known.tolist()])
        )
        if len(known)
        else None,
        choices=dict(Counter(chosen).most_common()),
        done=dict(Counter(done).most_common()),
    )
