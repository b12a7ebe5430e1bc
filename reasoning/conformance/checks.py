"""`check_strategy`: the promises of a strategy, each tried on a model that costs nothing."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from pydantic import JsonValue

from ...core.answer import Solution
from ...core.budget import Budget
from ...core.events import CallFinished, CallStarted, NodesSearched, SearchEnded, StageFinished, StageStarted
from ...core.question import Question
from ...core.sqlite_store import SqliteStore
from ...serving.model import Feature
from ..strategy import Parameters, Stability, Strategy
from .plain_model import PlainModel
from .trial import Trial, Trials

QUESTION = Question(text="What is 2 + 3?")
ROLES = frozenset({"main", "small", "judge", "chair", "jury", "reward", "embedding", "brain"})


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: The promise, in a few words.
        wrong: What is wrong; empty if it is kept.
    """

    check: str
    wrong: str = ""

    @property
    def ok(self) -> bool:
        """Whether the promise is kept."""
        return not self.wrong


class NotConforming(AssertionError):
    """A strategy does not keep its promises; says which and how."""


async def assert_conforms(
    kind: type[Strategy], parameters: Mapping[str, JsonValue] | None = None, *, question: Question = QUESTION
) -> None:
    """Check a strategy, for a test of one's own.

    Args:
        kind: The strategy.
        parameters: Parameters that differ from its defaults.
        question: What is asked.

    Raises:
        NotConforming: It breaks a promise; names all that it breaks.
        UserError: The parameters are not allowed.
    """
    wrong = [f for f in await check_strategy(kind, parameters, question=question) if not f.ok]
    if wrong:
        raise NotConforming(f"{kind.name}: " + "; ".join(f"{f.check}: {f.wrong}" for f in wrong))


async def check_strategy(
    kind: type[Strategy], parameters: Mapping[str, JsonValue] | None = None, *, question: Question = QUESTION
) -> list[Finding]:
    """Try every promise of a strategy on `PlainModel`.

    It has to be one that a single language model without hooks, schemas and a shared cache can serve; what else it
    needs is for its own tests. Nothing is fetched, and a temporary store is removed in the end.

    Args:
        kind: The strategy.
        parameters: Parameters that differ from its defaults.
        question: What is asked.

    Returns:
        A finding for every promise, in the order in which they are tried.

    Raises:
        UserError: The parameters are not allowed.
    """
    found = [Finding("declares itself", _declared(kind))]
    lacking = kind.requires - {f for f in get_args(Feature) if PlainModel().capabilities.has(f)} if found[0].ok else ()
    if lacking:
        found.append(Finding("can be checked", f"the plain model has no {', '.join(sorted(lacking))}"))
    if not all(f.ok for f in found):
        return found
    async with _store() as store:
        trials = Trials(kind, parameters or {}, question, store)
        whole = await trials.run("whole")
        found.append(Finding("answers", _answered(whole)))
        if not found[-1].ok:
            return found
        found.append(Finding("pays for everything", _paid(whole)))
        found.append(Finding("gives the same for the same seed", _same(whole, await trials.run("twin"))))
        found.append(
            Finding("replays without a model", _same(whole, await trials.run("whole", silent=True, again=True)))
        )
        found.append(Finding("keeps to budgets", await _keeps_to_budgets(trials, whole)))
        stopped = [await trials.run(f"held-{n}", hold_after=n) for n in _moments(whole)]
        found.append(Finding("ends when it is cancelled", next((w for t in stopped if (w := _ended(t))), "")))
        resumed = [await trials.run(t.run.id, again=True) for t in stopped]
        found.append(Finding("resumes", next((w for t in resumed if (w := _same(whole, t))), "")))
        found.append(Finding("balances its events", next((w for t in [whole, *stopped] if (w := _balanced(t))), "")))
    return found


@asynccontextmanager
async def _store() -> AsyncIterator[SqliteStore]:
    with tempfile.TemporaryDirectory(prefix="reason-conformance-") as folder:
        store = await SqliteStore.open(Path(folder) / "runs.sqlite3")
        try:
            yield store
        finally:
            await store.aclose()


def _declared(kind: type[Strategy]) -> str:
    missing = [a for a in ("name", "summary", "paper", "stability", "requires", "roles") if not hasattr(kind, a)]
    if missing:
        return f"it has no {', '.join(missing)}"
    if not kind.name or not kind.summary or "\n" in kind.summary:
        return "name and summary are one line each"
    if kind.stability not in get_args(Stability):
        return f"its stability is none of {', '.join(get_args(Stability))}"
    if unknown := kind.requires - set(get_args(Feature)):
        return f"it requires features that there are not: {', '.join(sorted(unknown))}"
    if strange := set(kind.roles) - ROLES:
        return f"it has roles that there are not: {', '.join(sorted(strange))}"
    config = getattr(kind, "Config", None)
    if not (isinstance(config, type) and issubclass(config, Parameters)):
        return "its Config is no subclass of Parameters"
    return ""


def _answered(trial: Trial) -> str:
    if trial.late:
        return "it did not end"
    if trial.error is not None:
        return f"it raised {type(trial.error).__name__}: {trial.error}"
    solution = trial.solution
    if not isinstance(solution, Solution):
        return f"it returned {type(solution).__name__}, and no Solution"
    if solution.chosen is None:
        return "it chose no candidate"
    if Solution.model_validate_json(solution.model_dump_json()) != solution:
        return "its solution is not the same after it was written as JSON and read again"
    if trial.left:
        return f"tasks of it still ran when it had answered: {', '.join(trial.left)}"
    return ""


def _paid(trial: Trial) -> str:
    charged = int(trial.run.ledger.used("tokens"))
    if charged != trial.model.written:
        return f"the model wrote {trial.model.written} tokens, and the run was charged {charged}"
    return ""


def _same(first: Trial, second: Trial) -> str:
    if wrong := _answered(second):
        return wrong
    assert first.solution is not None
    assert second.solution is not None
    one, other = first.solution.model_dump(mode="json"), second.solution.model_dump(mode="json")
    if differing := [name for name in one if one[name] != other[name]]:
        return f"{', '.join(differing)} of the solution differ"
    return ""


async def _keeps_to_budgets(trials: Trials, whole: Trial) -> str:
    used = int(whole.run.ledger.used("tokens"))
    calls = int(whole.run.ledger.used("calls"))
    budgets = [Budget(tokens=n) for n in sorted({1, max(1, used // 2), max(1, used - 1)})]
    budgets += [Budget(calls=n) for n in sorted({1, max(1, calls - 1)})]
    for number, budget in enumerate(budgets):
        trial = await trials.run(f"budget-{number}", budget=budget)
        limit = f"{budget.tokens} tokens" if budget.tokens is not None else f"{budget.calls} calls"
        if trial.late:
            return f"with {limit} it did not end"
        if trial.error is not None:
            return f"with {limit} it raised {type(trial.error).__name__}: a spent budget is no error"
        if budget.tokens is not None and trial.model.written > budget.tokens:
            return f"with {limit} the model wrote {trial.model.written} tokens"
        if trial.run.ledger.exhausted is not None and trial.solution and trial.solution.stopped != "budget":
            return f'with {limit} the budget stopped it, and its solution says stopped="{trial.solution.stopped}"'
    return ""


def _moments(whole: Trial) -> list[int]:
    """How far the model is when a run is cancelled: at its beginning, in its middle, near its end."""
    worked = whole.model.written + whole.model.measured
    return sorted({0, worked // 2, max(0, worked - 1)})


def _ended(trial: Trial) -> str:
    if trial.late:
        return "it went on"
    if trial.error is None:
        return "it swallowed the cancellation and returned"
    if not isinstance(trial.error, asyncio.CancelledError):
        return f"it raised {type(trial.error).__name__} in its place"
    if trial.left:
        return f"tasks of it went on: {', '.join(trial.left)}"
    return ""


def _balanced(trial: Trial) -> str:
    seen: set[int] = set()
    calls: set[int] = set()
    stages: list[str] = []
    searches: dict[str, bool] = {}
    for event in trial.events:
        if event.parent is not None and event.parent not in seen:
            return f"{getattr(event, 'type', 'an event')} stands under an event that is not before it"
        seen.add(event.number)
        match event:
            case CallStarted():
                calls.add(event.number)
            case CallFinished():
                calls.discard(event.parent if event.parent is not None else -1)
            case StageStarted():
                stages.append(event.stage)
            case StageFinished():
                if not stages or stages.pop() != event.stage:
                    return f"stage {event.stage} was finished and not begun"
            case NodesSearched():
                if searches.setdefault(event.search, True) is False:
                    return f"search {event.search} went on behind its end"
            case SearchEnded():
                if searches.get(event.search) is False:
                    return f"search {event.search} ended twice"
                searches[event.search] = False
            case _:
                pass
    if calls:
        return f"{len(calls)} calls were begun and not finished"
    if trial.error is None and stages:
        return f"stage {stages[-1]} was begun and not finished"
    open_ones = [name for name, still in searches.items() if still]
    if trial.error is None and open_ones:
        return f"search {open_ones[0]} has no end"
    return ""
