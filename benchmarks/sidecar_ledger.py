"""The store's responses compared with those that the model server counted: none lost, none doubled, none paid twice.

Each run asks a question with a tag of its own (`tag-kill-3-17`), which is in the run's configuration and in each
request to the model. So every run has two counts: responses that the model server finished, and stored responses.

A finished response that is not stored is **lost on the way**: it was in flight, or not yet written, at the fault, and
must be requested again. **Paid twice** is everything beyond that: with b and s the finished and the stored responses at
the fault, and B and S those at the end, the excess of a run is

    max(0, (B - S) - (b - s))

which is above 0 if a stored response was requested again. Less than b - s may be lost in the end, where the process
survives and writes what it had received.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reason.core.store import open_store
from reason.sidecar.run_list import find_runs

_TAG = re.compile(r"\btag-[0-9a-z-]+")
PAGE = 1000


@dataclass(frozen=True)
class StoredRun:
    """A run as the store has it: its name, its status, how many responses it has, and the answer's text."""

    run_id: str
    status: str
    calls: int
    answer: str | None


@dataclass(frozen=True)
class Snapshot:
    """Both counts at one moment: runs by tag, and responses that the model server finished by tag."""

    runs: Mapping[str, list[StoredRun]]
    finished: Mapping[str, int]

    def stored(self, tag: str) -> int:
        """Responses that the store has for a tag."""
        return sum(run.calls for run in self.runs.get(tag, []))

    def on_the_way(self, tag: str) -> int:
        """Finished responses that the store does not have."""
        return self.finished.get(tag, 0) - self.stored(tag)


@dataclass
class Outcome:
    """The result of a drill; an empty `faults` is a pass.

    Attributes:
        runs: Runs that were requested.
        lost: Tags without a run, or whose run did not end well.
        doubled: Tags with more than one run.
        paid_twice: See the module.
        lost_on_the_way: Likewise.
        notes: Further metrics by name.
        faults: What was not as it must be.
    """

    runs: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    paid_twice: int = 0
    lost_on_the_way: int = 0
    notes: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def demand(self, right: bool, what: str) -> None:
        """Note a fault if something is not as it must be."""
        if not right:
            self.faults.append(what)


def snapshot(store: Path | str, finished: Mapping[str, int]) -> Snapshot:
    """Read the store from this process, next to the model server's count."""
    return Snapshot(asyncio.run(_runs(store)), dict(finished))


def all_finished(store: Path | str, tags: list[str]) -> bool:
    """Whether every tag has a run and each has finished or failed: one whose process died is neither."""
    runs = snapshot(store, {}).runs
    return all(runs.get(tag) and all(r.status in ("finished", "failed") for r in runs[tag]) for tag in tags)


def read_journal(path: Path) -> Counter[str]:
    """The model server's count of finished responses from its journal, which outlives it."""
    return Counter(path.read_text(encoding="utf-8").split()) if path.exists() else Counter()


async def _runs(position: Path | str) -> dict[str, list[StoredRun]]:
    results: dict[str, list[StoredRun]] = defaultdict(list)
    store = await open_store(position)
    try:
        after = None
        while page := await find_runs(store, PAGE, after=after):
            after = page[-1].id
            for listed in page:
                record = await store.get_run(listed.id, exact=True)
                tag = _TAG.search(json.dumps(record.config))
                if tag is not None:
                    answer = record.answer
                    text = None if answer is None else str(answer.get("answer") or answer.get("text"))
                    calls = len(await store.list_calls(record.id))
                    results[tag[0]].append(StoredRun(record.id, record.status, calls, text))
    finally:
        await store.aclose()
    return dict(results)


def settle(outcome: Outcome, tags: list[str], calls: int, broken: Snapshot, end: Snapshot) -> None:
    """Compare what was there when it broke with what is there in the end."""
    outcome.runs += len(tags)
    for tag in tags:
        runs = end.runs.get(tag, [])
        if len(runs) > 1:
            outcome.doubled.append(tag)
        if not runs or any(run.status != "finished" for run in runs):
            outcome.lost.append(f"{tag} ({', '.join(run.status for run in runs) or 'no run'})")
        elif any(run.calls != calls or run.answer != "42" for run in runs):
            outcome.faults.append(
                f"{tag} has {[run.calls for run in runs]} replies of {calls}, and the answer {runs[0].answer}"
            )
        outcome.demand(end.on_the_way(tag) >= 0, f"{tag} has replies in the store that the model server never finished")
        twice = max(0, end.on_the_way(tag) - broken.on_the_way(tag))
        outcome.paid_twice += twice
        outcome.lost_on_the_way += end.on_the_way(tag) - twice
    outcome.demand(not outcome.lost, f"lost: {', '.join(outcome.lost)}")
    outcome.demand(not outcome.doubled, f"doubled: {', '.join(outcome.doubled)}")
    outcome.demand(outcome.paid_twice == 0, f"paid twice: {outcome.paid_twice} replies")
