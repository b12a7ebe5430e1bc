"""The verdicts of a second judge beside those of the first: compared, never combined."""

from types import SimpleNamespace

import pytest
from reason.core.errors import BackendError, BudgetExceeded
from reason.verify.davinci.agreement import add_second_judge, agreement_note, judges_agree, second_judge_note
from reason.verify.types import Claim, ClaimReport, SecondJudge, Support
from support.scripted_entailment import ScriptedEntailment

VERDICTS = ("supported", "refuted", "disputed", "not_enough_evidence")
SECOND = ScriptedEntailment(lambda pair: None, name="small")


class Degradations:
    """What of a run is used here."""

    def __init__(self):
        self.degraded = []

    def degrade(self, what):
        self.degraded.append(what)


def report(verdict, reason="ok"):
    return ClaimReport(claim=Claim(text="c", start=0, end=1), verdict=verdict, reason=reason)


def decision(verdict, probs=(0.2, 0.3, 0.5)):
    return SimpleNamespace(verdict=verdict, probs=Support(*probs))


def deciding(*decisions, asked=None):
    async def decide(judge):
        assert judge is SECOND
        if asked is not None:
            asked.append(judge)
        return list(decisions)

    return decide


async def test_the_second_verdict_is_recorded_and_changes_nothing_else():
    reports = [report(verdict) for verdict in VERDICTS]
    decisions = [decision("refuted", (0.1, 0.8, 0.1)), decision("refuted"), None, decision("disputed")]
    both = await add_second_judge(reports, deciding(*decisions), SECOND, Degradations())
    assert [r.model_copy(update={"second_judge": None}) for r in both] == reports
    assert both[0].second_judge == SecondJudge(backend="small@1", label="refutes", probs=(0.1, 0.8, 0.1))
    assert [r.second_judge and r.second_judge.label for r in both] == ["refutes", "refutes", None, "neutral"]
    assert [judges_agree(r) for r in both] == [False, True, None, True]
    assert agreement_note(both) == "judges agree on 2 of 3 claims"
    assert [ClaimReport.model_validate_json(r.model_dump_json()) for r in both] == both


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("second", VERDICTS)
async def test_only_a_supported_claim_that_is_refuted_is_marked(verdict, second):
    (both,) = await add_second_judge([report(verdict)], deciding(decision(second)), SECOND, Degradations())
    assert both.verdict == verdict
    assert bool(second_judge_note(both)) == ((verdict, second) == ("supported", "refuted"))


async def test_what_no_judge_has_decided_is_not_compared():
    reports = [
        report("supported", "program"),
        report("not_enough_evidence", "no_evidence"),
        report("unchecked", "unchecked"),
        report("unparsed", "verifier_failed"),
    ]
    asked = []
    decide = deciding(*[decision("supported")] * 4, asked=asked)
    assert await add_second_judge(reports, decide, SECOND, Degradations()) == reports
    assert asked == []
    mixed = await add_second_judge([*reports[1:], report("supported")], decide, SECOND, Degradations())
    assert [r.second_judge is not None for r in mixed] == [False, False, False, True]
    assert agreement_note(mixed) == "judges agree on 1 of 1 claim"
    assert await add_second_judge(reports, decide, None, Degradations()) == reports
    assert agreement_note(reports) == ""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (BackendError("out of memory"), ["no second judge: out of memory"]),
        (BudgetExceeded("reward_calls", 3, 3), []),
    ],
)
async def test_a_second_judge_that_fails_leaves_the_verdicts(error, told):
    async def failing(judge):
        raise error

    run, reports = Degradations(), [report("supported")]
    assert await add_second_judge(reports, failing, SECOND, run) == reports
    assert run.degraded == told
