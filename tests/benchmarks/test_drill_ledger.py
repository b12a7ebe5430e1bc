"""The ledger of fault drills finds what it looks for."""

from __future__ import annotations

from sidecar_ledger import Outcome, Snapshot, StoredRun, settle


def runs(tag: str, calls: int = 2, status: str = "finished", answer: str | None = "42") -> dict[str, list[StoredRun]]:
    return {tag: [StoredRun("r", status, calls, answer)]}


def settled(broken: Snapshot, end: Snapshot, tags: tuple[str, ...] = ("a",)) -> Outcome:
    outcome = Outcome()
    settle(outcome, list(tags), 2, broken, end)
    return outcome


def test_undisturbed_run_has_no_fault():
    outcome = settled(Snapshot(runs("a", 1), {"a": 1}), Snapshot(runs("a"), {"a": 2}))
    assert (outcome.faults, outcome.runs, outcome.paid_twice, outcome.lost_on_the_way) == ([], 1, 0, 0)


def test_response_in_flight_is_no_fault():
    outcome = settled(Snapshot(runs("a", 0), {"a": 1}), Snapshot(runs("a"), {"a": 3}))
    assert (outcome.faults, outcome.paid_twice, outcome.lost_on_the_way) == ([], 0, 1)


def test_stored_completion_requested_again_is_paid_twice():
    outcome = settled(Snapshot(runs("a", 1), {"a": 1}), Snapshot(runs("a"), {"a": 3}))
    assert (outcome.paid_twice, outcome.lost_on_the_way) == (1, 0)
    assert outcome.faults == ["paid twice: 1 replies"]


def test_lost_doubled_and_incomplete_runs_are_reported():
    nothing = Snapshot({}, {})
    assert settled(nothing, nothing).lost == ["a (no run)"]
    assert settled(nothing, Snapshot(runs("a", status="interrupted"), {"a": 2})).lost == ["a (interrupted)"]
    twice = {"a": [*runs("a")["a"], *runs("a")["a"]]}
    assert settled(nothing, Snapshot(twice, {"a": 4})).doubled == ["a"]
    assert "replies of 2" in settled(nothing, Snapshot(runs("a", calls=1), {"a": 1})).faults[0]
    assert "the answer 41" in settled(nothing, Snapshot(runs("a", answer="41"), {"a": 2})).faults[0]
    never_made = settled(nothing, Snapshot(runs("a"), {"a": 1})).faults
    assert any("never finished" in fault for fault in never_made)
