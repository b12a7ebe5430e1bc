"""What the table of navigators reads from the notes of a run."""

from reason.core.events import StrategyNote
from rlot_table import Chains, chains_in


def note(vote, chain, expected, missing, name="navigated"):
    data = {"vote": vote, "chain": chain, "scores_requested": expected, "scores_missing": missing}
    return StrategyNote(strategy="rlot", name=name, data=data)


def test_chains_are_read_from_the_notes():
    events = [
        note(0, ["R"], 7, 7, name="block.run"),
        note(0, ["R", "Rf", "Ga"], 21, 2),
        note(1, ["D", "R", "R"], 28, 0),
        note(0, ["R", "Ga"], 14, 1),  # the same attempt, gone on with
    ]
    assert chains_in(events) == Chains((1, 3), 42, 1)
    assert chains_in([]) == Chains()
